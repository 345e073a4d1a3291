"""The report as one HTML file: offline, no script, every drawing inline, light and dark.

Every number from the report is printed by :func:`~snn_export.reporting.formatting.text_of` inside an element whose
``data-field`` is its path in ``report.json``; a test reads them all back. The same report gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from snn_export.reporting import energy_words, guidance, plots, plots_energy, plots_inline, wording
from snn_export.reporting.formatting import text_of
from snn_export.reporting.json_file import write_text
from snn_export.reporting.report import CarriedNode, Comparison, Gate, LayerComparison, Raster, Report
from snn_export.text_safety import printable

TEMPLATES: Final = Path(__file__).with_name("templates")
_LADDER_TICKS: Final = (5, 10, 25)
_LADDER_INTERVALS: Final = 3
_OPEN_COMPARISONS: Final = 3
"""Up to so many comparisons are all shown open; of more, only those that failed."""


def write_html(report: Report, path: Path) -> None:
    """Write the page, whole or not at all. Raises UserError SNX132 if the file cannot be written."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """The whole page as text."""
    return _environment(report).get_template("report.html.j2").render()


def render_energy(report: Report) -> str:
    """A page of the report's energy alone, and of its placement where it has one; the report must have an energy."""
    return _environment(report, only=("energy", "placement")).get_template("energy_page.html.j2").render()


def _environment(report: Report, only: tuple[str, ...] = ()) -> Environment:
    """Templates with what they may use; only: anchors of the sections to show, in this order, all where it is empty."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_visible,
    )
    environment.globals.update(
        report=report,
        num=_Numbers(report),
        plots=plots,
        inline=plots_inline,
        energy_plots=plots_energy,
        energy_words=energy_words,
        wording=wording,
        svg=Markup,
        ladder_axis=ladder_axis(report),
        differs=_differs,
        raster_tone=lambda raster: _raster_tone(report, raster),
        is_open=lambda comparison: _is_open(report, comparison),
        is_shown=_is_shown,
        differing=differing,
        numbered=lambda items: list(enumerate(items)),
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        sections=tuple(sorted((item for item in _sections(report) if item[0] in only), key=lambda item: only.index(item[0])))
        or _sections(report),
        carriers=_carriers(report),
        gates=_gates(report),
        steps=guidance.next_steps(report),
        sources=report.energy.sources() if report.energy is not None else {},
    )
    return environment


class _Numbers:
    """Writes a number of the report as an element that names its path."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __call__(self, *parts: str | int) -> Markup:
        """The number at the path made of ``parts``."""
        path = ".".join(str(part) for part in parts)
        return Markup('<span data-field="{}">{}</span>').format(path, text_of(self._report, path))

    def cell(self, *parts: str | int, kind: str = "") -> Markup:
        """The same as a cell of a table, which saves an element: a report may have tens of thousands."""
        path = ".".join(str(part) for part in parts)
        style = Markup(' class="{}"').format(kind) if kind else Markup("")
        return Markup('<td{} data-field="{}">{}</td>').format(style, path, text_of(self._report, path))

    def plain(self, *parts: str | int) -> str:
        """The same text without an element, for labels inside drawings."""
        return text_of(self._report, ".".join(str(part) for part in parts))


def ladder_axis(report: Report) -> tuple[float, float, tuple[float, ...]]:
    """Lowest and highest accuracy of the ladder's drawing and its ticks, percent."""
    lowest = min(
        (rung.interval[0] if rung.interval else rung.accuracy for rung in report.ladder if rung.accuracy is not None),
        default=0.0,
    )
    tick = next((tick for tick in _LADDER_TICKS if 100 - _LADDER_INTERVALS * tick <= lowest), 50)
    low = max(math.floor(lowest / tick) * tick, 0)
    return float(low), 100.0, tuple(float(value) for value in range(low, 101, tick))


def _sections(report: Report) -> tuple[tuple[str, str], ...]:
    """Anchor and title of the sections the report has something for."""
    offered = (
        ("ladder", "Ladder", report.ladder),
        ("layers", "Layer by layer", report.comparisons),
        ("attribution", "Where changes come from", report.attribution),
        ("carried", "What carries each node", report.carried),
        ("rasters", "Spikes", report.rasters),
        ("time", "Accuracy over time", report.accuracy_over_time),
        ("activity", "Firing rates", report.activity),
        ("quantisation", "Integer grid", report.quantisation),
        ("size", "Size", report.size),
        ("placement", "Placement", report.placement),
        ("energy", "Energy", report.energy),
        ("coverage", "Not covered", True),
        ("reproduce", "Reproduce", True),
    )
    return tuple((anchor, title) for anchor, title, content in offered if content)


def _carriers(report: Report) -> dict[str, list[CarriedNode | None]]:
    """By node, one entry per network of ``report.carried``; None where a backend has no such node."""
    nodes = dict.fromkeys(item.node for network in report.carried for item in network.nodes)
    by_name = [{item.node: item for item in network.nodes} for network in report.carried]
    return {name: [found.get(name) for found in by_name] for name in nodes}


def _differs(raster: Raster) -> bool:
    """Whether the two backends part anywhere in this raster."""
    return bool(raster.only_reference or raster.only_target)


def _raster_tone(report: Report, raster: Raster) -> str:
    """What the difference in a raster means: the verdict of its layer, where that was compared."""
    if not _differs(raster):
        return "good" if raster.both else "neutral"
    verdicts = (
        layer.verdict
        for comparison in report.comparisons
        if (comparison.reference, comparison.target) == (raster.reference, raster.target)
        for layer in comparison.layers
        if layer.layer == raster.layer
    )
    return "bad" if wording.tone(next(verdicts, "DRIFT")) == "bad" else "neutral"


def _is_open(report: Report, comparison: Comparison) -> bool:
    """Whether the tables of a comparison are shown without being asked for."""
    return len(report.comparisons) <= _OPEN_COMPARISONS or wording.tone(comparison.verdict) == "bad"


@dataclass(frozen=True)
class Differing:
    """The drawing of where a comparison begins to differ.

    unit is ``spikes``, or ``membranes`` where all spikes agree; bars holds per layer what differs end to end and what differs in
    the layer by itself.
    """

    unit: str
    axis: plots_inline.Axis
    bars: tuple[tuple[int | None, int | None], ...]


def differing(comparison: Comparison) -> Differing | None:
    """What the drawing of a comparison shows; None where nothing differs that could be counted."""
    spikes = tuple(
        (layer.mismatched_spikes, layer.isolated.mismatched_spikes if layer.isolated else None) for layer in comparison.layers
    )
    membranes = tuple(
        (layer.mismatched_membranes, layer.isolated.mismatched_membranes if layer.isolated else None)
        for layer in comparison.layers
    )
    for unit, bars in (("spikes", spikes), ("membranes", membranes)):
        values = [value for pair in bars for value in pair]
        if any(values):
            return Differing(unit, plots_inline.count_axis(values), bars)
    return None


def _is_shown(layers: Iterable[LayerComparison], *names: str) -> bool:
    """Whether a column has anything to say: some layer has a number other than 0 or None in one of these fields."""
    return any(getattr(layer, name) for layer in layers for name in names)


def _gates(report: Report) -> tuple[tuple[int, Gate], ...]:
    """Gates with their index in the report: failed ones first, then skipped ones, then those that passed."""
    return tuple(sorted(enumerate(report.gates), key=lambda entry: 1 if entry[1].skipped else 2 * entry[1].passed))


def _visible(value: object) -> object:
    """Control characters of plain text made visible; markup of our own is left alone."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
