"""Sentences that more than one renderer says: the verdict in plain words, and what a layer's verdict means."""

from __future__ import annotations

from typing import Final

from snn_export.reporting.formatting import count, probability, share
from snn_export.reporting.placement_records import PlacementReport
from snn_export.reporting.report import Attribution, Comparison, LayerComparison, LayerLag, NetworkSize, Report
from snn_export.text_safety import printable

GOOD: Final = frozenset({"EXACT", "TIE", "WITHIN"})
"""Verdicts of something that was compared and may pass. SKIPPED is neither good nor bad; the rest fail."""

BROKEN: Final = frozenset({"UNAVAILABLE", "ERROR"})
"""Verdicts of something that did not run."""

FAILED: Final = frozenset({"DRIFT", "NOT_COMPARED", *BROKEN})
"""Verdicts that do not pass."""

UNKNOWN_NAME: Final = "SNX530"
"""How the detail of a gate begins that demands something of a rung or layer which the run does not have."""

VERDICT_MEANING: Final[dict[str, str]] = {
    "EXACT": "every spike is equal, and every membrane that was compared",
    "TIE": "every first difference is a membrane closer to its threshold than floating-point rounding can tell",
    "WITHIN": "differences, all inside the tolerance the config declares",
    "DRIFT": "differences outside the tolerance",
    "NOT_COMPARED": "there was nothing to compare it with; this fails",
    "SKIPPED": "absent here, and not part of the verdict",
    "UNAVAILABLE": "needed, and absent here",
    "ERROR": "the backend was there and broke",
}

VERDICT_MARK: Final[dict[str, str]] = {
    "EXACT": "=",
    "TIE": "≈",
    "WITHIN": "~",
    "DRIFT": "≠",
    "NOT_COMPARED": "∅",
    "SKIPPED": "○",
    "UNAVAILABLE": "!",
    "ERROR": "!",
}


def headline(report: Report) -> str:
    """The verdict in one sentence that needs no knowledge of the program."""
    network, target = printable(report.network), printable(report.target)
    if report.passed:
        return f"{network} passed every check for {target}."
    return f"{network} did not pass the checks for {target}."


def exact_claims(report: Report) -> tuple[str, ...]:
    """One sentence for every backend that repeated its reference exactly."""
    models = {network.model for network in report.carried}
    return tuple(
        f"{printable(item.target)} repeats {_told(item.reference, models)} spike for spike in every layer."
        for item in report.comparisons
        if item.verdict == "EXACT" and item.layers
    )


def _told(reference: str, models: set[str | None]) -> str:
    """A rung in a sentence; a model stands for what its backend declares."""
    return "the reference with its declared deviations" if reference in models else printable(reference)


def all_equal(comparison: Comparison) -> str:
    """What EXACT says of all layers of a comparison."""
    return f"every spike and every compared membrane of {counted(len(comparison.layers), 'layer')} is equal"


def counted(number: int, noun: str) -> str:
    """``1 sample``, ``12 samples``."""
    return f"{count(number)} {noun}" + ("" if number == 1 else "s")


def tone(verdict: str | None) -> str:
    """``good``, ``bad`` or ``neutral``: how a renderer colours a verdict."""
    return "good" if verdict in GOOD else "bad" if verdict in FAILED else "neutral"


def faulty_layer_sentence(comparison: Comparison) -> str:
    """Which layer parts first, or an empty string."""
    if comparison.first_faulty_layer is None:
        return ""
    return f"The first layer that differs is {printable(comparison.first_faulty_layer)}."


def isolated_sentence(comparison: Comparison) -> str:
    """Which layer is at fault by itself, whose run it is and by how much; an empty string where none is."""
    layer = next((layer for layer in comparison.layers if layer.layer == comparison.first_faulty_isolated), None)
    if layer is None:
        return ""
    runs = {
        "target": f"{comparison.target}'s run leaves",
        "reference": f"{comparison.reference}'s run leaves",
        "both": "both leave",
    }
    told = [f"{printable(runs[comparison.faulty_side])} the contract"] if comparison.faulty_side is not None else []
    told += [amount for amount in (_faults(layer, comparison.faulty_side),) if amount]
    return f"First layer at fault by itself: {printable(layer.layer)}" + (f" ({', '.join(told)})" if told else "")


def _faults(layer: LayerComparison, side: str | None) -> str:
    """By how much a layer's own answers are wrong: in spikes, or in membranes where every spike is right."""
    found = layer.isolated
    if found is None:
        return ""
    spikes: int | None = found.mismatched_spikes
    membranes = found.mismatched_membranes
    if side == "reference":
        spikes, membranes = found.reference_mismatched_spikes, found.reference_mismatched_membranes
    told = counted(spikes, "spike") if spikes else counted(membranes, "membrane") if membranes else ""
    return f"{told} in the first {counted(found.samples, 'sample')} that differ" if told else ""


def lag_sentences(comparison: Comparison) -> tuple[str, ...]:
    """One sentence for every layer whose spikes come earlier or later than its backend declares."""
    return tuple(lag_sentence(layer) for layer in comparison.layers if layer.lag is not None and layer.lag.best != 0)


def lag_sentence(layer: LayerComparison) -> str:
    """By how many steps a layer's spikes are shifted, or an empty string where its latency is as declared."""
    lag = layer.lag
    if lag is None or lag.best == 0:
        return ""
    return (
        f"{printable(layer.layer)}: spikes agree best {shift(lag)} than the declared latency of {lag.declared} "
        f"({count(lag.mismatched)} differ, {count(lag.mismatched_at_best)} then)"
    )


def shift(lag: LayerLag) -> str:
    """Which way and how far a layer is shifted: ``1 step later``."""
    steps = abs(lag.best)
    return f"{steps} step{'' if steps == 1 else 's'} {'later' if lag.best > 0 else 'earlier'}"


def paired_sentence(comparison: Comparison) -> str:
    """What only one of the two gets right, and whether chance explains the difference; empty without labels or a difference."""
    if comparison.mcnemar_p is None or comparison.only_reference_right is None or comparison.only_target_right is None:
        return ""
    if not comparison.only_reference_right + comparison.only_target_right:
        return ""
    return (
        f"Right only in {printable(comparison.reference)}: {counted(comparison.only_reference_right, 'sample')}, "
        f"only in {printable(comparison.target)}: {count(comparison.only_target_right)} "
        f"(McNemar p {probability(comparison.mcnemar_p)})"
    )


def attribution_headline(found: Attribution) -> str:
    """How much changed between the two ends of an attribution, and how much of it no effect explains."""
    told = f"{counted(found.changed, 'spike')} of {count(found.samples)} samples change from {found.reference} to {found.target}"
    told += f", of {count(found.spikes)} of both together"
    return printable(told + (f"; {count(found.remainder)} of them by none of these" if found.remainder else ""))


def size_sentence(size: NetworkSize) -> str:
    """What the network takes."""
    return (
        f"{count(size.neurons)} neurons, {count(size.synapses)} weights stored ({count(size.nonzero)} not zero) "
        f"of {size.weight_bits} bits: {count(size.memory_bits)} bits of weights"
    )


def placement_sentence(placement: PlacementReport) -> str:
    """Where the network lies, and which limit of a core is used most."""
    told = f"{printable(placement.chip_title)}, {counted(placement.cores, 'core')} of {counted(placement.chips, 'chip')}"
    fullest = max(placement.limits, key=lambda limit: limit.most, default=None)
    if fullest is None:
        return told
    return f"{told}; fullest: {share(fullest.most)} of the {count(fullest.capacity)} {printable(fullest.resource)} of a core"


def cause_sentences(found: Attribution) -> tuple[str, ...]:
    """For the effect that is named as the cause: what is left of the changes without it in one layer alone, per layer."""
    cause = next((effect for effect in found.effects if effect.name == found.cause), None)
    return tuple(
        printable(f"without it in {part.layer} alone {count(part.changed)} are left" + (f" ({part.told})" if part.told else ""))
        for part in (cause.layers if cause is not None else ())
    )
