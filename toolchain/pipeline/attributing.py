"""The report's attribution: how many samples it may take, and what is said where it cannot be made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from snn_export import library
from snn_export.energy.counts import LayerStructure
from snn_export.export.deployment import Deployment
from snn_export.models.diagnostics import UserError
from snn_export.reporting.report import Attribution, CoverageItem
from snn_export.verification.attribution import attribute
from snn_export.verification.ladder import Progress

WORK: Final = 10**11
"""Synaptic operations that an attribution may take in all: about a minute. A larger network is attributed on fewer samples."""
RUNS: Final = 30
"""Runs of the interpreter that an attribution takes, about: three per effect, one per layer."""
FEWEST: Final = 2


@dataclass(frozen=True, eq=False)
class Attributed:
    """The attribution, or why there is none."""

    found: Attribution | None = None
    coverage: tuple[CoverageItem, ...] = ()


def attributed(
    floats: Deployment | None,
    integers: Deployment,
    inputs: NDArray[Any],
    labels: NDArray[np.int64] | None,
    *,
    samples: int,
    structure: Mapping[str, LayerStructure],
    progress: Progress,
) -> Attributed:
    """Attribute what quantisation changed, on the first samples.

    Args:
        floats: the form before quantisation; None: there is nothing to attribute.
        integers: the form after it.
        inputs: (B, *shape) or (T, B, *shape), real units.
        labels: (B,) or None.
        samples: at most so many; 0: none.
        structure: synapses of every layer, from the operations that were counted.
        progress: told what runs.
    """
    if floats is None or not samples:
        return Attributed()
    synapses = sum(layer.synapses + layer.input_synapses for layer in structure.values())
    per_sample = max(1, synapses * integers.contract.steps * RUNS)
    axis = np.ndim(inputs) - len(integers.input_shape) - 1
    count = min(samples, max(FEWEST, WORK // per_sample), int(np.shape(inputs)[axis]))
    chosen = np.take(inputs, range(count), axis=axis)
    progress(f"attribution: {count} samples, one numeric effect at a time")
    try:
        ready = library.prepared(floats, chosen)
        truth = None if labels is None else labels[:count]
        return Attributed(attribute(ready, integers, chosen, truth, samples=count, progress=progress))
    except UserError as error:
        why = "; ".join(f"{item.code} {item.what}: {item.why}" for item in error.diagnostics)
        return Attributed(coverage=(CoverageItem(
            what="which numeric effect changed the spikes", status="NOT_COMPARED", why=why, fix=error.diagnostics[0].fix,
        ),))  # fmt: skip
