"""The energy of a report as CSV: one row per figure, energies in pJ, for a spreadsheet or a plot of one's own.

What is no energy (times, NeuroBench's metrics, rates) stands in ``value``, ``low``, ``high`` with its ``unit``. Of a comparison
the network's own energy stands where those of all rows do, and that of the ANN in the columns that begin with ``other``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Final

from snn_export.reporting.energy_records import EnergyReport, LatencyEstimate
from snn_export.text_safety import printable

COLUMNS: Final = (
    "group", "layer", "component", "steps", "accuracy_percent", "count", "value_pJ", "low_pJ", "high_pJ", "coefficient", "source",
    "operation", "other", "other_value_pJ", "other_low_pJ", "other_high_pJ", "ratio", "winner", "at_every_end",
    "value", "low", "high", "unit",
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
            yield {"group": "layer", "layer": layer.layer, "component": part.component, "operation": part.operation,
                   "count": part.count, **_ends(part.value, part.low, part.high)}  # fmt: skip
        yield {"group": "layer", "layer": layer.layer, "component": "all", **_ends(layer.value, layer.low, layer.high)}
    for group in energy.groups():
        for item in group.figures:
            yield {"group": group.name, "component": item.component, "operation": item.operation, "count": item.count,
                   **_ends(item.value, item.low, item.high), "coefficient": item.coefficient, "source": item.source}  # fmt: skip
    yield {"group": "total", "component": energy.table_told(), **_ends(energy.total, energy.total_low, energy.total_high),
           "source": energy.table_digest}  # fmt: skip
    for table in energy.tables:
        yield {"group": "tables", "component": f"{table.name} (file {table.file})" if table.file else table.name,
               "source": table.digest}  # fmt: skip
    yield from _comparisons(energy)
    yield from _steps(energy)
    yield from _measures(energy)


def _steps(energy: EnergyReport) -> Iterator[_Row]:
    for point in energy.curve:
        yield {"group": "curve", "component": "synaptic operations", "steps": point.steps, "accuracy_percent": point.accuracy,
               "count": point.synops, **_ends(point.value, point.low, point.high)}  # fmt: skip
    early = energy.early_exit
    if early is not None:
        yield {"group": "early_exit", "component": early.rule, "steps": early.mean_steps, "accuracy_percent": early.accuracy,
               **_ends(early.value, early.low, early.high)}  # fmt: skip


def _comparisons(energy: EnergyReport) -> Iterator[_Row]:
    for item in energy.comparisons:
        yield {
            "group": "comparisons", "component": f"{item.own}, {item.terms}",
            **_ends(item.own_value, item.own_low, item.own_high),
            "other": item.other, "other_value_pJ": item.value, "other_low_pJ": item.low, "other_high_pJ": item.high,
            "ratio": item.ratio, "winner": item.winner, "at_every_end": item.at_every_end,
        }  # fmt: skip


def _measures(energy: EnergyReport) -> Iterator[_Row]:
    """Rates, times, NeuroBench's metrics and accesses to memory."""
    yield {"group": "rate", "component": "spikes per synapse and inference", "value": energy.spikes_per_synapse, "unit": "1"}
    if energy.latency is not None:
        yield from _times(energy.latency)
    if energy.neurobench is not None:
        for name, value in energy.neurobench.model_dump().items():
            unit = "byte" if name == "footprint" else "1" if name.endswith("_sparsity") else "1/inference"
            yield {"group": "neurobench", "component": name, "value": value, "unit": unit}
    if energy.memory is not None:
        for name, value in energy.memory.model_dump(exclude={"model"}).items():
            yield {"group": "memory", "component": name, "value": value, "unit": "1/inference", "source": energy.memory.model}


def _times(latency: LatencyEstimate) -> Iterator[_Row]:
    sources = "; ".join(latency.sources)
    for name, time in (("step", latency.step), ("inference", latency.inference)):
        if time is not None:
            yield {"group": "latency", "component": name, "value": time.value, "low": time.low, "high": time.high, "unit": "ns",
                   "coefficient": latency.reason, "source": sources}  # fmt: skip
    if latency.throughput is not None:
        yield {"group": "latency", "component": "throughput", "value": latency.throughput, "low": latency.throughput_low,
               "high": latency.throughput_high, "unit": "1/s", "coefficient": latency.reason, "source": sources}  # fmt: skip


def _ends(value: float | None, low: float | None, high: float | None) -> _Row:
    return {"value_pJ": value, "low_pJ": low, "high_pJ": high}


def _cell(value: str | float | None) -> str | float:
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
