"""What a teacher is: an ordinary ReLU classifier with the record it was built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion


@dataclass(frozen=True)
class TeacherConfig:
    """What a teacher is built from; enough to build it again. input_shape (C, H, W); width channels of the first convolution.

    classes: K, or the number of outputs where it is no classifier.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    width: int = 32

    def __post_init__(self) -> None:
        # Plain Python numbers, so that a config can be written as JSON; index() refuses what is no whole number.
        object.__setattr__(self, "input_shape", tuple(index(size) for size in self.input_shape))
        for name in ("classes", "width"):
            object.__setattr__(self, name, index(getattr(self, name)))
        if not self.input_shape or min(self.input_shape) < 1 or self.width < 1 or self.classes < 1:
            raise UserError(
                "SNX012", f"a teacher cannot be built from {self}", where="teacher config",
                why="width, classes and every size must be positive; one class stands for the one output of a regression",
                fix="for instance build_teacher('convnet', input_shape=(1, 8, 8), classes=10)",
            )  # fmt: skip


@runtime_checkable
class TeacherNetwork(Protocol):
    """What a recipe may ask of a teacher, whatever it was read from. It is a ``nn.Module`` too.

    Attributes:
        input_shape: of one input.
        classes: K.
        stages: names of the layers whose outputs end a stage, in order of flow: what a recipe may tap. The last is the feature
            map in front of the classifier head.
        nonlinear_operations: names of operations beside activations that are not linear (max-pool): where a student of the same
            shape could not be trained on rates.
    """

    input_shape: tuple[int, ...]
    classes: int
    stages: tuple[str, ...]
    nonlinear_operations: tuple[str, ...]

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits (B, K)."""
        ...

    def features(self, inputs: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B, K), and the outputs (B, *shape) of the layers named."""
        ...

    def onward(self, tap: str, features: Tensor) -> Tensor:
        """Logits (B, K) of the rest of the network, fed with ``features`` in place of what layer ``tap`` puts out."""
        ...


class Teacher(nn.Module):
    """A feed-forward classifier without time: ``layers`` applied in order (see :class:`TeacherNetwork`).

    ``config`` is what it was built from. Every layer of ``layers`` is a place where the network may be cut.
    """

    nonlinear_operations: tuple[str, ...] = ()

    def __init__(self, config: TeacherConfig, layers: nn.Sequential, stages: Sequence[str] = ()) -> None:
        """Wrap ``layers``; ``stages`` names those that end a stage, all ReLUs where nothing is said."""
        super().__init__()
        self.config = config
        self.layers = layers
        self.input_shape = config.input_shape
        self.classes = config.classes
        found = tuple(name for name, layer in layers.named_children() if isinstance(layer, nn.ReLU))
        self.stages = tuple(stages) or found
        for name in self.stages:
            self._index(name)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of inputs (B, *shape)."""
        logits: Tensor = self.layers(inputs)
        return logits

    def features(self, inputs: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and the outputs of the layers named. UserError SNX016 for a layer that is not there."""
        for name in taps:
            self._index(name)
        value, found = inputs, {}
        for name, layer in self.layers.named_children():
            value = layer(value)
            if name in taps:
                found[name] = value
        return value, found

    def onward(self, tap: str, features: Tensor) -> Tensor:
        """Logits from the output of layer ``tap`` on. UserError SNX016 for a layer that is not there."""
        logits: Tensor = self.layers[self._index(tap) + 1 :](features)
        return logits

    def _index(self, name: str) -> int:
        names = [child for child, _ in self.layers.named_children()]
        if name not in names:
            raise UserError(
                "SNX016", f"the teacher has no layer called '{name}'", where="taps",
                why=f"its layers are {', '.join(names)}", fix=suggestion(name, names),
            )  # fmt: skip
        return names.index(name)
