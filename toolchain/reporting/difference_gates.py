"""Demands on the change from one report to another, and the exit code that follows from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from snn_export.exit_codes import worst_exit_code
from snn_export.models.diagnostics import EXIT_GATE, EXIT_NOTHING_COMPARED, UserError
from snn_export.reporting import difference, difference_demands
from snn_export.reporting.difference import ORDER, Difference
from snn_export.reporting.formatting import count, energy, percent, tolerance
from snn_export.reporting.report import Gate, Report

_UNKNOWN: Final = "not measured in both"


@dataclass(frozen=True)
class Limits:
    """How much worse the second report may be.

    Attributes:
        accuracy_drop: points that any rung may lose.
        more_spikes, more_energy, larger: percent by which spikes per inference, energy per inference and bits of weights may
            grow.
        other_data: whether the two may have run on different samples.
    """

    accuracy_drop: float = 0.5
    more_spikes: float = 5.0
    more_energy: float = 10.0
    larger: float = 0.0
    other_data: bool = False


def judge(base: Report, head: Report, limits: Limits | None = None) -> Difference:
    """What changed from ``base`` to ``head``, held to ``limits`` (by default :class:`Limits`).

    Raises:
        UserError: SNX520, ``base`` compared nothing, so that nothing can have got worse.
    """
    held = limits or Limits()
    if not any(difference.compared_layers(comparison) for comparison in base.comparisons):
        raise UserError(
            "SNX520", "the first report compared nothing", where=f"report of {base.network}",
            why="against nothing everything passes", fix="take the report of a verification that ended with exit code 0 or 1",
        )  # fmt: skip
    gates = (
        _newly_failing(base, head),
        _verdicts(base, head),
        _coverage(base, head, held),
        *_accuracy(base, head, held),
        *_amounts(base, head, held),
    )
    return Difference(
        base=base,
        head=head,
        notes=difference.notes(base, head),
        other_data=held.other_data,
        changes=difference.changes(base, head),
        gates=gates,
        exit_code=worst_exit_code(gate.exit_code for gate in gates if not gate.passed),
    )


def _newly_failing(base: Report, head: Report) -> Gate:
    """A gate that fails now and did not fail before; one that is about coverage counts as coverage."""
    before = {gate.name for gate in base.gates if not gate.passed}
    found = [gate for gate in head.gates if not gate.passed and gate.name not in before]
    codes = [EXIT_NOTHING_COMPARED if gate.exit_code == EXIT_NOTHING_COMPARED else EXIT_GATE for gate in found]
    return Gate(
        name="gates that fail now",
        required="none that did not fail before",
        measured=count(len(found)) if found else "none",
        passed=not found,
        exit_code=worst_exit_code(codes) or EXIT_GATE,
        detail="; ".join(f"{gate.name}: {gate.measured}" for gate in found),
    )


def _verdicts(base: Report, head: Report) -> Gate:
    """Every pair and layer that both compared is at least as good as it was."""
    after, found = difference.pairs(head), []
    for pair, old in difference.pairs(base).items():
        new = after.get(pair)
        if new is not None and _worse(old.verdict, new.verdict):
            found.append(f"{difference.told(new)}: {old.verdict} before, {new.verdict} now")
        layers = difference.compared_layers(new)
        for name, layer in difference.compared_layers(old).items():
            if new is None or name not in layers:
                continue
            now = layers[name]
            if _worse(layer.verdict, now.verdict):
                found.append(f"{difference.told(new, name)}: {layer.verdict} before, {now.verdict} now")
            elif layer.verdict == now.verdict == "DRIFT" and now.tolerance_that_would_pass > layer.tolerance_that_would_pass:
                shares = (tolerance(item.tolerance_that_would_pass) for item in (layer, now))
                found.append("{}: DRIFT of {} of its spikes before, of {} now".format(difference.told(new, name), *shares))
    return Gate(
        name="verdicts",
        required="none worse than before",
        measured=f"{count(len(found))} worse" if found else "none worse",
        passed=not found,
        exit_code=EXIT_GATE,
        detail="; ".join(found),
    )


def _worse(before: str, after: str) -> bool:
    return before in ORDER and after in ORDER and ORDER.index(after) > ORDER.index(before)


def _coverage(base: Report, head: Report, limits: Limits) -> Gate:
    """Everything that was compared before is compared now, on as many samples, and held to as much."""
    lost = list(_lost(base, head, limits))
    return Gate(
        name="coverage",
        required="everything that was compared before",
        measured=f"{count(len(lost))} lost" if lost else "everything",
        passed=not lost,
        exit_code=EXIT_NOTHING_COMPARED,
        detail="; ".join(lost),
    )


def _lost(base: Report, head: Report, limits: Limits) -> Iterator[str]:
    after, rungs = difference.pairs(head), difference.rungs(head)
    for name, rung in difference.rungs(base).items():
        if rung.accuracy is not None and (name not in rungs or rungs[name].accuracy is None):
            yield f"accuracy of {name}"
    for pair, old in difference.pairs(base).items():
        layers, new = difference.compared_layers(old), after.get(pair)
        if not layers:
            continue
        if new is None or (not difference.compared_layers(new)):
            yield f"{difference.told(old)} ({new.verdict if new is not None else 'absent'})"
            continue
        yield from (difference.told(old, name) for name in layers if name not in difference.compared_layers(new))
        if new.samples < old.samples and not limits.other_data:
            yield f"{difference.told(old)}: {count(new.samples)} samples instead of {count(old.samples)}"
    yield from difference_demands.gone(base, head)
    yield from difference_demands.looser(base, head)


def _accuracy(base: Report, head: Report, limits: Limits) -> Iterator[Gate]:
    """The largest drop of any rung; not compared where the samples are not the same."""
    before, after = difference.rungs(base), difference.rungs(head)
    measured = {name: rung for name, rung in before.items() if rung.accuracy is not None}
    if not measured:
        return
    required = f"at most {limits.accuracy_drop:g} points less in any rung"
    shared = [name for name in measured if name in after and after[name].accuracy is not None]
    other = [name for name in shared if after[name].samples != measured[name].samples]
    if not limits.other_data and (not difference.same_data(base, head) or other):
        why = "other data" if not difference.same_data(base, head) else f"other samples: {', '.join(other)}"
        yield _missing("accuracy", required, "NOT_COMPARED", f"{why}; --other-data compares all the same")
        return
    drops = {name: (measured[name].accuracy or 0.0) - (after[name].accuracy or 0.0) for name in shared}
    worst = max(drops, key=lambda name: drops[name], default=None)
    if worst is None:
        yield _missing("accuracy", required, _UNKNOWN, f"no accuracy any more: {', '.join(measured)}")
        return
    failing = [name for name in shared if drops[name] > limits.accuracy_drop + _ROUNDING]
    yield Gate(
        name="accuracy",
        required=required,
        measured=f"{drops[worst]:.2f} points less in {worst}" if drops[worst] > 0 else "no rung has less",
        passed=not failing,
        exit_code=EXIT_GATE,
        detail="; ".join(
            f"{name}: {percent(measured[name].accuracy or 0.0)} before, {percent(after[name].accuracy or 0.0)} now"
            for name in failing
        ),
    )


_ROUNDING: Final = 1e-9
"""Points: what a difference of two accuracies may be off by."""


def _amounts(base: Report, head: Report, limits: Limits) -> Iterator[Gate]:
    """Spikes, energy and size, each where the first report has it."""
    amounts = (
        ("spikes per inference", limits.more_spikes, difference.spikes(base), difference.spikes(head), _spikes),
        (
            "energy per inference",
            limits.more_energy,
            base.energy.total if base.energy else None,
            head.energy.total if head.energy else None,
            energy,
        ),
        (
            "size of the weights",
            limits.larger,
            None if base.size is None else float(base.size.memory_bits),
            None if head.size is None else float(head.size.memory_bits),
            _bits,
        ),
    )
    for name, limit, old, new, write in amounts:
        required = f"at most {limit:g} % more"
        if old is None:
            continue
        if new is None:
            yield _missing(name, required, _UNKNOWN, "the second report does not have it")
            continue
        yield Gate(
            name=name,
            required=required,
            measured=f"{write(old)} before, {write(new)} now ({_growth(old, new)})",
            passed=new - old <= old * limit / 100,
            exit_code=EXIT_GATE,
        )


def _missing(name: str, required: str, measured: str, detail: str) -> Gate:
    return Gate(name=name, required=required, measured=measured, passed=False, exit_code=EXIT_NOTHING_COMPARED, detail=detail)


def _growth(old: float, new: float) -> str:
    if old == new:
        return "the same"
    return f"{100 * (new - old) / old:+.1f} %" if old else "from nothing"


def _spikes(value: float) -> str:
    return count(round(value))


def _bits(value: float) -> str:
    return f"{count(round(value))} bits"
