"""The chips in figures: one row per chip, from which everything that depends on a target is derived.

Figures of the integer neuron come from the code that applies it. Sources: Davies et al., IEEE Micro 2018, for the registers and
the delays of Loihi 1; the ``fixed_pt`` models of lava-nc 0.10.0 for ranges and truncation; lava-dl 0.6.0 (netx), which clips
delays to 62, for those of Loihi 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from snn_export.export.targets import CheckTarget, ChipName
from snn_export.models import arithmetic
from snn_export.models.weight_grid import DELAY_MAX, SINGLE_SIGN_MAX, WEIGHT_BITS, WEIGHT_EXPONENT_MAX, WEIGHT_EXPONENT_MIN


@dataclass(frozen=True)
class Chip:
    """What a neuron and a synapse of a chip hold.

    Attributes:
        name: as ``quantize.target`` takes it.
        weight_bits: most bits of a weight, sign included. Of weights of both signs, which span nine bits, the last is not stored.
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

    name: ChipName
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


def _loihi(name: ChipName, *, graded_input_bits: int, programmable_neurons: bool) -> Chip:
    """A chip with the integer neuron of ``models/arithmetic.py``. Only a neuron that is a program can subtract its threshold."""
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
        graded_input_bits=graded_input_bits,
        programmable_neurons=programmable_neurons,
        resets=("zero", "subtract") if programmable_neurons else ("zero",),
    )


LOIHI1 = _loihi("loihi1", graded_input_bits=0, programmable_neurons=False)
LOIHI2 = _loihi("loihi2", graded_input_bits=8, programmable_neurons=True)

CHIPS = (LOIHI1, LOIHI2)
"""Every chip that a network can be quantised for."""

_PROCESS_MODELS = replace(LOIHI2, programmable_neurons=False, resets=("zero",))

BACKENDS: Mapping[CheckTarget, Chip] = MappingProxyType({"loihi": LOIHI2, "lava": _PROCESS_MODELS, "netx": _PROCESS_MODELS})
"""The chip that a backend stands for. Lava's process models, which netx runs too, are Loihi 2 with neurons that are fixed."""

_BY_TARGET: Mapping[CheckTarget, Chip] = MappingProxyType({**{chip.name: chip for chip in CHIPS}, **BACKENDS})


def chip_of(target: CheckTarget) -> Chip:
    """The chip of a target: itself, or what a backend stands for."""
    return _BY_TARGET[target]
