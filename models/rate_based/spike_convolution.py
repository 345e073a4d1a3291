"""Convolutions of spikes in integers: exact sums, in less time where a processor has matrix units for bytes.

A spike is 0 or 1 and a weight a number of 24 bits, so a convolution of spikes is a sum of integers. The weights of an output
channel are counted in units of 2^e and split into three bytes,

    w / 2^e = 65536 d1 + 256 d2 + d3,   -128 <= d <= 127,

and oneDNN convolves the spikes with each, eight bits by eight bits into 32, which is what Intel's AMX is for. The three sums,
exact, are added as float32, the smallest first: the result is the exact sum of the counted weights, rounded once (above 510
products, twice; and once more for a bias). Counting moves a weight by half a unit at most, by less than 1 / 8,355,711 of the
largest of its channel: less than float32 loses over a sum, unless one weight is far above all others. Mean and variance, for a
batch-norm, are taken on the way.

oneDNN's convolution of bytes is reached through operators that torch has for its own quantised models and does not document.
:func:`available` therefore tries them on a small convolution before they are used; without them, or on a processor without
matrix units, spikes are convolved as float32 like any other input.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

LARGEST = 127 * 65536 + 127 * 256 + 127
"""The largest count that three signed bytes hold."""
MOST_PRODUCTS = (1 << 24) // 128
"""Products that a sum may have: with more of them, not every sum of bytes is a number that float32 has."""
SMALLEST = 2.0**-60
"""Weights of a channel are counted in units for one this large at least: far below, the units would be no normal numbers."""
BYTES = 3

Storage = Callable[[tuple[int, ...], torch.dtype], Tensor]


@dataclass(frozen=True)
class Currents:
    """What spikes become: (N, C', H', W') float32, channels last in memory; mean and biased variance per channel, (C',)."""

    value: Tensor
    mean: Tensor
    variance: Tensor


def fits(layer: nn.Module, spikes: Tensor) -> TypeGuard[nn.Conv2d]:
    """Whether ``layer`` is a convolution that can take ``spikes`` (N, C, H, W) here, bytes that lie channels last in memory.

    Layers with hooks are left to torch: hooks may compute the weights (``weight_norm``, pruning), or want to be called.
    """
    if type(layer) is not nn.Conv2d or spikes.dtype != torch.uint8 or not stored_channels_last(spikes):
        return False
    if layer._forward_pre_hooks or layer._forward_hooks or "forward" in layer.__dict__:
        return False
    weight = layer.weight.detach()
    plain = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    small = weight.dtype == torch.float32 and weight[0].numel() <= MOST_PRODUCTS
    here = spikes.device.type == weight.device.type == "cpu"
    return plain and small and here and available() and bool(weight.isfinite().all())


@cache
def available() -> bool:
    """Whether this processor has matrix units, and torch's operators for bytes give the right sums on it."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    if not supported():
        return False
    try:
        return _sums_are_right()
    except (AttributeError, RuntimeError):  # operators that are gone, or take other arguments
        return False


def stored_channels_last(value: Tensor) -> bool:
    """Whether maps (..., C, H, W) lie in memory as (..., H, W, C), and only so."""
    return value.ndim >= 4 and not value.is_contiguous() and value.movedim(-3, -1).is_contiguous()


def convolve(layer: nn.Conv2d, spikes: Tensor, elements: int, storage: Storage) -> Currents:
    """``layer`` over ``spikes`` (N, C, H, W) that it :func:`fits`, in pieces of about ``elements`` float32 numbers.

    storage: an empty tensor of a shape and a type, contiguous; the currents are put there.
    """
    sums = _Sums(layer)
    bias = np.zeros(len(layer.weight), np.float32) if layer.bias is None else layer.bias.detach().numpy()
    first = sums(spikes[:1])  # one sample tells the size of the others; its sums are computed again
    channels, (height, width) = len(layer.weight), first.shape[2:]
    found = storage((len(spikes), height, width, channels), torch.float32)
    moments = np.zeros((2, channels))
    size = max(elements // first.numel(), 1)
    for start in range(0, len(spikes), size):
        raw = sums(spikes[start : start + size]).movedim(1, -1)
        rows = found[start : start + size].view(-1, channels).numpy()
        moments += _added(raw.reshape(len(rows), BYTES, channels).numpy(), bias, rows)
    mean, squares = moments / (found.numel() // channels)
    statistics = (torch.from_numpy(values).float() for values in (mean, np.maximum(squares - mean**2, 0)))
    return Currents(found.movedim(-1, 1), *statistics)


class _Sums:
    """The convolutions of a layer, byte by byte of its weights: spikes (n, C, H, W) to (n, 3 C', H', W'), channels last."""

    def __init__(self, layer: nn.Conv2d) -> None:
        self.digits, self.units = split(layer.weight.detach())
        self.geometry = [[*map(int, of)] for of in (layer.stride, layer.padding, layer.dilation)]
        self.zero = torch.zeros(len(self.units), dtype=torch.int64, device=self.units.device)
        self.packed: Tensor | None = None

    def __call__(self, spikes: Tensor) -> Tensor:
        operators: Any = torch.ops.onednn
        if self.packed is None:
            self.packed = operators.qconv_prepack(self.digits, self.units, 1.0, 0, *self.geometry, 1, list(spikes.shape))
        weights = (self.packed, self.units, self.zero, None)
        found: Tensor = operators.qconv2d_pointwise(
            spikes, 1.0, 0, *weights, *self.geometry, 1, 1.0, 0, torch.float32, "none", [], ""
        )
        return found.contiguous(memory_format=torch.channels_last)


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Bytes (3 C', C, K, K) of weights (C', C, K, K), the least significant first, and what one is worth, (3 C',) float32."""
    largest = weight.abs().amax(dim=(1, 2, 3)).double().clamp_min(SMALLEST)
    unit = torch.exp2(torch.ceil(torch.log2(largest / LARGEST)))
    count = torch.round(weight.double() / unit[:, None, None, None]).to(torch.int64)
    digits, units = [], []
    for place in range(BYTES):
        digit = ((count + 128) & 255) - 128
        digits.append(digit.to(torch.int8))
        units.append((unit * 256**place).float())
        count = (count - digit) >> 8
    return torch.cat(digits), torch.cat(units)


def _added(raw: NDArray[np.float32], bias: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float64]:
    """Fill ``found`` (P, C) with the sums of ``raw`` (P, 3, C); sums and sums of squares of the result, (2, C)."""
    kernel = _compiled()
    threads = min(torch.get_num_threads(), len(found))
    if threads == 1:
        return np.asarray(kernel(raw, bias, found))
    edges = [len(found) * part // threads for part in range(threads + 1)]
    kernel(raw[:1], bias, found[:1])  # compiled here at the first call, not in several threads
    with ThreadPoolExecutor(threads) as pool:
        parts = [pool.submit(kernel, raw[start:stop], bias, found[start:stop]) for start, stop in pairwise(edges)]
        return np.asarray(sum(part.result() for part in parts))


@cache
def _compiled() -> Any:
    import numba  # half a second and some 130 MB that only rate-based training needs

    @numba.njit(nogil=True, error_model="numpy")
    def kernel(raw, bias, found):  # type: ignore[no-untyped-def]
        pixels, _, channels = raw.shape
        moments = np.zeros((2, channels))
        for pixel in range(pixels):
            for channel in range(channels):
                value = (raw[pixel, 0, channel] + raw[pixel, 1, channel]) + raw[pixel, 2, channel] + bias[channel]
                found[pixel, channel] = value
                moments[0, channel] += value
                moments[1, channel] += np.float64(value) * np.float64(value)
        return moments

    return kernel


def _sums_are_right() -> bool:
    """A convolution whose sums are known: all bytes a weight can have, under all spikes, many, few and none.

    Draws nothing from torch's own generator: training must not depend on who asked first.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    layer = nn.Conv2d(32, 48, 3, stride=2, padding=1, bias=False, device="meta")  # where weights are not initialised
    counts = torch.randint(-LARGEST, LARGEST + 1, layer.weight.shape, generator=generator, device="cpu")
    layer.weight = nn.Parameter(counts.float() * 2.0**-20, requires_grad=False)
    often = torch.tensor([1.0, 0.5, 0.1, 0.0], device="cpu")[:, None, None, None]
    spikes = (torch.rand(4, 32, 9, 9, generator=generator, device="cpu") < often).byte()
    raw = _Sums(layer)(spikes.contiguous(memory_format=torch.channels_last))
    digits = raw.reshape(len(raw), BYTES, 48, *raw.shape[2:])
    wanted = functional.conv2d(spikes.double(), layer.weight.double(), stride=2, padding=1)
    return torch.equal(digits[:, 0] + digits[:, 1] + digits[:, 2], wanted.float())
