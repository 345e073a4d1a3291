"""Words about energy that more than one renderer writes."""

from __future__ import annotations

from snn_export.reporting.energy_records import EnergyComparison


def takes_less(item: EnergyComparison, own: str = "this network", ann: str = "the ANN") -> str:
    """Who takes less energy, for one cell of a table; ``own`` and ``ann`` are what the two are called there.

    Where the ranges overlap it is who takes less if both are alike in what the range stands for: the reuse of memory, or the
    width of sums. A chip's estimate shares neither with an ANN.
    """
    called = {"snn": own, "ann": ann}
    if item.winner != "undecided":
        return called[item.winner]
    if not item.like_for_like:
        return "the ranges overlap"
    if (item.own_low, item.own_value, item.own_high) == (item.low, item.value, item.high):
        return "both the same"
    if item.at_every_end == "undecided":
        most, least = ("perfect reuse", "none") if item.memory else ("narrow sums", "wide ones")
        at_low, at_high = (
            own if mine < theirs else ann if theirs < mine else ""
            for mine, theirs in ((item.own_low, item.low), (item.own_high, item.high))
        )
        if at_low and at_high and at_low != at_high:
            return f"{at_low} with {most}, {at_high} with {least}"
        return f"depends on {'the reuse of memory' if item.memory else 'the width of sums'}"
    alike = "memory is reused alike" if item.memory else "sums are equally wide"
    return f"{called[item.at_every_end]}, if {alike}"
