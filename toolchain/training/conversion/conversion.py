"""What every conversion shares: a source network is prepared, trained, and its weights go into a student of the same name.

A converted network is an ordinary student with integrate-and-fire neurons (dv = 0), reset by subtraction and a threshold of 1,
so that it is saved, built again, read, quantised and run as any other. Over T steps a neuron that takes in x in every step fires
at a rate of about clip(x, 0, 1): the activation of a ReLU, in units of its threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import STUDENTS, build_student
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.teacher import Teacher
from snn_export.training.conversion.scaling import check_source, load_scaled
from snn_export.training.evaluating import evaluating
from snn_export.training.settings import TrainingSettings


class ConversionMethod(Protocol):
    """What one conversion does its own way."""

    @property
    def initial(self) -> float:
        """Membrane of every population before the first step, in units of the threshold."""
        ...

    @property
    def depends_on_steps(self) -> bool:
        """Whether T decides more than how long the network runs."""
        ...

    def prepare(self, teacher: Teacher) -> Teacher:
        """The network to be trained; ``teacher`` itself is not changed."""
        ...

    def thresholds(self, source: Teacher, inputs: Tensor, steps: int) -> Mapping[str, float]:
        """Threshold per activation, by name, in the activation's unit."""
        ...

    def correct(self, student: SpikingStudent, source: Teacher, inputs: Tensor, thresholds: Mapping[str, float]) -> None:
        """Change the converted student in place, where the method has more to do; in evaluation mode, without gradients."""
        ...


@dataclass(frozen=True)
class Conversion:
    """One published way from a ReLU network to a spiking one.

    Attributes:
        name: by which it is chosen.
        method: what it does its own way, with its settings.
        citation: who published it.
        settings: how the published source network was trained, as exactly as it is known.
        summary: one line for a list.
        inferred: what the sources do not say, or what differs here.
        published: networks and results of the source, in words.
    """

    name: str
    method: ConversionMethod
    citation: str
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    summary: str = ""
    inferred: tuple[str, ...] = ()
    published: str = ""

    def prepare_source(self, teacher: Teacher) -> Teacher:
        """The network to be trained with the recipe ``teacher`` and converted then; a copy.

        Raises:
            UserError: SNX351 for a layer that cannot be converted, SNX352 for a teacher without a student of its name: told
                before hours of training.
        """
        _check_named(teacher)
        check_source(teacher)
        return self.method.prepare(teacher)

    def convert(self, source: Teacher, calibration_inputs: Tensor, steps: int) -> SpikingStudent:
        """The spiking student of a trained source, in evaluation mode, on the CPU.

        Args:
            source: as :meth:`prepare_source` made it, trained; it is not changed.
            calibration_inputs: (B, *shape), some hundred training samples.
            steps: T.

        Raises:
            UserError: SNX012 for steps below 1; SNX351 a layer that cannot be converted, SNX352 no student of the source's name
                and layers, SNX353 no usable threshold, SNX356 inputs that are none of the source's.
        """
        _check_named(source)
        check_source(source)
        _check_inputs(source, calibration_inputs)
        config = source.config
        student = build_student(
            config.name, input_shape=config.input_shape, classes=config.classes, width=config.width, steps=steps,
            dv=0, threshold=1.0, reset="subtract", initial=self.method.initial,
        )  # fmt: skip
        inputs = calibration_inputs.to(next(source.parameters()).device)
        with torch.no_grad(), evaluating(source):
            thresholds = self.method.thresholds(source, inputs, steps)
            load_scaled(student, source, thresholds)
            student.eval()
            self.method.correct(student, source, inputs, thresholds)
        return student

    def describe(self) -> str:
        """Name and settings in one line, e.g. ``qcfs: Qcfs(levels=8, initial_threshold=8.0)``."""
        return f"{self.name}: {self.method!r}"


def _check_named(teacher: nn.Module) -> None:
    """SNX352 where no student bears the teacher's name, as for one that was read from a file."""
    name = teacher.config.name if isinstance(teacher, Teacher) else type(teacher).__name__
    if not isinstance(teacher, Teacher) or name not in STUDENTS:
        raise UserError(
            "SNX352", f"there is no student called '{name}'", where="convert(source)",
            why="converted weights go into the student of the teacher's name, which a checkpoint can build again",
            fix=f"convert one of {', '.join(STUDENTS)}",
        )  # fmt: skip


def _check_inputs(source: Teacher, inputs: Tensor) -> None:
    """SNX356 for calibration inputs that tell nothing about the source's activations."""
    shape, wanted = tuple(inputs.shape), source.input_shape
    if len(shape) != 1 + len(wanted) or shape[1:] != wanted or not shape[0] or not bool(inputs.isfinite().all()):
        raise UserError(
            "SNX356", f"calibration inputs of shape {shape} for a network that takes {wanted}", where="calibration_inputs",
            why="thresholds and biases are measured on them: at least one input, in the network's shape, all of it finite",
            fix=f"pass some hundred training samples, ({', '.join(['B', *map(str, wanted)])})",
        )  # fmt: skip
