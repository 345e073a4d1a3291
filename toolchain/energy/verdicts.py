"""Which takes less energy: this network, or an ANN on the same samples. Where the ranges overlap, nobody can tell.

Compared like for like: everything in 45 nm, at the same precision, with the same model of memory on both sides. Beside that the
chip's own estimate against the 8-bit ANNs with memory: another process and another way to count stand on the two sides, and the
sentence says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from snn_export.energy.charging import Amount
from snn_export.reporting import formatting
from snn_export.reporting.energy_records import EnergyComparison, EnergyFigure

Winner = Literal["snn", "ann", "undecided"]
OWN, TWIN, TEACHER = "this network", "ANN twin", "teacher"
EARLY = f"{OWN} with early exit"
_CALLED = {TWIN: "its ANN twin", TEACHER: "the teacher"}
FAIREST, AS_PAPERS_DO = "INT8, with memory", "FP32, arithmetic"
TERMS = (FAIREST, "INT8, arithmetic", "FP32, with memory", AS_PAPERS_DO)
"""On which terms networks are compared like for like; the fairest first."""


def compare(
    cmos: Sequence[EnergyFigure], others: Sequence[EnergyFigure], chip: tuple[str, Amount | None]
) -> tuple[EnergyComparison, ...]:
    """Every comparison that can be made, the fairest first.

    Args:
        cmos: this network in 45 nm.
        others: ANNs in 45 nm.
        chip: what the chip's table is called, and this network's total by it.
    """
    by_name = {figure.component: _amount(figure) for figure in (*cmos, *others)}
    opponents = [name for name in (TWIN, TEACHER) if f"{name}, {FAIREST}" in by_name]
    found = [
        _comparison(terms, OWN, by_name[f"{OWN}, {terms}"], name, by_name[f"{name}, {terms}"])
        for terms in TERMS
        for name in opponents
    ]
    early = by_name.get(f"{EARLY}, {FAIREST}")
    if early is not None:
        found += [_comparison(FAIREST, EARLY, early, name, by_name[f"{name}, {FAIREST}"]) for name in opponents]
    title, total = chip
    if total is not None:
        own = f"{OWN} by {title}"
        found += [_comparison(FAIREST, own, total, name, by_name[f"{name}, {FAIREST}"]) for name in opponents]
    return tuple(found)


def _comparison(terms: str, own: str, mine: Amount, other: str, theirs: Amount) -> EnergyComparison:
    ends = {_less(getattr(mine, end), getattr(theirs, end)) for end in ("low", "value", "high")}
    at_every_end: Winner = ends.pop() if len(ends) == 1 else "undecided"
    winner: Winner = "undecided" if mine.overlaps(theirs) else at_every_end
    return EnergyComparison(
        terms=terms,
        own=own,
        other=other,
        own_value=mine.value,
        own_low=mine.low,
        own_high=mine.high,
        value=theirs.value,
        low=theirs.low,
        high=theirs.high,
        ratio=mine.value / theirs.value if theirs.value else None,
        winner=winner,
        at_every_end=at_every_end,
        like_for_like=own in (OWN, EARLY),
        sentence=_sentence(own, mine, other, theirs, winner, at_every_end),
    )


def _less(mine: float, theirs: float) -> Winner:
    return "snn" if mine < theirs else "ann" if theirs < mine else "undecided"


def _sentence(own: str, mine: Amount, other: str, theirs: Amount, winner: Winner, at_every_end: Winner) -> str:
    told = f"{own} takes {_told(mine)}, {_CALLED[other]} {_told(theirs)}"
    if winner == "undecided":
        side = {"snn": "this network", "ann": _CALLED[other], "undecided": ""}[at_every_end]
        ends = f"; at either end and between, {side} takes less" if side and own in (OWN, EARLY) else ""
        return f"{told}: they cannot be told apart, the ranges overlap{ends}."
    better, worse = (mine, theirs) if winner == "snn" else (theirs, mine)
    times = f"{worse.value / better.value:.2g} times less" if better.value else "less"
    return f"{told}: {'this network' if winner == 'snn' else _CALLED[other]} takes {times}."


def verdict(found: Sequence[EnergyComparison]) -> tuple[str, ...]:
    """What the comparisons say, in plain sentences: the fairest one first, then what speaks against trusting it alone."""
    fair = {(item.terms, item.other): item for item in found if item.own == OWN}
    lines = [
        f"{_headline(item)} In 45 nm with 8-bit weights, memory counted: {item.sentence}"
        for name in (TWIN, TEACHER)
        if (item := fair.get((FAIREST, name))) is not None
    ]
    lines += [f"Stopping early: {item.sentence}" for item in found if item.own == EARLY and item.other == TWIN]
    lines += [
        f"Another chip, another process, so no like-for-like comparison: {item.sentence}"
        for item in found
        if not item.like_for_like and item.other == TWIN
    ]
    first, flattering = fair.get((FAIREST, TWIN)), fair.get((AS_PAPERS_DO, TWIN))
    if first is not None and flattering is not None and flattering.winner == "snn" != first.winner:
        lines.append(
            "Charged as most papers do, FP32 additions against FP32 multiplications and no memory, it would win: "
            f"{flattering.sentence}"
        )
    if first is not None and (first.winner == "ann" or first.at_every_end == "ann"):
        lines.append(
            "Where energy alone decides and every step is taken, an ordinary 8-bit ANN of the same layers is the better choice. "
            if first.winner == "ann"
            else "Where energy alone decides and every step is taken, nothing here speaks for spiking. "
        )
        lines[-1] += "Fewer spikes or fewer steps would change that, or a chip on which state costs nearly nothing."
    return tuple(lines)


def _headline(item: EnergyComparison) -> str:
    against = _CALLED[item.other]
    return {
        "snn": f"The spiking network wins against {against}.",
        "ann": f"The spiking network loses against {against}.",
        "undecided": f"Against {against} nobody can tell which takes less.",
    }[item.winner]


def _amount(figure: EnergyFigure) -> Amount:
    if figure.value is None or figure.low is None or figure.high is None:
        raise ValueError(f"{figure.component} has no figure")
    return Amount(figure.value, figure.low, figure.high)


def _told(amount: Amount) -> str:
    return formatting.energy_range(amount.value, amount.low, amount.high)
