"""The report as one HTML file: offline, no script, every drawing inline, light and dark.

Every number from the report is printed by :func:`~snn_export.reporting.formatting.text_of` inside an element whose
``data-field`` is its path in ``report.json``; a test reads them all back. The same report gives the same bytes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from snn_export.reporting import plots, wording
from snn_export.reporting.formatting import divergence_place, divergence_values, text_of
from snn_export.reporting.json_file import write_text
from snn_export.reporting.report import CarriedNode, Raster, Report
from snn_export.text_safety import printable

TEMPLATES: Final = Path(__file__).with_name("templates")
_LADDER_TICKS: Final = (5, 10, 25)
_LADDER_INTERVALS: Final = 3


def write_html(report: Report, path: Path) -> None:
    """Write the page, whole or not at all. Raises UserError SNX132 if the file cannot be written."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """The whole page as text."""
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
        wording=wording,
        svg=Markup,
        divergence_place=divergence_place,
        divergence_values=divergence_values,
        ladder_axis=ladder_axis(report),
        differs=_differs,
        css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        sections=_sections(report),
        carriers=_carriers(report),
    )
    return environment.get_template("report.html.j2").render()


class _Numbers:
    """Writes a number of the report as an element that names its path."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __call__(self, *parts: str | int) -> Markup:
        """The number at the path made of ``parts``."""
        path = ".".join(str(part) for part in parts)
        return Markup('<span class="num" data-field="{}">{}</span>').format(path, text_of(self._report, path))

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
        ("carried", "What carries each node", report.carried),
        ("rasters", "Spikes", report.rasters),
        ("time", "Accuracy over time", report.accuracy_over_time),
        ("activity", "Firing rates", report.activity),
        ("quantisation", "Integer grid", report.quantisation),
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


def _visible(value: object) -> object:
    """Control characters of plain text made visible; markup of our own is left alone."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
