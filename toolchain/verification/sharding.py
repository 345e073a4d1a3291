"""Sharing a ladder's samples: what a shard is, what comes back of it, and how the results become one.

A shard is a number of whole chunks. Traces are made, compared and reduced where the shard runs; what comes back are tallies.
They are integers, maxima, lowest-sample firsts and dyadic sums, and they are added in the order of the samples, so the result
is the one of a single process, to the bit, however the samples were shared and in whichever order the shards came.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.graph import SYNAPSE_TYPES, weight_array
from snn_export.verification.compare import ComparisonTally
from snn_export.verification.ladder import (
    LadderResult,
    Link,
    Observer,
    Progress,
    Rung,
    RungResult,
    empty_ladder,
    prepare,
    run_samples,
    samples_per_chunk,
    settle,
)

SHARDS_PER_WORKER = 8
"""At least, where there are chunks enough: the last to work are then not alone for long, and little is lost with a worker."""

SHARD_BYTES = 4 << 20
"""Most inputs of a shard, where one chunk does not take more."""

WORTH_SECONDS = 60.0
"""Estimated time of one process from which on others are started: they take some seconds to start and to import torch."""

SECONDS_PER_OPERATION = 1.0e-9
"""Of one process, per synapse and step of a rung: what the rungs take that work in float64, and their comparison."""

OPERATIONS_PER_NEURON = 60
"""A neuron's update and the comparison of its states, in synapses."""

ROOM = 1 << 30
"""Bytes of memory that a worker should have: what it imports, and its chunk."""


@dataclass(frozen=True)
class Shard:
    """Samples ``start`` to ``stop - 1``, whole chunks of them."""

    number: int
    start: int
    stop: int

    def __str__(self) -> str:
        return f"samples {self.start} to {self.stop - 1}"


@dataclass(frozen=True, eq=False)
class Work:
    """What every shard goes through.

    Attributes:
        rungs: compiled, with nothing run on them.
        links: between them.
        observers: that watch; each shard's are taken from them when it is done.
        chunk: samples at once.
    """

    rungs: Sequence[RungResult]
    links: Sequence[Link]
    observers: Sequence[Observer]
    chunk: int


@dataclass(frozen=True, eq=False)
class ShardResult:
    """What was found in a shard, as plain data: tallies of rungs and links in their order, and what the observers took."""

    shard: Shard
    rungs: tuple[Mapping[str, Any], ...]
    links: tuple[Mapping[str, Any], ...]
    taken: tuple[Any, ...]

    @property
    def broken(self) -> frozenset[int]:
        """Rungs, by place, that did not run: the shards that follow need not try."""
        return frozenset(place for place, rung in enumerate(self.rungs) if rung["status"] is not None)


_STAYS = frozenset(("rung", "program"))
"""Fields of a RungResult that live in the process that made them."""

_GIVEN = frozenset(("kind", "deployment", "form"))
"""Fields of a ComparisonTally that follow from its link."""


def work_on(rungs: Sequence[Rung], links: Sequence[Link], observers: Sequence[Observer]) -> Work:
    """Compile rungs, once for all shards that run here."""
    return Work([prepare(rung) for rung in rungs], links, observers, samples_per_chunk(rungs))


def cut(total: int, chunk: int, workers: int, sample_bytes: int = 0) -> tuple[Shard, ...]:
    """Shards of ``total`` samples.

    Args:
        total: samples.
        chunk: samples that are run at once; a shard is a multiple of it.
        workers: that will share them.
        sample_bytes: of one sample's input, which has to travel.
    """
    chunks = -(-total // chunk)
    fair = chunks // max(1, workers * SHARDS_PER_WORKER)
    light = SHARD_BYTES // max(1, chunk * sample_bytes)
    size = chunk * max(1, min(fair, light))
    return tuple(Shard(n, start, min(total, start + size)) for n, start in enumerate(range(0, total, size)))


def run_shard(
    work: Work,
    shard: Shard,
    inputs: NDArray[Any],
    labels: NDArray[np.int64] | None,
    *,
    skip: Collection[int] = (),
    progress: Progress = lambda message: None,
) -> ShardResult:
    """Run one shard's samples through the whole ladder.

    Args:
        work: compiled in this process.
        shard: which samples these are.
        inputs: of these samples alone, as for :func:`snn_export.verification.ladder.run_ladder`.
        labels: of these samples alone, or None.
        skip: places of rungs that broke in earlier samples.
        progress: told what runs.
    """
    for observer in work.observers:
        observer.take()  # what a shard left that was interrupted
    rungs = [result.stopped() for result in work.rungs]
    for place in skip:
        rungs[place].status = rungs[place].status or "SKIPPED"
    result = empty_ladder(rungs, work.links, labels is not None)
    run_samples(result, inputs, labels, chunk=work.chunk, first=shard.start, observers=work.observers, progress=progress)
    settle(result, work.observers)
    return ShardResult(
        shard,
        tuple(_without(vars(rung), _STAYS) for rung in result.rungs),
        tuple(_without(vars(tally), _GIVEN) for _, tally in result.links),
        tuple(observer.take() for observer in work.observers),
    )


def _without(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


@dataclass(eq=False)
class Gathering:
    """Shards' results as they come, added in the order of the samples.

    Attributes:
        rungs, links: of the whole ladder; nothing runs on them here.
        observers: that receive what those of the workers took.
        shards: all there are.
        labelled: whether there are labels.
    """

    rungs: Sequence[Rung]
    links: Sequence[Link]
    observers: Sequence[Observer]
    shards: Sequence[Shard]
    labelled: bool
    _early: dict[int, ShardResult] = field(default_factory=dict)
    _added: int = 0

    def __post_init__(self) -> None:
        self._result = empty_ladder([RungResult(rung) for rung in self.rungs], self.links, self.labelled)

    def add(self, found: ShardResult) -> None:
        """Take a shard's result. Raises ValueError for one that is not awaited: of no shard of these, or there already."""
        number = found.shard.number
        if not self._added <= number < len(self.shards) or number in self._early or found.shard != self.shards[number]:
            raise ValueError(f"the result of shard {number}, {found.shard}, was not awaited")
        self._early[number] = found
        while self._added in self._early:
            self._merge(self._early.pop(self._added))
            self._added += 1

    @property
    def broken(self) -> frozenset[int]:
        """Places of rungs that broke in samples that were added."""
        return frozenset(place for place, rung in enumerate(self._result.rungs) if rung.status is not None)

    @property
    def done(self) -> int:
        """Shards that came."""
        return self._added + len(self._early)

    @property
    def samples(self) -> int:
        """Samples of the shards that came."""
        return self._result.samples + sum(found.shard.stop - found.shard.start for found in self._early.values())

    def finish(self) -> LadderResult:
        """The result of all samples. Raises RuntimeError where a shard is missing."""
        if self._added != len(self.shards):
            raise RuntimeError(f"shard {self._added} of {len(self.shards)} did not come, so the samples are not all compared")
        settle(self._result, self.observers)
        return self._result

    def _merge(self, found: ShardResult) -> None:
        for mine, rung in zip(self._result.rungs, found.rungs, strict=True):
            mine.merge(RungResult(mine.rung, **rung))
        for (_, tally), link in zip(self._result.links, found.links, strict=True):
            tally.merge(ComparisonTally(tally.kind, tally.deployment, tally.form, **link), found.shard.start)
        for observer, taken in zip(self.observers, found.taken, strict=True):
            observer.merge(taken)
        self._result.samples += found.shard.stop - found.shard.start


def in_shards(
    work: Work,
    gathering: Gathering,
    inputs: NDArray[Any],
    labels: NDArray[np.int64] | None,
    axis: int,
    carried: Callable[[ShardResult], ShardResult] = lambda found: found,
) -> LadderResult:
    """Run all shards one after the other in this process. carried: what becomes of a result on its way."""
    for shard in gathering.shards:
        part, truth = samples_of(shard, inputs, labels, axis)
        gathering.add(carried(run_shard(work, shard, part, truth, skip=gathering.broken)))
    return gathering.finish()


def samples_of(
    shard: Shard, inputs: NDArray[Any], labels: NDArray[np.int64] | None, axis: int
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """A shard's inputs and labels, in memory of their own."""
    part = np.take(inputs, range(shard.start, shard.stop), axis=axis)
    return part, None if labels is None else labels[shard.start : shard.stop].copy()


def estimated_seconds(rungs: Iterable[Rung], samples: int) -> float:
    """About how long one process takes; within a factor of a few."""
    return sum(SECONDS_PER_OPERATION * min(samples, rung.samples or samples) * _operations(rung.deployment) for rung in rungs)


def _operations(deployment: Deployment) -> int:
    """Synapses that are gone through in a run of one sample, neurons included."""
    synapses = sum(
        weight_array(node).size * (prod(deployment.shapes[name][1:]) if isinstance(node, nir.Conv1d | nir.Conv2d) else 1)
        for name, node in deployment.graph.nodes.items()
        if isinstance(node, SYNAPSE_TYPES)
    )
    neurons = sum(prod(deployment.shapes[name]) for name in deployment.layers)
    return int(deployment.contract.steps * (synapses + OPERATIONS_PER_NEURON * neurons))


def processors() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_that_help(rungs: Sequence[Rung], samples: int) -> int:
    """Worker processes to start where nobody says how many and there is memory for them; 1: this one alone is as good."""
    most = min(processors(), -(-samples // samples_per_chunk(rungs)))
    return most if most > 1 and estimated_seconds(rungs, samples) >= WORTH_SECONDS else 1
