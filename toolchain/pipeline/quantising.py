"""Step "quantize": the scale search, and fine-tuning on the grid it found; the same for a file outside a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from snn_export import library
from snn_export.config_schema import Config
from snn_export.data.dataset import Dataset
from snn_export.export import nir_io
from snn_export.export.deployment import Deployment
from snn_export.pipeline.data_source import dataset
from snn_export.pipeline.deploying import load_student, relocated, with_files
from snn_export.pipeline.files import (
    FLOAT_FILE,
    QUANTISED_FILE,
    QUANTISED_STUDENT_FILE,
    SEARCHED_FILE,
    STUDENT_FILE,
    TRAINING_FILE,
)
from snn_export.pipeline.steps import Context, StepResult, Teller
from snn_export.pipeline.training import fine_tuning_recipe, teacher_of
from snn_export.reporting.report import TrainingSummary
from snn_export.training.evaluate import Network
from snn_export.training.fine_tuning import FineTuned, fine_tune_deployment, save_quantised_student
from snn_export.training.loop import ProgressCallback
from snn_export.training.recipe import Recipe
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.resume import CHECKPOINT_NAME
from snn_export.training.settings import TrainingSettings
from snn_export.training.threads import use_threads
from snn_export.verification.bit_sweep import BitSweep

Part = str
"""Which samples a sweep is measured on: "validation" or "test"."""


def quantize(context: Context) -> StepResult:
    """Search scales and input levels on training samples, fine-tune where the config says so, write the integer deployment."""
    config, data = context.config, _data(context)
    source = context.workspace.folder("export") / FLOAT_FILE
    checkpoint = context.workspace.folder("student") / STUDENT_FILE
    folder, files = context.workspace.folder("quantize"), {"student": checkpoint, "float": source}
    context.teller.line("searching scales on calibration data")
    words = ""
    if not config.quantize.fine_tune_epochs:
        quantised = searched(nir_io.read(source), data, config)
    else:
        quantised = _searched_once(context, source, data)
        recipe = fine_tuning_recipe(config)
        teacher = teacher_of(context, data) if recipe.needs_teacher else None
        with context.teller.training("fine-tuning") as progress:
            tuned = _fine_tuned(quantised, data, config, recipe, teacher, context.folder, progress)
        _write_learnt(context.folder, tuned, with_files(quantised, folder, files), recipe, config)
        quantised, words = tuned.deployment, f"; fine-tuned: {_words(tuned)}"
        for role, name in (("searched", SEARCHED_FILE), ("quantised_student", QUANTISED_STUDENT_FILE)):
            quantised = with_files(quantised, context.folder, {role: context.folder / name})
    quantised = with_files(quantised, folder, files)
    nir_io.write(quantised, context.folder / QUANTISED_FILE)
    held = quantised.contract.quantisation
    scales = ", ".join(f"{name} {scale:.4g}" for name, scale in (held.scale if held else {}).items())
    return StepResult(
        f"{config.quantize.weight_bits}-bit weights, {quantised.contract.encoder.bits}-bit input, scales: {scales}{words}"
    )


def quantize_file(source: Path, target: Path, config: Config, base: Path, teller: Teller) -> Path:
    """Quantise a float deployment's file with training samples of the configured data; returns the file written.

    With ``quantize.fine_tune_epochs`` it is fine-tuned on its labels. What an interrupted run needs to continue lies beside the
    target until it is done; what verification needs stays there: the student's parameters (``net.quantised_student.safetensors``
    for ``net.nir``) and the network they started from (``net.searched.nir``).
    """
    deployment, data = nir_io.read(source), _dataset(config, base)
    teller.line(f"searching scales on {config.quantize.calibration_samples} training samples")
    found = searched(deployment, data, config)
    quantised = with_files(relocated(found, source.parent, target.parent), target.parent, {"float": source})
    if config.quantize.fine_tune_epochs:
        place = target.with_name(f".{target.name}.training")
        with teller.training("fine-tuning") as progress:
            tuned = _fine_tuned(quantised, data, config, *_lesson(source, deployment, config), place, progress)
        kept = {
            "searched": nir_io.write(quantised, target.with_name(f"{target.stem}.{SEARCHED_FILE}")),
            "quantised_student": target.with_name(f"{target.stem}.{QUANTISED_STUDENT_FILE}"),
        }
        save_quantised_student(kept["quantised_student"], tuned.student, quantised)
        (place / CHECKPOINT_NAME).unlink(missing_ok=True)
        place.rmdir()
        quantised = with_files(tuned.deployment, target.parent, kept)
    return nir_io.write(quantised, target)


def sweep_file(source: Path, config: Config, base: Path, bits: Sequence[int], part: Part, teller: Teller) -> BitSweep:
    """Accuracy and spike error of a float deployment's file against weight bits, measured on ``part`` of the configured data."""
    deployment, data = nir_io.read(source), _dataset(config, base)
    measured = data.test if part == "test" else data.validation

    lesson = _lesson(source, deployment, config)

    def tune(quantised: Deployment) -> Deployment:
        count = quantised.contract.quantisation.weight_bits if quantised.contract.quantisation else 0
        with teller.training(f"fine-tuning at {count} bits") as progress:
            return _fine_tuned(quantised, data, config, *lesson, None, progress).deployment

    return library.sweep_bits(
        deployment,
        data.signal(data.train.x[: config.quantize.calibration_samples]),
        data.signal(measured.x),
        measured.y,
        bits=bits,
        target=config.quantize.target,
        fine_tune=tune if config.quantize.fine_tune_epochs else None,
        progress=lambda number, total, text: teller.step(number, total, "sweep", text),
        input_range=(data.input_low, data.input_high),
        bias_exponent=config.quantize.bias_exponent,
        input_as_bias=config.quantize.input_as_bias,
    )


def searched(deployment: Deployment, data: Dataset, config: Config) -> Deployment:
    """Scales are chosen on training samples; inputs are held to the data set's declared range."""
    return library.quantize(
        deployment,
        data.signal(data.train.x[: config.quantize.calibration_samples]),
        config.quantize.target,
        weight_bits=config.quantize.weight_bits,
        input_range=(data.input_low, data.input_high),
        bias_exponent=config.quantize.bias_exponent,
        input_as_bias=config.quantize.input_as_bias,
    )


def _searched_once(context: Context, source: Path, data: Dataset) -> Deployment:
    """The result of the search; taken over from an interrupted run, which has written it into the same partial folder."""
    kept = context.folder / SEARCHED_FILE
    if kept.is_file():
        return nir_io.read(kept)
    found = searched(nir_io.read(source), data, context.config)
    nir_io.write(found, kept)
    return found


def _fine_tuned(
    quantised: Deployment,
    data: Dataset,
    config: Config,
    recipe: Recipe,
    teacher: Network | None,
    checkpoint_dir: Path | None,
    progress: ProgressCallback,
) -> FineTuned:
    use_threads(config.training.threads)
    settings = _settings(config)
    return fine_tune_deployment(
        quantised,
        data.train,
        data.validation,
        recipe,
        settings,
        teacher=teacher,
        checkpoint_dir=checkpoint_dir,
        progress=progress,
    )


def _settings(config: Config) -> TrainingSettings:
    settings = TrainingSettings(
        epochs=config.quantize.fine_tune_epochs,
        learning_rate=config.quantize.fine_tune_learning_rate,
        seed=config.project.seed,
    )
    return settings if config.training.batch_size is None else replace(settings, batch_size=config.training.batch_size)


def _lesson(source: Path, deployment: Deployment, config: Config) -> tuple[Recipe, Network | None]:
    """Recipe and teacher for a file.

    It has no teacher of its own: the float student it was read from takes the place, where its lineage still finds it. Without
    one a recipe that needs a teacher gives way to cross-entropy alone.
    """
    recipe = fine_tuning_recipe(config)
    named = deployment.contract.lineage.files.get("student")
    student = None if named is None else source.parent / named.path
    if not recipe.needs_teacher:
        return recipe, None
    if named is None or student is None or not student.is_file() or nir_io.file_digest(student) != named.sha256:
        return load_recipe("no_teacher"), None
    return recipe, load_student(student)


def _write_learnt(folder: Path, tuned: FineTuned, start: Deployment, recipe: Recipe, config: Config) -> None:
    """What report and verification need beside the deployment: the real parameters, their start, the training's record."""
    nir_io.write(start, folder / SEARCHED_FILE)
    save_quantised_student(folder / QUANTISED_STUDENT_FILE, tuned.student, start)
    (folder / CHECKPOINT_NAME).unlink(missing_ok=True)
    summary = TrainingSummary(
        model="quantised student",
        recipe=recipe.name,
        epochs=config.quantize.fine_tune_epochs,
        best_epoch=tuned.training.best.epoch if tuned.improved else 0,
        validation_accuracy=100.0 * tuned.after,
        seed=config.project.seed,
        parameters=sum(parameter.numel() for parameter in tuned.student.parameters()),
    )
    (folder / TRAINING_FILE).write_text(json.dumps(summary.model_dump(), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _words(tuned: FineTuned) -> str:
    percent = f"{100 * tuned.before:.1f} to {100 * tuned.after:.1f} % on validation data"
    return percent if tuned.improved else f"no epoch was better than the start, {100 * tuned.after:.1f} % on validation data"


def _data(context: Context) -> Dataset:
    return _dataset(context.config, context.base)


def _dataset(config: Config, base: Path) -> Dataset:
    return dataset(config.data.source, base, config.project.seed, config.data.validation)
