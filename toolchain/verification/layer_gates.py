"""Gates on single layers, and on names in the settings that this run does not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from snn_export.models.diagnostics import EXIT_GATE, EXIT_NOTHING_COMPARED
from snn_export.reporting import formatting
from snn_export.reporting.report import Activity, Comparison, Gate, LayerComparison
from snn_export.verification.criteria import ACTIVITY, Criteria, Demand, LayerLimit
from snn_export.verification.gate_kinds import share, unmeasured
from snn_export.verification.ladder import LadderResult, RungResult

UNKNOWN_NAME = "SNX530"
DIFFERENCES: tuple[LayerLimit, ...] = ("spike_mismatch", "membrane_difference")


@dataclass(frozen=True)
class _Wanted:
    """One limit on one layer: in one rung, or (rung None) in all that state none of their own."""

    rung: str | None
    layer: str
    limit: LayerLimit
    demand: Demand

    @property
    def where(self) -> str:
        return self.layer if self.rung is None else f"{self.layer} in {self.rung}"


def _wanted(criteria: Criteria, ladder: LadderResult, limits: Sequence[LayerLimit]) -> Iterator[_Wanted]:
    """Every limit on a layer that the run has, those for all rungs first."""
    rungs = _rungs(ladder)
    anywhere = [*criteria.layers, *(name for name in criteria.tolerance.layers if name not in criteria.layers)]
    for layer in anywhere:
        for limit in limits:
            demand = criteria.of_layer_anywhere(layer, limit)
            if demand is not None and any(layer in result.rung.deployment.layers for result in rungs):
                yield _Wanted(None, layer, limit, demand)
    for result in rungs:
        own = [criteria.targets[key].layers for key in criteria.names_of(result.rung.name) if key in criteria.targets]
        for layer in dict.fromkeys(name for layers in own for name in layers):
            for limit in limits if layer in result.rung.deployment.layers else ():
                demand = criteria.of_layer(result.rung.name, layer, limit)
                if demand is not None and demand != criteria.of_layer_anywhere(layer, limit):
                    yield _Wanted(result.rung.name, layer, limit, demand)


def differences(criteria: Criteria, ladder: LadderResult, comparisons: Sequence[Comparison]) -> list[Gate]:
    """Gates on how far single layers are from what they are compared with; each tells the worst comparison."""
    return [_difference(item, criteria, ladder, comparisons) for item in _wanted(criteria, ladder, DIFFERENCES)]


def _difference(wanted: _Wanted, criteria: Criteria, ladder: LadderResult, comparisons: Sequence[Comparison]) -> Gate:
    """The worst among the comparisons that the demand is for."""
    limit, layer = wanted.demand.limit, wanted.layer
    spikes = wanted.limit == "spike_mismatch"
    title = f"{'spikes' if spikes else 'membranes'} of {wanted.where}"
    required = f"at most {limit:g} % without a counterpart" if spikes else f"at most {limit:g} apart, real units"
    setting = wanted.demand.setting
    asked = [c for c in comparisons if criteria.of_layer(c.target, layer, wanted.limit) == wanted.demand]
    if wanted.rung is not None:
        asked = [c for c in asked if c.target == wanted.rung]
    found = [(_amount(record, wanted.limit), c) for c in asked for record in c.layers if record.layer == layer]
    measured = [(amount, c) for amount, c in found if amount is not None]
    if not measured:
        ran = [c for c in asked if c.verdict != "SKIPPED"] or asked
        ends = [ladder.find(name) for c in ran for name in (c.reference, c.target)]
        return unmeasured(title, required, setting, _why_not(wanted, ladder, compared=bool(found)), ends)
    worst, comparison = max(measured, key=lambda pair: pair[0])
    told = formatting.tolerance(worst / 100.0) if spikes else formatting.real(worst)
    return Gate(
        name=title, required=required, measured=f"{told} in {comparison.target} against {comparison.reference}",
        passed=worst <= limit, exit_code=EXIT_GATE, detail="" if worst <= limit else _first(comparison, layer), setting=setting,
    )  # fmt: skip


def _why_not(wanted: _Wanted, ladder: LadderResult, *, compared: bool) -> str:
    if not compared:
        return f"{wanted.where} is compared with nothing"
    if wanted.limit == "membrane_difference":
        return "its membranes were not compared"
    forms = [r.rung.deployment for r in _rungs(ladder) if wanted.layer in r.rung.deployment.layers]
    spiking = any(form.contract.neurons[wanted.layer].spiking for form in forms)
    return "nothing fired in it: agreement about nothing" if spiking else f"{wanted.layer} does not spike"


def _amount(record: LayerComparison, limit: LayerLimit) -> float | None:
    """What was measured of a layer; None where nothing was, silence among it."""
    if record.verdict == "NOT_COMPARED":
        return None
    if limit == "membrane_difference":
        return record.membrane_difference_max
    return share(record) if record.reference_spikes + record.got_spikes else None


def _first(comparison: Comparison, layer: str) -> str:
    found = next((r.first_divergence for r in comparison.layers if r.layer == layer), None)
    return "" if found is None else f"first: {formatting.divergence(found)}"


def firing(criteria: Criteria, ladder: LadderResult, activity: Mapping[str, Sequence[Activity]]) -> tuple[Gate, ...]:
    """Gates on how single layers fire.

    Args:
        criteria: what is demanded.
        ladder: what ran.
        activity: by rung that was watched (:meth:`Criteria.watched` says which must be); demands without a rung are held against
            the first.
    """
    general = next(iter(activity), None)
    gates = []
    for wanted in _wanted(criteria, ladder, ACTIVITY):
        if wanted.rung is None and general is not None:
            own = criteria.of_layer(general, wanted.layer, wanted.limit)
            if own != wanted.demand:
                continue  # this rung has a demand of its own, which comes later
        rung = wanted.rung or general
        found = next((item for item in activity.get(rung or "", ()) if item.layer == wanted.layer), None)
        gates.append(_firing(wanted, rung, found, ladder))
    return tuple(gates)


def _firing(wanted: _Wanted, rung: str | None, found: Activity | None, ladder: LadderResult) -> Gate:
    limit, setting = wanted.demand.limit, wanted.demand.setting
    title, required = {
        "dead": (f"dead neurons of {wanted.layer}", f"at most {limit:g} % never fire"),
        "saturated": (f"saturated neurons of {wanted.layer}", f"at most {limit:g} % fire in every step"),
        "rate_min": (f"least rate of {wanted.layer}", f"at least {limit:g} spikes per neuron and step"),
        "rate_max": (f"largest rate of {wanted.layer}", f"at most {limit:g} spikes per neuron and step"),
    }[wanted.limit]
    title += f" in {rung}" if rung else ""
    if found is None:
        result = None if rung is None else ladder.find(rung)
        return unmeasured(title, required, setting, f"{wanted.layer} has no spikes there, or nobody counted them", [result])
    if wanted.limit in ("dead", "saturated"):
        number = found.dead if wanted.limit == "dead" else found.saturated
        passed = 100.0 * number <= limit * found.neurons
        told = f"{formatting.count(number)} of {formatting.count(found.neurons)} neurons"
    else:
        passed = found.rate >= limit if wanted.limit == "rate_min" else found.rate <= limit
        told = f"{formatting.real(found.rate)} spikes per neuron and step"
    return Gate(name=title, required=required, measured=told, passed=passed, exit_code=EXIT_GATE, setting=setting)


def unknown(criteria: Criteria, ladder: LadderResult) -> list[Gate]:
    """A failed gate for every name in the criteria that the run does not have: what was demanded of it was not looked at."""
    rungs = _rungs(ladder)
    every = list(dict.fromkeys(layer for result in rungs for layer in result.rung.deployment.layers))
    gates = []
    for key, own in criteria.targets.items():
        meant = [result for result in rungs if key in criteria.names_of(result.rung.name)]
        if not meant:
            known = [name for result in rungs for name in criteria.names_of(result.rung.name)]
            gates.append(_missing("rung or backend", key, known, criteria.setting("targets", key)))
            continue
        there = list(dict.fromkeys(layer for result in meant for layer in result.rung.deployment.layers))
        gates += [
            _missing("layer", layer, there, criteria.setting("targets", key, "layers", layer))
            for layer in own.layers
            if layer not in there
        ]
    for layer in dict.fromkeys((*criteria.layers, *criteria.tolerance.layers)):
        if layer not in every:
            setting = criteria.setting("layers", layer) if layer in criteria.layers else ""
            gates.append(_missing("layer", layer, every, setting))
    return gates


def _missing(kind: str, name: str, known: Sequence[str], setting: str) -> Gate:
    known = list(dict.fromkeys(known))
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    if name == "teacher":
        hint = "the teacher has no spikes, and gates.teacher_accuracy alone. "
    return Gate(
        name=f"{name} is a {kind} of this run", required=f"a {kind}, because gates name it", measured=f"no such {kind}",
        passed=False, exit_code=EXIT_NOTHING_COMPARED,
        detail=f"{UNKNOWN_NAME}: demanded, but there is no {kind} called {name}; {hint}this run has {', '.join(known)}",
        setting=setting,
    )  # fmt: skip


def _rungs(ladder: LadderResult) -> list[RungResult]:
    """All rungs but the models of backends, which are no part of the network's way."""
    return [result for result in ladder.rungs if not result.rung.model_of]
