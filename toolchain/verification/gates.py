"""Gates: the conditions a verification must meet, and the exit code that follows."""

from __future__ import annotations

from collections.abc import Iterator

from snn_export.config_schema import Agreement
from snn_export.exit_codes import worst_exit_code
from snn_export.models.diagnostics import EXIT_BACKEND, EXIT_GATE, EXIT_NOTHING_COMPARED
from snn_export.reporting import formatting, wording
from snn_export.reporting.report import Comparison, Gate
from snn_export.verification import gate_kinds, layer_gates
from snn_export.verification.compare import Kind
from snn_export.verification.criteria import Criteria, Demand
from snn_export.verification.gate_kinds import minimum_accuracy
from snn_export.verification.ladder import LadderResult

__all__ = ["Criteria", "clipped", "evaluate", "exit_code", "minimum_accuracy"]

_OWN: dict[Kind, Agreement] = {"exact": "exact", "float": "rounding", "approximate": "within"}
"""What two rungs owe each other by what they are."""
_STRICTEST_FIRST: tuple[Agreement, ...] = ("exact", "rounding", "within")


def evaluate(criteria: Criteria, ladder: LadderResult, comparisons: tuple[Comparison, ...]) -> tuple[Gate, ...]:
    """All gates, those about coverage first. How layers fire is judged by ``layer_gates.firing``, which needs their counts."""
    gates = [_everything_compared(comparisons), *_backends(ladder), *_something_fired(ladder, comparisons)]
    gates += layer_gates.unknown(criteria, ladder)
    gates += _agreements(criteria, ladder, comparisons)
    gates += layer_gates.differences(criteria, ladder, comparisons)
    gates += [gate_kinds.overflows(name, demand, ladder) for name, demand in _overflow_demands(criteria, ladder).items()]
    for name, (baseline, demand) in _drop_demands(criteria, ladder).items():
        gates.append(gate_kinds.accuracy_drop(baseline, name, demand, criteria.significance_of(name), ladder, comparisons))
    gates += _least_accuracies(criteria, ladder)
    return tuple(gates)


def exit_code(gates: tuple[Gate, ...]) -> int:
    """0, or the exit code of the failed gates by the precedence of the command line."""
    return worst_exit_code([gate.exit_code for gate in gates if not gate.passed])


def _agreements(criteria: Criteria, ladder: LadderResult, comparisons: tuple[Comparison, ...]) -> Iterator[Gate]:
    """Every pair is held to what its two sides can share; a demand makes that stricter, never weaker."""
    links = [link for link, _ in ladder.links]
    held = {(link.reference, link.target) for link in links if link.kind == "exact"}
    for pair in criteria.exact:
        if pair not in held:
            yield gate_kinds.agreement(*pair, comparisons, ladder, "exact", criteria.setting("exact"))
    anchors = {link.target: link for link in reversed(links)}
    for link in links:
        pair, least = (link.reference, link.target), _OWN[link.kind]
        level, setting = least, criteria.setting("exact") if pair in criteria.exact else ""
        demanded = criteria.agreement(link.target) if anchors[link.target] is link else None
        if demanded is not None and _STRICTEST_FIRST.index(demanded[0]) <= _STRICTEST_FIRST.index(least):
            level, setting = demanded
        if link.kind != "approximate" or demanded is not None:
            yield gate_kinds.agreement(*pair, comparisons, ladder, level, setting)
        found = gate_kinds.find(*pair, comparisons)
        if found is None:
            continue
        if link.kind == "approximate":
            if found.verdict in ("WITHIN", "DRIFT"):
                yield gate_kinds.drift(found, criteria, ladder, judged=True)
        elif criteria.of_target(link.target, "spike_mismatch") or criteria.of_target(link.target, "decision_mismatch"):
            yield gate_kinds.drift(found, criteria, ladder, judged=False)
    for name in criteria.backends:
        demanded = criteria.agreement(name)
        if demanded is not None and name not in anchors:
            yield gate_kinds.unmeasured(
                f"{name} agrees with another rung", demanded[0], demanded[1], f"{name} is compared with nothing", []
            )


def _overflow_demands(criteria: Criteria, ladder: LadderResult) -> dict[str, Demand]:
    found = {}
    if criteria.overflows is not None:
        found[criteria.overflows[0]] = Demand(criteria.overflows[1], criteria.setting("overflows"))
    for name in criteria.backends:
        demand = criteria.of_target(name, "overflows")
        if demand is not None and ladder.find(name) is not None:
            found[name] = demand
    return found


def _drop_demands(criteria: Criteria, ladder: LadderResult) -> dict[str, tuple[str, Demand]]:
    """By rung, what it is measured against and what it may lose; a target that states its significance alone takes the rest."""
    setting = criteria.setting("accuracy_drop")
    found = {name: (baseline, Demand(limit, setting)) for baseline, name, limit in criteria.accuracy}
    general = next((Demand(limit, setting) for _, _, limit in criteria.accuracy), Demand(0.0, ""))
    for name in criteria.backends:
        demand = criteria.of_target(name, "accuracy_drop")
        if ladder.find(name) is None or (demand is None and criteria.of_target(name, "accuracy_significance") is None):
            continue
        baseline, limit = found.get(name, (criteria.baseline, general))
        found[name] = (baseline, demand or limit)
    return found


def _least_accuracies(criteria: Criteria, ladder: LadderResult) -> Iterator[Gate]:
    demands = [(name, Demand(least, criteria.setting(f"{name}_accuracy"))) for name, least in criteria.minimum_accuracy]
    demands += [(name, demand) for name in criteria.backends if (demand := criteria.of_target(name, "accuracy")) is not None]
    for name, demand in demands:
        found = ladder.find(name)
        samples = found.samples if found is not None and ladder.labelled else 0
        correct = found.correct if found is not None else 0
        yield gate_kinds.minimum_accuracy(name, demand.limit, correct, samples, demand.setting, found)


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
    broken = any(c.verdict in wording.BROKEN for c in comparisons)
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
    firing = spiking_layers(ladder)
    spiking = [layer for c in comparisons for layer in c.layers if layer.layer in firing]
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


def spiking_layers(ladder: LadderResult) -> frozenset[str]:
    """Layers that spike, of all forms that ran: one form may hold the parts of a layer of another."""
    forms = [result.rung.deployment for result in ladder.rungs]
    return frozenset(name for form in forms for name in form.layers if form.contract.neurons[name].spiking)


def _backends(ladder: LadderResult) -> list[Gate]:
    gates = []
    for result in ladder.rungs:
        if result.status in wording.BROKEN:
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


def clipped(count: int, total: int, limit: float, setting: str = "") -> Gate:
    """Gate on input values that the integer grid cut off: every integer rung cuts alike, so agreement cannot show it."""
    return Gate(
        name="inputs lie in the declared range",
        required=f"at most {limit:g} % of values outside",
        measured=f"{formatting.count(count)} of {formatting.count(total)} values clipped",
        passed=100.0 * count <= limit * total,
        exit_code=EXIT_GATE,
        setting=setting,
    )
