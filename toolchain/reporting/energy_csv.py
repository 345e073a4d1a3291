"""The energy of a report as CSV: one row per figure, energies in pJ, for a spreadsheet or a plot of one's own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Final

from snn_export.reporting.energy_records import EnergyReport
from snn_export.text_safety import printable

COLUMNS: Final = (
    "group", "layer", "component", "steps", "accuracy_percent", "count", "value_pJ", "low_pJ", "high_pJ", "coefficient", "source",
)  # fmt: skip
_Row = dict[str, str | int | float | None]
_FORMULA: Final = ("=", "+", "-", "@")
"""What a spreadsheet takes a cell for a formula by."""


def render(energy: EnergyReport) -> str:
    """All figures, with a heading line. A cell without a number is empty: there is no figure."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in _rows(energy):
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return stream.getvalue()


def _rows(energy: EnergyReport) -> Iterator[_Row]:
    for layer in energy.layers:
        for part in layer.parts:
            yield {"group": "layer", "layer": layer.layer, "component": part.component, "count": part.count,
                   **_ends(part.value, part.low, part.high)}  # fmt: skip
        yield {"group": "layer", "layer": layer.layer, "component": "all", **_ends(layer.value, layer.low, layer.high)}
    for group in ("figures", "cmos", "baselines", "teacher", "other_chips"):
        for item in getattr(energy, group):
            yield {"group": group, "component": item.component, "count": item.count, **_ends(item.value, item.low, item.high),
                   "coefficient": item.coefficient, "source": item.source}  # fmt: skip
    yield {"group": "total", "component": energy.table, **_ends(energy.total, energy.total_low, energy.total_high),
           "source": energy.table_digest}  # fmt: skip
    for point in energy.curve:
        yield {"group": "curve", "component": "synaptic operations", "steps": point.steps, "accuracy_percent": point.accuracy,
               "count": point.synops, **_ends(point.value, point.low, point.high)}  # fmt: skip
    early = energy.early_exit
    if early is not None:
        yield {"group": "early_exit", "component": early.rule, "steps": early.mean_steps, "accuracy_percent": early.accuracy,
               **_ends(early.value, early.low, early.high)}  # fmt: skip


def _ends(value: float | None, low: float | None, high: float | None) -> _Row:
    return {"value_pJ": value, "low_pJ": low, "high_pJ": high}


def _cell(value: str | float | None) -> str | float:
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
