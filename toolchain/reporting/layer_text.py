"""Two backends that part, as plain text: what a failed test shows. ASCII, 100 columns wide at most."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from snn_export.reporting import formatting, wording
from snn_export.reporting.report import Comparison, Gate, LayerComparison, Report
from snn_export.text_safety import printable

WIDTH: Final = 100
NAME_WIDTH: Final = 28
_HEADERS: Final = ("layer", "verdict", "reference", "got", "differ", "membranes", "first divergence")
_LEFT: Final = frozenset({0, 1, 6})
_NARROWEST: Final = 16
"""Characters that are left for the last column at least."""


def failure_text(report: Report, ending: Sequence[str] = ()) -> str:
    """Verdict and first faulty layer; the layers of every comparison that failed; the gates that failed; ``ending``."""
    failed = [found for found in report.comparisons if found.verdict in wording.FAILED]
    lines = [*_wrapped(headline(report))]
    for found in failed or report.comparisons:
        lines += ["", *comparison_lines(found)]
    lines += ["", "What was demanded and does not hold:"]
    for gate in report.gates:
        if not gate.passed:
            lines += _wrapped(_gate_line(gate), "- ", "  ")
    lines += ["", *map(_plain, ending)]  # paths and commands stay whole, however long
    return "\n".join(lines).rstrip()


def headline(report: Report) -> str:
    """The outcome in a line: the first comparison that failed and its first faulty layer, else the first gate."""
    found = next((c for c in report.comparisons if c.verdict in wording.FAILED), None)
    over = f"({formatting.count(report.samples)} samples, {report.steps} steps)"
    if report.passed:
        return f"PASS: {report.network} {over}"
    if found is None:
        return f"FAIL: {next(iter(report.causes), 'a gate failed')}"
    if found.first_faulty_layer is None:
        return f"{found.verdict}: {found.target} against {found.reference}: {found.message or 'nothing was compared'}"
    verb = {"DRIFT": "differs from"}.get(found.verdict, "cannot be compared with")
    return f"{found.verdict}: {found.target} {verb} {found.reference}, first in {found.first_faulty_layer} {over}"


def comparison_lines(found: Comparison) -> list[str]:
    """One comparison: a heading, a table of its layers, and which layer is at fault by itself."""
    lines = _wrapped(f"{found.target} against {found.reference}: {found.verdict}")
    if not found.layers:
        return lines + _wrapped(found.message, "  ", "  ")
    lines += _table([_row(layer) for layer in found.layers])
    return lines + _wrapped(wording.isolated_sentence(found))


def _gate_line(gate: Gate) -> str:
    by = f" [{gate.setting}]" if gate.setting else ""
    detail = f" ({gate.detail})" if gate.detail else ""
    return f"{gate.name}: {gate.measured}; required: {gate.required}{by}{detail}"


def _row(layer: LayerComparison) -> tuple[str, ...]:
    membranes = "-"
    if layer.mismatched_membranes is not None:
        membranes = formatting.count(layer.mismatched_membranes)
    elif layer.membrane_difference_max is not None:
        membranes = f"by {formatting.real(layer.membrane_difference_max)}"
    first = "" if layer.first_divergence is None else formatting.brief_divergence(layer.first_divergence)
    cells = (
        layer.layer, layer.verdict, formatting.count(layer.reference_spikes), formatting.count(layer.got_spikes),
        formatting.count(layer.mismatched_spikes), membranes, first,
    )  # fmt: skip
    return tuple(_plain(cell) for cell in cells)


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Columns two blanks apart; what does not fit is cut in the name and in the last column."""
    cut = [(_cut(row[0], NAME_WIDTH), *row[1:]) for row in rows]
    widths = [max(map(len, column)) for column in zip(_HEADERS, *cut, strict=True)]
    room = max(_NARROWEST, WIDTH - sum(widths[:-1]) - 2 * (len(widths) - 1))
    for row in (_HEADERS, *cut):
        cells = [cell.ljust(width) if index in _LEFT else cell.rjust(width)
                 for index, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        yield "  ".join([*cells[:-1], _cut(row[-1], room)]).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 2]}.."


def _plain(text: str) -> str:
    return formatting.to_ascii(printable(text))


def _wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        _plain(text), WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=True, break_on_hyphens=False
    )  # fmt: skip
