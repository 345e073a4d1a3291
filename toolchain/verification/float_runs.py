"""A run in floats, ready to be held to the rounding of its sums (:mod:`snn_export.export.ties`).

A quantised network that a backend runs in floats is judged in the units of its grid: only there are its thresholds whole numbers,
and a bound on rounding can be stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.export.grid_units import in_grid_units
from snn_export.hardware_sims.trace import Trace


@dataclass(frozen=True, eq=False)
class FloatLayer:
    """One layer of a run, (T, B, *features) all; membranes in real units, or in those of the grid."""

    spikes: NDArray[np.bool_]
    sent: NDArray[Any]
    membrane: NDArray[Any]


@dataclass(frozen=True, eq=False)
class FloatRun:
    """Network, inputs and layers in the same units. scales: by layer, units of its membranes in one real unit."""

    deployment: Deployment
    inputs: NDArray[Any]
    layers: Mapping[str, FloatLayer]
    scales: Mapping[str, float]


def in_floats(deployment: Deployment, inputs: NDArray[Any], trace: Trace) -> FloatRun:
    """A run that recorded spikes and membranes of every layer, as floats.

    Args:
        deployment: what was run, float or quantised.
        inputs: on what, as :func:`snn_export.export.encoding.signal` takes them.
        trace: the run.

    Raises:
        UserError: as :func:`snn_export.export.grid_units.in_grid_units`.
    """
    if not deployment.quantised:
        return FloatRun(deployment, inputs, _layers(trace, {}), dict.fromkeys(trace.layers, 1.0))
    levels = encoding.levels(deployment, inputs).astype(np.float64)
    scales = {name: deployment.populations[name].scale for name in trace.layers}
    return FloatRun(in_grid_units(deployment), levels[0] if len(levels) == 1 else levels, _layers(trace, scales), scales)


def _layers(trace: Trace, scales: Mapping[str, float]) -> dict[str, FloatLayer]:
    found = {}
    for name, layer in trace.layers.items():
        membrane, factor = np.asarray(layer.membrane), layer.unit * scales.get(name, 1.0)
        in_units = membrane if factor == 1.0 else membrane * factor  # traces are large: none is copied without need
        found[name] = FloatLayer(np.asarray(layer.spikes), np.asarray(layer.sent), in_units)
    return found
