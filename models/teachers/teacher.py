"""What a teacher is: an ordinary ReLU classifier with the record it was built from."""

from __future__ import annotations

from dataclasses import dataclass
from operator import index

from torch import Tensor, nn

from snn_export.models.diagnostics import UserError


@dataclass(frozen=True)
class TeacherConfig:
    """What a teacher is built from; enough to build it again. input_shape (C, H, W); width channels of the first convolution."""

    name: str
    input_shape: tuple[int, ...]
    classes: int
    width: int = 32

    def __post_init__(self) -> None:
        # Plain Python numbers, so that a config can be written as JSON; index() refuses what is no whole number.
        object.__setattr__(self, "input_shape", tuple(index(size) for size in self.input_shape))
        for name in ("classes", "width"):
            object.__setattr__(self, name, index(getattr(self, name)))
        if not self.input_shape or min(self.input_shape) < 1 or self.width < 1 or self.classes < 2:
            raise UserError(
                "SNX012", f"a teacher cannot be built from {self}", where="teacher config",
                why="width and every size must be positive, and a classifier needs two classes",
                fix="for instance build_teacher('convnet', input_shape=(1, 8, 8), classes=10)",
            )  # fmt: skip


class Teacher(nn.Module):
    """A feed-forward classifier without time: ``layers`` applied in order. ``config`` is what it was built from."""

    def __init__(self, config: TeacherConfig, layers: nn.Sequential) -> None:
        super().__init__()
        self.config = config
        self.layers = layers

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of inputs (B, C, H, W)."""
        logits: Tensor = self.layers(inputs)
        return logits
