"""What to do next: the first screen of the report ends with it.

Nothing is found out here. Each step repeats what a record of the report says, and names the section where it is told in full.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from snn_export.reporting import wording
from snn_export.reporting.report import Comparison, Report

MOST_STEPS: Final = 5
_INEXPRESSIBLE: Final = re.compile(r"SNX2\d\d\b")
"""How a refusal begins that says what a backend cannot hold."""
_TO_COVER: Final = frozenset({"UNAVAILABLE", "NOT_COMPARED"})


@dataclass(frozen=True)
class Step:
    """One thing to do: a sentence, what to type or to open where there is such a thing, and where the page says more."""

    text: str
    anchor: str
    link: str
    code: str = ""


def next_steps(report: Report) -> tuple[Step, ...]:
    """The first few things to do, the most telling first. Never empty: a report that passes has a next step too."""
    steps = _to_mend(report) if not report.passed else _to_rely_on_it(report)
    return tuple(islice(steps, MOST_STEPS))


def _to_mend(report: Report) -> Iterator[Step]:
    begun: set[str] = set()
    told: set[str] = set()
    for gate in report.gates:
        if not gate.passed and gate.detail.startswith(wording.UNKNOWN_NAME):
            begun.add(gate.name)
            yield Step(f"Correct a name in the settings ({gate.setting}): {gate.measured}.", "gates", "Gates")
    for index, comparison in enumerate(report.comparisons):
        if comparison.required and wording.tone(comparison.verdict) == "bad":
            for step in (*_of_comparison(index, comparison), *_without_it(report, index, comparison)):
                begun.add(comparison.target)
                # One backend stands in several comparisons; what keeps it from running keeps it from all of them.
                if (step.code or step.text) not in told:
                    yield step
                told.add(step.code or step.text)
            yield from _smallest_case(report, index, comparison)
    for item in report.coverage:
        if item.status in _TO_COVER and item.fix and item.what not in begun:
            begun.add(item.what)
            yield Step(f"Cover {item.what}:", "coverage", "What was not covered", item.fix)
    if report.attribution is not None and report.attribution.fix:
        begun.add("attribution")
        yield Step(
            f"To change fewer spikes on the way to integers: {report.attribution.fix}", "attribution", "Where changes come from"
        )
    if not begun:
        yield Step("Read the failed gates: each says what it requires and what was measured.", "gates", "Gates")


def _of_comparison(index: int, comparison: Comparison) -> Iterator[Step]:
    anchor, link = f"comparison-{index}", f"{comparison.reference} against {comparison.target}"
    late = next((layer for layer in comparison.layers if layer.lag is not None and layer.lag.best), None)
    if late is not None and late.lag is not None:
        right = late.lag.declared + late.lag.best
        yield Step(
            f"Correct the latency that {comparison.target} declares for {late.layer}: {late.lag.declared}, "
            f"but its spikes agree at {right}.",
            anchor,
            link,
        )
    elif comparison.first_faulty_isolated is not None:
        place = {"reference": comparison.reference, "both": f"{comparison.reference} and {comparison.target}"}
        where = place.get(comparison.faulty_side or "", comparison.target)
        yield Step(
            f"Look at {comparison.first_faulty_isolated} in {where}: it is the first layer at fault by itself.", anchor, link
        )
    elif comparison.first_faulty_layer is not None:
        yield Step(
            f"Look at {comparison.first_faulty_layer}: the first layer in which {comparison.target} differs from "
            f"{comparison.reference}.",
            anchor,
            link,
        )
    elif comparison.log:
        yield Step(f"Read why {comparison.target} broke:", anchor, link, comparison.log)
    elif comparison.message:
        yield Step(f"Read what kept {comparison.target} from running, and what it asks for.", anchor, link)


def _without_it(report: Report, index: int, comparison: Comparison) -> Iterator[Step]:
    """How a run does without a backend that cannot hold the network; a verification was told its backends by name."""
    if _INEXPRESSIBLE.match(comparison.message or "") and "snn-export run" in report.reproduce:
        target = comparison.target
        backend = next((rung.backend for rung in report.ladder if rung.name == target), target)
        yield Step(
            f"Or do without {target}, if you do not need it: add this to the command. The report then names what it left open.",
            f"comparison-{index}",
            f"{comparison.reference} against {target}",
            f"--set verify.backends.{backend}.required=false",
        )


def _smallest_case(report: Report, index: int, comparison: Comparison) -> Iterator[Step]:
    """How to get a bug report, where ``bisect`` can compare the two: backends that must agree in every membrane, and do not."""
    backends = {rung.name: rung.backend for rung in report.ladder}
    reference, target = (backends.get(name, name) for name in (comparison.reference, comparison.target))
    bitwise = any(layer.mismatched_membranes is not None for layer in comparison.layers)
    if comparison.verdict == "DRIFT" and bitwise and reference != target:
        yield Step(
            f"Find the smallest network and input that still show it, for a bug report about {target}:",
            f"comparison-{index}",
            f"{comparison.reference} against {comparison.target}",
            f"snn-export bisect NET.nir --reference {reference} --target {target}",
        )


def _to_rely_on_it(report: Report) -> Iterator[Step]:
    if report.coverage:
        number = len(report.coverage)
        told = "1 thing was not covered; read it first." if number == 1 else f"{number} things were not covered; read them first."
        yield Step(f"Before you rely on this: {told}", "coverage", "What was not covered")
    if report.attribution is not None and report.attribution.cause is not None and report.attribution.fix:
        yield Step(f"To change fewer spikes still: {report.attribution.fix}", "attribution", "Where changes come from")
    yield Step("Let CI watch it: the same commands end with an exit code other than 0 when it breaks.", "reproduce", "Reproduce")
