"""What the report shows beside the comparison: firing, rasters, energy counts. Collected while traces are at hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.reporting.report import Activity, Raster

RASTER_NEURONS = 64
RATE_BINS = 20


@final
@dataclass
class ActivityObserver:
    """Firing rates of one rung over all samples."""

    rung: str
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    steps: int = 0
    samples: int = 0

    def chunk(self, inputs: NDArray[Any], traces: dict[str, Trace], offset: int, labels: NDArray[np.int64] | None = None) -> None:
        """Add a chunk's spike counts per neuron."""
        trace = traces.get(self.rung)
        if trace is None:
            return
        self.samples += len(trace.predictions)
        for name, layer in trace.layers.items():
            total = layer.counts.sum(axis=0).reshape(-1)
            self.counts[name] = self.counts[name] + total if name in self.counts else total
            if layer.spikes is not None:
                self.steps = len(layer.spikes)

    def forget(self, rung: str) -> None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        if rung == self.rung:
            self.take()

    def take(self) -> dict[str, Any]:
        """See :class:`snn_export.verification.ladder.Observer`."""
        taken = {"counts": self.counts, "steps": self.steps, "samples": self.samples}
        self.counts, self.steps, self.samples = {}, 0, 0
        return taken

    def merge(self, taken: dict[str, Any]) -> None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        self.samples += taken["samples"]
        self.steps = taken["steps"] or self.steps
        for name, total in taken["counts"].items():
            self.counts[name] = self.counts[name] + total if name in self.counts else total

    def result(self, deployment: Deployment) -> tuple[Activity, ...]:
        """Rates of the spiking layers; empty where the rung did not run."""
        if not self.samples or not self.steps:
            return ()
        chances = self.samples * self.steps
        found = []
        for name, total in self.counts.items():
            if not deployment.contract.neurons[name].spiking:
                continue
            rates = total / chances
            found.append(
                Activity(
                    layer=name,
                    rate=float(rates.mean()),
                    dead=int(np.count_nonzero(total == 0)),
                    saturated=int(np.count_nonzero(total == chances)),
                    neurons=len(total),
                    rate_histogram=tuple(int(n) for n in np.histogram(rates, bins=RATE_BINS, range=(0.0, 1.0))[0]),
                )
            )
        return tuple(found)


@dataclass(frozen=True)
class Drawn:
    """Rasters of a sample, one per layer; whether it is one in which the rungs differ."""

    rasters: tuple[Raster, ...]
    diverged: bool


@final
@dataclass
class RasterObserver:
    """One sample's spikes, reference against target: the first sample in which they differ, else the first of all.

    targets: rungs in order of preference; the first one that ran is drawn. All of them are watched: which one it will be is
    known at the end, when none can break any more.
    """

    reference: str
    targets: tuple[str, ...]
    deployment: Deployment
    drawn: dict[str, Drawn] = field(default_factory=dict)

    @property
    def rasters(self) -> tuple[Raster, ...]:
        """Those of the first target that ran; empty where none did."""
        return next((self.drawn[name].rasters for name in self.targets if name in self.drawn), ())

    def chunk(self, inputs: NDArray[Any], traces: dict[str, Trace], offset: int, labels: NDArray[np.int64] | None = None) -> None:
        """Draw from this chunk, for every target of which no diverging sample was drawn yet."""
        if self.reference not in traces:
            return
        for target in self.targets:
            if target in traces and target != self.reference:
                self._draw(target, traces[self.reference], traces[target], offset)

    def forget(self, rung: str) -> None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        self.drawn.pop(rung, None)
        if rung == self.reference:
            self.drawn.clear()

    def take(self) -> dict[str, Drawn]:
        """See :class:`snn_export.verification.ladder.Observer`."""
        taken, self.drawn = self.drawn, {}
        return taken

    def merge(self, taken: dict[str, Drawn]) -> None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        for target, found in taken.items():
            mine = self.drawn.get(target)
            if mine is None or (found.diverged and not mine.diverged):
                self.drawn[target] = found

    def _draw(self, target: str, first: Trace, second: Trace, offset: int) -> None:
        mine = self.drawn.get(target)
        if mine is not None and mine.diverged:
            return
        names = [name for name, layer in first.layers.items() if _comparable(layer, second.layers.get(name))]
        count = min(len(first.predictions), len(second.predictions))
        differs = np.zeros(count, bool)
        for name in names:
            flips = np.not_equal(_spikes(first, name)[:, :count], _spikes(second, name)[:, :count])
            differs |= flips.any(axis=tuple(axis for axis in range(flips.ndim) if axis != 1))
        if mine is None or differs.any():
            sample = int(differs.argmax())
            rasters = tuple(self._raster(name, target, first, second, sample, offset) for name in names)
            self.drawn[target] = Drawn(rasters, bool(differs.any()))

    def _raster(self, name: str, target: str, first: Trace, second: Trace, sample: int, offset: int) -> Raster:
        expected = _spikes(first, name)[:, sample].reshape(len(_spikes(first, name)), -1)
        got = _spikes(second, name)[:, sample].reshape(expected.shape)
        neurons = _neurons_to_show(expected, got)
        shown, other = expected[:, neurons], got[:, neurons]
        watched = self._watched(name, first, expected, got, sample)
        threshold = getattr(self.deployment.graph.nodes[name], "v_threshold", None)
        return Raster(
            layer=name,
            reference=self.reference,
            target=target,
            sample=sample + offset,
            steps=len(expected),
            neurons=tuple(int(n) for n in neurons),
            both=_events(shown & other),
            only_reference=_events(shown & ~other),
            only_target=_events(other & ~shown),
            membrane_neuron=watched,
            membrane_reference=_membrane(first.layers[name], sample, watched),
            membrane_target=_membrane(second.layers[name], sample, watched),
            membrane_threshold=None if threshold is None else float(np.ravel(threshold)[0]),
        )

    def _watched(self, name: str, first: Trace, expected: NDArray[np.bool_], got: NDArray[np.bool_], sample: int) -> int | None:
        """The first neuron that differs, else the one that fires most, else (a readout) the one with the highest membrane."""
        if first.layers[name].membrane is None:
            return None
        flips = expected != got
        if flips.any():
            return int(flips[flips.any(axis=1).argmax()].argmax())
        if expected.any():
            return int(expected.sum(axis=0).argmax())
        return int(np.asarray(first.layers[name].membrane)[-1, sample].argmax())


def _comparable(first: LayerTrace, second: LayerTrace | None) -> bool:
    if second is None or first.spikes is None or second.spikes is None:
        return False
    return first.spikes.shape[:1] + first.spikes.shape[2:] == second.spikes.shape[:1] + second.spikes.shape[2:]


def _spikes(trace: Trace, name: str) -> NDArray[np.bool_]:
    return np.asarray(trace.layers[name].spikes)


def _neurons_to_show(expected: NDArray[np.bool_], got: NDArray[np.bool_]) -> NDArray[np.int64]:
    """At most RASTER_NEURONS: those that differ first, then the most active, in index order."""
    size = expected.shape[1]
    if size <= RASTER_NEURONS:
        return np.arange(size)
    weight = (expected != got).sum(axis=0) * (len(expected) + 1) + (expected | got).sum(axis=0)
    return np.sort(np.argsort(-weight, kind="stable")[:RASTER_NEURONS])


def _events(where: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    return tuple((int(step), int(row)) for step, row in np.argwhere(where))


def _membrane(layer: LayerTrace, sample: int, neuron: int | None) -> tuple[float, ...]:
    if layer.membrane is None or neuron is None:
        return ()
    values = layer.membrane[:, sample].reshape(len(layer.membrane), -1)[:, neuron] * layer.unit
    return tuple(float(value) for value in values)
