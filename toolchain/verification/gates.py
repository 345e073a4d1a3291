"""Gates: the conditions a verification must meet, and the exit code that follows."""

from __future__ import annotations

from dataclasses import dataclass, field

from snn_export.exit_codes import worst_exit_code
from snn_export.export import bounds
from snn_export.models.diagnostics import EXIT_BACKEND, EXIT_GATE, EXIT_NOTHING_COMPARED
from snn_export.reporting import formatting
from snn_export.reporting.report import Comparison, Gate
from snn_export.verification.compare import Tolerance
from snn_export.verification.ladder import LadderResult


@dataclass(frozen=True)
class Criteria:
    """What a verification demands.

    Attributes:
        exact: pairs of rungs that must agree in every spike, membrane and current. Pairs that are compared and could agree so
            are held to it whether they stand here or not; a pair that stands here must be compared.
        accuracy: (baseline rung, rung, largest drop in points), one per rung.
        overflows: rung in which wraps and saturations are counted, and how many are allowed.
        tolerance: how far forms of the network may differ where the numbers were changed on purpose.
        clipped_inputs: percent of input values that may lie outside the declared range.
        minimum_accuracy: percent by rung.
    """

    exact: tuple[tuple[str, str], ...] = ()
    accuracy: tuple[tuple[str, str, float], ...] = ()
    overflows: tuple[str, int] | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    clipped_inputs: float = 1.0
    minimum_accuracy: tuple[tuple[str, float], ...] = ()


def evaluate(criteria: Criteria, ladder: LadderResult, comparisons: tuple[Comparison, ...]) -> tuple[Gate, ...]:
    """All gates, those about coverage first."""
    gates = [_everything_compared(comparisons), *_backends(ladder), *_something_fired(ladder, comparisons)]
    held = {(link.reference, link.target) for link, _ in ladder.links if link.kind == "exact"}
    demanded = [pair for pair in criteria.exact if pair not in held]
    gates += [_agreement(reference, target, comparisons, ladder, exact=True) for reference, target in demanded]
    for link, _ in ladder.links:
        if link.kind != "approximate":
            gates.append(_agreement(link.reference, link.target, comparisons, ladder, exact=link.kind == "exact"))
            continue
        comparison = _find(link.reference, link.target, comparisons)
        if comparison is not None and comparison.verdict in ("WITHIN", "DRIFT"):
            gates.append(_drift(comparison, criteria.tolerance))
    if criteria.overflows is not None:
        gates.append(_overflows(*criteria.overflows, ladder))
    gates += [_accuracy_drop(baseline, name, limit, ladder) for baseline, name, limit in criteria.accuracy]
    for name, percent in criteria.minimum_accuracy:
        found = ladder.find(name)
        samples = found.samples if found is not None and ladder.labelled else 0
        gates.append(minimum_accuracy(name, percent, found.correct if found is not None else 0, samples))
    return tuple(gates)


def exit_code(gates: tuple[Gate, ...]) -> int:
    """0, or the exit code of the failed gates by the precedence of the command line."""
    return worst_exit_code([gate.exit_code for gate in gates if not gate.passed])


def _everything_compared(comparisons: tuple[Comparison, ...]) -> Gate:
    """Every requested comparison compared every layer on at least one sample. Absent backends have gates of their own."""
    holes = [
        f"{c.reference} against {c.target}: {layer.layer}"
        for c in comparisons
        for layer in c.layers
        if layer.verdict == "NOT_COMPARED"
    ]
    holes += [f"{c.reference} against {c.target}" for c in comparisons if not c.layers and c.verdict == "NOT_COMPARED"]
    compared = sum(layer.verdict != "NOT_COMPARED" for c in comparisons for layer in c.layers)
    broken = any(c.verdict in ("ERROR", "UNAVAILABLE") for c in comparisons)
    if not compared and not holes and not broken:
        holes = ["nothing at all"]
    return Gate(
        name="everything requested was compared",
        required="no layer left out",
        measured=f"{compared} layer comparisons" + (f", {len(holes)} missing" if holes else ""),
        passed=not holes,
        exit_code=EXIT_NOTHING_COMPARED,
        detail="; ".join(holes),
    )


def _something_fired(ladder: LadderResult, comparisons: tuple[Comparison, ...]) -> list[Gate]:
    """A network that stays silent agrees with everything; such agreement shows nothing."""
    neurons = ladder.rungs[0].rung.deployment.contract.neurons
    spiking = [layer for c in comparisons for layer in c.layers if neurons[layer.layer].spiking]
    fired = sum(layer.reference_spikes + layer.got_spikes for layer in spiking)
    if not spiking or fired:
        return []
    return [
        Gate(
            name="the network fires",
            required="at least one spike in what was compared",
            measured="0 spikes",
            passed=False,
            exit_code=EXIT_NOTHING_COMPARED,
            detail="every layer stayed silent on all samples: agreement about nothing; check the inputs' range and the training",
        )
    ]


def _backends(ladder: LadderResult) -> list[Gate]:
    gates = []
    for result in ladder.rungs:
        if result.status in ("UNAVAILABLE", "ERROR"):
            finding = result.findings[0]
            detail = f"{finding.code}: {finding.what} ({finding.why}). Fix: {finding.fix}"
            gates.append(
                Gate(
                    name=f"{result.rung.name} runs",
                    required="available and working",
                    measured=result.status,
                    passed=False,
                    exit_code=worst_exit_code([f.exit_code for f in result.findings])
                    if result.status == "ERROR"
                    else EXIT_BACKEND,
                    detail=detail + (f" Log: {result.log}" if result.log else ""),
                )
            )
    return gates


def _find(reference: str, target: str, comparisons: tuple[Comparison, ...]) -> Comparison | None:
    return next((c for c in comparisons if (c.reference, c.target) == (reference, target)), None)


def _agreement(reference: str, target: str, comparisons: tuple[Comparison, ...], ladder: LadderResult, *, exact: bool) -> Gate:
    found = _find(reference, target, comparisons)
    allowed = ("EXACT",) if exact else ("EXACT", "TIE")
    name = f"{target} equals {reference}" + (" bit for bit" if exact else " up to rounding")
    required = "0 mismatched spikes, membranes and currents" if exact else "every spike equal, or its flip a tie"
    if found is None:
        return Gate(
            name=name, required=required, measured="NOT_COMPARED", passed=False, exit_code=EXIT_NOTHING_COMPARED,
            detail="the pair was demanded but not run",
        )  # fmt: skip
    if found.verdict == "SKIPPED":
        return Gate(
            name=name, required=required, measured="SKIPPED", passed=True, skipped=True, exit_code=0, detail=found.message
        )
    spikes = sum(layer.mismatched_spikes for layer in found.layers)
    membranes = sum(layer.mismatched_membranes or 0 for layer in found.layers)
    currents = sum(layer.mismatched_currents or 0 for layer in found.layers)
    measured = f"{formatting.count(spikes)} spikes, {formatting.count(membranes)} membranes"
    if exact:
        measured += f", {formatting.count(currents)} currents"
    code = {
        "NOT_COMPARED": EXIT_NOTHING_COMPARED, "ERROR": _cause(reference, target, ladder), "UNAVAILABLE": EXIT_BACKEND
    }.get(found.verdict, EXIT_GATE)  # fmt: skip
    return Gate(
        name=name,
        required=required,
        measured=f"{found.verdict}: {measured} differ" if found.layers else found.verdict,
        passed=found.verdict in allowed,
        exit_code=code,
        detail="" if found.verdict in allowed else found.message,
    )


def _cause(reference: str, target: str, ladder: LadderResult) -> int:
    """Exit code of a pair that could not be run: that of what stopped it, e.g. 3 where a backend cannot express the network."""
    failed = [result for name in (reference, target) if (result := ladder.find(name)) is not None and result.status == "ERROR"]
    return worst_exit_code([finding.exit_code for result in failed for finding in result.findings]) or EXIT_BACKEND


def _drift(comparison: Comparison, tolerance: Tolerance) -> Gate:
    worst = max(comparison.layers, key=lambda layer: layer.tolerance_that_would_pass)
    changed = comparison.samples - comparison.decisions_equal
    spikes = formatting.tolerance(worst.tolerance_that_would_pass)
    return Gate(
        name=f"{comparison.target} stays near {comparison.reference}",
        required=f"at most {tolerance.spikes:g} % of a layer's spikes and {tolerance.decisions:g} % of decisions change",
        measured=f"{spikes} of the spikes of {worst.layer}, {changed} of {comparison.samples} decisions",
        passed=comparison.verdict == "WITHIN",
        exit_code=EXIT_GATE,
        detail="" if comparison.verdict == "WITHIN" else comparison.message,
    )


def clipped(count: int, total: int, limit: float) -> Gate:
    """Gate on input values that the integer grid cut off: every integer rung cuts alike, so agreement cannot show it."""
    return Gate(
        name="inputs lie in the declared range",
        required=f"at most {limit:g} % of values outside",
        measured=f"{formatting.count(count)} of {formatting.count(total)} values clipped",
        passed=100.0 * count <= limit * total,
        exit_code=EXIT_GATE,
    )


def _overflows(name: str, allowed: int, ladder: LadderResult) -> Gate:
    """What wrapped and saturated in the run; beside it, what could for any other input of the declared range."""
    found = ladder.rung(name)
    known = found.samples > 0 and found.overflows is not None
    deployment = found.rung.deployment
    possible = bounds.overflow_findings(deployment) if deployment.quantised else []
    proof = "; ".join(f"{item.where}: {item.what}; {item.fix}" for item in possible)
    return Gate(
        name=f"overflows in {name}",
        required=f"at most {allowed} wraps of u and saturations of v",
        measured=formatting.count(found.overflows or 0) if known else "not counted",
        passed=known and (found.overflows or 0) <= allowed,
        exit_code=EXIT_GATE if known else (EXIT_BACKEND if found.status is not None else EXIT_NOTHING_COMPARED),
        detail=proof or ("proven: no layer can overflow for any input of the declared range" if deployment.quantised else ""),
    )


def _accuracy_drop(baseline: str, name: str, limit: float, ladder: LadderResult) -> Gate:
    first, second = ladder.find(baseline), ladder.find(name)
    required = f"at most {limit:g} points below {baseline}"
    if not ladder.labelled or first is None or second is None or not first.samples or first.samples != second.samples:
        return Gate(
            name=f"accuracy of {name}", required=required, measured="not measured", passed=False, exit_code=EXIT_NOTHING_COMPARED,
            detail="both rungs need labels and the same samples",
        )  # fmt: skip
    drop = 100.0 * (first.correct - second.correct) / first.samples
    change = f"{abs(drop):.2f} points {'lost' if drop >= 0 else 'gained'}"
    return Gate(
        name=f"accuracy of {name}",
        required=required,
        measured=f"{change} ({first.correct} and {second.correct} of {first.samples} right)",
        passed=drop <= limit,
        exit_code=EXIT_GATE,
    )


def minimum_accuracy(name: str, percent: float, correct: int, samples: int) -> Gate:
    """Gate on an accuracy itself; not measured counts as not passed."""
    measured = 100.0 * correct / samples if samples else None
    return Gate(
        name=f"accuracy of {name} itself",
        required=f"at least {percent:g} %",
        measured="not measured" if measured is None else f"{measured:.2f} % ({correct} of {samples} right)",
        passed=measured is not None and measured >= percent,
        exit_code=EXIT_GATE if measured is not None else EXIT_NOTHING_COMPARED,
    )
