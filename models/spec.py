"""The one statement of discrete-time semantics: what a neuron, a readout and an encoder do in a step.

These records hold what NIR cannot say. They carry no parameters that NIR does carry (weights, thresholds), so nothing is
stated twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snn_export.models.arithmetic import DECAY_MAX, DECAY_ONE, FULL_CURRENT_DECAY, alpha_from_integer, decay_from_integer
from snn_export.models.diagnostics import Diagnostic, UserError

Reset = Literal["zero", "subtract", "none"]
SAME_STEP_RESET = (
    'train with Leaky or Synaptic(reset_mechanism="zero", reset_delay=False); RSynaptic resets late whatever it is told: use '
    "Recurrent(Synaptic(...), nn.Linear(n, n)) of snn_export.models.neurons.recurrent in its place"
)
SINGLE_SUBTRACTION = (
    'use Lif(reset="subtract") of snn_export.models.neurons.lif, which subtracts once, or reset_mechanism="zero", '
    "reset_delay=False"
)
LEVEL_LIMIT = 1 << 24
"""Graded spikes carry at most 24 bits."""

EncoderKind = Literal["direct", "events", "rate", "bias"]
ReadoutRule = Literal["membrane_last", "membrane_mean", "membrane_max", "spike_count"]


@dataclass(frozen=True)
class NeuronSpec:
    """Discrete-time behaviour of one population.

    ODE        tau dv/dt = -v + R i
    update     u = alpha u + x + b_u ;  v = beta v + u + b_v
    decays     beta = 1 - dv/4096, alpha = 1 - (du + 1)/4096; the integers are authoritative, floats derive from them
    spike      s = v > theta (strict)
    reset      v = 0 where s ("zero"), v -= theta s ("subtract"), never ("none"); in the same step for reset_delay 0

    A population without a synaptic filter has du = 4095 (alpha = 0). A non-spiking integrator has spiking False.

    memoryless  dv = 4096, beta = 0: a plain comparison of this step's input (NIR's Threshold). The chip's register ends at
                4095, which leaves trunc(v / 4096) behind: nothing, where |v| < 4096 is proven (``export/bounds.py``)
    late        with reset_delay 1 the reset comes in the step after the spike, r = [v of the step before > theta]:
                v = beta (1 - r) v + x ("zero"), v = beta v + x - r theta ("subtract"). With clears_input a late reset to zero
                clears the input of its step too, v = (1 - r) (beta v + x), and leaves u alone
    doubled     with double_to_refire a neuron that a subtraction left above theta must pass 2 theta to fire in the next step:
                what snnTorch 1.0.0 does for reset_mechanism="subtract", reset_delay=False
    periodic    with reset_interval > 0, u and v are zeroed before the steps t with t % reset_interval == reset_offset are
                integrated (Lava's LIFReset); every population starts a sample from zero anyway
    """

    dv: int
    du: int = FULL_CURRENT_DECAY
    reset: Reset = "zero"
    reset_delay: int = 0
    spiking: bool = True
    reset_interval: int = 0
    reset_offset: int = 0
    clears_input: bool = False
    double_to_refire: bool = False

    def __post_init__(self) -> None:
        for name, value, largest in (("dv", self.dv, DECAY_ONE), ("du", self.du, DECAY_MAX)):
            if not 0 <= value <= largest:
                raise UserError(
                    "SNX301", f"{name} = {value} does not fit 12 bits", where=f"NeuronSpec.{name}",
                    why="Loihi holds decays as integers in units of 1/4096",
                    fix=f"choose {name} in 0..{DECAY_MAX}",
                )  # fmt: skip
        if self.reset_delay < 0:
            raise UserError(
                "SNX109", f"reset_delay = {self.reset_delay} is negative", where="NeuronSpec.reset_delay",
                why="a neuron cannot be reset before it fires", fix="use 0: the reset comes in the step of the spike",
            )  # fmt: skip
        if self.clears_input and not (self.reset == "zero" and self.reset_delay):
            raise UserError(
                "SNX109", f"clears_input with reset = {self.reset!r} and reset_delay = {self.reset_delay}",
                where="NeuronSpec.clears_input", why="only a reset to zero that comes late meets an input of its own",
                fix='use it with reset "zero" and reset_delay 1',
            )  # fmt: skip
        if self.double_to_refire and (self.reset != "subtract" or self.reset_delay):
            raise UserError(
                "SNX109", f"double_to_refire with reset = {self.reset!r} and reset_delay = {self.reset_delay}",
                where="NeuronSpec.double_to_refire", why="it belongs to a subtraction in the step of the spike",
                fix='use it with reset "subtract" and reset_delay 0',
            )  # fmt: skip
        if self.reset_interval < 0 or not 0 <= self.reset_offset < max(self.reset_interval, 1):
            raise UserError(
                "SNX109", f"reset_interval = {self.reset_interval} with reset_offset = {self.reset_offset}",
                where="NeuronSpec.reset_interval", why="state is cleared in the steps t with t % interval == offset",
                fix="use an interval of 1 or more with 0 <= offset < interval, or interval 0 for no periodic reset",
            )  # fmt: skip

    @property
    def beta(self) -> float:
        """Membrane kept per step, 1 - dv/4096."""
        return decay_from_integer(self.dv)

    @property
    def memoryless(self) -> bool:
        """True where no membrane is kept from one step to the next."""
        return self.dv == DECAY_ONE

    @property
    def decay_register(self) -> int:
        """Membrane decay as the chip's 12-bit register holds it: 4095 stands for a memoryless neuron too."""
        return min(self.dv, DECAY_MAX)

    @property
    def microcode(self) -> bool:
        """True where only a programmable neuron (Loihi 2) computes this on integers: reset by subtraction, in the same step."""
        return self.spiking and self.reset == "subtract" and not self.reset_delay and not self.double_to_refire

    def resets_at(self, step: int) -> bool:
        """True where the periodic reset clears u and v before local step ``step`` is integrated."""
        return self.reset_interval > 0 and step % self.reset_interval == self.reset_offset

    def reset_finding(self, population: str, programmable: bool = False) -> Diagnostic | None:
        """Why Loihi 1 and Lava cannot hold this population's reset; None where they can. What never fires never resets.

        programmable: the neuron may be a program of its own, as on Loihi 2; see :attr:`microcode`.
        """
        if not self.spiking or (self.reset == "zero" and not self.reset_delay) or (programmable and self.microcode):
            return None
        if self.double_to_refire:
            return Diagnostic(
                "SNX203", f"{population} resets by 'subtract' and must pass twice its threshold to fire twice in a row",
                where=population, why="snnTorch 1.0.0 subtracts so in the step of the spike; no chip and no other simulator does",
                fix=SINGLE_SUBTRACTION,
            )  # fmt: skip
        return Diagnostic(
            "SNX203", f"{population} resets by {self.reset!r}" + (f", {self.reset_delay} step late" if self.reset_delay else ""),
            where=population, why="Loihi 1 and Lava reset to zero in the step of the spike, nothing else",
            fix=SAME_STEP_RESET,
        )  # fmt: skip

    @property
    def alpha(self) -> float:
        """Current kept per step, 1 - (du + 1)/4096."""
        return alpha_from_integer(self.du)


@dataclass(frozen=True)
class ReadoutSpec:
    """How predictions come out of the readout population: ``rule`` over all T steps of node ``node``.

    Ties go to the lowest class index, everywhere.
    """

    node: str
    rule: ReadoutRule = "membrane_last"


@dataclass(frozen=True)
class EncoderSpec:
    """How an input of shape (B, *shape) becomes T steps of input.

    kind    "direct": the same graded value in every step
            "events": the input already has a time axis (T, B, *shape)
            "rate": Bernoulli spikes with p = clip(x / full_scale, 0, 1) in every step, drawn with ``seed``
            "bias": for chips without graded spikes, the weight layers behind the input are computed on the host, and what
            they give is added to the membranes in every step as a bias per neuron and sample
    gain    None: values pass as floats. Otherwise the integer grid of graded spikes:
            level = clip(round_half_even(x * gain), low, high), and a synapse sees level in place of x * gain
    low, high   declared range of levels; every overflow bound is computed from it
    """

    kind: EncoderKind = "direct"
    gain: float | None = None
    low: int = 0
    high: int = 0
    seed: int = 0
    full_scale: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.full_scale) and self.full_scale > 0) or self.seed < 0:
            raise UserError(
                "SNX109", f"an encoder with full_scale {self.full_scale} and seed {self.seed}", where="EncoderSpec",
                why="a spike's probability is x / full_scale, drawn from a seed of 0 or more", fix="choose positive numbers",
            )  # fmt: skip
        if self.kind == "rate" and self.gain is None:  # its spikes are 0 or 1 from the start
            for name, value in (("gain", 1.0), ("low", 0), ("high", 1)):
                object.__setattr__(self, name, value)
        if (
            self.gain is not None and not (math.isfinite(self.gain) and self.gain > 0)
        ) or not -LEVEL_LIMIT <= self.low <= self.high <= LEVEL_LIMIT:
            raise UserError(
                "SNX109", f"an encoder with gain {self.gain} and levels {self.low}..{self.high}", where="EncoderSpec",
                why="levels are round(x * gain) between low and high, at most 24 bits; gain is a positive number",
                fix="write the file again from the deployment it came from, or quantise again",
            )  # fmt: skip

    @property
    def bits(self) -> int:
        """Message bits a level needs, sign included; 0 where values are not quantised."""
        if self.gain is None:
            return 0
        return max(self.high, -self.low).bit_length() + (1 if self.low < 0 else 0)

    @property
    def binary(self) -> bool:
        """True where the first layer sees plain spikes: levels 0 and 1 only."""
        return self.gain is not None and self.low >= 0 and self.high <= 1

    def levels(self, inputs: NDArray[np.floating]) -> NDArray[np.int64]:
        """Integer levels of real inputs, any shape. Only for a quantised encoder."""
        if self.gain is None:
            raise UserError(
                "SNX302", "this deployment has no integer input grid", where="contract.encoder",
                why="levels exist only after quantisation", fix="run snn_export.quantize(deployment, ...) first",
            )  # fmt: skip
        return np.clip(np.rint(np.asarray(inputs, np.float64) * self.gain), self.low, self.high).astype(np.int64)

    def values(self, inputs: NDArray[np.floating]) -> NDArray[np.float64]:
        """Inputs as the first layer sees them in real units: snapped to the grid where there is one."""
        if self.gain is None:
            return np.asarray(inputs, np.float64)
        return self.levels(inputs) / self.gain
