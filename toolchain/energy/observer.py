"""Counts operations while a verification's traces are at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from snn_export.energy.counts import Counter, Counts
from snn_export.energy.step_counts import StepCounter, StepTotals
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.trace import Trace


@dataclass(frozen=True, eq=False)
class Counted:
    """What was counted of one or several chunks.

    Attributes:
        counts: over all samples and steps.
        steps: step by step; None where the spikes of a chunk were not recorded.
        fired: by population and input node, spikes or input events of each neuron over all samples, (*features).
    """

    counts: Counts
    steps: StepTotals | None
    fired: dict[str, NDArray[np.int64]]

    def merge(self, other: Counted) -> Counted:
        """With what another counted on samples that follow."""
        return Counted(
            self.counts.merge(other.counts),
            None if self.steps is None or other.steps is None else self.steps.merge(other.steps),
            {name: fired + other.fired[name] for name, fired in self.fired.items()},
        )

    @property
    def activity(self) -> dict[str, NDArray[np.float64]]:
        """Mean spikes per neuron and inference, by population and input node: what a placement is made for."""
        return {name: fired / self.counts.samples for name, fired in self.fired.items()}


@final
class EnergyObserver:
    """Operations of one rung over all samples; ``counted`` is None until it ran.

    Args:
        rung: its name.
        deployment: what it runs.
        threshold: lead of the readout at which an inference stops, to count an early exit too.
    """

    def __init__(self, rung: str, deployment: Deployment, threshold: float | None = None) -> None:
        self._rung = rung
        self._counter = Counter(deployment)
        self._steps = StepCounter(self._counter, threshold)
        self._sample_axes = len(deployment.input_shape)
        self.counted: Counted | None = None

    @property
    def counts(self) -> Counts | None:
        """Over all samples and steps; None until the rung ran."""
        return None if self.counted is None else self.counted.counts

    def chunk(self, inputs: NDArray[Any], traces: dict[str, Trace], offset: int, labels: NDArray[np.int64] | None = None) -> None:
        """Add a chunk."""
        if self._rung in traces:
            trace = traces[self._rung]
            axis = np.ndim(inputs) - self._sample_axes - 1
            given = np.take(inputs, range(len(trace.predictions)), axis=axis)
            counts, own = self._counter.count(trace, given), None if labels is None else labels[: len(trace.predictions)]
            fired = self._counter.fired(trace, self._counter.sent(given))
            self.merge(Counted(counts, self._steps.count(trace, given, own), fired))

    def forget(self, rung: str) -> None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        if rung == self._rung:
            self.counted = None

    def take(self) -> Counted | None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        taken, self.counted = self.counted, None
        return taken

    def merge(self, taken: Counted | None) -> None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        if taken is not None:
            self.counted = taken if self.counted is None else self.counted.merge(taken)
