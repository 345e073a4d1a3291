"""Line charts of the HTML report, drawn by matplotlib as inline SVG.

Colours are drawn as sentinels and replaced by CSS variables, so that one drawing serves light and dark. Nothing in the output
depends on the machine or the time: the font is the one matplotlib brings along, ids are salted and then prefixed with the
chart's name (several charts share a page).
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from snn_export.reporting.report import AccuracyCurve, Raster
from snn_export.text_safety import printable

INK: Final = "#010101"
MUTED: Final = "#020202"
GRID: Final = "#030303"
PAPER: Final = "#040404"
REFERENCE: Final = "#050505"
TARGET: Final = "#060606"
NEUTRAL: Final = "#070707"
_VARIABLES: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--rule)",
    PAPER: "var(--paper)",
    REFERENCE: "var(--reference)",
    TARGET: "var(--target)",
    NEUTRAL: "var(--neutral)",
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
_GRID_LINE: Final = re.compile(r'(clip-path="[^"]*" )?style="fill: none; stroke: var\(--rule\)[^"]*"')
_TEXT_STYLE: Final = re.compile(r'style="font-size: 12px; font-family: var\(--sans\); text-anchor: (\w+); fill: var\(--muted\)"')
"""Written once, in the page's style sheet."""


def accuracy_over_time(curves: Sequence[AccuracyCurve], name: str) -> str:
    """Accuracy in percent if the readout stopped after each step, one line per rung."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(520, 320)
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
        figure, axes = _figure(400, 280)
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
    text = _compacted(text)
    head = f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
    head += f'aria-labelledby="{name}-title"><title id="{name}-title">{escape(printable(title))}</title>'
    return re.sub(r"<svg\b[^>]*>", lambda _: head, text, count=1)


def _compacted(svg: str) -> str:
    """The same drawing in less text: a tenth of a pixel, no white space, no comments, no groups and ids without a use."""
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg))
    kept = {name for pair in used for name in pair if name}
    parts: list[str] = []
    groups: list[bool] = []
    for tag, text in re.findall(r"(<(?:!--.*?--|[^>]*)>)([^<]*)", svg, flags=re.DOTALL):
        if tag.startswith("<!--") or tag == "<g/>":
            continue
        short = re.sub(r'\s+id="([^"]+)"', lambda found: found[0] if found[1] in kept else "", tag)
        short = re.sub(r'\s+transform="rotate\(-?0 [^"]*\)"', "", short)
        short = re.sub(r"-?\d+\.\d{2,}", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), short)
        short = re.sub(r"\s+", " ", short)
        short = _GRID_LINE.sub('class="tick"', short)
        short = _TEXT_STYLE.sub(r'text-anchor="\1"', short)
        if short.startswith("<g") and not short.endswith("/>"):
            groups.append(short != "<g>")
            short = short if groups[-1] else ""
        elif short == "</g>":
            short = short if groups.pop() else ""
        parts.append("" if short == "<g/>" else short)
        parts.append(text if text.strip() else "")
    return "".join(parts)
