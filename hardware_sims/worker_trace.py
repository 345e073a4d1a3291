"""What an isolated worker records, and how its trace folder becomes a Trace: shared by the backends that run real Lava.

A trace folder holds ``trace.json`` and ``<p>.<what>.npy`` of shape (B, T, *shape) for population p of a list both sides know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.simulator import BackendError
from snn_export.hardware_sims.trace import LayerTrace, Record, Trace, layer_trace, read_out
from snn_export.models.diagnostics import Diagnostic

Array = NDArray[Any]
Arrays = Mapping[tuple[int, str], Array]
"""Recorded arrays (T, B, *shape) by population and what they hold."""

BYTES_PER_RUN = 512 << 20
"""Recorded and streamed bytes of one run; more samples are split over several runs."""
DTYPES: Mapping[str, np.dtype[Any]] = {
    "spikes": np.dtype(np.uint8),
    "current": np.dtype(np.int32),
    "membrane": np.dtype(np.int32),
}


def kept(deployment: Deployment, wanted: frozenset[Record]) -> list[list[str]]:
    """What to record per population: what was asked for, spikes for the counts, and what the readout rule ranks."""
    readout = deployment.contract.readout.node
    return [sorted({*wanted, "spikes"} | ({"membrane"} if name == readout else set())) for name in deployment.layers]


def empty(deployment: Deployment, names: Sequence[Sequence[str]], samples: int) -> dict[tuple[int, str], Array]:
    """Arrays to record into."""
    steps = deployment.contract.steps
    return {
        (index, what): np.empty((steps, samples, *deployment.shapes[layer]), DTYPES[what])
        for index, layer in enumerate(deployment.layers)
        for what in names[index]
    }


def samples_at_once(deployment: Deployment, names: Sequence[Sequence[str]]) -> int:
    """Samples of one run that keep it within :data:`BYTES_PER_RUN`."""
    per_step = 4 * int(np.prod(deployment.input_shape))
    for layer, what in zip(deployment.layers, names, strict=True):
        per_step += int(np.prod(deployment.shapes[layer])) * sum(DTYPES[name].itemsize for name in what)
    return max(1, BYTES_PER_RUN // (per_step * deployment.contract.steps))


def read_folder(backend: str, trace: Path, into: Arrays, log: Path, model: str = "fixed_pt") -> dict[str, Any]:
    """Read a finished trace folder into (T, B, *shape) arrays; returns what the worker says about itself.

    model: what the name of every model that ran must hold, so that none of floats can have stood in for one of integers.

    Raises:
        BackendError: SNX425 where it is not what was asked for, or another model than a fixed-point one ran.
    """
    try:
        facts: dict[str, Any] = json.loads((trace / "trace.json").read_text(encoding="utf-8"))
        for (index, what), array in into.items():
            found = np.load(trace / f"{index}.{what}.npy", mmap_mode="r", allow_pickle=False)
            if found.dtype != array.dtype or found.shape != (array.shape[1], array.shape[0], *array.shape[2:]):
                raise ValueError(f"{index}.{what}.npy holds {found.dtype} {found.shape}")
            array[...] = np.moveaxis(found, 0, 1)
        if not facts["models"] or not all(model in found for found in facts["models"].values()):
            raise ValueError(f"a model that is not {model} ran")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(
            Diagnostic(
                "SNX425",
                f"the trace of the {backend} worker cannot be read: {error}",
                backend,
                "the worker wrote something else than promised",
                f"read {log}; `snn-export backends install {backend} --force` makes the environment anew",
            ),
            str(log),
        ) from error
    return facts


def trace_of(
    backend: str, deployment: Deployment, recorded: Arrays, wanted: frozenset[Record], provenance: Mapping[str, str]
) -> Trace:
    """The trace of recorded arrays. Lava does not tell when it wraps or saturates, so ``overflows`` is None."""
    contract, layers, last = deployment.contract, dict[str, LayerTrace](), 0
    for index, name in enumerate(deployment.layers):
        last = index if name == contract.readout.node else last
        layers[name] = layer_trace(
            recorded[index, "spikes"].view(bool),
            recorded.get((index, "membrane")),
            recorded.get((index, "current")),
            wanted,
            unit=deployment.populations[name].unit,
            overflows=None,
            latency=contract.latency[name],
        )
    readout, predictions, ties = read_out(contract.readout, recorded[last, "spikes"].view(bool), recorded[last, "membrane"])
    return Trace(backend, layers, readout, predictions, ties, provenance)
