"""Arrays that begin at a cache line, and arrays that are used again.

A vector that straddles two cache lines costs twice; NumPy aligns to 16 bytes only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CACHE_LINE = 64

Array = NDArray[Any]


def aligned(size: int, dtype: np.dtype[Any]) -> Array:
    """An uninitialised flat array that begins at a cache line."""
    raw = np.empty(size * dtype.itemsize + CACHE_LINE, np.uint8)
    begin = -raw.__array_interface__["data"][0] % CACHE_LINE
    return raw[begin : begin + size * dtype.itemsize].view(dtype)


def at_cache_line(array: Array) -> Array:
    """A copy that begins at a cache line."""
    result = aligned(array.size, array.dtype)
    result[...] = array.reshape(-1)
    return result


class Buffers:
    """Arrays of one thread that are used again for every chunk.

    Fresh memory costs a page fault per 4 KiB, as much as the work itself.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Array] = {}

    def take(self, name: tuple[str, str], size: int, dtype: np.dtype[Any]) -> Array:
        """An uninitialised flat array; what it held the last time is gone."""
        held = self._held.get(name)
        if held is None or len(held) < size or held.dtype != dtype:
            held = self._held[name] = aligned(size, dtype)
        return held[:size]

    def zeros(self, name: tuple[str, str], size: int, dtype: np.dtype[Any]) -> Array:
        """As :meth:`take`, filled with 0."""
        array = self.take(name, size, dtype)
        array[...] = 0
        return array
