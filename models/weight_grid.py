"""The integers a synapse holds, by its number of bits and the signs it stores.

A synapse of b bits spends one of them on the sign where its layer has weights of both signs. What is left of eight bits is
truncated at the low end, so that every grid spans the same range::

    mixed        -256 .. 256 - s        s = 2^(9 - b)
    excitatory      0 .. 256 - s        s = 2^(8 - b)
    inhibitory  s - 256 .. 0            s = 2^(8 - b)

One bit with both signs leaves {-256, 0}. Source: Davies et al., IEEE Micro 2018, section on synaptic formats; ranges and
truncation as the ``fixed_pt`` models of lava-nc 0.10.0 apply them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snn_export.models.diagnostics import UserError

Signs = Literal["mixed", "excitatory", "inhibitory"]

WEIGHT_BITS = 8
WEIGHT_EXPONENT_MIN, WEIGHT_EXPONENT_MAX = -8, 7
"""What a chip's synapse holds; Lava shifts up only."""

SINGLE_SIGN_MAX = 255
"""Largest size of a weight in a layer whose weights have one sign."""

DELAY_MAX = 62
"""Steps a synapse can hold a spike back, beyond the one that every synapse takes. Lava's own delays end at 63, netx's at 62."""

_REACH = 1 << WEIGHT_BITS


@dataclass(frozen=True)
class WeightGrid:
    """Integers low, low + step, ..., high. Weight w stands for ``w << exponent`` where a synapse has an exponent."""

    bits: int
    signs: Signs
    step: int
    low: int
    high: int

    def nearest(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Nearest integers of the grid, ties to even multiples of the step; any shape."""
        rounded = self.step * np.rint(np.asarray(values, np.float64) / self.step)
        whole: NDArray[np.int64] = np.clip(rounded, self.low, self.high).astype(np.int64)
        return whole

    def largest_factor(self, values: NDArray[Any]) -> float:
        """Largest factor that keeps all of ``values`` within the grid's range; infinity where nothing limits it."""
        low, high = float(np.min(values, initial=0.0)), float(np.max(values, initial=0.0))
        reach = min(self.high / high if high > 0 else np.inf, self.low / low if low < 0 else np.inf)
        if reach == 0:  # one bit, both signs: what cannot be held at any scale does not limit it
            reach = self.low / low if low < 0 else self.low / -high
        return float(reach)


def weight_grid(bits: int, signs: Signs) -> WeightGrid:
    """The grid of ``bits`` bits, sign included where there is one.

    Raises:
        UserError: SNX307 for a number of bits other than 1 to 8.
    """
    if not 1 <= bits <= WEIGHT_BITS:
        raise UserError(
            "SNX307", f"{bits} weight bits", where="weight_bits", why="a synapse holds 1 to 8 bits, sign included",
            fix="choose 1 to 8",
        )  # fmt: skip
    if signs == "mixed":
        step = _REACH * 2 >> bits
        return WeightGrid(bits, signs, step, -_REACH, _REACH - step)
    step = _REACH >> bits
    if signs == "excitatory":
        return WeightGrid(bits, signs, step, 0, _REACH - step)
    return WeightGrid(bits, signs, step, step - _REACH, 0)


def signs_of(weights: NDArray[Any]) -> Signs:
    """Signs that a layer's weights have; a layer of zeros counts as mixed, it may become anything."""
    low, high = np.min(weights, initial=0), np.max(weights, initial=0)
    if low < 0 < high or low == high:
        return "mixed"
    return "inhibitory" if low < 0 else "excitatory"
