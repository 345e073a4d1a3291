"""Counts operations while a verification's traces are at hand."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from snn_export.energy.counts import Counter, Counts
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.trace import Trace


@final
class EnergyObserver:
    """Operations of one rung over all samples; ``counts`` is None until it ran."""

    def __init__(self, rung: str, deployment: Deployment) -> None:
        self._rung = rung
        self._counter = Counter(deployment)
        self._sample_axes = len(deployment.input_shape)
        self.counts: Counts | None = None

    def chunk(self, inputs: NDArray[Any], traces: dict[str, Trace], offset: int) -> None:
        """Add a chunk."""
        if self._rung in traces:
            trace = traces[self._rung]
            axis = np.ndim(inputs) - self._sample_axes - 1
            part = self._counter.count(trace, np.take(inputs, range(len(trace.predictions)), axis=axis))
            self.counts = part if self.counts is None else self.counts.merge(part)

    def forget(self, rung: str) -> None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        if rung == self._rung:
            self.counts = None

    def take(self) -> Counts | None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        taken, self.counts = self.counts, None
        return taken

    def merge(self, taken: Counts | None) -> None:
        """See :class:`snn_export.verification.ladder.Observer`."""
        if taken is not None:
            self.counts = taken if self.counts is None else self.counts.merge(taken)
