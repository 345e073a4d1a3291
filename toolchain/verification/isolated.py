"""Every layer by itself: does it answer as it should to the very spikes that it received?

The interpreter is driven with the spikes the run itself recorded for the layers before (and, in a loop, for the layer itself),
and must arrive at what the run recorded for this one. No difference upstream can show here, so a layer that differs is at fault
itself, whatever the topology, and no backend has to run again. In the first layer that differs end to end this is the same as
driving it with the reference's own spikes: those it received are equal. If every layer of a run passes, the whole run is what
the network says, by induction over the layers; if none of a run's layers fails, the fault lies with the other run.

Integers are held to the int64 interpreter bit for bit, floats to the float64 one within the forward error bound of their sums
(:mod:`snn_export.export.ties`), and where the reference is another form of the network, its layers are driven with the target's
spikes: what differs then is what this layer alone changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding, interpreter, ties
from snn_export.export.deployment import Deployment
from snn_export.export.graph import Shape
from snn_export.hardware_sims.trace import LayerTrace, Trace, read_out
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import ReadoutSpec
from snn_export.reporting.report import Divergence, IsolatedComparison
from snn_export.verification.layer_tally import first_divergence, larger, moved

SAMPLES = 32
"""Samples that are driven: the first ones in which two runs differ. One would do to name a layer; these tell how often."""


_DECIDED = 1e-4
"""Part of the largest readout within which the order of two classes is left to rounding."""


@dataclass(frozen=True)
class Form:
    """A network and the numbers its layers are held to."""

    deployment: Deployment
    numbers: interpreter.Numbers


@dataclass(frozen=True)
class Found:
    """One layer of one run in one sample: spikes and membranes that are not what they should be.

    membranes: those that differ, or whose current does; None where they can be held to nothing. difference: real units.
    total: spikes of both, expected and recorded.
    """

    spikes: int
    membranes: int | None
    difference: float | None
    first: Divergence | None
    total: int = 0

    @property
    def faulty(self) -> bool:
        """Whether anything differs that was held to something."""
        return bool(self.spikes or self.membranes)


@dataclass(frozen=True)
class DrivenSample:
    """All layers of one sample, in the target's run and, where that was judged too, in the reference's."""

    sample: int
    target: Mapping[str, Found] = field(default_factory=dict)
    reference: Mapping[str, Found] | None = None

    def moved(self, offset: int) -> DrivenSample:
        """The same with its sample counted from ``offset``."""
        sides = [
            side and {name: replace(found, first=moved(found.first, offset)) for name, found in side.items()}
            for side in (self.target, self.reference)
        ]
        return DrivenSample(self.sample + offset, sides[0] or {}, sides[1])


def drive(form: Form, inputs: NDArray[Any], trace: Trace, samples: Sequence[int], offset: int) -> list[dict[str, Found]]:
    """Hold every layer of some samples of a run to a form of the network; one mapping per sample, {} where that cannot be said.

    Args:
        form: what the layers should do; layers it lacks, or has in another shape, are left out.
        inputs: of the whole chunk, as :func:`snn_export.export.encoding.signal` takes them.
        trace: of the whole chunk.
        samples: indices into the chunk.
        offset: index of the chunk's first sample.
    """
    if form.numbers == "float64" and len(samples) > 1:  # a last bit may depend on which other samples a sum is computed with
        return [found for sample in samples for found in drive(form, inputs, trace, [sample], offset)]
    deployment, chosen = form.deployment, list(samples)
    if form.numbers == "int64" and not deployment.quantised:  # bits were demanded of a network that has none
        return [{} for _ in chosen]
    try:
        known, signals, host = _signals(form, inputs, trace, chosen)
        found = {
            name: _Held(
                layer, interpreter.run_population(deployment, name, signals, form.numbers, host.get(name)),
                deployment.populations[name].unit if form.numbers == "int64" else 1.0, form.numbers == "int64" and layer.integer,
            )
            for name, layer in known.items()
            if _heard(deployment, name, signals)
        }  # fmt: skip
    except UserError:  # this form of the network cannot be interpreted, so nothing can be held to it
        return [{} for _ in chosen]
    return [{name: held.in_sample(i, sample, offset) for name, held in found.items()} for i, sample in enumerate(chosen)]


def denied(form: Form, inputs: NDArray[Any], trace: Trace, name: str) -> bool:
    """Whether a run's own record denies what the run says about a layer: how often it overflowed, what was decided from it.

    Args:
        form: integers; what the layers should do.
        inputs: as in :func:`drive`; all samples of the chunk are looked at.
        trace: of the whole chunk.
        name: of the layer.
    """
    readout, layer = form.deployment.contract.readout, trace.layers[name]
    if name == readout.node and layer.spikes is not None and layer.membrane is not None:
        decisions = read_out(readout, np.asarray(layer.sent), layer.membrane)[1]
        if not np.array_equal(decisions, trace.predictions):
            return True
    if not form.deployment.quantised:
        return False
    try:
        known, signals, host = _signals(form, inputs, trace, range(len(trace.predictions)))
        if layer.overflows is None or name not in known or not _heard(form.deployment, name, signals):
            return False
        expected = interpreter.run_population(form.deployment, name, signals, form.numbers, host.get(name))
    except UserError:  # nothing can be held to this form of the network
        return False
    return layer.overflows != expected.overflows


def decided_otherwise(readout: ReadoutSpec, layer: LayerTrace, predictions: NDArray[np.int64]) -> bool:
    """Whether a run decided for a class that its own record of the readout ranks below another, beyond any rounding.

    Of several spikes in a step a backend may rank the spikes or the steps with a spike; either explains a decision.
    """
    sent = layer.sent
    if sent is None or layer.membrane is None:
        return False
    wrong = np.ones(len(predictions), bool)
    for spikes in (sent, sent > 0):
        ranked = read_out(readout, np.asarray(spikes), layer.membrane)[0].astype(np.float64)
        given = np.asarray(predictions).astype(np.int64)
        known = (given == predictions) & (given >= 0) & (given < ranked.shape[1])
        chosen = ranked[np.arange(len(ranked)), np.where(known, given, 0)]
        slack = _DECIDED * np.abs(ranked).max(axis=1, initial=0.0)
        wrong &= ~known | (chosen < ranked.max(axis=1) - slack)
    return bool(wrong.any())


def _signals(
    form: Form, inputs: NDArray[Any], trace: Trace, chosen: Sequence[int]
) -> tuple[dict[str, LayerTrace], dict[str, NDArray[Any]], dict[str, NDArray[np.int64]]]:
    """The layers of a run that can be held to a form, what all layers sent in the chosen samples, and the host's biases there."""
    deployment = form.deployment
    taken = np.take(inputs, chosen, axis=np.ndim(inputs) - len(deployment.input_shape) - 1)
    known = {name: layer for name, layer in trace.layers.items() if _drivable(deployment, name, layer)}
    dtype = np.int64 if deployment.quantised else np.float64
    signals = interpreter.input_signals(deployment, taken)
    host = encoding.host_bias(deployment, taken) if deployment.quantised else {}
    signals |= {name: np.asarray(layer.sent)[:, chosen].astype(dtype) for name, layer in known.items()}
    for name in deployment.layers:  # those the run does not know, such as relays that a pass put in
        if name not in signals and _heard(deployment, name, signals):
            run = interpreter.run_population(deployment, name, signals, form.numbers, host.get(name))
            signals[name] = run.sent.astype(dtype)
    return known, signals, host


def _heard(deployment: Deployment, name: str, signals: Mapping[str, NDArray[Any]]) -> bool:
    """Whether everything a layer listens to is known."""
    return all(connection.source in signals for connection in deployment.connections[name])


def _drivable(deployment: Deployment, name: str, layer: LayerTrace) -> bool:
    shape = (deployment.contract.steps, layer.counts.shape[0], *deployment.shapes.get(name, ()))
    return name in deployment.contract.neurons and layer.sent is not None and layer.sent.shape == shape


@dataclass(frozen=True, eq=False)
class _Held:
    """A recorded layer beside what the interpreter answers for the driven samples.

    unit: real value of 1 in the expected membrane. integers: both sides are, and are held to each other bit for bit.
    """

    recorded: LayerTrace
    expected: interpreter.Activity
    unit: float
    integers: bool

    def in_sample(self, index: int, sample: int, offset: int) -> Found:
        """What differs in the driven sample ``index``, which is the chunk's ``sample``."""
        flips = self._pair(self.expected.sent, self.recorded.sent, index, sample)
        spikes = int(np.ceil(np.abs(flips[0].astype(np.float64) - flips[1])).sum())
        total = int(flips[0].sum() + flips[1].sum())
        first = None
        if spikes:
            first = first_divergence(flips[0] != flips[1], *flips, "spike", 1.0, 1.0, sample + offset)
        if self.recorded.membrane is None:
            return Found(spikes, None, None, first, total)
        membranes = self._pair(self.expected.membrane, self.recorded.membrane, index, sample)
        difference = float(np.abs(membranes[0] * self.unit - membranes[1] * self.recorded.unit).max(initial=0.0))
        if not self.integers:
            return Found(spikes, None, difference, first, total)
        apart = membranes[0] != membranes[1]
        if first is None and apart.any():
            first = first_divergence(apart, *membranes, "membrane", self.unit, self.recorded.unit, sample + offset)
        if self.recorded.current is not None:
            currents = self._pair(self.expected.current, self.recorded.current, index, sample)
            apart |= currents[0] != currents[1]
        return Found(spikes, int(np.count_nonzero(apart)), difference, first, total)

    @staticmethod
    def _pair(expected: Any, recorded: Any, index: int, sample: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """One sample of both sides, (T, 1, *features)."""
        return np.asarray(expected)[:, index : index + 1], np.asarray(recorded)[:, sample : sample + 1]


def explained(layers: Mapping[str, ties.Explained], shapes: Mapping[str, Shape], sample: int, offset: int) -> dict[str, Found]:
    """The same from a judgement of float layers: flips and membranes that rounding does not explain."""
    found = {}
    for name, layer in layers.items():
        fault = layer.faults.get(sample)
        first = None if fault is None else Divergence(
            sample=sample + offset, step=fault.step, neuron=fault.neuron,
            position=tuple(int(i) for i in np.unravel_index(fault.neuron, shapes[name])),
            kind="spike" if fault.spike else "membrane", expected=fault.expected, got=fault.got,
        )  # fmt: skip
        found[name] = Found(int(layer.flips[sample]), int(layer.beyond[sample]), float(layer.difference[sample]), first)
    return found


def merged(first: Sequence[DrivenSample], second: Sequence[DrivenSample], offset: int) -> list[DrivenSample]:
    """The first driven samples of both; those of ``second`` are counted from ``offset``."""
    return [*first, *(sample.moved(offset) for sample in second)][:SAMPLES]


def summary(driven: Sequence[DrivenSample], name: str) -> IsolatedComparison | None:
    """One layer over all driven samples; None where it was not driven."""
    target = [sample.target[name] for sample in driven if name in sample.target]
    if not target:
        return None
    reference = [sample.reference[name] for sample in driven if sample.reference is not None and name in sample.reference]
    difference: float | None = None
    for found in target:
        difference = larger(difference, found.difference)
    return IsolatedComparison(
        samples=len(target),
        mismatched_spikes=sum(found.spikes for found in target),
        mismatched_membranes=_membranes(target),
        membrane_difference_max=difference,
        first_divergence=next((found.first for found in target if found.first is not None), None),
        reference_mismatched_spikes=sum(found.spikes for found in reference) if reference else None,
        reference_mismatched_membranes=_membranes(reference) if reference else None,
    )


def changed_share(driven: Sequence[DrivenSample], name: str) -> float:
    """Share of the spikes of both sides that one layer changed by itself, over all driven samples."""
    found = [sample.target[name] for sample in driven if name in sample.target]
    return sum(item.spikes for item in found) / max(1, sum(item.total for item in found))


def _membranes(found: Sequence[Found]) -> int | None:
    counts = [item.membranes for item in found if item.membranes is not None]
    return sum(counts) if counts else None
