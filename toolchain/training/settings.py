"""The numbers of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from snn_export.models.diagnostics import UserError

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("one_cycle", "cosine", "constant")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class TrainingSettings:
    """How long, how fast, and on what.

    Attributes:
        epochs: passes over the training samples.
        batch_size: samples per step, over all devices.
        learning_rate: at the peak of the schedule.
        weight_decay: on weights of two or more dimensions only, never on biases and batch-norm; per unit of learning rate for
            adamw (Loshchilov and Hutter, 2019), added to the gradient for sgd.
        optimizer: "adamw", or "sgd" with Nesterov-free ``momentum``.
        schedule: "one_cycle" (:func:`one_cycle`), "cosine" from the peak to 0, or "constant".
        augmentation: steps of :mod:`snn_export.training.augmentation`, in order; images only.
        max_shift: largest random shift of an image per axis, pixels (0: none), for the step "shift".
        precision: of the arithmetic, as Lightning Fabric names it: "32-true" is exact to the bit on the CPU.
        seed: of the order of samples, the augmentation, dropout, and the layers a recipe trains beside the student.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    augmentation: tuple[str, ...] = ("shift",)
    max_shift: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [name for name in ("epochs", "batch_size", "learning_rate") if not getattr(self, name) > 0]
        wrong += [name for name in ("weight_decay", "max_shift", "seed", "momentum") if not getattr(self, name) >= 0]
        wrong += [name for name in ("learning_rate", "weight_decay") if math.isinf(getattr(self, name))]
        choices = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS}
        wrong += [name for name, allowed in choices.items() if getattr(self, name) not in allowed]
        wrong += ["momentum"] if self.momentum >= 1 else []
        if wrong:
            values = ", ".join(f"{name} = {getattr(self, name)}" for name in wrong)
            listed = "; ".join(f"{name} is one of {', '.join(allowed)}" for name, allowed in choices.items())
            raise UserError(
                "SNX014", f"training cannot run with {values}", where="training settings",
                why="epochs, batch_size and learning_rate are positive and finite, the others at least 0, momentum below 1; "
                + listed,
                fix="for instance epochs = 20, batch_size = 64, learning_rate = 0.01, optimizer = 'adamw'",
            )  # fmt: skip

    def rate_at(self, step: int, total: int) -> float:
        """Learning rate of optimiser step ``step`` of ``total``; a function of the step alone, so that a run can be resumed."""
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * step / max(total, 1))) / 2
        return one_cycle(step, total, self.learning_rate)


def one_cycle(step: int, total: int, peak: float) -> float:
    """Learning rate of optimiser step ``step`` of ``total``: a cosine rise to ``peak`` in the first quarter, then a fall to 0.

    A pure function of the step, so that a resumed run needs no scheduler state. After Smith and Topin, Super-Convergence,
    arXiv 1708.07120 (2018); the momentum is left alone. Starts at peak / 25.
    """
    rise = max(total // 4, 1)
    if step < rise:
        low = peak / 25
        return low + (peak - low) * (1 - math.cos(math.pi * step / rise)) / 2
    return peak * (1 + math.cos(math.pi * (step - rise) / max(total - rise, 1))) / 2
