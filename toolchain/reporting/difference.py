"""What changed from one report to another: only that, with the numbers of both."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from snn_export.config_schema import leaves
from snn_export.reporting import wording
from snn_export.reporting.report import Comparison, Gate, LayerComparison, NetworkSize, Report, Rung

Kind = Literal["text", "count", "percent", "energy", "rate", "verdict"]
"""How a value is written; every kind may be None, for what one of the reports does not have."""

Value = str | int | float | None

Part = Literal[
    "verdict", "gate", "accuracy", "layer", "activity", "energy", "size", "coverage", "setting", "fingerprint", "version"
]
"""What a change is about, in the order they are shown."""

_SIZES: Final = {"nonzero": "synapses that are not zero", "weight_bits": "bits per weight", "memory_bits": "bits of weights"}

UNCOMPARED: Final = frozenset({"NOT_COMPARED", "SKIPPED", *wording.BROKEN})
"""Verdicts of what was not compared."""


@dataclass(frozen=True)
class Change:
    """One value that is not the same in both reports; None where a report has none.

    Attributes:
        part: what it is about.
        what: rung, pair and layer, setting, ... it belongs to.
        base, head: the values.
        kind: how they are written.
        worse: True where head is worse, False where it is better, None where that cannot be said.
    """

    part: Part
    what: str
    base: Value
    head: Value
    kind: Kind = "text"
    worse: bool | None = None


@dataclass(frozen=True)
class Difference:
    """What changed from ``base`` to ``head``, and what was demanded of it.

    Attributes:
        notes: sentences that say why the two are not about the same thing; none where they are.
        other_data: whether other data were accepted.
        changes: what is not the same.
        gates: demands on the change.
        exit_code: 0, or that of the failed gates.
    """

    base: Report
    head: Report
    notes: tuple[str, ...]
    other_data: bool
    changes: tuple[Change, ...]
    gates: tuple[Gate, ...]
    exit_code: int


def changes(base: Report, head: Report) -> tuple[Change, ...]:
    """Everything that is not the same in both: verdict, gates, accuracy, layers, spikes, energy, size, coverage, versions."""
    found = [
        Change("verdict", "all gates", _outcome(base), _outcome(head), "text", _worse(base.passed, head.passed)),
        *_gates(base, head),
        *_rungs(base, head),
        *_comparisons(base, head),
        *_activity(base, head),
        *_energy(base, head),
        *_size(base.size, head.size),
        *_coverage(base, head),
        *_texts("setting", settings(base), settings(head)),
        *_texts("fingerprint", base.fingerprints, head.fingerprints),
        *_texts("version", base.versions, head.versions),
        Change("setting", "network", base.network, head.network),
        Change("setting", "target", base.target, head.target),
    ]
    return tuple(change for change in found if change.base != change.head)


def notes(base: Report, head: Report) -> tuple[str, ...]:
    """Why the two reports are not about the same thing, one sentence each; none where they are."""
    found = []
    if not same_data(base, head):
        found.append("The two ran on different data: their numbers say nothing about a change of the network.")
    if base.samples != head.samples:
        found.append(f"The first ran on {base.samples} samples, the second on {head.samples}.")
    changed = sorted(
        name for name in settings(base).keys() | settings(head).keys() if settings(base).get(name) != settings(head).get(name)
    )
    if changed:
        found.append(f"Settings differ: {', '.join(changed)}.")
    if base.target != head.target:
        found.append(f"The first is for {base.target}, the second for {head.target}.")
    return tuple(found)


def same_data(base: Report, head: Report) -> bool:
    """Whether both ran on the same data, as far as they say: by fingerprint, else by name."""
    if "data" in base.fingerprints or "data" in head.fingerprints:
        return base.fingerprints.get("data") == head.fingerprints.get("data")
    return base.dataset == head.dataset


def settings(report: Report) -> Mapping[str, str]:
    """Effective settings by dotted key; where they cannot be read as TOML, their whole text under one key."""
    try:
        return {".".join(key): str(value) for key, value in leaves((), tomllib.loads(report.settings))}
    except (tomllib.TOMLDecodeError, RecursionError):  # no TOML, or nested beyond what can be read
        return {"settings": report.settings}


def pairs(report: Report) -> dict[tuple[str, str], Comparison]:
    """Comparisons by reference and target."""
    return {(comparison.reference, comparison.target): comparison for comparison in report.comparisons}


def compared_layers(comparison: Comparison | None) -> dict[str, LayerComparison]:
    """Layers of a comparison that were compared, by name."""
    layers = comparison.layers if comparison is not None else ()
    return {layer.layer: layer for layer in layers if layer.verdict not in UNCOMPARED}


def rungs(report: Report) -> dict[str, Rung]:
    """Rungs by name."""
    return {rung.name: rung for rung in report.ladder}


def spikes(report: Report) -> float | None:
    """Spikes per inference of the integer rung, all layers; None where its activity was not measured."""
    if not report.activity:
        return None
    return sum(layer.rate * layer.neurons for layer in report.activity) * report.steps


def told(comparison: Comparison, layer: str = "") -> str:
    """Name of a comparison, or of a layer in it."""
    pair = f"{comparison.reference} → {comparison.target}"
    return f"{pair}: {layer}" if layer else pair


def _outcome(report: Report) -> str:
    return "pass" if report.passed else f"FAIL, exit code {report.exit_code}"


def _gates(base: Report, head: Report) -> Iterator[Change]:
    before, after = ({gate.name: gate for gate in report.gates} for report in (base, head))
    for name in _union(before, after):
        old, new = before.get(name), after.get(name)
        states = _state(old), _state(new)
        worse = None if None in states else _worse(states[0] == "pass", states[1] == "pass")
        yield Change("gate", name, states[0], states[1], "verdict", worse)
        if old is not None and new is not None and not (old.passed and new.passed):
            yield Change("gate", f"{name}, measured", old.measured, new.measured)


def _state(gate: Gate | None) -> str | None:
    if gate is None:
        return None
    return "skipped" if gate.skipped else "pass" if gate.passed else "FAIL"


def _rungs(base: Report, head: Report) -> Iterator[Change]:
    before, after = rungs(base), rungs(head)
    for name in _union(before, after):
        old, new = before.get(name), after.get(name)
        pair = old.accuracy if old else None, new.accuracy if new else None
        as_many = old is None or new is None or old.samples == new.samples
        yield Change("accuracy", name, *pair, "percent", _grew(pair[1], pair[0]) if as_many else None)
        if old is not None and new is not None:
            fewer = _grew(new.samples, old.samples)
            yield Change("accuracy", f"{name}, samples", old.samples, new.samples, "count", fewer)


def _comparisons(base: Report, head: Report) -> Iterator[Change]:
    before, after = pairs(base), pairs(head)
    for pair in _union(before, after):
        old, new = before.get(pair), after.get(pair)
        comparison = new or old
        if comparison is None:
            continue
        verdicts = old.verdict if old else None, new.verdict if new else None
        yield Change("verdict", told(comparison), *verdicts, "verdict", _worse_verdict(*verdicts))
        if old is None or new is None:
            continue
        layers = compared_layers(old), compared_layers(new)
        for name in _union(*layers):
            found = _layer(told(comparison, name), layers[0].get(name), layers[1].get(name))
            yield from found if old.samples == new.samples else map(_unjudged, found)


def _unjudged(change: Change) -> Change:
    """Counts over different numbers of samples are neither better nor worse; a verdict is."""
    return change if change.kind == "verdict" else replace(change, worse=None)


def _layer(name: str, old: LayerComparison | None, new: LayerComparison | None) -> Iterator[Change]:
    verdicts = old.verdict if old else None, new.verdict if new else None
    yield Change("layer", f"{name}, verdict", *verdicts, "verdict", _worse_verdict(*verdicts))
    spike = old.mismatched_spikes if old else None, new.mismatched_spikes if new else None
    yield Change("layer", f"{name}, spikes that differ", *spike, "count", _grew(*spike))
    membrane = old.mismatched_membranes if old else None, new.mismatched_membranes if new else None
    yield Change("layer", f"{name}, membranes that differ", *membrane, "count", _grew(*membrane))
    overflow = old.overflows if old else None, new.overflows if new else None
    yield Change("layer", f"{name}, overflows", *overflow, "count", _grew(*overflow))


def _activity(base: Report, head: Report) -> Iterator[Change]:
    total = spikes(base), spikes(head)
    yield Change("activity", "spikes per inference", *total, "rate", _grew(*total))
    before, after = ({layer.layer: layer for layer in report.activity} for report in (base, head))
    for name in _union(before, after):
        old, new = before.get(name), after.get(name)
        rates = old.rate if old else None, new.rate if new else None
        yield Change("activity", f"{name}, spikes per neuron and step", *rates, "rate", _grew(*rates))
        for field in ("dead", "saturated"):
            numbers = getattr(old, field) if old else None, getattr(new, field) if new else None
            yield Change("activity", f"{name}, {field} neurons", *numbers, "count", _grew(*numbers))


def _energy(base: Report, head: Report) -> Iterator[Change]:
    totals = base.energy.total if base.energy else None, head.energy.total if head.energy else None
    yield Change("energy", "per inference", *totals, "energy", _grew(*totals))
    tables = base.energy.table if base.energy else None, head.energy.table if head.energy else None
    yield Change("energy", "table of costs", *tables)


def _size(old: NetworkSize | None, new: NetworkSize | None) -> Iterator[Change]:
    for field in NetworkSize.model_fields:
        pair = getattr(old, field) if old else None, getattr(new, field) if new else None
        yield Change("size", _SIZES.get(field, field), *pair, "count", _grew(*pair))


def _coverage(base: Report, head: Report) -> Iterator[Change]:
    before, after = ({item.what: item.status for item in report.coverage} for report in (base, head))
    for what in _union(before, after):
        yield Change(
            "coverage", what, before.get(what), after.get(what), "verdict", what in after if what not in before else None
        )


def _texts(part: Part, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for name in _union(before, after):
        yield Change(part, name, before.get(name), after.get(name))


def _union(before: Mapping[Any, object], after: Mapping[Any, object]) -> Iterable[Any]:
    """Keys of both, those of the first in its order, then what only the second has."""
    return dict.fromkeys((*before, *after))


def _worse(before: bool, after: bool) -> bool | None:
    """Whether something good was lost (True) or won (False)."""
    return None if before == after else before


def _grew(before: float | None, after: float | None) -> bool | None:
    """Whether a number grew (True) or shrank (False); None where one of them is missing."""
    return None if before is None or after is None or before == after else after > before


ORDER: Final = ("EXACT", "TIE", "WITHIN", "DRIFT")
"""Verdicts of what was compared, best first."""


def _worse_verdict(before: str | None, after: str | None) -> bool | None:
    if before == after or before is None or after is None:
        return None
    ranks = [ORDER.index(verdict) if verdict in ORDER else len(ORDER) for verdict in (before, after)]
    return None if ranks[0] == ranks[1] else ranks[1] > ranks[0]
