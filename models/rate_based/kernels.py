"""The steps of a population compiled: spikes, rates and slopes of the spike pass in one go over memory, on a CPU.

torch does a LIF step and the slope's recursion in some twenty operations, each of which reads and writes its operands. Here a
tile of neurons keeps its state in the first-level cache while all steps go by. The equations are those of
:mod:`snn_export.models.neurons.lif` and :mod:`snn_export.models.rate_based.slopes` in float32, operation by operation for what
decides a spike, so that spikes are the same bit for bit (``tests/models/test_rate_kernels.py``); slopes agree up to rounding.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_export.models.neurons.lif import LifRule

TILE = 512
"""Neurons whose state a core keeps at once: six rows of float32 numbers, 12 KB."""

_0, _1, _2, _HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)
_QUARTER_TURN = np.float32(math.pi / 2)
_LOG2E, _LOWEST = np.float32(1 / math.log(2)), np.float32(-126)
_P1, _P2, _P3, _P4, _P5, _P6, _P7 = (np.float32(math.log(2) ** n / math.factorial(n)) for n in range(1, 8))


@dataclass(frozen=True)
class Currents:
    """Inputs of a population: ``value`` (T, B, *features), or (1, B, *features) where all steps are alike.

    What arrives is ``value * scale + shift``, both (features,) flattened: a batch-norm not yet carried out.
    """

    value: Tensor
    scale: Tensor
    shift: Tensor


def available(value: Tensor) -> bool:
    """True where the kernels can do the work: float32 on a CPU."""
    return value.device.type == "cpu" and value.dtype == torch.float32


def run(rule: LifRule, currents: Currents, spikes: Tensor, rates: Tensor, slopes: Tensor) -> None:
    """Fill spikes (T, B, *features) of bytes, rates and slopes (B, *features) of float32, all contiguous.

    As many threads work as torch may use.
    """
    features = currents.scale.numel()
    batch = rates.numel() // max(features, 1)
    tiles = batch * -(-features // TILE)
    if not tiles:
        return
    kernel = _compiled(rule.surrogate.name, rule.reset == "zero")
    steps = len(spikes)
    arguments: tuple[Any, ...] = (
        currents.value.detach().contiguous().view(len(currents.value), batch, features).numpy(),
        currents.scale.numpy(), currents.shift.numpy(), spikes.view(steps, batch, features).numpy(),
        rates.view(batch, features).numpy(), slopes.view(batch, features).numpy(),
        *(np.float32(number) for number in (rule.beta, rule.threshold, rule.initial, rule.surrogate.slope)),
        _0 if rule.detach_reset else _1,
    )  # fmt: skip
    threads = min(torch.get_num_threads(), tiles)
    if threads == 1:
        kernel(0, tiles, *arguments)
        return
    kernel(0, 1, *arguments)  # compiled here at the first call, not in several threads
    edges = [1 + (tiles - 1) * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(kernel, *edges[part : part + 2], *arguments) for part in range(threads)]:
            done.result()


@cache
def _compiled(surrogate: str, to_zero: bool) -> Any:
    """The kernel for one surrogate and one reset: chosen here, not at every neuron. Compiled at its first call, in a second."""
    import numba  # half a second and some 130 MB that only rate-based training needs

    # The slope alone may fuse its multiplications and additions, an eighth of the time; what decides a spike may not.
    derivative = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})(_DERIVATIVES[surrogate])

    @numba.njit(nogil=True, error_model="numpy")
    def kernel(  # type: ignore[no-untyped-def]
        first, last, currents, scale, shift, spikes, rates, slopes, beta, threshold, initial, slope, seen
    ):
        """Tiles ``first`` to ``last``; arrays and numbers as :func:`run` lays them out."""
        steps, _, features = spikes.shape
        varying = len(currents) > 1
        per_sample = (features + TILE - 1) // TILE
        # One array, its rows side by side: the compiler then sees that they do not overlap, and uses vector instructions.
        state = np.empty(6 * TILE, np.float32)
        for tile in range(first, last):
            sample, start = tile // per_sample, tile % per_sample * TILE
            size = min(TILE, features - start)
            for i in range(size):
                state[i] = initial
                state[TILE + i] = _1
                state[2 * TILE + i] = _0
                state[3 * TILE + i] = _0
                state[4 * TILE + i] = scale[start + i]
                state[5 * TILE + i] = shift[start + i]
            for step in range(steps):
                row = currents[step if varying else 0, sample, start : start + size]
                out = spikes[step, sample, start : start + size]
                for i in range(size):
                    potential = beta * state[i] + (row[i] * state[4 * TILE + i] + state[5 * TILE + i])
                    above = potential - threshold
                    fired = _1 if above > _0 else _0
                    rho = state[TILE + i]
                    steep = derivative(above, slope)
                    if to_zero:
                        state[i] = potential - potential * fired
                        kept = _1 - fired - seen * potential * steep
                    else:
                        state[i] = potential - threshold * fired
                        kept = _1 - seen * threshold * steep
                    state[TILE + i] = _1 + beta * kept * rho
                    state[2 * TILE + i] += rho * steep
                    state[3 * TILE + i] += fired
                    out[i] = np.uint8(1) if above > _0 else np.uint8(0)
            for i in range(size):
                slopes[sample, start + i] = state[2 * TILE + i] / np.float32(steps)
                rates[sample, start + i] = state[3 * TILE + i] / np.float32(steps)

    return kernel


# The slopes of models/surrogates.py, one number at a time; x = membrane - threshold, k = slope, all float32. ----------------


def _fast_sigmoid(x, k):  # type: ignore[no-untyped-def]
    root = _1 + k * abs(x)
    return _1 / (root * root)


def _sigmoid(x, k):  # type: ignore[no-untyped-def]
    # With e = exp(-|kx|): S(kx) (1 - S(kx)) = e / (1 + e)^2. e = 2^n 2^f, 2^n by its bits, 2^f by its Taylor series, |f| <= 1/2.
    power = max(-abs(k * x) * _LOG2E, _LOWEST)
    whole = np.floor(power + _HALF)
    f = power - whole
    fraction = _1 + f * (_P1 + f * (_P2 + f * (_P3 + f * (_P4 + f * (_P5 + f * (_P6 + f * _P7))))))
    e = fraction * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    return k * e / ((_1 + e) * (_1 + e))


def _triangle(x, k):  # type: ignore[no-untyped-def]
    return max(k - k * k * abs(x), _0)


def _atan(x, k):  # type: ignore[no-untyped-def]
    scaled = _QUARTER_TURN * k * x
    return _1 / (_1 + scaled * scaled)


def _rectangle(x, k):  # type: ignore[no-untyped-def]
    return k if abs(x) < _HALF / k else _0


_DERIVATIVES = {
    "fast_sigmoid": _fast_sigmoid,
    "sigmoid": _sigmoid,
    "triangle": _triangle,
    "atan": _atan,
    "rectangle": _rectangle,
}
