"""Running a case on both backends. A case that one of them refuses or breaks on is no case: it cannot show where they part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from snn_export.export.extracting import with_input_over_time
from snn_export.hardware_sims.registry import BUILT_IN
from snn_export.hardware_sims.simulator import BackendError, Simulator
from snn_export.hardware_sims.trace import Trace
from snn_export.models.diagnostics import UserError
from snn_export.verification.bisection.case import Case
from snn_export.verification.bisection.judging import (
    RECORDS,
    Compared,
    Difference,
    IncomparableError,
    Judgement,
    compared,
    differences,
)
from snn_export.verification.ladder import raised

Clock = Callable[[], float]


class OutOfTimeError(Exception):
    """The time that was given is over."""


@dataclass(frozen=True, eq=False)
class Finding:
    """A case on which the backends part: where each sample does first, and both runs."""

    case: Case
    differences: tuple[Difference, ...]
    reference: Trace
    target: Trace

    @property
    def first(self) -> Difference:
        """Where they part first."""
        return self.differences[0]


@dataclass
class Counts:
    """What it took: cases tested, runs of a backend, and cases that were rejected, with the last reason."""

    tests: int = 0
    runs: int = 0
    refused: int = 0
    broken: int = 0
    last_reason: str = ""


@contextmanager
def _plug_in_failures(backend: str) -> Iterator[None]:
    """What a plug-in raises becomes a BackendError (SNX405); a bug of our own backends stays a bug."""
    try:
        yield
    except (UserError, BackendError):
        raise
    except Exception as error:
        if backend in BUILT_IN:
            raise
        raise BackendError(raised(backend, "bisect", error)) from error


@dataclass(eq=False)
class Bench:
    """Both backends, and how long they may be asked.

    deadline: of ``clock``; None for no limit. A case is never run twice.
    """

    reference: Simulator
    target: Simulator
    how: Judgement
    deadline: float | None = None
    clock: Clock = time.monotonic
    counts: Counts = field(default_factory=Counts)
    on_run: Callable[[Counts], None] = lambda counts: None
    _known: set[str] = field(default_factory=set)
    """Cases on which they agree, or that cannot be run."""

    def runs(self, case: Case) -> tuple[Trace, Trace]:
        """Both backends' runs. Raises whatever keeps one of them from running."""
        programs, traces = [], []
        for backend in (self.reference, self.target):
            with _plug_in_failures(backend.name):
                programs.append(backend.compile(case.deployment))
        for backend, program in zip((self.reference, self.target), programs, strict=True):
            self.counts.runs += 1
            with _plug_in_failures(backend.name):
                traces.append(backend.run(program, case.inputs, RECORDS[self.how]))
            self.on_run(self.counts)
        return traces[0], traces[1]

    def first_look(self, case: Case) -> tuple[Finding | None, Compared]:
        """The whole network: what was compared, and the finding where they part. What keeps a backend from running is raised."""
        self.counts.tests += 1
        traces = self.runs(case)
        amount = compared(*traces)
        wrong = differences(self.how, case.deployment, case.inputs, *traces)
        return (Finding(case, wrong, *traces) if wrong else None), amount

    def part_on(self, case: Case) -> Finding | None:
        """The finding where the backends part on a case; None where they agree or cannot run it.

        Raises:
            OutOfTimeError: before the next case would be run.
        """
        if case.key in self._known:
            return None
        if self.deadline is not None and self.clock() >= self.deadline:
            raise OutOfTimeError
        found = self._tried(case)
        if found is None:
            self._known.add(case.key)
        return found

    def _tried(self, case: Case) -> Finding | None:
        try:
            found, _ = self.first_look(case)
        except UserError as error:
            self.counts.refused += 1
            self.counts.last_reason = f"{error.code}: {error.diagnostics[0].what}"
        except IncomparableError as error:
            self.counts.refused += 1
            self.counts.last_reason = str(error)
        except Exception as error:  # a backend may raise anything on a network nobody made before
            self.counts.broken += 1
            self.counts.last_reason = f"{type(error).__name__}: {error}"
        else:
            return found
        return None


def over_time(case: Case) -> Case:
    """The same case with its input written out step by step; the same one where it is, or cannot be."""
    deployment, inputs = with_input_over_time(case.deployment, case.inputs)
    return case if deployment is case.deployment else Case(deployment, inputs)
