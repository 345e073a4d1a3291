"""From a network, inputs and two backends to the smallest case on which they part: the library's ``bisect``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.export.deviation import sentences
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.simulator import BackendError, Deviating, Simulator
from snn_export.models.diagnostics import EXIT_GATE, EXIT_INTERRUPTED, Diagnostic, UserError
from snn_export.verification.bisection.case import Case, Size
from snn_export.verification.bisection.judging import Compared, Difference, IncomparableError, Judgement, judgement
from snn_export.verification.bisection.shrinking import Shrunk, shrink
from snn_export.verification.bisection.trial import Bench, Counts, Finding

CHUNK_BYTES = 256 << 20
"""Memory the traces of one chunk of samples may take while a divergence is looked for."""
SCHEMA = "snn_export/bisection/1"
"""Name of the form in which a bisection is written as JSON."""


@dataclass(frozen=True)
class Phase:
    """What was reached after one phase of the search. number: of its round, from 1."""

    name: str
    number: int
    size: Size
    tests: int
    runs: int


Tell = Callable[[Phase], None]


@dataclass(frozen=True, eq=False)
class Bisection:
    """What was found.

    Attributes:
        reference, target: names of the backends.
        compared: the samples up to the first chunk that diverged, or all of them.
        before: size of the network on one sample.
        original: where the whole network parts first.
        finding: the smallest case and both its runs; None, as are case, first and after, where the backends agree on everything.
        minimal: with any single thing taken away the backends agree; False where the search was cut short before that was known.
        interrupted: it was cut short by hand.
        counts: what it took; ``seconds`` with it.
        how: what counted as a difference.
        options: of the backends, by name, where they were given any.
        versions: of what each backend runs on, by backend and package.
        declared: what a backend says it does otherwise than the contract, by backend.
        folder: where it was written to; None where it was not.
    """

    reference: str
    target: str
    how: Judgement
    compared: Compared
    before: Size
    counts: Counts
    seconds: float
    finding: Finding | None = None
    original: Difference | None = None
    minimal: bool = False
    interrupted: bool = False
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    declared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def diverged(self) -> bool:
        """Whether the backends part on any sample."""
        return self.finding is not None

    @property
    def case(self) -> Case | None:
        """The smallest case."""
        return None if self.finding is None else self.finding.case

    @property
    def first(self) -> Difference | None:
        """Where it diverges first."""
        return None if self.finding is None else self.finding.first

    @property
    def after(self) -> Size | None:
        """Its size."""
        return None if self.case is None else self.case.size

    @property
    def exit_code(self) -> int:
        """Of the command: 1 where they part, 0 where they agree, 130 where the search was interrupted."""
        return EXIT_INTERRUPTED if self.interrupted else EXIT_GATE if self.diverged else 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON; numbers and text only."""
        return {
            "schema": SCHEMA,
            "reference": self.reference,
            "target": self.target,
            "diverged": self.diverged,
            "compared": vars(self.compared),
            "before": self.before.as_dict(),
            "after": None if self.after is None else self.after.as_dict(),
            "first_in_whole_network": None if self.original is None else self.original.as_dict(),
            "first": None if self.first is None else self.first.as_dict(),
            "minimal": self.minimal,
            "interrupted": self.interrupted,
            "tests": self.counts.tests,
            "runs": self.counts.runs,
            "rejected": {"refused": self.counts.refused, "broken": self.counts.broken, "last_reason": self.counts.last_reason},
            "seconds": round(self.seconds, 3),
            "versions": {name: dict(found) for name, found in self.versions.items()},
            "declared": {name: list(found) for name, found in self.declared.items()},
            "folder": None if self.folder is None else str(self.folder),
            "exit_code": self.exit_code,
        }


def bisect_backends(
    deployment: Deployment,
    inputs: NDArray[Any],
    reference: str,
    target: str,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    time_limit: float | None = None,
    tell: Tell = lambda phase: None,
    on_run: Callable[[Counts], None] = lambda counts: None,
) -> Bisection:
    """The smallest sub-graph, the shortest input and the fewest neurons on which two backends still part.

    Args:
        deployment: that both run.
        inputs: (B, *shape) or (T, B, *shape), real units.
        reference: backend whose runs count as expected.
        target: the other one.
        options: for a backend, by its name.
        time_limit: seconds after which the smallest case so far is taken.
        tell: called after each phase.
        on_run: called after each run of a backend.

    Raises:
        UserError: SNX007 for a backend compared with itself, SNX510 for two that compute different numbers, SNX511 where nothing
            could be compared; whatever keeps the network from running on one of them; inputs as in
            :func:`snn_export.export.encoding.signal`.
        BackendError: one of them is missing or broke on the whole network.
    """
    if reference == target:
        raise UserError(
            "SNX007", f"{reference} is compared with itself", where="bisect(reference=..., target=...)",
            why="a backend always agrees with itself", fix="name two backends: snn-export backends list",
        )  # fmt: skip
    started, given = time.monotonic(), options or {}
    backends = (_available(reference, given.get(reference, {})), _available(target, given.get(target, {})))
    bench = Bench(backends[0], backends[1], judgement(backends[0], backends[1], deployment), on_run=on_run)
    encoding.signal(deployment, inputs)  # says what is wrong with them
    whole = Case(deployment, encoding.shaped(deployment, inputs))
    first, offset, amount = _first_divergence(bench, whole)
    fires = any(spec.spiking for spec in deployment.contract.neurons.values())
    if first is None and fires and not amount.spikes:
        why = f"every layer stayed silent on all {amount.samples} samples: agreement about nothing"
        raise _nothing(why, "give inputs that make the network fire")
    shrunk = None
    if first is not None:
        bench.deadline = None if time_limit is None else started + time_limit
        shrunk = _shrunk(bench, first, tell)
    return Bisection(
        reference,
        target,
        bench.how,
        amount,
        Case(deployment, whole.inputs[:, :1]).size,
        bench.counts,
        time.monotonic() - started,
        finding=None if shrunk is None else shrunk.finding,
        original=None if first is None else replace(first.first, sample=first.first.sample + offset),
        minimal=shrunk is not None and shrunk.minimal,
        interrupted=shrunk is not None and shrunk.interrupted,
        options={name: dict(found) for name, found in given.items() if name in (reference, target) and found},
        versions={backend.name: dict(backend.availability().versions) for backend in backends},
        declared={backend.name: told for backend in backends if (told := _declared(backend, deployment))},
    )


def _declared(backend: Simulator, deployment: Deployment) -> tuple[str, ...]:
    """What a backend does otherwise than the contract, in sentences; it ran the network, so it can be asked."""
    return sentences(backend.deviations(deployment)) if isinstance(backend, Deviating) else ()


def _available(name: str, options: Mapping[str, Any]) -> Simulator:
    found = simulator(name, **options)
    there = found.availability()
    if not there.ok:
        raise BackendError(Diagnostic("SNX404", f"{name} is not available", where=name, why=there.reason, fix=there.fix))
    return found


def _shrunk(bench: Bench, first: Finding, tell: Tell) -> Shrunk:
    rounds: dict[str, int] = {}

    def told(name: str, finding: Finding) -> None:
        rounds[name] = rounds.get(name, 0) + 1
        tell(Phase(name, rounds[name], finding.case.size, bench.counts.tests, bench.counts.runs))

    return shrink(bench, first, told)


def _first_divergence(bench: Bench, whole: Case) -> tuple[Finding | None, int, Compared]:
    """The first chunk of samples that diverges, the index of its first sample, and what was compared up to its end."""
    total = Compared()
    for start, stop in _chunks(whole):
        try:
            found, amount = bench.first_look(Case(whole.deployment, whole.inputs[:, start:stop]))
        except IncomparableError as error:
            raise _nothing(str(error)) from error
        total = total + amount
        if found is not None:
            return found, start, total
    return None, 0, total


def _chunks(whole: Case) -> Iterator[tuple[int, int]]:
    """Sample ranges whose runs fit into memory."""
    network, samples = whole.deployment, whole.inputs.shape[1]
    values = network.contract.steps * sum(int(np.prod(network.shapes[name])) for name in network.layers)
    size = max(1, CHUNK_BYTES // max(1, 2 * 17 * values))
    for start in range(0, samples, size):
        yield start, min(samples, start + size)


def _nothing(why: str, fix: str = "snn-export conformance tells whether both backends return every layer's spikes") -> UserError:
    return UserError("SNX511", "nothing was compared", where="bisect", why=why, fix=fix)
