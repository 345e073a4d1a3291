"""The numbers of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from snn_export.models.diagnostics import UserError


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast: AdamW (Loshchilov and Hutter, 2019) under a one-cycle learning rate.

    epochs; batch_size samples per step; learning_rate at the peak of the cycle; weight_decay per unit of learning rate, on
    weights of two or more dimensions only; max_shift largest random shift of an image per axis, pixels (0: none);
    seed of the order of samples, the shifts and dropout.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2
    max_shift: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [name for name in ("epochs", "batch_size", "learning_rate") if not getattr(self, name) > 0]
        wrong += [name for name in ("weight_decay", "max_shift", "seed") if not getattr(self, name) >= 0]
        wrong += [name for name in ("learning_rate", "weight_decay") if math.isinf(getattr(self, name))]
        if wrong:
            values = ", ".join(f"{name} = {getattr(self, name)}" for name in wrong)
            raise UserError(
                "SNX014", f"training cannot run with {values}", where="training settings",
                why="epochs, batch_size and learning_rate are positive and finite, the others at least 0",
                fix="for instance epochs = 20, batch_size = 64, learning_rate = 0.01",
            )  # fmt: skip


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
