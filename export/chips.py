"""The chips in figures, as the exporter holds networks to them; every figure comes from the code that applies it.

Sources: Davies et al., IEEE Micro 2018, for the registers; the ``fixed_pt`` models of lava-nc 0.10.0 for ranges and truncation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

from snn_export.export.passes.quantize import MAX_INPUT_BITS, Target
from snn_export.export.readiness import PROGRAMMABLE
from snn_export.models import arithmetic
from snn_export.models.weight_grid import DELAY_MAX, SINGLE_SIGN_MAX, WEIGHT_BITS, WEIGHT_EXPONENT_MAX, WEIGHT_EXPONENT_MIN


@dataclass(frozen=True)
class Chip:
    """What a neuron and a synapse of a chip hold.

    Attributes:
        name: as ``quantize.target`` takes it.
        weight_bits: most bits of a weight, sign included.
        weight_range: smallest and largest weight of a layer with weights of both signs.
        single_sign_weight: largest size of a weight in a layer of one sign.
        weight_exponents: smallest and largest; a weight stands for ``w << exponent``.
        decay_bits: of both decays, in units of 1 / 2^bits per step.
        threshold_bits: of the threshold, which is compared shifted by ``state_shift``.
        state_bits: of u, which wraps, and v, which saturates, sign included.
        state_shift: bits by which synaptic sums and thresholds are shifted.
        bias_mantissa: smallest and largest.
        bias_exponents: smallest and largest.
        delays: steps a synapse can hold a spike back, beyond the one that each takes.
        graded_input_bits: of inputs that are no plain spikes; 0 where only plain spikes can be sent.
        programmable_neurons: a neuron may be a program of its own.
        resets: what comes after a spike, in its step.
    """

    name: str
    weight_bits: int
    weight_range: tuple[int, int]
    single_sign_weight: int
    weight_exponents: tuple[int, int]
    decay_bits: int
    threshold_bits: int
    state_bits: int
    state_shift: int
    bias_mantissa: tuple[int, int]
    bias_exponents: tuple[int, int]
    delays: tuple[int, int]
    graded_input_bits: int
    programmable_neurons: bool
    resets: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def _chip(name: str) -> Chip:
    programmable = name in PROGRAMMABLE
    return Chip(
        name=name,
        weight_bits=WEIGHT_BITS,
        weight_range=(arithmetic.WEIGHT_MIN, arithmetic.WEIGHT_MAX),
        single_sign_weight=SINGLE_SIGN_MAX,
        weight_exponents=(WEIGHT_EXPONENT_MIN, WEIGHT_EXPONENT_MAX),
        decay_bits=arithmetic.DECAY_BITS,
        threshold_bits=arithmetic.THRESHOLD_MAX.bit_length(),
        state_bits=arithmetic.STATE_WRAP.bit_length() - 1,
        state_shift=arithmetic.STATE_SHIFT,
        bias_mantissa=(arithmetic.BIAS_MANTISSA_MIN, arithmetic.BIAS_MANTISSA_MAX),
        bias_exponents=(0, arithmetic.BIAS_EXPONENT_MAX),
        delays=(0, DELAY_MAX),
        graded_input_bits=0 if name == "loihi1" else MAX_INPUT_BITS,
        programmable_neurons=programmable,
        resets=("zero", "subtract") if programmable else ("zero",),
    )


CHIPS = tuple(_chip(name) for name in get_args(Target))
"""Every chip that a network can be quantised for."""
