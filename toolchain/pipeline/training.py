"""Steps "teacher" and "student"."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from snn_export.config_schema import Config
from snn_export.data.dataset import Dataset
from snn_export.models.diagnostics import UserError
from snn_export.models.students.resnet import expensive_on_loihi
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.source import load_teacher
from snn_export.models.teachers.teacher import TeacherNetwork
from snn_export.pipeline.choices import (
    check_networks,
    check_recipe,
    chosen_recipe,
    conversion_source,
    departures,
    no_time_axis,
    replaced_by_conversion,
    student_of,
)
from snn_export.pipeline.data_source import dataset
from snn_export.pipeline.files import STUDENT_FILE, TEACHER_FILE, TRAINING_FILE
from snn_export.pipeline.steps import Context, StepResult
from snn_export.pipeline.teacher_source import is_file
from snn_export.reporting.report import TrainingSummary
from snn_export.training.checkpoint import load_model, save_model, weights_digest
from snn_export.training.conversion.baseline import train_and_convert
from snn_export.training.conversion.registry import CONVERSIONS, load_conversion
from snn_export.training.devices import Devices
from snn_export.training.evaluate import Network, accuracy, logits
from snn_export.training.loop import Progress, TrainingResult, fit
from snn_export.training.recipe import ForwardMode, Recipe
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.resume import CHECKPOINT_NAME
from snn_export.training.settings import TrainingSettings
from snn_export.training.threads import use_threads

WEIGHTS_FILE = "weights.json"
"""Digest of the weights of a teacher that was read from a file."""


def train_teacher(context: Context) -> StepResult:
    """Train the teacher on training data, best epoch by validation; writes ``teacher.safetensors``.

    A teacher that is read from a file is not trained: its accuracy on validation data is recorded.
    """
    config, data = context.config, _checked_data(context)
    use_threads(config.training.threads)
    if is_file(config.model.teacher):
        return _read_teacher(context, data)
    width = {} if config.model.teacher_width is None else {"width": config.model.teacher_width}
    teacher = build_teacher(
        config.model.teacher, seed=config.project.seed, input_shape=data.input_shape, classes=data.classes, **width
    )
    recipe = load_recipe("teacher")
    settings = _settings(context, recipe, config.training.teacher_epochs)
    with context.teller.training("teacher") as progress:
        result = fit(
            teacher,
            data.train,
            data.validation,
            recipe,
            settings,
            checkpoint_dir=context.folder,
            progress=progress,
            devices=_devices(config),
        )
    save_model(context.folder / TEACHER_FILE, teacher)
    return _finish(context.folder, config.model.teacher, "teacher", settings, result, _size(teacher))


def train_student(context: Context) -> StepResult:
    """Train the student by its recipe, or convert a network into it; writes ``student.safetensors``."""
    config, data = context.config, _checked_data(context)
    use_threads(config.training.threads)
    if config.training.recipe in CONVERSIONS:
        return _convert(context, data)
    recipe = chosen_recipe(config)
    teacher = teacher_of(context, data) if recipe.needs_teacher else None
    student = student_of(config, data, recipe)
    settings = _settings(context, recipe, config.training.student_epochs)
    with context.teller.training("student") as progress:
        progress(_message(said(settings, f"{recipe.name}, {recipe.forward_mode}, T = {student.config.steps}"), settings))
        if told := departures(recipe, student.config):
            progress(_message(told, settings))
        for warning in expensive_on_loihi(student):
            progress(_message(f"{warning.code}: {warning.what}: {warning.why}; {warning.fix}", settings))
        result = fit(
            student,
            data.train,
            data.validation,
            recipe,
            settings,
            teacher=teacher,
            taps=config.training.student_taps,
            teacher_taps=config.training.teacher_taps,
            checkpoint_dir=context.folder,
            progress=progress,
            devices=_devices(config),
        )
    save_model(context.folder / STUDENT_FILE, student)
    return _finish(context.folder, config.model.student, recipe.name, settings, result, _size(student))


def teacher_of(context: Context, data: Dataset) -> Network:
    """The run's teacher: the checkpoint of its first step, or the file that the config names.

    Raises:
        UserError: SNX348 where the file gives another teacher than the first step has measured.
    """
    folder = context.workspace.folder("teacher")
    if not is_file(context.config.model.teacher):
        return load_model(folder / TEACHER_FILE)
    teacher = _teacher_file(context, data)
    measured = json.loads((folder / WEIGHTS_FILE).read_text(encoding="utf-8"))["sha256"]
    if weights_digest(teacher) != measured:
        raise UserError(
            "SNX348", f"'{context.config.model.teacher}' gives another teacher each time it is read", where="model.teacher",
            why="its weights are not those of the step that measured its accuracy: they are drawn anew",
            fix="load trained weights in that function, or put them behind it as FILE.py:build@WEIGHTS; or call "
            "torch.manual_seed(0) at its beginning",
        )  # fmt: skip
    return teacher


def read_summary(folder: Path) -> TrainingSummary:
    """What a training step recorded."""
    return TrainingSummary.model_validate_json((folder / TRAINING_FILE).read_text(encoding="utf-8"))


def _data(context: Context) -> Dataset:
    config = context.config
    return dataset(config.data.source, context.base, config.project.seed, config.data.validation)


def _checked_data(context: Context) -> Dataset:
    """The data, after everything that can be told without training: first what needs no data at all."""
    check_recipe(context.config)
    data = _data(context)
    check_networks(context.config, data)
    return data


def fine_tuning_recipe(config: Config) -> Recipe:
    """How a network learns on the chip's integers: by the student's recipe where that looks at logits alone.

    A quantised network has neither stages to tap nor a pass over rates. In place of a recipe that needs them, labels and the
    teacher's softened logits teach it, or labels alone where the student had no teacher.
    """
    if config.training.recipe in CONVERSIONS:
        return load_recipe("plain_kd")
    recipe = chosen_recipe(config)
    needs = recipe.needs
    if recipe.forward_mode is ForwardMode.BPTT and not (needs.steps or needs.taps or needs.teacher_taps or recipe.prepare):
        return recipe
    return load_recipe("plain_kd" if recipe.needs_teacher else "no_teacher")


def _convert(context: Context, data: Dataset) -> StepResult:
    """The student's ANN trained as a conversion wants it, and turned into the student."""
    config = context.config
    conversion = load_conversion(config.training.recipe)
    settings = _overridden(conversion.settings, config, config.training.student_epochs)
    source = conversion_source(config, data)
    with context.teller.training(f"source of {conversion.name}") as progress:
        progress(_message(said(settings, f"then converted to T = {config.model.steps}"), settings))
        if is_file(config.model.teacher):
            beside = f"{config.model.teacher} stands beside it in the report"
            progress(_message(f"a ReLU network '{source.name}' is trained to be converted; {beside}", settings))
        converted = train_and_convert(
            conversion, source, data.train, data.validation, settings,
            seed=config.project.seed, checkpoint_dir=context.folder, progress=progress, devices=_devices(config),
        )  # fmt: skip
        student = converted.at(config.model.steps)
        if told := replaced_by_conversion(config, student.config):
            progress(_message(told, settings))
        right = accuracy(student, data.validation)
    save_model(context.folder / STUDENT_FILE, student)
    _record(context.folder, config.model.student, conversion.name, settings, converted.training, _size(student), right)
    best = converted.training.best
    return StepResult(
        f"source {_percent(best.validation_accuracy)} at epoch {best.epoch} of {settings.epochs}, spiking at T = "
        f"{config.model.steps} {_percent(right)}, both on validation data"
    )


def _read_teacher(context: Context, data: Dataset) -> StepResult:
    """A teacher from a file: nothing is trained; its layers and its accuracy are shown."""
    config = context.config
    teacher = _teacher_file(context, data)
    right = accuracy(teacher, data.validation)
    summary = TrainingSummary(
        model=config.model.teacher, recipe="read from a file", epochs=0, best_epoch=0, validation_accuracy=100.0 * right,
        seed=config.project.seed, parameters=_size(teacher),
    )  # fmt: skip
    _write(context.folder, summary)
    digest = json.dumps({"sha256": weights_digest(teacher)}, indent=2) + "\n"
    (context.folder / WEIGHTS_FILE).write_text(digest, encoding="utf-8")
    return StepResult(f"{config.model.teacher}: {100 * right:.1f} % on validation data, nothing trained")


def _teacher_file(context: Context, data: Dataset) -> Network:
    """The teacher of the config's files; SNX349 where it cannot read samples with a time axis."""
    spec = context.config.model.teacher
    found = load_teacher(spec, input_shape=data.input_shape, classes=data.classes, base=context.base)
    if data.steps is not None:
        _try_on_a_sequence(found, spec, data)
    return cast(Network, found)


def _try_on_a_sequence(teacher: TeacherNetwork, spec: str, data: Dataset) -> None:
    try:
        shape = logits(cast(Network, teacher), data.validation.x[:1]).shape
    except (RuntimeError, ValueError, IndexError) as error:  # what torch raises for a shape that does not fit
        raise no_time_axis(spec, data, (str(error).splitlines() or [type(error).__name__])[0]) from error
    if shape != (1, data.classes):
        raise no_time_axis(spec, data, f"it gives {shape} for one sample, not {(1, data.classes)}")


def said(settings: TrainingSettings, how: str) -> str:
    """A run's numbers in one line, e.g. ``plain_kd, bptt, T = 8; 20 epochs, batch 64, adamw 0.01 one cycle, shift``."""
    schedule, images = settings.schedule.replace("_", " "), " ".join(settings.augmentation) or "no augmentation"
    rate = f"{settings.optimizer} {settings.learning_rate:g} {schedule}"
    return f"{how}; {settings.epochs} epochs, batch {settings.batch_size}, {rate}, {images}"


def _message(text: str, settings: TrainingSettings) -> Progress:
    """One line beside the figures of training, shown on a terminal and anywhere else."""
    return Progress(1, settings.epochs, 0, 1, math.nan, message=text)


def _size(model: Network) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _devices(config: Config) -> Devices:
    training = config.training
    return Devices(training.accelerator, training.devices, training.nodes)


def _settings(context: Context, recipe: Recipe, epochs: int | None) -> TrainingSettings:
    """The recipe's settings, and the config's where it states them."""
    return _overridden(recipe.settings, context.config, epochs)


def _overridden(settings: TrainingSettings, config: Config, epochs: int | None) -> TrainingSettings:
    training = config.training
    names = ("batch_size", "learning_rate", "optimizer", "schedule", "weight_decay", "augmentation")
    stated: dict[str, Any] = {"epochs": epochs, **{name: getattr(training, name) for name in names}}
    given = {name: value for name, value in stated.items() if value is not None}
    if "shift" in given.get("augmentation", ()) and not settings.max_shift:
        given["max_shift"] = 1  # published without shifts: asked for, they are the smallest there are
    return replace(settings, **given, precision=training.precision, seed=config.project.seed)


def _finish(
    folder: Path, model: str, recipe: str, settings: TrainingSettings, result: TrainingResult, parameters: int
) -> StepResult:
    best = result.best
    _record(folder, model, recipe, settings, result, parameters, best.validation_accuracy)
    return StepResult(f"best epoch {best.epoch} of {settings.epochs}, {_percent(best.validation_accuracy)} on validation data")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _record(
    folder: Path, model: str, recipe: str, settings: TrainingSettings, result: TrainingResult, parameters: int, right: float
) -> None:
    """Write what was trained; ``right`` is the validation accuracy of the network that is kept."""
    best = result.best
    (folder / CHECKPOINT_NAME).unlink(missing_ok=True)  # of use to an interrupted run only
    summary = TrainingSummary(
        model=model,
        recipe=recipe,
        epochs=settings.epochs,
        best_epoch=best.epoch,
        validation_accuracy=100.0 * right,
        seed=settings.seed,
        parameters=parameters,
    )
    _write(folder, summary)


def _write(folder: Path, summary: TrainingSummary) -> None:
    (folder / TRAINING_FILE).write_text(json.dumps(summary.model_dump(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
