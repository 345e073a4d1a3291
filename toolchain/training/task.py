"""What a run is judged by on its validation data: the seam for anything that is not classification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor
from torch.nn import functional


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


@dataclass(frozen=True)
class Regression:
    """Mean squared error, and its negative as the score."""

    name: ClassVar[str] = "regression"

    def loss(self, outputs: Tensor, targets: Tensor) -> float:
        """Mean squared error."""
        return float(functional.mse_loss(outputs, targets.to(outputs.dtype)))

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        """Minus the mean squared error."""
        return -self.loss(outputs, targets)


CLASSIFICATION = Classification()
