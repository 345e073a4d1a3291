"""Steps "teacher" and "student"."""

from __future__ import annotations

import json
from pathlib import Path

from snn_export.data.dataset import Dataset
from snn_export.models.students.registry import build_student
from snn_export.models.teachers.registry import build_teacher
from snn_export.pipeline.data_source import dataset
from snn_export.pipeline.files import STUDENT_FILE, TEACHER_FILE, TRAINING_FILE
from snn_export.pipeline.steps import Context, StepResult
from snn_export.reporting.report import TrainingSummary
from snn_export.training.checkpoint import load_model, save_model
from snn_export.training.loop import TrainingResult, fit
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.resume import CHECKPOINT_NAME
from snn_export.training.settings import TrainingSettings
from snn_export.training.threads import use_threads


def train_teacher(context: Context) -> StepResult:
    """Train the teacher on training data, best epoch by validation; writes ``teacher.safetensors``."""
    config, data = context.config, _data(context)
    use_threads(config.training.threads)
    width = {} if config.model.teacher_width is None else {"width": config.model.teacher_width}
    teacher = build_teacher(
        config.model.teacher, seed=config.project.seed, input_shape=data.input_shape, classes=data.classes, **width
    )
    settings = _settings(context, config.training.teacher_epochs)
    with context.teller.training("teacher") as progress:
        result = fit(
            teacher,
            data.train,
            data.validation,
            load_recipe("teacher"),
            settings,
            checkpoint_dir=context.folder,
            progress=progress,
        )
    save_model(context.folder / TEACHER_FILE, teacher)
    return _finish(
        context.folder, config.model.teacher, "teacher", settings, result, sum(p.numel() for p in teacher.parameters())
    )


def train_student(context: Context) -> StepResult:
    """Distil the student from the teacher; writes ``student.safetensors``."""
    config, data = context.config, _data(context)
    use_threads(config.training.threads)
    recipe = load_recipe(config.training.recipe)
    teacher = load_model(context.workspace.folder("teacher") / TEACHER_FILE) if recipe.needs_teacher else None
    student = build_student(
        config.model.student,
        seed=config.project.seed,
        input_shape=data.input_shape,
        classes=data.classes,
        steps=config.model.steps,
        dv=config.model.dv,
        width=config.model.student_width,
        threshold=config.model.threshold,
    )
    settings = _settings(context, config.training.student_epochs)
    with context.teller.training("student") as progress:
        result = fit(
            student,
            data.train,
            data.validation,
            recipe,
            settings,
            teacher=teacher,
            checkpoint_dir=context.folder,
            progress=progress,
        )
    save_model(context.folder / STUDENT_FILE, student)
    return _finish(
        context.folder, config.model.student, recipe.name, settings, result, sum(p.numel() for p in student.parameters())
    )


def read_summary(folder: Path) -> TrainingSummary:
    """What a training step recorded."""
    return TrainingSummary.model_validate_json((folder / TRAINING_FILE).read_text(encoding="utf-8"))


def _data(context: Context) -> Dataset:
    config = context.config
    return dataset(config.data.source, context.base, config.project.seed, config.data.validation)


def _settings(context: Context, epochs: int | None) -> TrainingSettings:
    """Training settings: the config's where it states them, the defaults elsewhere."""
    training = context.config.training
    stated = {"epochs": epochs, "batch_size": training.batch_size, "learning_rate": training.learning_rate}
    given = {name: value for name, value in stated.items() if value is not None}
    return TrainingSettings(**given, seed=context.config.project.seed)  # type: ignore[arg-type]


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
    (folder / TRAINING_FILE).write_text(json.dumps(summary.model_dump(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return StepResult(f"best epoch {best.epoch} of {settings.epochs}, {100 * best.validation_accuracy:.1f} % on validation data")
