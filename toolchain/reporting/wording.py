"""Sentences that more than one renderer says: the verdict in plain words, and what a layer's verdict means."""

from __future__ import annotations

from typing import Final

from snn_export.reporting.report import Comparison, Report
from snn_export.text_safety import printable

GOOD: Final = frozenset({"EXACT", "TIE", "WITHIN"})
"""Verdicts of something that was compared and may pass. SKIPPED is neither good nor bad; the rest fail."""

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


def tone(verdict: str | None) -> str:
    """``good``, ``bad`` or ``neutral``: how a renderer colours a verdict."""
    if verdict in GOOD:
        return "good"
    return "neutral" if verdict in (None, "SKIPPED") else "bad"


def faulty_layer_sentence(comparison: Comparison) -> str:
    """Which layer parts first, or an empty string."""
    if comparison.first_faulty_layer is None:
        return ""
    return f"The first layer that differs is {printable(comparison.first_faulty_layer)}."
