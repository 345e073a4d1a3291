"""A conversion baseline from beginning to end: train the source, convert it, and say what T it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snn_export.data.dataset import Samples
from snn_export.models.diagnostics import UserError
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.teacher import Teacher, TeacherConfig
from snn_export.training.conversion.conversion import Conversion
from snn_export.training.devices import Devices
from snn_export.training.evaluate import accuracy
from snn_export.training.loop import ProgressCallback, TrainingResult, fit
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.settings import TrainingSettings

CALIBRATION_SAMPLES = 256
STEPS = (1, 2, 4, 8, 16, 32, 64)
"""The T a conversion is reported at."""
_STEPS_AT_ONCE = 2048
"""Samples times steps that are run together: bounds the memory."""


@dataclass(frozen=True)
class ConvertedTeacher:
    """A trained source, and the spiking network it becomes for any T.

    Attributes:
        conversion: how it is converted.
        source: the trained ReLU network, or the quantised one of QCFS.
        training: of the source.
        calibration_inputs: (B, *shape), training samples.
    """

    conversion: Conversion
    source: Teacher
    training: TrainingResult
    calibration_inputs: Tensor = field(repr=False)

    def at(self, steps: int) -> SpikingStudent:
        """The spiking student for T = ``steps``; errors as :meth:`Conversion.convert`."""
        return self.conversion.convert(self.source, self.calibration_inputs, steps)

    def source_accuracy(self, samples: Samples) -> float:
        """Share of samples that the source itself classifies correctly, 0..1."""
        return accuracy(self.source, samples)

    def accuracies(self, samples: Samples, steps: Iterable[int] = STEPS) -> dict[int, float]:
        """Share of samples classified correctly (0..1) for every T.

        Where the network is the same for all T, one run of the most steps answers for all of them.
        """
        wanted = sorted(set(steps))
        _check_samples(samples, wanted)
        if self.conversion.method.depends_on_steps:
            return {count: _accuracies(self.at(count), samples, [count])[count] for count in wanted}
        return _accuracies(self.at(wanted[-1]), samples, wanted)


def train_and_convert(
    conversion: Conversion,
    config: TeacherConfig,
    train: Samples,
    validation: Samples,
    settings: TrainingSettings | None = None,
    *,
    seed: int = 0,
    calibration_samples: int = CALIBRATION_SAMPLES,
    checkpoint_dir: Path | None = None,
    progress: ProgressCallback | None = None,
    devices: Devices | None = None,
) -> ConvertedTeacher:
    """Train the source of a conversion with the recipe ``teacher``, and make it ready to be converted for any T.

    The same ``config``, ``seed``, data and settings with the conversion ``max_norm`` train the plain ReLU network that QCFS's
    source is compared with.

    Args:
        conversion: of the registry.
        config: of the teacher; a student of its name receives the weights.
        train: what the weights are fitted to.
        validation: what the best epoch is chosen on.
        settings: of the training; the published ones where nothing is said.
        seed: of the initial weights.
        calibration_samples: training samples that thresholds and biases are measured on, spread evenly over ``train``.
        checkpoint_dir: from which an interrupted call continues; a run of its own for every conversion and seed.
        progress: called as by :func:`snn_export.training.loop.fit`.
        devices: where to compute; one processor where nothing is said.

    Raises:
        UserError: SNX351, SNX352, SNX356 before anything is trained; what :func:`fit` raises.
    """
    if calibration_samples < 1:
        raise UserError(
            "SNX356", f"calibration on {calibration_samples} samples", where="calibration_samples",
            why="thresholds and biases are measured on training samples", fix=f"use some hundred, such as {CALIBRATION_SAMPLES}",
        )  # fmt: skip
    fields = {name: value for name, value in asdict(config).items() if name != "name"}
    source = conversion.prepare_source(build_teacher(config.name, seed=seed, **fields))
    result = fit(
        source, train, validation, load_recipe("teacher"), settings or conversion.settings,
        checkpoint_dir=checkpoint_dir, progress=progress, devices=devices,
    )  # fmt: skip
    chosen = np.unique(np.linspace(0, len(train) - 1, calibration_samples).astype(np.int64))
    return ConvertedTeacher(conversion, source, result, torch.tensor(train.x[chosen]))


def first_to_reach(accuracies: Mapping[int, float], target: float) -> int | None:
    """The fewest steps at which a conversion is as accurate as ``target`` (0..1), None where no T of ``accuracies`` is enough.

    The first T counts, also where a later one falls below the target again: the reading that favours the conversion.
    """
    return min((steps for steps, reached in accuracies.items() if reached >= target), default=None)


def _accuracies(student: SpikingStudent, samples: Samples, steps: list[int]) -> dict[int, float]:
    """Accuracy of the readout's membrane after each number of steps, from one run."""
    right = np.zeros(len(steps), np.int64)
    chunk = max(1, _STEPS_AT_ONCE // student.config.steps)
    for start in range(0, len(samples), chunk):
        with torch.no_grad():
            membranes = student.membranes(torch.tensor(samples.x[start : start + chunk])).numpy()
        predicted = np.argmax(membranes[[count - 1 for count in steps]], axis=2)
        right += (predicted == samples.y[start : start + chunk]).sum(axis=1)
    return {count: float(hits) / len(samples) for count, hits in zip(steps, right, strict=True)}


def _check_samples(samples: Samples, steps: list[int]) -> None:
    if len(samples) == 0:
        raise UserError(
            "SNX312", "accuracy of no samples", where="samples", why="a share of nothing is not a number",
            fix="pass at least one sample",
        )  # fmt: skip
    if not steps or steps[0] < 1:
        raise UserError(
            "SNX354", f"accuracy after {steps[0] if steps else 'no'} steps", where="steps",
            why="a spiking network runs for one step or more", fix="pass steps such as 1, 2, 4, 8, 16, 32, 64",
        )  # fmt: skip
