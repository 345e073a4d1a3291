"""Steps "teacher" and "student"."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

from snn_export.config_schema import Config
from snn_export.data.dataset import Dataset
from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.source import load_teacher
from snn_export.models.teachers.teacher import TeacherConfig
from snn_export.pipeline.data_source import dataset
from snn_export.pipeline.files import STUDENT_FILE, TEACHER_FILE, TRAINING_FILE
from snn_export.pipeline.steps import Context, StepResult
from snn_export.pipeline.teacher_source import is_file
from snn_export.reporting.report import TrainingSummary
from snn_export.training.checkpoint import load_model, save_model
from snn_export.training.composing import compose, parse_terms
from snn_export.training.conversion.baseline import train_and_convert
from snn_export.training.conversion.registry import CONVERSIONS, load_conversion
from snn_export.training.devices import Devices
from snn_export.training.evaluate import Network, accuracy
from snn_export.training.loop import TrainingResult, fit
from snn_export.training.recipe import ForwardMode, Recipe
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.resume import CHECKPOINT_NAME
from snn_export.training.settings import TrainingSettings
from snn_export.training.threads import use_threads

COMPOSED = "composed"
"""The recipe that a config writes down itself, term by term."""


def train_teacher(context: Context) -> StepResult:
    """Train the teacher on training data, best epoch by validation; writes ``teacher.safetensors``.

    A teacher that is read from a file is not trained: its accuracy on validation data is recorded.
    """
    config, data = context.config, _data(context)
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
    config, data = context.config, _data(context)
    use_threads(config.training.threads)
    if config.training.recipe in CONVERSIONS:
        return _convert(context, data)
    recipe = chosen_recipe(config)
    teacher = teacher_of(context, data) if recipe.needs_teacher else None
    student = _student(config, data, recipe)
    settings = _settings(context, recipe, config.training.student_epochs)
    with context.teller.training("student") as progress:
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
    """The run's teacher: the checkpoint of its first step, or the file that the config names."""
    if is_file(context.config.model.teacher):
        return _teacher_file(context, data)
    return load_model(context.workspace.folder("teacher") / TEACHER_FILE)


def chosen_recipe(config: Config) -> Recipe:
    """The recipe that a config names or composes, in the forward mode it asks for."""
    training = config.training
    if training.recipe == COMPOSED:
        return compose(COMPOSED, training.forward_mode or ForwardMode.BPTT, parse_terms(training.terms))
    if training.terms:
        raise UserError(
            "SNX018", f"recipe '{training.recipe}' has terms of its own", where="training.terms",
            why="terms are those of a composed recipe, and this one is ready made",
            fix=f'set training.recipe = "{COMPOSED}", or leave training.terms out',
        )  # fmt: skip
    recipe = load_recipe(training.recipe)
    return recipe if training.forward_mode is None else recipe.in_mode(ForwardMode(training.forward_mode))


def read_summary(folder: Path) -> TrainingSummary:
    """What a training step recorded."""
    return TrainingSummary.model_validate_json((folder / TRAINING_FILE).read_text(encoding="utf-8"))


def _data(context: Context) -> Dataset:
    config = context.config
    return dataset(config.data.source, context.base, config.project.seed, config.data.validation)


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


def _student(config: Config, data: Dataset, recipe: Recipe) -> SpikingStudent:
    """The student of a config, its surrogate the recipe's own where nothing is said."""
    model = config.model
    own = {name: recipe.student[name] for name in ("surrogate", "slope") if name in recipe.student}
    stated = {name: getattr(model, name) for name in ("surrogate", "slope") if getattr(model, name) is not None}
    return build_student(
        model.student,
        seed=config.project.seed,
        input_shape=data.input_shape,
        classes=data.classes,
        steps=data.steps or model.steps,
        encoder="direct" if data.steps is None else "events",
        dv=model.dv,
        width=model.student_width,
        threshold=model.threshold,
        reset=model.reset,
        detach_reset=model.detach_reset,
        residual=model.residual,
        **{**own, **stated},
    )


def _convert(context: Context, data: Dataset) -> StepResult:
    """The student's ANN trained as a conversion wants it, and turned into the student."""
    config = context.config
    conversion = load_conversion(config.training.recipe)
    settings = _overridden(conversion.settings, config, config.training.student_epochs)
    source = TeacherConfig(config.model.student, data.input_shape, data.classes, config.model.student_width)
    with context.teller.training(f"source of {conversion.name}") as progress:
        converted = train_and_convert(
            conversion, source, data.train, data.validation, settings,
            seed=config.project.seed, checkpoint_dir=context.folder, progress=progress, devices=_devices(config),
        )  # fmt: skip
    student = converted.at(config.model.steps)
    save_model(context.folder / STUDENT_FILE, student)
    return _finish(context.folder, config.model.student, conversion.name, settings, converted.training, _size(student))


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
    return StepResult(f"{config.model.teacher}: {100 * right:.1f} % on validation data, nothing trained")


def _teacher_file(context: Context, data: Dataset) -> Network:
    found = load_teacher(context.config.model.teacher, input_shape=data.input_shape, classes=data.classes, base=context.base)
    return cast(Network, found)


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
    stated = {"epochs": epochs, **{name: getattr(training, name) for name in names}}
    given = {name: value for name, value in stated.items() if value is not None}
    return replace(settings, **given, precision=training.precision, seed=config.project.seed)


def _finish(
    folder: Path, model: str, recipe: str, settings: TrainingSettings, result: TrainingResult, parameters: int
) -> StepResult:
    best = result.best
    (folder / CHECKPOINT_NAME).unlink(missing_ok=True)  # of use to an interrupted run only
    summary = TrainingSummary(
        model=model,
        recipe=recipe,
        epochs=settings.epochs,
        best_epoch=best.epoch,
        validation_accuracy=100.0 * best.validation_accuracy,
        seed=settings.seed,
        parameters=parameters,
    )
    _write(folder, summary)
    return StepResult(f"best epoch {best.epoch} of {settings.epochs}, {100 * best.validation_accuracy:.1f} % on validation data")


def _write(folder: Path, summary: TrainingSummary) -> None:
    (folder / TRAINING_FILE).write_text(json.dumps(summary.model_dump(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
