"""Max-norm: every threshold is the largest activation that its layer shows on training data.

Sources: Diehl, Neil, Binas, Cook, Liu and Pfeiffer, IJCNN 2015 (the largest); Rueckauer, Lungu, Hu, Pfeiffer and Liu, Frontiers
in Neuroscience 11:682, 2017 (a percentile, reset by subtraction, batch-norm folded).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snn_export.models.diagnostics import UserError
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.teacher import Teacher
from snn_export.training.conversion.conversion import Conversion
from snn_export.training.conversion.measuring import measure
from snn_export.training.settings import TrainingSettings


@dataclass(frozen=True)
class MaxNorm:
    """Thresholds at the ``percentile`` of the activations above zero; 100 is the largest, 99.9 leaves out the rare ones.

    Hardly an activation is clipped then, and many steps are needed: one spike in T steps stands for theta/T, and every layer
    loses what is smaller.

    Raises:
        UserError: SNX354 for a percentile that is not above 0 and up to 100.
    """

    percentile: float = 99.9

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise UserError(
                "SNX354", f"there is no percentile {self.percentile}", where="MaxNorm",
                why="it is the share of activations, in percent, that no threshold clips", fix="use 99.9, or 100 for the largest",
            )  # fmt: skip

    @property
    def initial(self) -> float:
        """Zero, as every neuron of a chip begins."""
        return 0.0

    @property
    def depends_on_steps(self) -> bool:
        """False: one network for every T."""
        return False

    def prepare(self, teacher: Teacher) -> Teacher:
        """A copy of ``teacher``: an ordinary ReLU network is what this method converts."""
        return copy.deepcopy(teacher)

    def thresholds(self, source: Teacher, inputs: Tensor, steps: int) -> Mapping[str, float]:
        """The percentile of every activation on ``inputs``; 0 for a layer that is silent on all of them."""
        del steps
        return measure(source, inputs, self._percentile)

    def correct(self, student: SpikingStudent, source: Teacher, inputs: Tensor, thresholds: Mapping[str, float]) -> None:
        """Nothing more to do."""

    def _percentile(self, values: Tensor) -> float:
        active = values[values > 0]
        if not active.numel():
            return 0.0
        rank = math.ceil(self.percentile / 100 * active.numel())
        return float(torch.kthvalue(active, rank).values)


CONVERSION = Conversion(
    name="max_norm",
    method=MaxNorm(),
    citation=(
        "Diehl et al., Fast-classifying, high-accuracy spiking deep networks through weight and threshold balancing, IJCNN 2015; "
        "Rueckauer et al., Frontiers in Neuroscience 11:682, 2017"
    ),
    settings=TrainingSettings(),
    summary="thresholds at the largest activations (or a percentile) of an ordinary ReLU network",
    inferred=(
        "the reset is by subtraction, as in 2017; in 2015 it was to zero, and the input a Poisson process",
        "biases are kept, as in 2017; in 2015 there were none",
        "the default is the 99.9th percentile, the better of the two: the largest is MaxNorm(percentile=100)",
    ),
    published="later work quotes it with hundreds to thousands of steps: still 1.1 points short of its source at T = 500",
)
