"""Small drawings of the HTML report, written as SVG by hand: bars in a table, histograms, shares of a whole.

Those that are as wide as their cell hold no text: the numbers stand beside them, and on these a reader without eyes relies.
What must be told apart differs in more than colour: in place, outline or height.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from snn_export.reporting.energy_records import EnergyReport
from snn_export.reporting.formatting import count, energy

COUNT_ERROR_BINS: Final = ("0", "1", "2", "3-4", "5-8", "9+")
"""What the bins of ``LayerComparison.count_error_histogram`` hold."""

_ZEROS: Final = re.compile(r"\.0+(?=\s)")
_WIDTH: Final = 100
_MOST_TICKS: Final = 2
_MOST_ENERGY_TICKS: Final = 4
_LEAST_SHARE: Final = 1.2
_BAR_HEIGHT: Final = 28
_BAR_STEP: Final = 26
_PLOT: Final = (40.0, 12.0, 228.0, 104.0)
"""Left, top, width and height of a histogram's bars within its 284 x 150."""


@dataclass(frozen=True)
class Axis:
    """A common axis of several drawings: from ``low`` to ``high``, logarithmic where told so.

    Logarithms are taken of 1 + |value|, so that 0 has its place among the counts.
    """

    low: float
    high: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Where ``value`` lies, percent of the width."""
        low, high, here = (self._scaled(number) for number in (self.low, self.high, value))
        return 100 * (here - low) / (high - low) if high > low else 0.0

    def ticks(self) -> tuple[tuple[str, float], ...]:
        """Text and place of 0 and of powers of ten, as many as have room."""
        top = round(math.log10(self.high)) if self.high > 1 else 1
        stride = math.ceil(top / _MOST_TICKS)
        powers = [10**exponent for exponent in range(top, 0, -stride)]
        return tuple((count(value), self.at(value)) for value in (0, *reversed(powers)))

    def _scaled(self, value: float) -> float:
        return math.copysign(math.log10(1 + abs(value)), value) if self.logarithmic else value


def count_axis(values: Sequence[int | None]) -> Axis:
    """A logarithmic axis for counts, from 0 to the power of ten above the largest one."""
    largest = max((value for value in values if value is not None), default=0)
    return Axis(0, 10 ** max(math.ceil(math.log10(largest)) if largest > 0 else 1, 1), logarithmic=True)


def signed_axis(values: Sequence[int]) -> Axis:
    """A linear axis that holds 0 and all ``values``."""
    low, high = min(0, *values), max(0, *values)
    return Axis(low, high if high > low else 1)


def energy_axis(report: EnergyReport) -> Axis | None:
    """A logarithmic axis from one power of ten to another that holds all figures of the report and their ranges, pJ."""
    entries = [figure for group in report.groups() if not group.orientation for figure in group.figures]
    bounds = [report.total, report.total_low, report.total_high]
    bounds += [number for entry in entries for number in (entry.value, entry.low, entry.high)]
    positive = [number for number in bounds if number is not None and number > 0]
    if not positive:
        return None
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    return Axis(10.0**low, 10.0 ** max(high, low + 1), logarithmic=True)


def energy_ticks(axis: Axis) -> tuple[tuple[str, float], ...]:
    """Powers of ten of an energy axis with their units, as many as have room."""
    first, last = round(math.log10(axis.low)), round(math.log10(axis.high))
    stride = math.ceil((last - first) / _MOST_ENERGY_TICKS)
    return tuple((_ZEROS.sub("", energy(10.0**power)), axis.at(10.0**power)) for power in range(first, last + 1, stride))


def bar_pair(axis: Axis, first: float | None, second: float | None) -> Markup:
    """Two bars on one axis: the first filled, above; the second outlined, below. None leaves its place empty."""
    zero = axis.at(0)
    bars = [Markup('<line class="tick" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="22"/>').format(zero)]
    for kind, top, value in (("whole", 1, first), ("alone", 13, second)):
        if value is not None and value != 0:
            end = axis.at(value)
            width = max(abs(end - zero), _LEAST_SHARE)
            left = min(zero, end) if end >= zero else zero - width
            bars.append(
                Markup('<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="8"/>').format(
                    kind, min(left, _WIDTH - width), top, width
                )
            )
    return _stretched("pair-of-bars", 22, Markup("").join(bars))


def count_errors(histogram: Sequence[int]) -> Markup:
    """How many neurons missed their count by how much: a bar per bin, logarithmic in height, the number in its title."""
    largest = max(histogram, default=0)
    told = "; ".join(f"off by {name}: {count(number)}" for name, number in zip(COUNT_ERROR_BINS, histogram, strict=False))
    bars = [
        f"M{index * _BAR_STEP + 5} {_BAR_HEIGHT}v{-_BAR_HEIGHT * math.log1p(number) / math.log1p(largest):.1f}h16V{_BAR_HEIGHT}"
        if number > 0
        else ""
        for index, number in enumerate(histogram)
    ]
    width = _BAR_STEP * len(histogram)
    return Markup(
        '<svg class="counts" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" aria-label="{2}">'
        '<path class="right" d="{3}"/><path class="wrong" d="{4}"/><path class="base" d="M0 {5}h{0}"/></svg>'
    ).format(width, _BAR_HEIGHT + 1, told, "".join(bars[:1]), "".join(bars[1:]), _BAR_HEIGHT + 0.5)


def histogram(counts: Sequence[int], limits: tuple[float, float], *, label: str, title: str) -> Markup:
    """Bars over equal bins between ``limits``; the height of the largest is written beside it."""
    left, top, width, height = _PLOT
    largest = max(counts, default=0)
    step = width / max(len(counts), 1)
    bars = Markup("").join(
        Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            left + index * step + 0.06 * step, top + height * (1 - number / largest), 0.88 * step, height * number / largest
        )
        for index, number in enumerate(counts)
        if number
    )
    low, high = limits
    marks = [(low + (high - low) * quarter / 4, left + width * quarter / 4) for quarter in range(5)]
    ticks = Markup("").join(
        Markup('<text x="{:g}" y="{:g}" text-anchor="middle">{}</text>').format(place, top + height + 15, f"{value:g}")
        for value, place in marks
    )
    lines = Markup(
        '<line class="tick" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/><line class="base" x1="{0}" x2="{1}" y1="{3}" y2="{3}"/>'
    )
    text = Markup('<text x="{0}" y="{1}" text-anchor="end">{2}</text><text x="{0}" y="{3}" text-anchor="end">0</text>')
    return (
        Markup('<svg class="histogram" viewBox="0 0 284 150" width="284" height="150" role="img" aria-label="{}">').format(title)
        + lines.format(left, left + width, top, top + height)
        + bars
        + text.format(left - 5, top + 4, count(largest), top + height + 3)
        + ticks
        + Markup('<text x="{:g}" y="147" text-anchor="middle">{}</text></svg>').format(left + width / 2, label)
    )


def dots(places: Sequence[tuple[int, int]], origin: tuple[float, int], pitch: tuple[int, int]) -> str:
    """A path of dots, one for each (step, row), row after row: every step but a row's first as a short way from the last one."""
    path, last = [], (-1, -1)
    for row, step in sorted((row, step) for step, row in places):
        if row == last[0]:
            path.append(f"m{(step - last[1]) * pitch[0]} 0h0")
        else:
            path.append(f"M{origin[0] + step * pitch[0]:g} {origin[1] + row * pitch[1]}h0")
        last = (row, step)
    return "".join(path)


def shares(parts: Sequence[tuple[str, int]], total: int) -> Markup:
    """Parts of a whole side by side in one bar; each part has a class, what is left over is the bar's ground."""
    left = 0.0
    drawn = [Markup('<rect class="room" width="100" height="10"/>')]
    for kind, number in parts:
        width = _WIDTH * number / total if total else 0.0
        if number:
            width = max(width, _LEAST_SHARE)
            drawn.append(Markup('<rect class="{}" x="{:.1f}" width="{:.1f}" height="10"/>').format(kind, left, width))
        left += width
    return _stretched("shares", 10, Markup("").join(drawn))


def energy_strip(axis: Axis, value: float | None, low: float | None, high: float | None, kind: str) -> Markup:
    """A value as a dot and its range as a whisker on a common axis; empty without a value."""
    if value is None or value <= 0:
        return Markup("")
    drawn = Markup("").join(
        Markup('<line class="tick" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="20"/>').format(_inside(place))
        for _, place in energy_ticks(axis)
    )
    if low is not None and high is not None:
        drawn += Markup('<line class="whisker" x1="{:.1f}" x2="{:.1f}" y1="10" y2="10"/>').format(
            _inside(axis.at(max(low, axis.low))), _inside(axis.at(high))
        )
    head = Markup('<svg class="range {}" viewBox="0 0 200 20" width="200" height="20" aria-hidden="true">').format(kind)
    return head + drawn + Markup('<circle class="dot" cx="{:.1f}" cy="10" r="5"/></svg>').format(_inside(axis.at(value)))


def _inside(share: float) -> float:
    """Percent as a place in a drawing 200 wide with room for a dot at both ends."""
    return 6 + 1.88 * share


def _stretched(kind: str, height: int, content: Markup) -> Markup:
    """A drawing that takes the width of its cell; its numbers stand beside it, so it is hidden from screen readers."""
    return Markup('<svg class="{}" viewBox="0 0 100 {}" preserveAspectRatio="none" aria-hidden="true">{}</svg>').format(
        kind, height, content
    )
