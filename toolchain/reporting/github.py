"""The report for GitHub Actions: annotations as workflow commands, and a step summary within its size limit.

A job shows few annotations (:data:`SHOWN_PER_KIND` of each kind and step), so each stands for one cause: the first faulty layer
of a target, a backend that did not run, or a failed gate that neither explains. Gates that fail with a cause are named in its
message. All else is for the summary. Source of syntax, escapes and limits: GitHub's documentation of workflow commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from snn_export.models.diagnostics import EXIT_NOTHING_COMPARED
from snn_export.reporting import markdown, wording
from snn_export.reporting.formatting import count, divergence
from snn_export.reporting.report import Attribution, Comparison, Gate, Report
from snn_export.text_safety import printable

Kind = Literal["error", "warning", "notice"]

SHOWN_PER_KIND: Final = 10
SUMMARY_LIMIT: Final = 1_000_000
"""Bytes of a step's summary; GitHub drops one of more than 1 MiB altogether."""

_LONGEST_TITLE: Final = 200
_LONGEST_MESSAGE: Final = 4_000


@dataclass(frozen=True)
class Finding:
    """One cause of a failure.

    Attributes:
        title: in a few words.
        lines: what is known about it.
        target: rung that it was found in, or an empty string.
        gates: the gates that failed because of it, with what was measured.
        stopped: whether the target did not run, so that all that depends on it says the same.
    """

    title: str
    lines: tuple[str, ...]
    target: str = ""
    gates: tuple[str, ...] = ()
    stopped: bool = False

    @property
    def message(self) -> str:
        """All that is known, one fact a line."""
        return "\n".join((*self.lines, *(f"failed because of it: {gate}" for gate in self.gates)))


def findings(report: Report) -> tuple[Finding, ...]:
    """The causes of a failed report, in the order of the ladder; none for one that passed."""
    if report.passed:
        return ()
    roots = _roots(report)
    found = {target: _finding(report, comparison) for target, comparison in roots.items() if comparison.target == target}
    rest = []
    for gate in (gate for gate in report.gates if not gate.passed):
        cause = _cause(gate, roots)
        if cause is None:
            rest.append(Finding(gate.name, (*_gate_lines(gate), *_attributed(report, gate))))
        else:
            found[cause] = replace(found[cause], gates=(*found[cause].gates, f"{gate.name}: {gate.measured}"))
    every = (*_once(found.values()), *rest)
    return every or (Finding(wording.headline(report), report.causes or (f"exit code {report.exit_code}",)),)


def render(report: Report) -> str:
    """Workflow commands, one a line: an error for every cause, within the limit; an empty string for a report that passed."""
    found = findings(report)
    lines = [command("error", cause.title, cause.message) for cause in found[:SHOWN_PER_KIND]]
    if len(found) > SHOWN_PER_KIND:
        more = f"{count(len(found) - SHOWN_PER_KIND)} more causes stand in the step summary."
        lines.append(command("notice", "More than a job can show", more))
    return "".join(f"{line}\n" for line in lines)


def command(kind: Kind, title: str, message: str) -> str:
    """A workflow command without its line end. What would end the command, its title or a property is escaped."""
    head = _clipped(" ".join(printable(title).split()), _LONGEST_TITLE)
    body = _clipped(printable(message), _LONGEST_MESSAGE)
    return f"::{kind} title={_property(head)}::{_data(body)}"


def step_summary(report: Report, whole: str, room: int = SUMMARY_LIMIT) -> str:
    """The report as Markdown in at most ``room`` bytes; ``whole`` says where all of it is.

    Raises:
        ValueError: less than a thousand bytes of room.
    """
    return markdown.within(markdown.render(report), min(room, SUMMARY_LIMIT), whole)


def _roots(report: Report) -> dict[str, Comparison]:
    """For every target with a fault the comparison that shows where it comes from: its own, or that of a form before it.

    A target that agrees with a form which is at fault itself only hands that fault on.
    """
    roots: dict[str, Comparison] = {}
    for comparison in report.comparisons:
        if comparison.verdict not in wording.FAILED or comparison.target in roots:
            continue
        before = (c.reference for c in report.comparisons if c.target == comparison.target and c.verdict in wording.GOOD)
        roots[comparison.target] = next((roots[name] for name in before if name in roots), comparison)
    return roots


def _finding(report: Report, comparison: Comparison) -> Finding:
    reference, target = comparison.reference, comparison.target
    if comparison.verdict in wording.BROKEN:
        log = (f"log: {comparison.log}",) if comparison.log else ()
        told = comparison.message or wording.VERDICT_MEANING[comparison.verdict]
        return Finding(f"{target} did not run", (told, *log), target, stopped=True)
    name = comparison.first_faulty_isolated or comparison.first_faulty_layer
    layer = next((layer for layer in comparison.layers if layer.layer == name), None)
    if layer is None or comparison.verdict == "NOT_COMPARED":
        what = f"{name} of {target}" if name else target
        return Finding(
            f"{what} was not compared with {reference}",
            (comparison.message or wording.VERDICT_MEANING["NOT_COMPARED"],),
            target,
        )
    lines = [f"{count(layer.mismatched_spikes)} of {count(layer.positions)} spike positions of {name} differ"]
    if layer.first_divergence is not None:
        lines.append(f"first: {divergence(layer.first_divergence)}")
    lines += [line for line in (wording.isolated_sentence(comparison), wording.lag_sentence(layer)) if line]
    attribution = report.attribution
    if attribution is not None and (attribution.target == target or _hands_on(report, target, attribution.target)):
        lines += _attribution_lines(attribution)
    return Finding(f"{target} differs from {reference} in {name}", tuple(lines), target)


def _hands_on(report: Report, first: str, last: str) -> bool:
    """Whether ``last`` agrees with ``first``, so that what is said about one holds for the other."""
    return any((c.reference, c.target) == (first, last) and c.verdict in wording.GOOD for c in report.comparisons)


def _cause(gate: Gate, roots: dict[str, Comparison]) -> str | None:
    """Target whose fault a gate fails for: the one it compares, else the one that it names first; None where it names none."""
    if gate.detail.startswith(wording.UNKNOWN_NAME):  # it lists every name that there is, and none is to blame
        return None
    text = f"{gate.name} {gate.detail}" if gate.exit_code == EXIT_NOTHING_COMPARED else gate.name
    places = {target: _place(text, target) for target in roots}
    named = sorted((target for target in roots if places[target] is not None), key=lambda target: places[target] or 0)
    pairs = [target for target in named if _place(text, roots[target].reference) is not None]
    return next((roots[target].target for target in (*pairs, *named)), None)


def _place(text: str, name: str) -> int | None:
    """Where ``name`` stands in ``text`` as a word of its own."""
    found = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
    return None if found is None else found.start()


def _attributed(report: Report, gate: Gate) -> tuple[str, ...]:
    """What the attribution says about the rung that a gate names."""
    attribution = report.attribution
    if attribution is None or _place(gate.name, attribution.target) is None:
        return ()
    return _attribution_lines(attribution)


def _attribution_lines(attribution: Attribution) -> tuple[str, ...]:
    return (attribution.sentence, *((f"fix: {attribution.fix}",) if attribution.fix else ()))


def _gate_lines(gate: Gate) -> tuple[str, ...]:
    asked = (f"demanded by: {gate.setting}",) if gate.setting else ()
    return (f"required: {gate.required}", f"measured: {gate.measured}", *((gate.detail,) if gate.detail else ()), *asked)


def _once(found: Iterable[Finding]) -> Iterator[Finding]:
    """One finding per cause: where a form did not run, everything compared with it says so with the same words."""
    seen: dict[tuple[str, ...], Finding] = {}
    for finding in found:
        key = finding.lines if finding.stopped else (finding.title,)
        known = seen.get(key)
        gates = dict.fromkeys((*(known.gates if known else ()), *finding.gates))
        seen[key] = replace(known or finding, gates=tuple(gates))
    yield from seen.values()


def _clipped(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
