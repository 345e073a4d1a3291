"""The messages between us and a worker, and the worker's side: one cell per population of a package, stepped when it is asked.

Runs inside the package's own environment, so it imports the standard library and NumPy only, and nothing of this project. A
worker script brings three functions and calls :func:`serve`::

    python -I worker.py --self-test           what the package's neurons are seen to do, then versions, as JSON lines
    python -I worker.py READ_FD WRITE_FD      answer until the pipe is closed

Messages, both ways: a little-endian uint64 with the length of a JSON object, the object, then the bytes of the arrays it
announces under ``arrays``, each ``[dtype, shape]``, C order. Requests (``do``) and what answers them::

    make    neurons, arrays of their constants    {versions}
    begin   population, batch                     {}        zero state, nothing in flight
    clear   population                            {}        zero u and v
    step    population, x float32 (B, *shape)     spikes, u, v, each float32 (B, *shape)

A request that fails is answered with ``{"error": ...}``; the caller ends the worker then.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

HEADER_LIMIT = 16 << 20
"""Bytes of one JSON object; a header beyond it is no message of ours."""

CONSTANTS = ("current_gain", "membrane_gain", "bias", "threshold")
"""Constants of a neuron that are sent as arrays, in this order."""

Array = Any


@dataclass(frozen=True)
class Neuron:
    """One population; see ``NeuronSpec`` in ``models/spec.py`` for the semantics.

    u = alpha u + current_gain x ;  v = beta v + membrane_gain u + bias ;  s = v > threshold ;  reset

    Attributes:
        name: of the population.
        shape: of its features.
        filtered: it has a synaptic filter.
        alpha, beta: kept of current and membrane per step; exact in float32. alpha is 0 without a filter.
        current_gain, membrane_gain, bias, threshold: float64 (*shape); threshold is infinite where it does not spike.
        spiking, reset, reset_delay, clears_input, memoryless: as in the contract.
        options: of the backend, plain data.
    """

    name: str
    shape: tuple[int, ...]
    filtered: bool
    alpha: float
    beta: float
    current_gain: Array
    membrane_gain: Array
    bias: Array
    threshold: Array
    spiking: bool
    reset: str
    reset_delay: int = 0
    clears_input: bool = False
    memoryless: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


class Cell(Protocol):
    """One population in the package."""

    def begin(self, batch: int) -> None:
        """Zero state, nothing in flight, for (B, *shape)."""
        ...

    def clear(self) -> None:
        """Zero u and v; spikes that are in flight stay."""
        ...

    def step(self, x: Array) -> tuple[Array, Array, Array]:
        """One step on float32 (B, *shape); spikes (0, 1, or more), u and v after the reset, each float32 (B, *shape)."""
        ...


class Readable(Protocol):
    """What :func:`read_message` asks of a pipe."""

    def read(self, size: int, /) -> bytes:
        """``size`` bytes, fewer at the end."""
        ...

    def readinto(self, view: memoryview, /) -> int | None:
        """What is there; 0 at the end."""
        ...


class Writable(Protocol):
    """What :func:`write_message` asks of a pipe."""

    def write(self, content: bytes | memoryview, /) -> Any:
        """All of it."""
        ...

    def flush(self) -> None:
        """Nothing is held back."""
        ...


def write_message(pipe: Writable, message: Mapping[str, Any], arrays: Sequence[Array] = ()) -> None:
    """Send one message."""
    plain = [np.ascontiguousarray(array) for array in arrays]
    header = json.dumps({**message, "arrays": [[array.dtype.str, list(array.shape)] for array in plain]}).encode()
    pipe.write(struct.pack("<Q", len(header)) + header)
    for array in plain:
        pipe.write(array.data.cast("B") if array.size else b"")
    pipe.flush()


def read_message(pipe: Readable, limit: int | None = None) -> tuple[dict[str, Any], list[Array]] | None:
    """One message, None where the pipe was closed between two. Raises ValueError for anything else than a message.

    limit: bytes that its arrays may take in all; None trusts the other side.
    """
    start = pipe.read(8)
    if not start:
        return None
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else HEADER_LIMIT + 1
    if length > HEADER_LIMIT:
        raise ValueError("what came is no message")
    message = json.loads(_exactly(pipe, length))
    announced = [(np.dtype(dtype), tuple(shape)) for dtype, shape in message.pop("arrays")]
    sizes = [kind.itemsize * math.prod(shape) for kind, shape in announced]
    if min(sizes, default=0) < 0 or (limit is not None and sum(sizes) > limit):
        raise ValueError(f"arrays of {sum(sizes)} bytes are announced")
    arrays = [
        np.frombuffer(_exactly(pipe, size), kind).reshape(shape) for size, (kind, shape) in zip(sizes, announced, strict=True)
    ]
    return message, arrays


def _exactly(pipe: Readable, size: int) -> bytearray:
    """``size`` bytes, writable; fewer mean that the other side is gone."""
    content = bytearray(size)
    view, done = memoryview(content), 0
    while done < size:
        count = pipe.readinto(view[done:])
        if not count:
            raise ValueError(f"the pipe was closed after {done} of {size} bytes")
        done += count
    return content


def serve(
    make: Callable[[Neuron], Cell], versions: Callable[[], dict[str, str]], self_test: Callable[[], dict[str, Any]]
) -> None:
    """Answer as the command line asks.

    Args:
        make: a neuron's cell.
        versions: of what it runs on.
        self_test: steps the package's neurons, returns what it saw (plain data), raises where they are not what ``make`` needs.
    """
    if sys.argv[1:] == ["--self-test"]:
        sys.stdout.write(json.dumps(self_test()) + "\n" + json.dumps(versions()) + "\n")
        return
    with os.fdopen(int(sys.argv[1]), "rb") as asked, os.fdopen(int(sys.argv[2]), "wb") as answers:
        _answer(make, versions, asked, answers)


def _answer(make: Callable[[Neuron], Cell], versions: Callable[[], dict[str, str]], asked: Readable, answers: Writable) -> None:
    cells: dict[str, Cell] = {}
    while (found := read_message(asked)) is not None:
        message, arrays = found
        try:
            reply, results = _perform(make, versions, cells, message, arrays)
        except Exception as error:  # whatever the package raises is the caller's to report
            traceback.print_exc()
            write_message(answers, {"error": f"{type(error).__name__}: {error}"})
            return
        write_message(answers, reply, results)


def _perform(
    make: Callable[[Neuron], Cell],
    versions: Callable[[], dict[str, str]],
    cells: dict[str, Cell],
    message: Mapping[str, Any],
    arrays: Sequence[Array],
) -> tuple[dict[str, Any], Sequence[Array]]:
    if message["do"] == "make":
        cells.clear()
        for index, described in enumerate(message["neurons"]):
            constants = dict(zip(CONSTANTS, arrays[len(CONSTANTS) * index :], strict=False))
            neuron = Neuron(**{**described, "shape": tuple(described["shape"])}, **constants)
            cells[neuron.name] = make(neuron)
        return {"versions": versions()}, ()
    cell = cells[message["population"]]
    if message["do"] == "step":
        return {}, [np.asarray(part, np.float32) for part in cell.step(arrays[0])]
    if message["do"] == "begin":
        cell.begin(message["batch"])
    elif message["do"] == "clear":
        cell.clear()
    else:
        raise ValueError(f"nothing is known of {message['do']!r}")
    return {}, ()
