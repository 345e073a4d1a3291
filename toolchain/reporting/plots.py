"""Charts of the HTML report, drawn by matplotlib as inline SVG.

Colours are drawn as sentinels and replaced by CSS variables, so that one drawing serves light and dark. Nothing in the output
depends on the machine or the time: the font is the one matplotlib brings along, ids are salted and then prefixed with the
chart's name (several charts share a page).
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from snn_export.reporting.formatting import energy
from snn_export.reporting.report import AccuracyCurve, Activity, EnergyReport, QuantisedLayer, Raster
from snn_export.text_safety import printable

INK: Final = "#010101"
MUTED: Final = "#020202"
GRID: Final = "#030303"
PAPER: Final = "#040404"
REFERENCE: Final = "#050505"
TARGET: Final = "#060606"
NEUTRAL: Final = "#070707"
BAR: Final = "#080808"
_VARIABLES: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--rule)",
    PAPER: "var(--paper)",
    REFERENCE: "var(--reference)",
    TARGET: "var(--target)",
    NEUTRAL: "var(--neutral)",
    BAR: "var(--bar)",
}
_SERIES: Final = ((REFERENCE, "-"), (TARGET, "--"), (INK, ":"), (NEUTRAL, "-."))
_MARKERS: Final = "o^sDvPX"
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "snn-export",
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": MUTED,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 12,
    "lines.linewidth": 2,
    "lines.markersize": 5,
}
_DOTS_PER_INCH: Final = 72
_LOG_FROM_RATIO: Final = 30


def accuracy_over_time(curves: Sequence[AccuracyCurve], name: str) -> str:
    """Accuracy in percent if the readout stopped after each step, one line per rung."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(600, 330)
        for index, curve in enumerate(curves):
            colour, line = _SERIES[index % len(_SERIES)]
            marker = _MARKERS[index % len(_MARKERS)]
            steps = range(1, len(curve.accuracy) + 1)
            axes.plot(steps, curve.accuracy, line, color=colour, marker=marker, label=_label(curve.rung))
        axes.set_xlabel("steps T")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        return _svg(figure, name, "Accuracy in percent against the number of time steps, one line per form of the network")


def membrane_trace(raster: Raster, name: str) -> str:
    """Membrane of one neuron over the steps in both backends, with its threshold."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(480, 290)
        traces = (
            (raster.membrane_reference, raster.reference, REFERENCE, "-", "o", 7),
            (raster.membrane_target, raster.target, TARGET, "--", "^", 4),
        )
        for values, label, colour, line, marker, size in traces:
            if values:
                axes.plot(range(len(values)), values, line, color=colour, marker=marker, markersize=size, label=_label(label))
        if raster.membrane_threshold is not None:
            axes.axhline(raster.membrane_threshold, color=MUTED, linewidth=1.2, linestyle=(0, (2, 2)), label="threshold")
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
        title = f"Membrane of neuron {raster.membrane_neuron} in layer {raster.layer}, sample {raster.sample}: both backends"
        return _svg(figure, name, title)


def weight_histogram(layer: QuantisedLayer, name: str) -> str:
    """Integer weights of one population in equal bins over -256..256."""
    title = f"Histogram of the integer weights of layer {layer.layer}, from -256 to 256"
    return _histogram(layer.weight_histogram, (-256, 256), label="integer weight", title=title, name=name)


def rate_histogram(activity: Activity, name: str) -> str:
    """Neurons of one layer by firing rate, equal bins over 0..1."""
    title = f"Histogram of the firing rates of the neurons of layer {activity.layer}, from 0 to 1 spike per step"
    return _histogram(activity.rate_histogram, (0, 1), label="spikes per step", title=title, name=name)


def energy_chart(report: EnergyReport, name: str) -> str:
    """Energy per inference with ranges: the parts, their total and the ANN baselines. Logarithmic where they lie far apart."""
    rows = [(figure.component, figure.value, figure.low, figure.high, BAR) for figure in report.figures]
    rows.append(("total, this network", report.total, report.total_low, report.total_high, REFERENCE))
    rows += [(figure.component, figure.value, figure.low, figure.high, TARGET) for figure in report.baselines]
    drawn = [(label, value, low, high, colour) for label, value, low, high, colour in rows if value is not None and value > 0]
    if not drawn:
        return ""
    values = [value for _, value, _, _, _ in drawn]
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(720, 60 + 32 * len(drawn))
        logarithmic = max(values) / min(values) > _LOG_FROM_RATIO
        if logarithmic:
            axes.set_xscale("log")
            axes.set_xlim(*_decades(drawn))
            axes.xaxis.set_minor_locator(NullLocator())
        for index, (_, value, low, high, colour) in enumerate(drawn):
            if not logarithmic:
                axes.barh(index, value, height=0.62, color=colour)
            if low is not None and high is not None:
                axes.plot(
                    [low, high], [index, index], color=INK if not logarithmic else colour, linewidth=2, marker="|", markersize=9
                )
            if logarithmic:
                axes.plot([value], [index], color=colour, marker="o", markersize=8)
        axes.set_yticks(range(len(drawn)), [_label(label) for label, *_ in drawn])
        axes.set_ylim(len(drawn) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: re.sub(r"\.0+(?=\s)", "", energy(value))))
        scale = "logarithmic axis" if logarithmic else "linear axis from 0"
        axes.set_xlabel(f"energy per inference, {scale}; whiskers show the range")
        return _svg(figure, name, "Energy per inference with ranges: the parts of this network, their total, and ANN baselines")


def _decades(rows: Sequence[tuple[str, float, float | None, float | None, str]]) -> tuple[float, float]:
    """Powers of ten around all values and ranges, so that the axis begins and ends with a tick."""
    lows = [min(value, low) if low else value for _, value, low, _, _ in rows]
    highs = [max(value, high) if high else value for _, value, _, high, _ in rows]
    return 10.0 ** math.floor(math.log10(min(lows))), 10.0 ** math.ceil(math.log10(max(highs)))


def _histogram(counts: Sequence[int], limits: tuple[float, float], *, label: str, title: str, name: str) -> str:
    """Bars over equal bins between ``limits``."""
    low, high = limits
    width = (high - low) / len(counts)
    edges = [low + width * index for index in range(len(counts))]
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(284, 170)
        axes.bar(edges, counts, width=0.88 * width, align="edge", color=BAR)
        axes.set_xlim(*limits)
        axes.set_xticks([low + (high - low) * quarter / 4 for quarter in range(5)])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(label)
        axes.set_ylabel("count")
        return _svg(figure, name, title)


def _figure(width: int, height: int) -> tuple[Figure, Any]:
    """A figure of ``width`` x ``height`` CSS pixels with one set of axes."""
    figure = Figure(figsize=(width / _DOTS_PER_INCH, height / _DOTS_PER_INCH), layout="constrained")
    return figure, figure.add_subplot()


def _label(text: str) -> str:
    """A legend entry; matplotlib hides those that begin with an underscore."""
    shown = printable(text).replace("\n", " ")
    return f" {shown}" if shown.startswith("_") else shown


def _svg(figure: Figure, name: str, title: str) -> str:
    """The drawing as an ``<svg>`` element to stand in a page."""
    buffer = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*</defs>\s*", "", text)
    text = re.sub(r'\b(id="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--sans)", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", text)
    text = re.sub("|".join(_VARIABLES), lambda match: _VARIABLES[match[0]], text)
    width, height = re.findall(r'\b(?:width|height)="([\d.]+)pt"', text)[:2]
    head = f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
    head += f'aria-labelledby="{name}-title"><title id="{name}-title">{escape(printable(title))}</title>'
    return re.sub(r"<svg\b[^>]*>", lambda _: head, text, count=1)
