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

from snn_export.models.arithmetic import DECAY_MAX, FULL_CURRENT_DECAY, alpha_from_integer, decay_from_integer
from snn_export.models.diagnostics import Diagnostic, UserError

Reset = Literal["zero", "subtract", "none"]
LEVEL_LIMIT = 1 << 24
"""Graded spikes carry at most 24 bits."""

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
    """

    dv: int
    du: int = FULL_CURRENT_DECAY
    reset: Reset = "zero"
    reset_delay: int = 0
    spiking: bool = True

    def __post_init__(self) -> None:
        for name, value in (("dv", self.dv), ("du", self.du)):
            if not 0 <= value <= DECAY_MAX:
                raise UserError(
                    "SNX301", f"{name} = {value} does not fit 12 bits", where=f"NeuronSpec.{name}",
                    why="Loihi holds decays as integers 0..4095 in units of 1/4096; beta = 0 would need 4096",
                    fix=f"choose {name} in 0..{DECAY_MAX}",
                )  # fmt: skip
        if self.reset_delay < 0:
            raise UserError(
                "SNX109", f"reset_delay = {self.reset_delay} is negative", where="NeuronSpec.reset_delay",
                why="a neuron cannot be reset before it fires", fix="use 0: the reset comes in the step of the spike",
            )  # fmt: skip

    @property
    def beta(self) -> float:
        """Membrane kept per step, 1 - dv/4096."""
        return decay_from_integer(self.dv)

    def reset_finding(self, population: str) -> Diagnostic | None:
        """Why Loihi 1 and Lava cannot hold this population's reset; None where they can. What never fires never resets."""
        if not self.spiking or (self.reset == "zero" and not self.reset_delay):
            return None
        return Diagnostic(
            "SNX203", f"{population} resets by {self.reset!r}" + (f", {self.reset_delay} step late" if self.reset_delay else ""),
            where=population, why="Loihi 1 and Lava reset to zero in the step of the spike, nothing else",
            fix='train with Leaky(reset_mechanism="zero", reset_delay=False)',
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

    kind    "direct": the same graded value in every step; "events": the input already has a time axis (T, B, *shape)
    gain    None: values pass as floats. Otherwise the integer grid of graded spikes:
            level = clip(round_half_even(x * gain), low, high), and a synapse sees level in place of x * gain
    low, high   declared range of levels; every overflow bound is computed from it
    """

    kind: Literal["direct", "events"] = "direct"
    gain: float | None = None
    low: int = 0
    high: int = 0

    def __post_init__(self) -> None:
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
