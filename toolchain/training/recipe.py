"""How a model learns: a forward mode and weighted loss terms."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from snn_export.training.losses import BatchOutputs, LossTerm


class ForwardMode(StrEnum):
    """How gradients reach the weights.

    BPTT is ordinary backpropagation through everything ``forward`` computed: all T steps of a student, the one pass of a
    teacher. A mode with passes of its own, such as rate-based training, is another member here and another branch where the
    training loop computes logits.
    """

    BPTT = "bptt"


@dataclass(frozen=True)
class WeightedTerm:
    """``weight * term``."""

    term: LossTerm
    weight: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """One published way to train: ``loss = sum of weight * term`` under a forward mode. ``citation`` says who published it."""

    name: str
    forward_mode: ForwardMode
    terms: tuple[WeightedTerm, ...]
    citation: str

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with a teacher."""
        return any(weighted.term.needs_teacher for weighted in self.terms)

    def loss(self, outputs: BatchOutputs) -> Tensor:
        """Weighted sum of the terms for one batch, a scalar."""
        return torch.stack([weighted.weight * weighted.term(outputs) for weighted in self.terms]).sum()

    def describe(self) -> str:
        """Everything that decides the loss, in one line, e.g. ``no_teacher: bptt, 1 CrossEntropy()``."""
        return f"{self.name}: {self.forward_mode}, " + " + ".join(f"{item.weight:g} {item.term!r}" for item in self.terms)
