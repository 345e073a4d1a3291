"""Counts operations while a verification's traces are at hand."""

from __future__ import annotations

from typing import Any, final

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
        self.counts: Counts | None = None

    def chunk(self, inputs: NDArray[Any], traces: dict[str, Trace], offset: int) -> None:
        """Add a chunk."""
        if self._rung in traces:
            part = self._counter.count(traces[self._rung], inputs)
            self.counts = part if self.counts is None else self.counts.merge(part)
