"""The input of a run, chunk by chunk: spikes as bytes where the encoder sends spikes, integer levels elsewhere."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.loihi import kernels


class InputStream:
    """What the input node sends; :meth:`part` gives one for a chunk of samples, to be read in order of time.

    Equal to :func:`snn_export.export.encoding.levels`, without ever holding more than a chunk of it.

    Attributes:
        samples: B.
        spikes: True where chunks are bytes of 0 and 1; False where they are levels.
        constant: True where all steps are the same (levels only).
    """

    def __init__(self, deployment: Deployment, inputs: NDArray[Any]) -> None:
        self._deployment, self._encoder, self._given = deployment, deployment.contract.encoder, inputs
        self._array = encoding.shaped(deployment, inputs)
        self._size = prod(deployment.input_shape)
        self.samples = self._array.shape[1]
        rate = self._encoder.kind == "rate"
        self.constant = self._encoder.kind == "bias" or (len(self._array) == 1 and not rate)
        if self._encoder.kind == "direct" and deployment.contract.steps == 1:
            self.constant = True
        self.spikes = self._encoder.binary and not self.constant

    def part(self, low: int, high: int) -> InputPart:
        """The stream of samples low..high."""
        return InputPart(self, low, high)

    def bytes_of(self, low: int, high: int, start: int, stop: int) -> NDArray[np.uint8]:
        """Spikes of samples low..high in steps start..stop, flat (T, B, size); not for rate coding."""
        chunk = np.ascontiguousarray(self._array[start:stop, low:high]).reshape(-1)
        if chunk.dtype == bool and self._encoder.gain == 1.0 and (self._encoder.low, self._encoder.high) == (0, 1):
            return chunk.view(np.uint8)
        out = np.empty(chunk.size, np.uint8)
        number = chunk if chunk.dtype in (np.uint8, np.float32, np.float64) else chunk.astype(np.float64)
        if kernels.levels_as_bytes(number, float(self._encoder.gain or 1.0), self._encoder.low, self._encoder.high, out):
            encoding.signal(self._deployment, self._given)  # raises: there is a value that is not finite
        return out

    def levels(self, low: int, high: int, start: int, stop: int) -> NDArray[np.int64]:
        """Levels of samples low..high, (S, B, size), S = 1 where constant."""
        steps = slice(0, 1) if self.constant else slice(start, stop)
        chunk = np.asarray(self._array[steps, low:high], np.float64)
        if not np.isfinite(chunk).all():
            encoding.signal(self._deployment, self._given)
        if self._encoder.kind == "bias":
            return np.zeros((1, high - low, self._size), np.int64)
        return self._encoder.levels(chunk).reshape(len(chunk), high - low, self._size)

    def chances(self, low: int, high: int) -> NDArray[np.float64]:
        """Probability of a spike, (B, *shape), where spikes are drawn."""
        values = np.asarray(self._array[0, low:high], np.float64)
        if not np.isfinite(values).all():
            encoding.signal(self._deployment, self._given)
        return np.clip(values / self._encoder.full_scale, 0.0, 1.0)

    def generator(self, chance: NDArray[np.float64]) -> np.random.Generator:
        """Random numbers of a sample with these probabilities, from the first step on."""
        return encoding.rate_generator(self._encoder, chance)

    @property
    def drawn(self) -> bool:
        """True where spikes are drawn at random."""
        return self._encoder.kind == "rate"


class InputPart:
    """The stream of a chunk of samples; ``chunk`` is called with one stretch of steps after the other."""

    def __init__(self, stream: InputStream, low: int, high: int) -> None:
        self._stream, self._ends = stream, (low, high)
        self.spikes, self.constant = stream.spikes, stream.constant
        if stream.drawn:
            self._chances = stream.chances(low, high)
            self._generators = [stream.generator(chance) for chance in self._chances]

    def chunk(self, start: int, stop: int) -> NDArray[Any]:
        """Spikes as flat (T, B, size) bytes, or levels (S, B, size)."""
        if not self.spikes:
            return self._stream.levels(*self._ends, start, stop)
        if not self._stream.drawn:
            return self._stream.bytes_of(*self._ends, start, stop)
        out = np.empty((stop - start, *self._chances.shape), np.uint8)
        for index, (chance, generator) in enumerate(zip(self._chances, self._generators, strict=True)):
            out[:, index] = generator.random((stop - start, *chance.shape)) < chance
        return out.reshape(-1)
