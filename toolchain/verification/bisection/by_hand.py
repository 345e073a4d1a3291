"""A small integer network as plain numbers, for a script that steps it with nothing but NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export import grid
from snn_export.export.deployment import Deployment, integer_parameters
from snn_export.export.linear_maps import matrix
from snn_export.export.wiring import Delays, Wire
from snn_export.models.diagnostics import UserError

ENTRIES_LIMIT = 1024
"""Entries of all matrices together that a person would still look through."""


def numbers(deployment: Deployment) -> list[dict[str, Any]] | None:
    """Populations, sources first, each with its constants and the matrices that lead to it; plain lists and numbers.

    None where that would be too long to read, or is no integer network: floats, inputs that a host turns into biases.
    """
    if not deployment.quantised or deployment.host_synapses:
        return None
    try:
        wires = {name: deployment.wires[name] for name in deployment.layers}
    except UserError:
        return None
    shapes = deployment.shapes
    entries = sum(int(np.prod(shapes[wire.source]) * np.prod(shapes[wire.target])) for some in wires.values() for wire in some)
    if entries > ENTRIES_LIMIT:
        return None
    return [_population(deployment, name, wires[name]) for name in deployment.layers]


def _population(deployment: Deployment, name: str, wires: tuple[Wire, ...]) -> dict[str, Any]:
    held, spec = deployment.populations[name], deployment.contract.neurons[name]
    return {
        "name": name,
        "threshold": held.threshold,
        "du": held.du,
        "dv": held.dv,
        "bias": deployment.bias(name).ravel().tolist(),
        "current_bias": deployment.current_bias(name).ravel().tolist(),
        "reset": "subtract" if spec.microcode else "zero",
        "cleared_every": spec.reset_interval,
        "cleared_at": spec.reset_offset,
        "wires": [_wire(deployment, wire) for wire in wires],
    }


def _wire(deployment: Deployment, wire: Wire) -> dict[str, Any]:
    sources = (wire.source, *wire.connection.path)
    given = deployment.shapes[sources[sources.index(wire.weight) - 1]]
    made = deployment.shapes[wire.weight]
    weight, _ = integer_parameters(deployment.synapses[wire.weight])
    node = grid.with_parameters(deployment.graph.nodes[wire.weight], np.asarray(weight, np.float64), np.zeros(made[0]))
    dense = matrix(wire.weight, node, given, made).toarray()
    return {
        "source": wire.source,
        "weight": np.rint(dense).astype(np.int64).tolist(),
        "before": _per_feature(wire.before, dense.shape[1]),
        "after": _per_feature(wire.after, dense.shape[0]),
    }


def _per_feature(delays: Delays, size: int) -> list[int]:
    spread: NDArray[np.int64] = np.broadcast_to(np.asarray(delays).ravel(), (size,))
    return [int(delay) for delay in spread]
