"""Small ladders to be shared: forms of one network, backends of which some are wrong or break, and all observers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from snn_export.energy.cost_table import load_table
from snn_export.energy.estimate import estimate
from snn_export.energy.observer import EnergyObserver
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.simulator import Availability, BackendError, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace
from snn_export.models.diagnostics import Diagnostic
from snn_export.verification import assemble
from snn_export.verification.gates import Criteria
from snn_export.verification.ladder import LadderResult, Link, Observer, Rung, empty_ladder, prepare, run_samples, settle
from snn_export.verification.observe import ActivityObserver, RasterObserver
from snn_export.verification.sharding import Gathering, Shard, Work
from tests.networks import conv_net, delayed_net, dense_net, quantised, read, recurrent_net

NETWORKS = {
    "dense": (dense_net, (4,)),
    "conv": (conv_net, (2, 9, 7)),
    "loop": (recurrent_net, (7,)),
    "delays": (delayed_net, (6,)),
}


@dataclass
class Faulty:
    """``loihi``, but a spike of the first layer is turned over where the first input is above ``above``.

    breaks_above: it raises where any sample's first input is above that.
    """

    above: float = 2.0
    breaks_above: float = 2.0
    name: str = "faulty"
    _inner: Any = field(default_factory=lambda: simulator("loihi", threads=1))

    def capabilities(self) -> Capabilities:
        return Capabilities("loihi_integer", needs_integers=True, description="loihi with a fault")

    def availability(self) -> Availability:
        return Availability(True)

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        return []

    def compile(self, deployment: Deployment) -> Any:
        return self._inner.compile(deployment)

    def run(self, program: Any, inputs: NDArray[Any], record: Collection[Record] = SPIKES_ONLY) -> Trace:
        first = np.asarray(inputs).reshape(len(inputs), -1)[:, 0]
        if (first > self.breaks_above).any():
            raise BackendError(Diagnostic("SNX422", "it broke", where=self.name, why="a test wants it to", fix="none"))
        found = self._inner.run(program, inputs, record)
        layers, name = dict(found.layers), next(iter(found.layers))
        spikes, counts = np.array(layers[name].spikes), np.array(layers[name].counts)
        for sample in np.flatnonzero(first > self.above):
            was = spikes[1, sample].flat[0]
            spikes[1, sample].flat[0] = not was
            counts[sample].flat[0] += -1 if was else 1
        layers[name] = replace(layers[name], spikes=spikes, counts=counts)
        return replace(found, backend=self.name, layers=layers)


@dataclass(frozen=True, eq=False)
class Ladder:
    """Everything a verification runs, small."""

    quantised: Deployment
    rungs: Sequence[Rung]
    links: Sequence[Link]
    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    chunk: int

    def observers(self) -> tuple[ActivityObserver, EnergyObserver, RasterObserver]:
        """New ones."""
        targets = tuple(rung.name for rung in reversed(self.rungs))
        reference = self.rungs[0].name
        return (
            ActivityObserver("loihi"),
            EnergyObserver("loihi", self.quantised),
            RasterObserver(reference, targets, self.quantised),
        )

    def whole(self) -> str:
        """The report of a run in one piece."""
        observers = self.observers()
        result = empty_ladder([prepare(rung) for rung in self.rungs], self.links, labelled=True)
        run_samples(result, self.inputs, self.labels, chunk=self.chunk, observers=observers)
        settle(result, observers)
        return self.report(result, observers)

    def work(self) -> Work:
        """As a worker has it."""
        return Work([prepare(rung) for rung in self.rungs], self.links, self.observers(), self.chunk)

    def gathering(self, observers: Sequence[Observer], size: int) -> Gathering:
        """For shards of ``size`` samples."""
        total = len(self.inputs)
        shards = [Shard(n, at, min(total, at + size)) for n, at in enumerate(range(0, total, size))]
        return Gathering(self.rungs, self.links, observers, shards, labelled=True)

    def report(self, result: LadderResult, observers: Sequence[Any]) -> str:
        """Everything that was found, as the bytes of a report."""
        activity, energy, raster = observers
        around = assemble.Surroundings(
            network="n", dataset="d", reference=self.rungs[0].name, inputs=self.inputs,
            activity=activity.result(self.quantised), rasters=raster.rasters,
            energy=None if energy.counts is None else estimate(self.quantised, energy.counts, load_table("loihi1")),
        )  # fmt: skip
        return assemble.report(self.quantised, result, Criteria(overflows=("loihi", 0)), around).model_dump_json(indent=1)


def ladder(network: str = "dense", samples: int = 14, chunk: int = 2, faulty: Faulty | None = None, few: int = 5) -> Ladder:
    """The float network, the one on the grid, ``loihi``, a faulty backend, and a second integer one on the first ``few``."""
    build, shape = NETWORKS[network]
    rng = default_rng(5)
    folded = read(build(), shape)
    grid = quantised(folded)
    backend = faulty or Faulty(above=0.7)
    rungs = [
        Rung("folded", "reference", folded, simulator("reference"), "float"),
        Rung("quantised", "reference", grid, simulator("reference"), "on the grid"),
        Rung("loihi", "loihi", grid, simulator("loihi", threads=1), "integers"),
        Rung("faulty", "faulty", grid, backend, "integers with a fault"),
        Rung("few", "quantised_student", grid, simulator("quantised_student"), "integers in PyTorch", samples=few),
    ]
    links = [
        Link("folded", "quantised", "approximate"), Link("quantised", "loihi", "approximate"), Link("loihi", "faulty", "exact"),
        Link("loihi", "few", "exact"), Link("folded", "loihi", "approximate"),
    ]  # fmt: skip
    inputs = rng.uniform(0, 1, (samples, *shape))
    return Ladder(grid, rungs, links, inputs, rng.integers(0, 3, samples), chunk)
