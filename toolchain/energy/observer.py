"""Counts operations while a verification's traces are at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from snn_export.energy.counts import Counter, Counts
from snn_export.energy.step_counts import StepCounter, StepCounts, joined
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.trace import Trace


@dataclass(frozen=True, eq=False)
class Counted:
    """What was counted of one or several chunks.

    Attributes:
        counts: over all samples and steps.
        steps: chunk by chunk, in order; empty where a chunk's spikes were not recorded.
        fired: by population and input node, spikes or input events of each neuron over all samples, (*features).
    """

    counts: Counts
    steps: tuple[StepCounts, ...]
    fired: dict[str, NDArray[np.int64]]

    def merge(self, other: Counted) -> Counted:
        """With what another counted on samples that follow."""
        complete = bool(self.steps) and bool(other.steps)
        return Counted(
            self.counts.merge(other.counts),
            (*self.steps, *other.steps) if complete else (),
            {name: fired + other.fired[name] for name, fired in self.fired.items()},
        )


@final
class EnergyObserver:
    """Operations of one rung over all samples; ``counted`` is None until it ran."""

    def __init__(self, rung: str, deployment: Deployment) -> None:
        self._rung = rung
        self._counter = Counter(deployment)
        self._steps = StepCounter(self._counter)
        self._sample_axes = len(deployment.input_shape)
        self.counted: Counted | None = None

    @property
    def counts(self) -> Counts | None:
        """Over all samples and steps."""
        return None if self.counted is None else self.counted.counts

    @property
    def steps(self) -> StepCounts | None:
        """Per step and sample; None where they could not be counted."""
        return joined(self.counted.steps) if self.counted is not None and self.counted.steps else None

    @property
    def activity(self) -> dict[str, NDArray[np.float64]]:
        """Mean spikes per neuron and inference, by population and input node: what a placement is made for."""
        if self.counted is None:
            return {}
        return {name: fired / self.counted.counts.samples for name, fired in self.counted.fired.items()}

    def chunk(self, inputs: NDArray[Any], traces: dict[str, Trace], offset: int) -> None:
        """Add a chunk."""
        if self._rung in traces:
            trace = traces[self._rung]
            axis = np.ndim(inputs) - self._sample_axes - 1
            given = np.take(inputs, range(len(trace.predictions)), axis=axis)
            counts, steps = self._counter.count(trace, given), self._steps.count(trace, given)
            self.merge(Counted(counts, () if steps is None else (steps,), self._counter.fired(trace, given)))

    def forget(self, rung: str) -> None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        if rung == self._rung:
            self.counted = None

    def take(self) -> Counted | None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        taken, self.counted = self.counted, None
        return None if taken is None else replace(taken, steps=(joined(taken.steps),) if taken.steps else ())

    def merge(self, taken: Counted | None) -> None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        if taken is not None:
            self.counted = taken if self.counted is None else self.counted.merge(taken)
