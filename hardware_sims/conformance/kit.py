"""The kit: all checks by name, running them against a simulator, and strict expected failures.

A backend is held to it by three lines of test::

    def test_my_backend_passes_the_kit() -> None:
        found = run_kit(MySimulator())
        assert found.passed, found.summary()

What its neurons do otherwise than the contract it declares by a method ``deviations``, and the kit confirms (``deviations.py``).
What it cannot do it states itself, beside its code, as an attribute ``expected_failures: Mapping[check, reason]``; the command
``snn-export conformance`` and the test read the same. A listed check that passes is a failure too, and a reason that starts with
a code ("SNX203: ...") expects a refusal with that code and no other outcome.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from snn_export.hardware_sims.conformance import contract, fire, graph, latency, leak, reset, shapes
from snn_export.hardware_sims.conformance.deviations import declared
from snn_export.hardware_sims.conformance.topic import Check
from snn_export.hardware_sims.conformance.trial import CheckError, Stage, Trial
from snn_export.hardware_sims.simulator import Simulator
from snn_export.models.diagnostics import EXIT_GATE, EXIT_NOTHING_COMPARED, Diagnostic, UserError

CHECKS: Mapping[str, Check] = {
    check.name: check for module in (fire, reset, leak, latency, shapes, graph, contract) for check in module.TOPIC.checks
}
"""Every check by its name, ``topic.check``, in order."""

Status = Literal["passed", "failed", "expected failure", "declared deviation", "nothing exercised", "not applicable"]
OnCheck = Callable[[str, int, int], None]
"""Called with name, number and total before each check runs."""

_CODE = re.compile(r"(SNX\d{3})\b")


@dataclass(frozen=True)
class Outcome:
    """What one check saw.

    Attributes:
        check: its name.
        stage: how far it came, and what happened there.
        detail: of a failure, in one line.
        finding: the diagnostic behind a refusal or a broken run.
        reason: why a failure is expected; None where it is not.
        deviation: what the backend declares to do otherwise, where that is all the mismatch shows; see ``deviations.py``.
    """

    check: str
    stage: Stage
    detail: str = ""
    finding: Diagnostic | None = None
    reason: str | None = None
    deviation: str = ""

    @property
    def code(self) -> str | None:
        """Code of the finding."""
        return None if self.finding is None else self.finding.code

    @property
    def status(self) -> Status:
        """The verdict. A failure counts as expected only where it is listed, and with the code its reason starts with."""
        if self.reason is None:
            if self.deviation:
                return "declared deviation"
            plain: Mapping[Stage, Status] = {
                "passed": "passed", "nothing exercised": "nothing exercised", "not applicable": "not applicable"
            }  # fmt: skip
            return plain.get(self.stage, "failed")
        if self.stage in ("passed", "not applicable"):
            return "failed"
        code = _CODE.match(self.reason)
        return "failed" if code and (self.stage != "refused" or self.code != code[1]) else "expected failure"

    @property
    def told(self) -> str:
        """The outcome in one line for people."""
        if self.status == "declared deviation":
            return f"{self.detail} (declared, and confirmed: {self.deviation})"
        if self.reason is None or self.status == "expected failure":
            return self.detail
        if self.stage == "passed":
            return f"passes, and is listed as an expected failure ({self.reason}): take it off the list"
        if self.stage == "not applicable":
            return f"does not apply to this backend, and is listed as an expected failure ({self.reason})"
        return f"{self.detail} (expected: {self.reason})"

    @property
    def exit_code(self) -> int:
        """What it means for a command: 0, 1 for a failure, 4 where the backend broke, 5 where nothing was compared."""
        if self.status == "failed":
            broke = self.stage in ("compile failed", "run failed") and self.finding is not None and self.finding.code[3] == "4"
            return self.finding.exit_code if broke and self.finding is not None else EXIT_GATE
        return EXIT_NOTHING_COMPARED if self.status == "nothing exercised" else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "check": self.check, "stage": self.stage, "status": self.status, "code": self.code, "detail": self.detail,
            "reason": self.reason, "deviation": self.deviation,
        }  # fmt: skip


@dataclass(frozen=True)
class Conformance:
    """A simulator's outcomes, in the order of the checks."""

    backend: str
    versions: Mapping[str, str]
    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """At least one check passed, none failed unexpectedly, none exercised nothing."""
        return not self.problems() and self.count("passed") > 0

    def problems(self) -> list[Outcome]:
        """Outcomes that keep it from passing."""
        return [item for item in self.outcomes if item.status in ("failed", "nothing exercised")]

    def count(self, status: Status) -> int:
        """Number of outcomes with a status."""
        return sum(item.status == status for item in self.outcomes)

    def summary(self) -> str:
        """The numbers, then one line per problem."""
        counts = {status: self.count(status) for status in dict.fromkeys(item.status for item in self.outcomes)}
        first = f"{self.backend}: " + ", ".join(f"{number} {status}" for status, number in counts.items())
        return "\n".join([first, *(f"  {item.check}: {item.stage}: {item.told}" for item in self.problems())])

    @property
    def exit_codes(self) -> set[int]:
        """Causes for a command to fail; empty where it passed."""
        found = {item.exit_code for item in self.outcomes} - {0}
        compared = any(item.stage not in ("nothing exercised", "not applicable") for item in self.outcomes)
        return found if compared else found | {EXIT_NOTHING_COMPARED}

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; the same for the same outcomes, so without times."""
        return {
            "backend": self.backend, "versions": dict(self.versions), "passed": self.passed,
            "outcomes": [item.as_dict() for item in self.outcomes],
        }  # fmt: skip


def selected(patterns: Sequence[str] = ()) -> tuple[Check, ...]:
    """Checks whose name matches one of the patterns; a topic alone stands for all of its checks.

    Raises:
        UserError: SNX503 for a pattern that matches none.
    """
    if not patterns:
        return tuple(CHECKS.values())
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in CHECKS):
            topics = ", ".join(dict.fromkeys(check.topic for check in CHECKS.values()))
            raise UserError(
                "SNX503", f"no conformance check is called {pattern!r}", where="check",
                why=f"there are {len(CHECKS)} checks in the topics {topics}",
                fix="name a topic, a check such as fire.exactly_at_threshold, or a pattern such as 'reset.*'",
            )  # fmt: skip
    return tuple(check for name, check in CHECKS.items() if any(_matches(name, pattern) for pattern in patterns))


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or name.partition(".")[0] == pattern


def declared_failures(simulator: Simulator) -> Mapping[str, str]:
    """What a simulator says of itself: its attribute ``expected_failures``, checked for unknown names.

    Raises:
        UserError: SNX504 for a check that does not exist, or something that is no mapping of text.
    """
    stated = getattr(simulator, "expected_failures", None) or {}
    if not isinstance(stated, Mapping) or not all(isinstance(text, str) and text.strip() for text in stated.values()):
        raise _wrong_list(simulator.name, "the list is no mapping of check to reason")
    unknown = sorted(set(stated) - set(CHECKS))
    if unknown:
        raise _wrong_list(simulator.name, f"there is no check {unknown[0]!r}")
    return stated


def _wrong_list(name: str, what: str) -> UserError:
    return UserError(
        "SNX504", f"the expected failures of {name} are wrong: {what}", where=f"{name}.expected_failures",
        why="a failure is expected by the name of its check and a reason; a list that names something else hides nothing and "
        "says nothing",
        fix="`snn-export conformance --list` shows the names; correct or remove the entry",
    )  # fmt: skip


def run_check(simulator: Simulator, check: Check, reason: str | None = None) -> Outcome:
    """Put a simulator through one check. ``reason``: why it is expected to fail, None where it is not."""
    trial = Trial(simulator)
    missing = check.inapplicable(trial)
    if missing:
        return Outcome(check.name, "not applicable", missing, reason=reason)
    try:
        check.run(trial)
    except CheckError as error:
        deviation = declared(trial) if error.of_values else ""
        return Outcome(check.name, error.stage, error.detail, error.finding, reason, deviation)
    if trial.exercised:
        return Outcome(check.name, "passed", reason=reason)
    return Outcome(check.name, "nothing exercised", "no spike was expected and no membrane was recorded", reason=reason)


def run_kit(
    simulator: Simulator,
    checks: Sequence[Check] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    on_check: OnCheck | None = None,
) -> Conformance:
    """Put a simulator through checks.

    Args:
        simulator: available here.
        checks: default all; :func:`selected` picks some.
        expected_failures: replaces what the simulator declares.
        on_check: told before each check.

    Raises:
        UserError: SNX440 where the simulator cannot run here; SNX504 for a wrong list of expected failures.
    """
    there = simulator.availability()
    if not there.ok:
        raise UserError(
            "SNX440", f"{simulator.name} cannot be put through the kit: {there.reason}", where=simulator.name,
            why="a backend that cannot run here shows nothing", fix=there.fix or "install what it needs",
        )  # fmt: skip
    expected = declared_failures(simulator) if expected_failures is None else expected_failures
    chosen, outcomes = tuple(CHECKS.values()) if checks is None else tuple(checks), []
    for number, check in enumerate(chosen, 1):
        if on_check is not None:
            on_check(check.name, number, len(chosen))
        outcomes.append(run_check(simulator, check, expected.get(check.name)))
    return Conformance(simulator.name, dict(there.versions), tuple(outcomes))
