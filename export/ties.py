"""Where floating point flips a spike: which differences between two float runs are explained by the rounding of a sum.

Two programs that add the same products in another order get membranes that differ in the last bits. Where one of them lies
above its threshold and the other below, a spike flips, and everything after it differs. That is a TIE if, at the sample's
first divergence, every neuron that flipped was closer to its threshold than the forward error bound of its sum; otherwise the
programs compute something different.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding, interpreter
from snn_export.export.deployment import Deployment

FLOAT32_ROUNDOFF = 2.0**-24
FLOAT64_ROUNDOFF = 2.0**-53


class Recorded(Protocol):
    """Spikes and membranes of one population, both (T, B, *features), real units."""

    @property
    def spikes(self) -> Any:
        """Boolean."""
        ...

    @property
    def membrane(self) -> Any:
        """After the step's reset."""
        ...


def tied_samples(
    deployment: Deployment,
    inputs: NDArray[Any],
    first: Mapping[str, Recorded],
    second: Mapping[str, Recorded],
    unit_roundoff: float,
) -> NDArray[np.bool_]:
    """Which samples differ only because membranes lay within rounding of their threshold, (B,) bool.

    Looks at each sample's earliest diverging step, there at its shallowest diverging layer: everything later is a
    consequence. The distance from the threshold is read on the side that stayed silent, whose membrane was not reset.

    Args:
        deployment: the float deployment whose sums give the bound.
        inputs: as :func:`snn_export.export.encoding.signal` takes them.
        first: one run, by population, sources first.
        second: the other run.
        unit_roundoff: of the coarser of the two number formats.
    """
    steps, batch = next(iter(first.values())).spikes.shape[:2]
    tied = np.zeros(batch, bool)
    flips = {name: (run.spikes != second[name].spikes).reshape(steps, batch, -1) for name, run in first.items()}
    starts = {name: np.where(flip.any(axis=(0, 2)), flip.any(axis=2).argmax(axis=0), steps) for name, flip in flips.items()}
    start = np.min(np.stack(list(starts.values())), axis=0)
    affected = np.flatnonzero(start < steps)
    if not affected.size:
        return tied
    bounds = _bounds(deployment, encoding.signal(deployment, inputs)[:, affected], first, affected, unit_roundoff)
    for column, sample in enumerate(affected):
        t = start[sample]
        name = next(layer for layer in flips if starts[layer][sample] == t)
        mask = flips[name][t, sample]
        theta = np.broadcast_to(deployment.graph.nodes[name].v_threshold, first[name].spikes.shape[2:]).reshape(-1)
        silent = np.where(first[name].spikes[t, sample], second[name].membrane[t, sample], first[name].membrane[t, sample])
        distance = np.abs(silent.reshape(-1)[mask] - theta[mask])
        tied[sample] = bool((distance <= bounds[name][t, column].reshape(-1)[mask]).all())
    return tied


def membranes_out_of_bound(
    deployment: Deployment,
    inputs: NDArray[Any],
    first: Mapping[str, Recorded],
    second: Mapping[str, Recorded],
    unit_roundoff: float,
) -> dict[str, NDArray[np.int64]]:
    """Membranes that differ by more than the forward error bound allows, counted per population and sample, (B,).

    Meaningful for samples whose spikes agree; after a flip membranes differ by consequence.
    """
    batch = next(iter(first.values())).spikes.shape[1]
    bounds = _bounds(deployment, encoding.signal(deployment, inputs), first, np.arange(batch), unit_roundoff)
    counts = {}
    for name, run in first.items():
        excess = np.abs(run.membrane.astype(np.float64) - second[name].membrane) > bounds[name]
        counts[name] = np.count_nonzero(np.moveaxis(excess, 1, 0).reshape(batch, -1), axis=1).astype(np.int64)
    return counts


def _bounds(
    deployment: Deployment,
    encoded: NDArray[np.float64],
    run: Mapping[str, Recorded],
    samples: NDArray[np.int64],
    unit_roundoff: float,
) -> dict[str, NDArray[np.float64]]:
    """Error bound of every membrane of the chosen samples, given the spikes of one run."""
    signals = {name: encoded for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Input)}
    found = {}
    for name, activity in run.items():
        found[name] = interpreter.error_bound(deployment, name, signals, unit_roundoff)
        signals[name] = activity.spikes[:, samples].astype(np.float64)
    return found
