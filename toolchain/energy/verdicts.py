"""Which takes less energy: this network, or an ANN on the same samples.

Compared like for like: everything in one process, at the same precision, with the same model of memory on both sides. The range
of such a figure is mostly one unknown that both networks share: how often memory is read again, or how wide a sum is. So two
questions are answered apart: who takes less if both are alike in it (low ends, stated values and high ends, each with each), and
whether the ranges as such overlap, so that an advantage of one network in it could reverse the answer.

Beside that stands the chip's own estimate against the 8-bit ANNs with memory: another chip and another way to count stand on the
two sides, so only the ranges as such are compared, and the sentence says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

from snn_export.energy.baselines import Terms
from snn_export.energy.charging import Amount
from snn_export.reporting import formatting
from snn_export.reporting.energy_records import EnergyComparison, EnergyFigure

Winner = Literal["snn", "ann", "undecided"]
Subject = Literal["network", "early_exit", "chip"]
Opponent = Literal["twin", "teacher"]
Figures = Mapping[Terms, EnergyFigure]
OWN: Final = "this network"
EARLY: Final = f"{OWN} with early exit"
OPPONENTS: Final[dict[Opponent, str]] = {"twin": "ANN twin", "teacher": "teacher"}
"""What opponents are called, in the order in which they are compared."""
FAIREST, AS_PAPERS_DO = Terms("INT8", memory=True), Terms("FP32")
TERMS: Final = (FAIREST, Terms("INT8"), Terms("FP32", memory=True), AS_PAPERS_DO)
"""On which terms networks are compared like for like; the fairest first."""
ABOUT_THE_SAME: Final = 1.05
"""A factor below which a sentence says so."""
_ENDS: Final = ("low", "value", "high")
_HEADLINES: Final[dict[Winner, str]] = {
    "snn": "The spiking network wins against the {}. ",
    "ann": "The spiking network loses against the {}. ",
    "undecided": "",
}


@dataclass(frozen=True)
class ChipEstimate:
    """This network by a chip's table.

    Attributes:
        title: what the table is called.
        process: process node of its figures.
        total: None where nothing has a figure.
        missing: what happens and has no figure, so that the total is without it.
    """

    title: str
    process: str
    total: Amount | None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Accuracies:
    """Percent on the samples of the run, None where it is not known: with early exit, with all steps, and the teacher's."""

    early: float | None = None
    full: float | None = None
    teacher: float | None = None


@dataclass(frozen=True)
class _Side:
    """A network in a comparison: what it is called, and what it takes."""

    name: str
    amount: Amount


def compare(own: Figures, early: Figures, others: Mapping[Opponent, Figures], chip: ChipEstimate) -> tuple[EnergyComparison, ...]:
    """Every comparison that can be made, the fairest first.

    Args:
        own: this network in the process of the ANNs.
        early: the same with early exit; empty where there is none.
        others: the ANNs that there are.
        chip: this network by the chip's table.
    """
    opponents = [name for name in OPPONENTS if others.get(name)]
    found = [
        _like_for_like("network", OWN, own[terms], name, others[name][terms], terms) for terms in TERMS for name in opponents
    ]
    if early:
        found += [_like_for_like("early_exit", EARLY, early[FAIREST], name, others[name][FAIREST], FAIREST) for name in opponents]
    if chip.total is not None:
        mine = _Side(f"{OWN} by {chip.title}", chip.total)
        found += [_another_chip(mine, name, _side(name, others[name][FAIREST])) for name in opponents]
    return tuple(found)


def _side(opponent: Opponent, figure: EnergyFigure) -> _Side:
    return _Side(f"the {OPPONENTS[opponent]}", _amount(figure))


def _like_for_like(
    subject: Subject, name: str, own: EnergyFigure, opponent: Opponent, other: EnergyFigure, terms: Terms
) -> EnergyComparison:
    mine, theirs = _Side(name, _amount(own)), _side(opponent, other)
    return _comparison(subject, opponent, terms, mine, theirs, _sentence(mine, theirs, terms))


def _another_chip(mine: _Side, opponent: Opponent, theirs: _Side) -> EnergyComparison:
    return _comparison("chip", opponent, FAIREST, mine, theirs, _sentence_of_chip(mine, theirs))


def _comparison(
    subject: Subject, opponent: Opponent, terms: Terms, mine: _Side, theirs: _Side, sentence: str
) -> EnergyComparison:
    at_every_end = _at_every_end(mine.amount, theirs.amount)
    return EnergyComparison(
        terms=terms.title,
        precision=terms.precision,
        memory=terms.memory,
        own=mine.name,
        subject=subject,
        other=OPPONENTS[opponent],
        opponent=opponent,
        own_value=mine.amount.value,
        own_low=mine.amount.low,
        own_high=mine.amount.high,
        value=theirs.amount.value,
        low=theirs.amount.low,
        high=theirs.amount.high,
        ratio=mine.amount.value / theirs.amount.value if theirs.amount.value else None,
        winner="undecided" if mine.amount.overlaps(theirs.amount) else at_every_end,
        at_every_end=at_every_end,
        like_for_like=subject != "chip",
        sentence=sentence,
    )


def _less(mine: float, theirs: float) -> Winner:
    return "snn" if mine < theirs else "ann" if theirs < mine else "undecided"


def _at_every_end(mine: Amount, theirs: Amount) -> Winner:
    ends = {_less(getattr(mine, end), getattr(theirs, end)) for end in _ENDS}
    return ends.pop() if len(ends) == 1 else "undecided"


def _sentence(mine: _Side, theirs: _Side, terms: Terms) -> str:
    """Who takes less if both are alike in what the range stands for; the figures; what the ranges as such say."""
    at_every_end, overlap = _at_every_end(mine.amount, theirs.amount), mine.amount.overlaps(theirs.amount)
    shared, low, middle, high = (
        ("reuse what they read from memory equally well", "perfect reuse", "every operand read anew", "no reuse")
        if terms.memory
        else ("add into sums of the same width", "narrow sums", "sums as stated", "wide sums")
    )
    figures = f"{_capital(mine.name)} takes {_told(mine.amount)}, {theirs.name} {_told(theirs.amount)}."
    if at_every_end != "undecided":
        less, more = (mine, theirs) if at_every_end == "snn" else (theirs, mine)
        claim = f"{less.name} takes less energy{_factors(less.amount, more.amount, low, high)}"
        if not overlap:
            ranged = any(side.amount.low < side.amount.high for side in (mine, theirs))
            return f"{claim}. {figures}{' The ranges do not overlap.' if ranged else ''}"
        turned = "better reuse" if terms.memory else "narrower sums"
        return (
            f"if both networks {shared}, {claim}. {figures} The ranges as such overlap: {turned} in {more.name} alone could "
            "reverse this."
        )
    if mine.amount == theirs.amount:
        return f"both networks take the same energy. {figures}"
    ends = {"low": low, "value": middle, "high": high}
    if _less(mine.amount.low, theirs.amount.low) != _less(mine.amount.high, theirs.amount.high):
        del ends["value"]  # it goes with one of the others
    told = "; ".join(f"with {name}, {_at(end, mine, theirs)}" for end, name in ends.items())
    unknown = "how well" if terms.memory else "that width"
    return f"if both networks {shared}, who takes less energy depends on {unknown}: {told}. {figures} The ranges as such overlap."


def _at(end: str, mine: _Side, theirs: _Side) -> str:
    """Who takes less at one end of both ranges."""
    own, other = getattr(mine.amount, end), getattr(theirs.amount, end)
    if own == other:
        return "both take the same"
    (less, name), (more, _) = sorted([(own, mine.name), (other, theirs.name)])
    if less and more / less < ABOUT_THE_SAME:
        return "both take about the same"
    return f"{name} takes less" + (f", by a factor of {_factor(more / less)}" if less else "")


def _factor(value: float) -> str:
    """A factor in a sentence; one that says next to nothing in words."""
    return (
        f"{formatting.amount(value)}, about the same" if 1 / ABOUT_THE_SAME < value < ABOUT_THE_SAME else formatting.amount(value)
    )


def _factors(less: Amount, more: Amount, low: str, high: str) -> str:
    """By which factor one takes less, at both ends of the ranges where they are not the same."""
    if not less.low:
        return ""
    at_low, at_high = _factor(more.low / less.low), _factor(more.high / less.high)
    if at_low == at_high:
        return f", by a factor of {at_low}"
    return f", by a factor of {at_low} ({low}) to {at_high} ({high})"


def _sentence_of_chip(mine: _Side, theirs: _Side) -> str:
    """The ranges as such: nothing that they stand for is shared by a chip's table and an ANN in another process."""
    figures = f"{mine.name} takes {_told(mine.amount)}, {theirs.name} {_told(theirs.amount)}"
    if mine.amount.overlaps(theirs.amount):
        return f"{figures}. The ranges overlap, so the figures do not say which takes less."
    less, more = (mine, theirs) if mine.amount.high < theirs.amount.low else (theirs, mine)
    factors = sorted(
        getattr(more.amount, one) / getattr(less.amount, other)
        for one, other in product(_ENDS, _ENDS)
        if getattr(less.amount, other)
    )
    told = f", by a factor of {_factor(factors[0])} to {_factor(factors[-1])}" if factors else ""
    return f"{figures}. The ranges do not overlap: {less.name} takes less energy{told}."


def verdict(
    found: Sequence[EnergyComparison], process: str, chip: ChipEstimate, accuracies: Accuracies = Accuracies()
) -> tuple[str, ...]:
    """What the comparisons say, in plain sentences: the fairest one first, then what speaks against trusting it alone.

    After the first sentences, one for each ANN, all compare with the ANN that takes less on the terms at hand.

    Args:
        found: of :func:`compare`.
        process: process node of the ANNs.
        chip: as for :func:`compare`.
        accuracies: with early exit and without.
    """
    fair = {item.opponent: item for item in found if item.subject == "network" and Terms(item.precision, item.memory) == FAIREST}
    lines = [
        f"{_HEADLINES[item.winner].format(OPPONENTS[name])}In {process}, with 8-bit weights and memory counted: {item.sentence}"
        for name in OPPONENTS
        if (item := fair.get(name)) is not None
    ]
    early, other_chip = (_lower(item for item in found if item.subject == name) for name in ("early_exit", "chip"))
    if early is not None:
        lines.append(f"Stopping early{_at_accuracy(accuracies)}: {early.sentence}")
    if other_chip is not None:
        other = "" if chip.process == process else f" and another process ({chip.process} against {process})"
        without = f" The chip's total is without what has no figure: {', '.join(chip.missing)}." if chip.missing else ""
        lines.append(f"Another chip{other}, so no like-for-like comparison: {other_chip.sentence}{without}")
    first, flattering = (
        _lower(item for item in found if item.subject == "network" and Terms(item.precision, item.memory) == terms)
        for terms in (FAIREST, AS_PAPERS_DO)
    )
    if first is not None and flattering is not None and flattering.winner == "snn" != first.winner:
        lines.append(
            "Charged as most papers do, FP32 additions against FP32 multiplications and no memory, spiking would win: "
            f"{flattering.sentence}"
        )
    if first is not None and first.at_every_end == "ann":
        lines.append(_closing(first))
    return tuple(lines)


def _lower(items: Iterable[EnergyComparison]) -> EnergyComparison | None:
    """The comparison with the ANN that takes less; None where there is none."""
    return min(items, key=lambda item: item.value, default=None)


def _at_accuracy(known: Accuracies) -> str:
    """What is right early, with all steps and of the teacher's answers, in parentheses; empty where it is not known."""
    told = [
        f"{formatting.percent(value)} {what}"
        for value, what in ((known.early, "right"), (known.full, "with all steps"), (known.teacher, "the teacher's"))
        if value is not None
    ]
    return f" ({', '.join(told)})" if known.early is not None else ""


def _closing(lost: EnergyComparison) -> str:
    """What to do where the best ANN takes less at both ends."""
    ann = "an ordinary 8-bit ANN of the same layers" if lost.opponent == "twin" else "the teacher, in 8 bits,"
    return (
        f"Where energy alone decides and every step is taken, {ann} is the better choice. "
        if lost.winner == "ann"
        else "Where energy alone decides and every step is taken, nothing here speaks for spiking. "
    ) + "Fewer spikes or fewer steps could change that, or a chip on which state costs nearly nothing."


def _amount(figure: EnergyFigure) -> Amount:
    if figure.value is None or figure.low is None or figure.high is None:
        raise ValueError(f"{figure.component} has no figure")
    return Amount(figure.value, figure.low, figure.high)


def _told(amount: Amount) -> str:
    return formatting.energy_range(amount.value, amount.low, amount.high)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
