"""Traces from chunks: only what was asked for is kept, in logical order; the rest lives as long as its chunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.loihi.engine import Activity, State
from snn_export.hardware_sims.loihi.program import Population
from snn_export.hardware_sims.trace import LayerTrace, Record

_DTYPES: dict[Record, Any] = {"spikes": np.bool_, "membrane": np.int32}
"""A membrane has 24 bits. A current has as many as its sums: wrapped once, it keeps the rest of one that is far too large."""


class LayerRecorder:
    """One population's trace in the making."""

    def __init__(self, deployment: Deployment, population: Population, batch: int, record: frozenset[Record]) -> None:
        self._population, self._steps = population, deployment.contract.steps
        self._unit, self._latency = deployment.populations[population.name].unit, deployment.contract.latency[population.name]
        shape = (self._steps, batch, *population.shape)
        self._kept: dict[Record, NDArray[Any]] = {name: np.empty(shape, _DTYPES.get(name, population.number)) for name in record}
        self._counts = np.zeros(shape[1:], np.int64)
        self._overflows = 0

    def store(self, activity: Activity, samples: slice, steps: slice) -> None:
        """Keep what a chunk gave."""
        found = {"spikes": activity.fired, "membrane": activity.membrane, "current": activity.current}
        for name, array in self._kept.items():
            values = found[name].view(np.bool_) if name == "spikes" else found[name]
            array[steps, samples] = logical(values, self._population, steps.stop - steps.start, samples.stop - samples.start)

    def finish(self, states: Mapping[str, State], samples: slice) -> None:
        """Keep the counts and overflows of samples that went through all steps."""
        state = states[self._population.name]
        self._counts[samples] = logical(state.counts, self._population, samples.stop - samples.start)
        self._overflows += state.overflows

    def trace(self) -> LayerTrace:
        """The finished trace."""
        kept = self._kept
        return LayerTrace(
            self._counts, kept.get("spikes"), kept.get("membrane"), kept.get("current"),
            self._unit, self._overflows, self._latency,
        )  # fmt: skip


def logical(values: NDArray[Any], population: Population, *lead: int) -> NDArray[Any]:
    """A view of flat values (*lead, N) in stored order as (*lead, *features)."""
    shape = population.shape
    if len(shape) < 2:
        return values.reshape(*lead, *shape)
    return np.moveaxis(values.reshape(*lead, *shape[1:], shape[0]), -1, len(lead))


class ReadoutRecorder:
    """What a readout rule ranks, gathered chunk by chunk without keeping membranes."""

    def __init__(self, deployment: Deployment, population: Population, batch: int) -> None:
        self._rule, self._population, self._steps = deployment.contract.readout.rule, population, deployment.contract.steps
        size = (batch, population.size)
        self._sums: NDArray[np.int64] = np.zeros(size if self._rule == "membrane_mean" else (0, 0), np.int64)
        self._values = np.zeros(size, np.float64 if self._rule == "membrane_mean" else np.int64)
        self._begun = False

    @property
    def record(self) -> frozenset[Record]:
        """What the rule needs of every step."""
        return frozenset({"membrane"} if self._rule in ("membrane_mean", "membrane_max") else ())

    def store(self, activity: Activity, samples: slice, first: bool) -> None:
        """Take a chunk in; ``first`` marks the first steps of these samples."""
        if not self.record:
            return
        chunk = activity.membrane.reshape(-1, samples.stop - samples.start, self._population.size)
        if self._rule == "membrane_mean":
            self._sums[samples] += chunk.sum(axis=0, dtype=np.int64)
        else:
            largest = chunk.max(axis=0)
            self._values[samples] = largest if first else np.maximum(self._values[samples], largest)

    def finish(self, states: Mapping[str, State], samples: slice) -> None:
        """Take in what stands at the end of all steps."""
        state, size = states[self._population.name], self._population.size
        if self._rule == "membrane_last":
            self._values[samples] = state.v.reshape(-1, size)
        elif self._rule == "spike_count":
            self._values[samples] = state.counts.reshape(-1, size)
        elif self._rule == "membrane_mean":
            self._values[samples] = self._sums[samples] / self._steps

    def values(self) -> NDArray[Any]:
        """(B, *features) in logical order."""
        number = np.int32 if self._rule in ("membrane_last", "membrane_max") else self._values.dtype
        return logical(self._values.astype(number), self._population, len(self._values))
