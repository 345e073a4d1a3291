"""What a run is judged by on its validation data: the seam for anything that is not classification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor
from torch.nn import functional

from snn_export.models.diagnostics import UserError


class Task(Protocol):
    """Loss and score of predictions on held-out data."""

    @property
    def name(self) -> str:
        """Short name, part of a run's fingerprint."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> float:
        """Mean over the samples; smaller is better. outputs (N, K), targets (N,) or (N, *shape)."""
        ...

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        """Larger is better: what the best epoch is chosen by."""
        ...

    def text(self, score: float) -> str:
        """A score in words, for a progress line."""
        ...


@dataclass(frozen=True)
class Classification:
    """Cross-entropy in nats, and accuracy 0..1; ties go to the lowest class."""

    name: ClassVar[str] = "classification"

    def loss(self, outputs: Tensor, targets: Tensor) -> float:
        """Mean cross-entropy, nats."""
        return float(functional.cross_entropy(outputs, targets))

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        """Share of samples classified correctly, 0..1."""
        return float((outputs.argmax(dim=1) == targets).double().mean())

    def text(self, score: float) -> str:
        """E.g. ``97.7 %``."""
        return f"{100 * score:.1f} %"


@dataclass(frozen=True)
class Regression:
    """Mean squared error, and its negative as the score. Targets have the outputs' shape, or (N,) beside outputs (N, 1)."""

    name: ClassVar[str] = "regression"

    def loss(self, outputs: Tensor, targets: Tensor) -> float:
        """Mean squared error; UserError SNX332 where targets and outputs are not as many numbers."""
        return float(functional.mse_loss(outputs, like_outputs(outputs, targets)))

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        """Minus the mean squared error."""
        return -self.loss(outputs, targets)

    def text(self, score: float) -> str:
        """E.g. ``MSE 0.0412``."""
        return f"MSE {-score:.4g}"


def like_outputs(outputs: Tensor, targets: Tensor) -> Tensor:
    """Targets in the shape and type of the outputs, so that nothing is broadcast: (N,) beside (N, 1) would become (N, N).

    Raises:
        UserError: SNX332 where they are not as many numbers.
    """
    if targets.numel() != outputs.numel() or len(targets) != len(outputs):
        raise UserError(
            "SNX332", f"targets of shape {tuple(targets.shape)} for outputs of shape {tuple(outputs.shape)}", where="targets",
            why="each output of a sample has one target", fix="give as many targets per sample as the network has outputs",
        )  # fmt: skip
    return targets.reshape(outputs.shape).to(outputs.dtype)


CLASSIFICATION = Classification()
