"""Step "export", and the names by which a deployment knows its earlier forms."""

from __future__ import annotations

import os
from pathlib import Path

from snn_export import library
from snn_export.data.dataset import Dataset
from snn_export.export import nir_io
from snn_export.export.contract import FileReference
from snn_export.export.deployment import Deployment
from snn_export.export.snntorch_reader import deployment_from_snntorch
from snn_export.models.diagnostics import UserError
from snn_export.models.students.student import SpikingStudent
from snn_export.pipeline.data_source import dataset
from snn_export.pipeline.files import FLOAT_FILE, STUDENT_FILE
from snn_export.pipeline.steps import Context, StepResult
from snn_export.training.checkpoint import load_model

EXACTNESS_SAMPLES = 64
"""Calibration samples on which passes that claim to be exact are checked."""


def load_student(path: Path) -> SpikingStudent:
    """A student from its checkpoint. Raises SNX122 where the file holds another kind of model."""
    model = load_model(path)
    if not isinstance(model, SpikingStudent):
        raise UserError(
            "SNX122", f"{path.name} holds a teacher, not a student", where=str(path),
            why="only a spiking student can be exported", fix="name the student's checkpoint",
        )  # fmt: skip
    return model


def export_float(context: Context) -> StepResult:
    """Read the student into NIR, absorb pooling, bring it to portable form; each exact pass is checked right after it."""
    data = _data(context)
    checkpoint = context.workspace.folder("student") / STUDENT_FILE
    student = load_student(checkpoint)
    deployment = deployment_from_snntorch(
        student.layers, data.input_shape, data.steps or student.config.steps, rule=student.readout.rule, encoder=student.encoder
    )
    deployment = library.prepared(deployment, data.signal(data.validation.x[:EXACTNESS_SAMPLES]))
    deployment = with_files(deployment, context.workspace.folder("export"), {"student": checkpoint})
    nir_io.write(deployment, context.folder / FLOAT_FILE)
    passes = ", ".join(deployment.contract.lineage.passes)
    return StepResult(f"{len(deployment.layers)} populations; passes: {passes}")


def with_files(deployment: Deployment, folder: Path, files: dict[str, Path]) -> Deployment:
    """Name a deployment's earlier forms by content, and by path relative to ``folder``, where the deployment will lie."""
    named = {role: FileReference(path=_relative(path, folder), sha256=nir_io.file_digest(path)) for role, path in files.items()}
    return _with_lineage_files(deployment, {**deployment.contract.lineage.files, **named})


def relocated(deployment: Deployment, old: Path, new: Path) -> Deployment:
    """A deployment whose lineage names its files relative to another folder."""
    files = deployment.contract.lineage.files
    moved = {role: FileReference(path=_relative(old / named.path, new), sha256=named.sha256) for role, named in files.items()}
    return _with_lineage_files(deployment, moved)


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _with_lineage_files(deployment: Deployment, files: dict[str, FileReference]) -> Deployment:
    lineage = deployment.contract.lineage.model_copy(update={"files": files})
    return deployment.replace(contract=deployment.contract.model_copy(update={"lineage": lineage}))


def _data(context: Context) -> Dataset:
    config = context.config
    return dataset(config.data.source, context.base, config.project.seed, config.data.validation)
