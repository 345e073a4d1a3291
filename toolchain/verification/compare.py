"""Comparing two traces layer by layer, chunk by chunk of samples.

Spikes are compared position by position in local time, so a network whose totals agree while its neurons do not cannot pass.
Every layer is compared twice: end to end, and by itself (``isolated.py``), which names the layer that is at fault. Tallies add
up over chunks and shards; memory is bounded by the chunk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.ties import FLOAT32_ROUNDOFF, Explained, explain
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.reporting.report import LayerComparison, Verdict
from snn_export.verification import isolated
from snn_export.verification.float_runs import in_floats
from snn_export.verification.isolated import DrivenSample, Form
from snn_export.verification.lags import believed_lag
from snn_export.verification.layer_tally import LayerTally, unmatched
from snn_export.verification.spike_distance import mean_distance

Kind = Literal["exact", "float", "approximate"]
"""exact: two integer backends, bit for bit. float: the same real arithmetic in other roundings, flips must be ties.
approximate: one side changed the network's numbers, differences are measured and gated."""

Side = Literal["target", "reference", "both"]
"""Of a comparison: whose run leaves the contract."""

NEITHER = "neither trace has such a layer"
INTERPRETER = "reference"
"""Backend whose runs are what the others are judged by."""


@dataclass(frozen=True)
class Tolerance:
    """How far an approximate comparison may go, percent.

    spikes: spikes of a layer without a counterpart in the same neuron and step. decisions: samples that are classified
    differently. layers: ``spikes`` of single layers, by name.
    """

    spikes: float = 20.0
    decisions: float = 5.0
    layers: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def spikes_for(self, layer: str) -> float:
        """What one layer is allowed, percent."""
        return self.layers.get(layer, self.spikes)


@dataclass
class ComparisonTally:
    """Running comparison of a target with a reference.

    Attributes:
        kind: what counts as equal.
        deployment: whose sums bound rounding; used for kind "float".
        form: what the target's layers are held to one by one; None: nothing, or for kind "float" ``deployment``.
        only_reference_right, only_target_right: samples that one of the two gets right; counted where there are labels.
    """

    kind: Kind
    deployment: Deployment
    form: Form | None = None
    layers: dict[str, LayerTally] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    samples: int = 0
    labelled: int = 0
    decisions_equal: int = 0
    only_reference_right: int = 0
    only_target_right: int = 0
    driven: list[DrivenSample] = field(default_factory=list)
    denied: dict[str, set[Literal["target", "reference"]]] = field(default_factory=dict)
    """Integers only: by layer, whose own record denies what it says about the layer; see :func:`isolated.denied`."""

    def add(self, inputs: NDArray[Any], reference: Trace, got: Trace, labels: NDArray[np.int64] | None = None) -> None:
        """Add one chunk: the same samples in both traces. Layers without spikes on both sides are kept as missing."""
        for name in got.layers.keys() - reference.layers.keys():
            self.missing[name] = "the reference's trace has no such layer"
        differs = np.zeros(len(reference.predictions), bool)
        for name, expected in reference.layers.items():
            found = got.layers.get(name)
            if found is None or expected.sent is None or found.sent is None or found.sent.shape != expected.sent.shape:
                self.missing[name] = _why_missing(expected, found)
                continue
            here = self.layers.setdefault(name, LayerTally()).add(expected, found, self.samples)
            if self.kind == "exact" and not here.any():
                self._compare_claims(name, inputs, reference, got)
            differs |= here
        if self.kind == "float":
            self._explain(inputs, reference, got)
            self._check_decisions(reference, got)
        elif self.form is not None:
            self._drive(self.form, inputs, reference, got, differs)
        self._decide(reference, got, labels)

    def merge(self, other: ComparisonTally, offset: int) -> None:
        """Add what was found in samples that follow; ``offset`` is the index of the other's first one."""
        for name, tally in other.layers.items():
            self.layers.setdefault(name, LayerTally()).merge(tally, offset)
        self.missing |= other.missing
        self.driven = isolated.merged(self.driven, other.driven, offset)
        for name, sides in other.denied.items():
            self.denied.setdefault(name, set()).update(sides)
        for name in ("samples", "labelled", "decisions_equal", "only_reference_right", "only_target_right"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def _decide(self, reference: Trace, got: Trace, labels: NDArray[np.int64] | None) -> None:
        self.samples += len(reference.predictions)
        self.decisions_equal += int(np.count_nonzero(reference.predictions == got.predictions))
        if labels is not None:
            first, second = reference.predictions == labels, got.predictions == labels
            self.labelled += len(labels)
            self.only_reference_right += int(np.count_nonzero(first & ~second))
            self.only_target_right += int(np.count_nonzero(second & ~first))

    def _compare_claims(self, name: str, inputs: NDArray[Any], reference: Trace, got: Trace) -> None:
        """A layer that agrees step by step: what is said about it, overflows and decisions, must agree too."""
        counted = reference.layers[name].overflows, got.layers[name].overflows
        decided = name == self.deployment.contract.readout.node and (reference.predictions != got.predictions).any()
        if not decided and (None in counted or counted[0] == counted[1]):
            return
        sides = self.denied.setdefault(name, set())
        if self.form is not None and isolated.denied(self.form, inputs, got, name):
            sides.add("target")
        if self.form is not None and isolated.denied(self.form, inputs, reference, name):
            sides.add("reference")

    def _check_decisions(self, reference: Trace, got: Trace) -> None:
        """Between floats the readout's spikes and membranes are compared: what was decided must be what they say."""
        rule = self.deployment.contract.readout
        sides: tuple[tuple[Literal["target", "reference"], Trace], ...] = (("reference", reference), ("target", got))
        for side, trace in sides:
            layer = trace.layers.get(rule.node)
            if layer is not None and isolated.decided_otherwise(rule, layer, trace.predictions):
                self.denied.setdefault(rule.node, set()).add(side)

    def _drive(self, form: Form, inputs: NDArray[Any], reference: Trace, got: Trace, differs: NDArray[np.bool_]) -> None:
        """Judge the layers of the first samples that differ one by one; of both runs where both hold to the same form."""
        chosen = [int(sample) for sample in np.flatnonzero(differs)[: isolated.SAMPLES - len(self.driven)]]
        if not chosen:
            return
        target = isolated.drive(form, inputs, got, chosen, self.samples)
        other = isolated.drive(form, inputs, reference, chosen, self.samples) if self.kind == "exact" else None
        for i, sample in enumerate(chosen):
            self.driven.append(DrivenSample(sample + self.samples, target[i], None if other is None else other[i]))

    def _explain(self, inputs: NDArray[Any], reference: Trace, got: Trace) -> None:
        """Judge each layer of both runs on its own: flips within rounding, flips beyond it, membranes beyond it."""
        traces = (reference, got)
        if self.missing or any(layer.membrane is None for trace in traces for layer in trace.layers.values()):
            return
        judged: list[dict[str, Explained]] = []
        for trace in traces:
            if trace.backend == INTERPRETER:  # what it would be judged by
                judged.append({})
                continue
            run = in_floats(self.deployment, inputs, trace)
            judged.append(explain(run.deployment, run.inputs, run.layers, FLOAT32_ROUNDOFF))
            for name, found in judged[-1].items():
                tally = self.layers[name]
                tally.ties += int(np.count_nonzero(found.tied))
                tally.unexplained += int(np.count_nonzero(found.faulty))
                tally.mismatched_membranes += int(found.beyond.sum())
        faulty = np.zeros(len(reference.predictions), bool)
        for layers in judged:
            for found in layers.values():
                faulty |= found.faulty | (found.beyond > 0) | found.tied
        shapes = self.deployment.shapes
        for index in np.flatnonzero(faulty)[: isolated.SAMPLES - len(self.driven)]:
            sides = [isolated.explained(layers, shapes, int(index), self.samples) for layers in judged]
            if not judged[1]:  # the interpreter is the target: what it does is right by definition
                sides[1] = {name: isolated.Found(0, 0, 0.0, None) for name in sides[0]}
            self.driven.append(DrivenSample(int(index) + self.samples, sides[1], sides[0] or None))

    def _tolerated(self, name: str, tally: LayerTally, tolerance: Tolerance) -> bool:
        """Approximate comparisons: spikes without a counterpart; where nothing can spike, decisions."""
        spec = self.deployment.contract.neurons.get(name)
        if spec is None or spec.spiking:  # none: a part or a relay of the other form, whose layers these are
            return 100.0 * unmatched(tally) <= tolerance.spikes_for(name)
        return 100.0 * (self.samples - self.decisions_equal) <= tolerance.decisions * self.samples

    def finish(self, tolerance: Tolerance, shared: Collection[str] = ()) -> tuple[LayerComparison, ...]:
        """The layers' results; ``tolerance`` says up to where "approximate" counts as WITHIN.

        shared: layers that both sides have; one that neither run shows was not compared either.
        """
        if self.layers or self.missing:
            self.missing |= {name: NEITHER for name in shared if name not in self.layers and name not in self.missing}
        done = [self._layer(name, self.layers[name], tolerance) for name in self._names() if name not in self.missing]
        absent = [_not_compared(name) for name in self.missing]
        return (*done, *absent)

    def _names(self) -> list[str]:
        """Layers that were compared, sources first, in whatever order the traces hold them."""
        order = {name: number for number, name in enumerate(self.deployment.layers)}
        if not self.layers.keys() <= order.keys():  # parts of layers: ``matching`` has put them in order
            return list(self.layers)
        return sorted(self.layers, key=order.__getitem__)

    def at_fault(self, tolerance: Tolerance) -> tuple[str | None, Side | None]:
        """First layer, sources first, that by itself answers otherwise than it should, and in whose run.

        Where the numbers were changed on purpose: the first that by itself changes more of its spikes than it is allowed.
        """
        if self.kind == "approximate":
            shares = {name: 100.0 * isolated.changed_share(self.driven, name) for name in self._names()}
            return next((name for name, share in shares.items() if share > tolerance.spikes_for(name)), None), None
        target = _faulty(sample.target for sample in self.driven) | self._denied("target")
        reference = _faulty(sample.reference or {} for sample in self.driven) | self._denied("reference")
        side: Side = "both" if target and reference else "target" if target else "reference"
        found = [name for name in self._names() if name in target | reference]
        return (self._first(found), side) if found else (None, None)

    def _first(self, found: Sequence[str]) -> str:
        """Of layers at fault the first, sources first.

        In a loop none comes first: what is recorded wrongly of one layer makes all that hear it look wrong, so a layer whose own
        record agrees with the other run's gives way to one whose record does not.
        """
        stage = next((stage for stage in self.deployment.stages if found[0] in stage), (found[0],))
        return next((name for name in found if name in stage and _differs(self.layers[name])), found[0])

    def _denied(self, side: Literal["target", "reference"]) -> set[str]:
        """Layers that agree in every step, and of which this run says something that is not so."""
        return {name for name, sides in self.denied.items() if side in sides and not _differs(self.layers[name])}

    def lacks(self, name: str) -> bool:
        """Whether something of this very layer was not recorded; layers beside it may not be judged for want of it."""
        tally = self.layers.get(name)
        return name in self.missing or tally is None or tally.membranes != tally.positions

    def _layer(self, name: str, tally: LayerTally, tolerance: Tolerance) -> LayerComparison:
        difference, compared_exactly = tally.neuron_difference, self.kind in ("exact", "float")
        steps, trains = max(1, tally.steps), max(1, tally.neurons * self.samples)
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
            count_error_histogram=tuple(int(n) for n in tally.count_errors),
            rate_error_mean=tally.count_error_sum / (trains * steps),
            rate_error_max=tally.count_error_max / steps,
            spike_distance_mean=mean_distance(tally.trains),
            spike_distance_trains=len(tally.trains),
            lag=believed_lag(tally.lags, tally.latency),
            isolated=isolated.summary(self.driven, name),
            tolerance_spikes=tolerance.spikes_for(name) if self.kind == "approximate" else None,
        )

    def _verdict(self, name: str, tally: LayerTally, tolerance: Tolerance) -> Verdict:
        if not tally.positions:
            return "NOT_COMPARED"
        if self.kind == "approximate":
            return "WITHIN" if self._tolerated(name, tally, tolerance) else "DRIFT"
        if self.kind == "exact":
            if _differs(tally):
                return "DRIFT"
            if tally.integer_membranes != tally.positions:
                # Spikes alone prove less than the claim: membranes that can be compared this way were not all seen.
                return "NOT_COMPARED"
            return "DRIFT" if name in self.denied else "EXACT"
        if tally.unexplained or tally.mismatched_membranes or name in self.denied:
            return "DRIFT"
        if not self._explained:
            return "NOT_COMPARED" if tally.mismatched == 0 else "DRIFT"
        return "TIE" if tally.mismatched else "EXACT"

    @property
    def _explained(self) -> bool:
        """Whether every sample was held to the rounding of its sums: that takes all layers of it, with their membranes."""
        return not self.missing and all(tally.membranes == tally.positions for tally in self.layers.values())


def _differs(tally: LayerTally) -> bool:
    """Whether two runs' records of a layer differ end to end; between floats membranes always do, and spikes tell."""
    return bool(tally.mismatched or tally.mismatched_currents or tally.first_membrane)


def _faulty(samples: Iterable[Mapping[str, isolated.Found]]) -> set[str]:
    return {name for layers in samples for name, found in layers.items() if found.faulty}


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
