"""Comparing two traces layer by layer, chunk by chunk of samples.

Spikes are compared position by position in local time, so a network whose totals agree while its neurons do not cannot pass.
Tallies add up over chunks; memory is bounded by the chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.export.grid_units import in_grid_units
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.reporting.report import Divergence, LayerComparison, Verdict

Kind = Literal["exact", "float", "approximate"]
"""exact: two integer backends, bit for bit. float: the same real arithmetic in other roundings, flips must be ties.
approximate: one side changed the network's numbers, differences are measured and gated."""


INTERPRETER = "reference"
"""Backend whose runs are what the others are judged by."""


@dataclass(frozen=True)
class Tolerance:
    """How far an approximate comparison may go, percent.

    spikes: spikes of a layer without a counterpart in the same neuron and step. decisions: samples that are classified
    differently.
    """

    spikes: float = 20.0
    decisions: float = 5.0


@dataclass
class LayerTally:
    """What was found so far about one layer."""

    neurons: int = 0
    positions: int = 0
    reference_spikes: int = 0
    got_spikes: int = 0
    mismatched: int = 0
    count_error_sum: int = 0
    count_error_max: int = 0
    neuron_difference: NDArray[np.int64] | None = None
    first_spike: Divergence | None = None
    first_membrane: Divergence | None = None
    membranes: int = 0
    integer_membranes: int = 0
    mismatched_membranes: int = 0
    membrane_difference: float | None = None
    currents: int = 0
    mismatched_currents: int = 0
    overflows: int | None = 0
    latency: int = 0
    ties: int = 0
    unexplained: int = 0
    """Samples whose spikes differ and are not ties (float comparisons only)."""


@dataclass
class ComparisonTally:
    """Running comparison of a target with a reference.

    Attributes:
        kind: what counts as equal.
        deployment: whose sums bound rounding; used for kind "float".
    """

    kind: Kind
    deployment: Deployment
    layers: dict[str, LayerTally] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    samples: int = 0
    decisions_equal: int = 0

    def add(self, inputs: NDArray[Any], reference: Trace, got: Trace) -> None:
        """Add one chunk: the same samples in both traces. Layers without spikes on both sides are kept as missing."""
        for name in got.layers.keys() - reference.layers.keys():
            self.missing[name] = "the reference's trace has no such layer"
        for name, expected in reference.layers.items():
            found = got.layers.get(name)
            if found is None or expected.spikes is None or found.spikes is None or found.spikes.shape != expected.spikes.shape:
                self.missing[name] = _why_missing(expected, found)
                continue
            tally = self.layers.setdefault(name, LayerTally())
            _add_spikes(tally, expected, found, self.samples)
            _add_membranes(tally, expected, found, self.samples)
        seen = all(layer.membrane is not None for trace in (reference, got) for layer in trace.layers.values())
        if self.kind == "float" and not self.missing and seen:
            self._explain(inputs, reference, got)
        self.samples += len(reference.predictions)
        self.decisions_equal += int(np.count_nonzero(reference.predictions == got.predictions))

    def _explain(self, inputs: NDArray[Any], *traces: Trace) -> None:
        """Judge each layer of both runs on its own: flips within rounding, flips beyond it, membranes beyond it."""
        for trace in traces:
            if trace.backend == INTERPRETER:
                continue  # what it would be judged by
            for name, found in explain(*_in_floats(self.deployment, inputs, trace), FLOAT32_ROUNDOFF).items():
                tally = self.layers[name]
                tally.ties += int(np.count_nonzero(found.tied))
                tally.unexplained += int(np.count_nonzero(found.faulty))
                tally.mismatched_membranes += int(found.beyond.sum())

    def _tolerated(self, name: str, tally: LayerTally, tolerance: Tolerance) -> bool:
        """Approximate comparisons: spikes without a counterpart; where nothing can spike, decisions."""
        if self.deployment.contract.neurons[name].spiking:
            return 100.0 * unmatched(tally) <= tolerance.spikes
        return 100.0 * (self.samples - self.decisions_equal) <= tolerance.decisions * self.samples

    def finish(self, tolerance: Tolerance) -> tuple[LayerComparison, ...]:
        """The layers' results; ``tolerance`` says up to where "approximate" counts as WITHIN."""
        done = [self._layer(name, tally, tolerance) for name, tally in self.layers.items() if name not in self.missing]
        absent = [_not_compared(name) for name in self.missing]
        return (*done, *absent)

    def _layer(self, name: str, tally: LayerTally, tolerance: Tolerance) -> LayerComparison:
        difference = tally.neuron_difference
        compared_exactly = self.kind in ("exact", "float")
        return LayerComparison(
            layer=name,
            verdict=self._verdict(name, tally, tolerance),
            neurons=tally.neurons,
            positions=tally.positions,
            reference_spikes=tally.reference_spikes,
            got_spikes=tally.got_spikes,
            mismatched_spikes=tally.mismatched,
            count_error_sum=tally.count_error_sum,
            count_error_max=tally.count_error_max,
            neurons_with_count_error=0 if difference is None else int(np.count_nonzero(difference)),
            first_divergence=tally.first_spike or (tally.first_membrane if self.kind == "exact" else None),
            membranes_compared=tally.membranes,
            mismatched_membranes=tally.mismatched_membranes if compared_exactly and tally.membranes else None,
            membrane_difference_max=tally.membrane_difference,
            currents_compared=tally.currents,
            mismatched_currents=tally.mismatched_currents if self.kind == "exact" and tally.currents else None,
            overflows=tally.overflows,
            latency=tally.latency,
            ties=tally.ties,
            tolerance_that_would_pass=unmatched(tally),
        )

    def _verdict(self, name: str, tally: LayerTally, tolerance: Tolerance) -> Verdict:
        if not tally.positions:
            return "NOT_COMPARED"
        if self.kind == "approximate":
            return "WITHIN" if self._tolerated(name, tally, tolerance) else "DRIFT"
        if not (tally.integer_membranes if self.kind == "exact" else tally.membranes):
            # Spikes alone prove less than the claim: membranes that can be compared this way were not seen.
            return "NOT_COMPARED" if tally.mismatched == 0 else "DRIFT"
        if self.kind == "exact":
            return "DRIFT" if tally.mismatched or tally.mismatched_membranes or tally.mismatched_currents else "EXACT"
        if tally.unexplained or tally.mismatched_membranes:
            return "DRIFT"
        return "TIE" if tally.mismatched else "EXACT"


@dataclass(frozen=True, eq=False)
class _OnGrid:
    """A layer in the units of its grid; see ``export/grid_units.py``."""

    spikes: NDArray[Any]
    sent: NDArray[Any]
    membrane: NDArray[Any]


def _in_floats(deployment: Deployment, inputs: NDArray[Any], trace: Trace) -> tuple[Deployment, NDArray[Any], Mapping[str, Any]]:
    """Network, inputs and layers of a run in floats: a quantised deployment in grid units, in which bounds can be stated."""
    if not deployment.quantised:
        return deployment, inputs, trace.layers
    levels = encoding.levels(deployment, inputs)
    layers = {
        name: _OnGrid(np.asarray(layer.spikes), np.asarray(layer.sent), np.asarray(layer.membrane) * grid.scale)
        for name, grid in deployment.populations.items()
        if (layer := trace.layers[name])
    }
    return in_grid_units(deployment), levels[0] if len(levels) == 1 else levels, layers


def unmatched(tally: LayerTally) -> float:
    """Share of spikes, both sides together, without a counterpart: 0 for equal, 1 for nothing in common.

    Measured against spikes and not against positions: a layer that fires rarely could lose all it has within a few per cent of
    its positions.
    """
    return tally.mismatched / max(1, tally.reference_spikes + tally.got_spikes)


def _add_spikes(tally: LayerTally, expected: LayerTrace, found: LayerTrace, offset: int) -> None:
    reference, got = np.asarray(expected.sent), np.asarray(found.sent)
    tally.neurons = int(np.prod(reference.shape[2:]))
    tally.positions += reference.size
    tally.reference_spikes += int(expected.counts.sum())
    tally.got_spikes += int(found.counts.sum())
    tally.latency = found.latency
    tally.overflows = None if tally.overflows is None or found.overflows is None else tally.overflows + found.overflows
    differs = reference != got
    booleans = reference.dtype == got.dtype == bool
    mismatched = int(np.count_nonzero(differs) if booleans else np.abs(reference.astype(np.float64) - got).sum())
    counts = found.counts - expected.counts
    totals = counts.sum(axis=0).reshape(-1)
    tally.neuron_difference = totals if tally.neuron_difference is None else tally.neuron_difference + totals
    if not mismatched:
        return
    tally.mismatched += mismatched
    tally.count_error_sum += int(np.abs(counts).sum())
    tally.count_error_max = max(tally.count_error_max, int(np.abs(counts).max(initial=0)))
    if tally.first_spike is None:
        tally.first_spike = _first(differs, reference, got, "spike", 1.0, 1.0, offset)


def _add_membranes(tally: LayerTally, expected: LayerTrace, found: LayerTrace, offset: int) -> None:
    if expected.membrane is not None and found.membrane is not None:
        tally.membranes += expected.membrane.size
        difference = np.abs(expected.membrane * expected.unit - found.membrane * found.unit)
        tally.membrane_difference = float(np.maximum(tally.membrane_difference or 0.0, difference.max(initial=0.0)))
        if expected.integer and found.integer:
            tally.integer_membranes += expected.membrane.size
            differs = expected.membrane != found.membrane
            tally.mismatched_membranes += int(np.count_nonzero(differs))
            if tally.first_membrane is None and differs.any():
                tally.first_membrane = _first(
                    differs, expected.membrane, found.membrane, "membrane", expected.unit, found.unit, offset
                )
    if expected.current is not None and found.current is not None and expected.integer and found.integer:
        tally.currents += expected.current.size
        tally.mismatched_currents += int(np.count_nonzero(expected.current != found.current))


def _first(
    differs: NDArray[np.bool_],
    reference: NDArray[Any],
    got: NDArray[Any],
    kind: Literal["spike", "membrane"],
    reference_unit: float,
    got_unit: float,
    offset: int,
) -> Divergence:
    """Lowest sample, then earliest step, then lowest neuron that differs; arrays (T, B, *features)."""
    sample = int(np.flatnonzero(differs.any(axis=(0, *range(2, differs.ndim))))[0])
    per_step = differs[:, sample].reshape(len(differs), -1)
    step = int(np.flatnonzero(per_step.any(axis=1))[0])
    neuron = int(np.flatnonzero(per_step[step])[0])
    return Divergence(
        sample=sample + offset,
        step=step,
        neuron=neuron,
        position=tuple(int(i) for i in np.unravel_index(neuron, reference.shape[2:])),
        kind=kind,
        expected=float(reference[step, sample].reshape(-1)[neuron] * reference_unit),
        got=float(got[step, sample].reshape(-1)[neuron] * got_unit),
    )


def _why_missing(expected: LayerTrace, found: LayerTrace | None) -> str:
    if found is None:
        return "the target's trace has no such layer"
    if expected.spikes is None or found.spikes is None:
        return "spikes were not recorded"
    return f"shapes differ: {expected.spikes.shape} and {found.spikes.shape}"


def _not_compared(name: str) -> LayerComparison:
    return LayerComparison(
        layer=name,
        verdict="NOT_COMPARED",
        neurons=0,
        positions=0,
        reference_spikes=0,
        got_spikes=0,
        mismatched_spikes=0,
        count_error_sum=0,
        count_error_max=0,
        neurons_with_count_error=0,
        first_divergence=None,
        membranes_compared=0,
        mismatched_membranes=None,
        membrane_difference_max=None,
        overflows=None,
        latency=0,
        tolerance_that_would_pass=1.0,
    )
