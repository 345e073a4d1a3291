"""The spiking student: a stack of layers unrolled for T steps, with an integrator as readout."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Literal

import snntorch
import torch
from torch import Tensor, nn

from snn_export.models.arithmetic import FULL_CURRENT_DECAY
from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion
from snn_export.models.neurons.lif import Lif
from snn_export.models.rate_based.engine import rate_pass, spike_pass
from snn_export.models.rate_based.slopes import SlopeRule
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutSpec
from snn_export.models.surrogates import Surrogate
from snn_export.models.unroll import Observer, SpikeListener, check_unrollable, is_population, leaves, unroll

DEFAULT_DV = 1024
"""beta = 0.75. Mean test accuracy on the digits, three seeds, 20 epochs, T = 8: dv 512 98.8 %, 1024 98.9 %, 2048 98.1 %."""


@dataclass(frozen=True)
class StudentConfig:
    """What a student is built from; enough to build it again.

    input_shape (C, H, W), or (F,); steps T; dv the integer membrane decay, beta = 1 - dv/4096 (0: integrate-and-fire);
    threshold in units of the membrane; width the number of channels of the first layer. du the integer decay of a synaptic
    filter, alpha = 1 - (du + 1)/4096: at 4095, as by default, there is none; a filter needs a leak, the reset to zero, and
    training through time.

    reset of every LIF population, in the step of the spike: "zero" is what Loihi 1 and Lava deploy, "subtract" needs
    programmable neurons. surrogate and its slope: :class:`snn_export.models.surrogates.Surrogate`. detach_reset: gradients do
    not see the reset. encoder "direct": the same input in every step, (B, *shape); "events": the input brings its own time
    axis, (B, T, *shape). residual: where a network has shortcuts, "currents" adds them in front of a neuron; "spikes" adds the
    spikes behind it (SEW), which makes them graded: expensive on Loihi. initial: the membrane of every LIF population before the
    first step; no chip file holds another value than 0 (SNX350).
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    steps: int = 8
    dv: int = DEFAULT_DV
    width: int = 16
    threshold: float = 1.0
    reset: Literal["zero", "subtract"] = "zero"
    surrogate: str = "fast_sigmoid"
    slope: float = 5.0
    """On the digits it matters little: 5 and snnTorch's own 25 both reach 98.8 % to 98.9 % on average over three seeds."""
    detach_reset: bool = False
    encoder: Literal["direct", "events"] = "direct"
    residual: Literal["currents", "spikes"] = "currents"
    initial: float = 0.0
    du: int = FULL_CURRENT_DECAY

    def __post_init__(self) -> None:
        # Plain Python numbers, so that a config can be written as JSON; index() refuses what is no whole number.
        object.__setattr__(self, "input_shape", tuple(index(size) for size in self.input_shape))
        object.__setattr__(self, "threshold", float(self.threshold))
        object.__setattr__(self, "initial", float(self.initial))
        for name in ("classes", "steps", "dv", "width", "du"):
            object.__setattr__(self, name, index(getattr(self, name)))
        object.__setattr__(self, "slope", Surrogate(self.surrogate, float(self.slope)).slope)
        _check_choices(self)
        _check_filter(self)
        too_small = {"steps": self.steps, "width": self.width, "classes": self.classes, "threshold": self.threshold}
        wrong = [name for name, value in too_small.items() if not value > 0]
        if wrong or not self.input_shape or min(self.input_shape) < 1:
            raise UserError(
                "SNX012", f"a student cannot be built from {self}", where=", ".join(wrong) or "input_shape",
                why="steps, width, classes, threshold and every size must be positive; one class is a regression with one output",
                fix="for instance build_student('convnet', input_shape=(1, 8, 8), classes=10, steps=8)",
            )  # fmt: skip

    @property
    def neuron(self) -> NeuronSpec:
        """Semantics of every spiking layer: reset in the same step. SNX301 where dv or du does not fit 12 bits."""
        return NeuronSpec(dv=self.dv, du=self.du, reset=self.reset, reset_delay=0)

    @property
    def filtered(self) -> bool:
        """True where currents pass a synaptic filter."""
        return self.du != FULL_CURRENT_DECAY

    def population(self) -> snntorch.Leaky | snntorch.Synaptic | Lif:
        """A population as this config asks for it: snnTorch's ``Leaky``, ``Synaptic`` where currents are filtered, or ``Lif``.

        ``Lif`` is for what ``Leaky`` does not do: a reset by subtraction, an initial membrane.
        """
        surrogate = Surrogate(self.surrogate, self.slope)
        if self.reset == "subtract" or self.initial:
            return Lif(dv=self.dv, threshold=self.threshold, surrogate=surrogate, reset=self.reset, initial=self.initial)
        # Its scalar buffers always hold values, also where the rest is only outlined on the meta device: snnTorch reads them.
        common: dict[str, Any] = {"threshold": self.threshold, "spike_grad": surrogate, "reset_mechanism": "zero"}
        with torch.device("cpu"):
            if self.filtered:
                return snntorch.Synaptic(alpha=self.neuron.alpha, beta=self.neuron.beta, reset_delay=False, **common)
            return snntorch.Leaky(beta=self.neuron.beta, reset_delay=False, **common)


CHOICES = {"reset": ("zero", "subtract"), "encoder": ("direct", "events"), "residual": ("currents", "spikes")}


def _check_choices(config: StudentConfig) -> None:
    """SNX012 for a word that is none of the choices, or a number that is none: configs come from files."""
    for name, allowed in CHOICES.items():
        if getattr(config, name) not in allowed:
            raise UserError(
                "SNX012", f"a student cannot be built with {name} = {getattr(config, name)!r}", where=name,
                why=f"{name} is one of {', '.join(allowed)}", fix=suggestion(str(getattr(config, name)), allowed),
            )  # fmt: skip
    if not math.isfinite(config.initial):
        raise UserError(
            "SNX012", f"a student cannot be built with initial = {config.initial}", where="initial",
            why="the membrane before the first step is a number", fix="leave it at 0, or use half the threshold: 0.5",
        )  # fmt: skip


def _check_filter(config: StudentConfig) -> None:
    """SNX284 for a synaptic filter beside settings that neither snnTorch's ``Synaptic`` nor a NIR file can hold with it."""
    impossible = {
        "dv = 0": config.dv == 0,
        "reset = 'subtract'": config.reset == "subtract",
        "detach_reset": config.detach_reset,
        f"initial = {config.initial:g}": config.initial != 0,
    }
    wrong = [said for said, present in impossible.items() if present]
    if config.filtered and wrong:
        raise UserError(
            "SNX284", f"a synaptic filter (du = {config.du}) cannot stand beside {', '.join(wrong)}", where="du",
            why="filtered currents on a membrane without leak have no place in a NIR file, and filtered neurons are stepped by "
            "snnTorch's Synaptic: from zero, reset to zero in the step of the spike, seen by the gradient",
            fix=f"leave du at {FULL_CURRENT_DECAY} (no filter), or set dv >= 1 and leave the others at their defaults",
        )  # fmt: skip


@dataclass(frozen=True)
class StudentOutputs:
    """What a student's forward pass gave, with gradient.

    logits (B, K); taps: firing rates (B, *features), mean over the steps, of the populations asked for; step_logits (T, B, K),
    what the readout took in at each step (their mean is the logits), or None where the pass has no steps of its own.
    """

    logits: Tensor
    taps: Mapping[str, Tensor]
    step_logits: Tensor | None = None


class SpikingStudent(nn.Module):
    """A spiking classifier.

    Attributes:
        config: what it was built from.
        layers: named torch layers and neurons, ending in an ``Integrator`` named ``readout``.
        stages: names of the populations that end a stage, in order of flow: what a recipe may tap.
        encoder: direct or events, on no grid yet.
        readout: the last membrane of ``readout``.
    """

    def __init__(self, config: StudentConfig, layers: nn.Sequential, stages: Sequence[str] = ()) -> None:
        """Wrap ``layers``; UserError SNX210 to SNX212 where they cannot be unrolled, SNX012 for a stage that is none of them."""
        super().__init__()
        check_unrollable(layers)
        self.config = config
        self.layers = layers
        self.encoder = EncoderSpec(kind=config.encoder)
        self.readout = ReadoutSpec(node="readout", rule="membrane_last")
        spiking = [name for name, layer in leaves(layers) if is_population(layer)]
        unknown = [name for name in stages if name not in spiking]
        if unknown:
            raise UserError(
                "SNX012", f"stage '{unknown[0]}' is no population of this student", where="stages",
                why=f"its populations are {', '.join(spiking)}", fix=suggestion(unknown[0], spiking),
            )  # fmt: skip
        self.stages = tuple(stages) or tuple(spiking)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K) of inputs (B, *shape), or (B, T, *shape) for events: the readout's last membrane, divided by T.

        The division keeps the loss on the scale of one step; it changes no prediction.
        """
        return self.membranes(inputs)[-1] / self._steps(inputs)

    def membranes(self, inputs: Tensor, observe: Observer | None = None, listen: SpikeListener | None = None) -> Tensor:
        """Readout membrane (T, B, K) of inputs; ``observe`` and ``listen`` as in :func:`snn_export.models.unroll.unroll`."""
        self._check_shape(inputs)
        constant = self.encoder.kind == "direct"
        return unroll(
            self.layers,
            inputs if constant else inputs.transpose(0, 1),
            self._steps(inputs),
            constant=constant,
            observe=observe,
            listen=listen,
            detach_reset=self.config.detach_reset,
        )

    def through_time(self, inputs: Tensor, taps: Collection[str] = ()) -> StudentOutputs:
        """All steps, with gradients through time; logits are those of ``forward``."""
        rates: dict[str, Tensor] = {}

        def listen(name: str, spikes: Tensor) -> None:
            if name in taps:
                rates[name] = spikes.mean(dim=0)

        membranes = self.membranes(inputs, listen=listen)
        steps = torch.diff(membranes, dim=0, prepend=torch.zeros_like(membranes[:1]))
        return StudentOutputs(membranes[-1] / len(membranes), rates, steps)

    def by_rates(self, inputs: Tensor, taps: Collection[str] = (), slopes: SlopeRule | None = None) -> StudentOutputs:
        """A spike pass and a rate pass (:mod:`snn_export.models.rate_based.engine`); UserError SNX280 to SNX282."""
        self._check_shape(inputs)
        constant = self.encoder.kind == "direct"
        states = spike_pass(
            self.layers,
            inputs if constant else inputs.transpose(0, 1),
            self._steps(inputs),
            constant=constant,
            detach_reset=self.config.detach_reset,
            slopes=slopes,
        )
        result = rate_pass(self.layers, inputs if constant else inputs.mean(dim=1), states, taps=taps)
        return StudentOutputs(result.logits, result.taps)

    def _check_shape(self, inputs: Tensor) -> None:
        """SNX319 where inputs are not (B, *shape), or (B, T, *shape) for events."""
        direct = self.encoder.kind == "direct"
        if tuple(inputs.shape[1 if direct else 2 :]) != self.config.input_shape:
            expected = ", ".join(map(str, ("B", *(() if direct else ("T",)), *self.config.input_shape)))
            raise UserError(
                "SNX319", f"inputs of shape {tuple(inputs.shape)} do not fit a student for ({expected})", where="inputs",
                why=f"the student was built for inputs of shape {self.config.input_shape} and the encoder '{self.encoder.kind}'",
                fix="build it with the data's input_shape, and encoder='events' where samples have a time axis",
            )  # fmt: skip

    def _steps(self, inputs: Tensor) -> int:
        return self.config.steps if self.encoder.kind == "direct" else inputs.shape[1]

    def extra_repr(self) -> str:
        """The settings that decide the behaviour in time."""
        filtered = f", du={self.config.du}" if self.config.filtered else ""
        return f"steps={self.config.steps}, dv={self.config.dv}{filtered}, threshold={self.config.threshold}"
