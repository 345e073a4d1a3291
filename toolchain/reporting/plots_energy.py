"""Drawings of energy and placement, written as SVG by hand: what each layer spends on, what fewer steps cost, the mesh.

Bars in a table hold no text: the numbers stand beside them. What must be told apart differs in more than colour: parts of a bar
in their order, links of the mesh in their width, the knee of a curve in its shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from snn_export.reporting.energy_records import EnergyPoint, EnergyReport, LayerEnergy
from snn_export.reporting.formatting import count, energy
from snn_export.reporting.placement_records import PlacementReport
from snn_export.reporting.plots_inline import Axis

PARTS: Final = ("synaptic", "active", "inactive", "messages", "hops", "other")
"""Classes of the parts of a bar, in their order."""
PART_TITLES: Final = {
    "synaptic": "synaptic operations", "active": "updates of neurons that spike", "inactive": "updates of the others",
    "messages": "packets and messages", "hops": "hops between tiles", "other": "other",
}  # fmt: skip
_OF_OPERATION: Final = {
    "synaptic_operation": "synaptic", "neuron_update_active": "active", "neuron_update_inactive": "inactive",
    "spike_message": "messages", "hop_east_west": "hops", "hop_north_south": "hops", "hop_between_chips": "hops",
}  # fmt: skip
FULL: Final = Axis(0.0, 1.0)
"""The axis of shares of a limit."""
_CURVE: Final = (50.0, 16.0, 294.0, 200.0)
"""Left, top, width and height of the curve within its 352 x 270, which fits a phone."""
_ROUTER: Final = 34
_GAP: Final = 22
_MARGIN: Final = 30
_TICKS: Final = 4


@dataclass(frozen=True)
class Scale:
    """A linear axis of energies from 0, with round ticks."""

    high: float
    tick: float

    def at(self, value: float) -> float:
        """Percent of the width."""
        return 100 * value / self.high

    def ticks(self) -> tuple[tuple[str, float], ...]:
        """Text and place of the first and the last tick, and of the one in the middle where there is one."""
        number = round(self.high / self.tick)
        shown = (0, number // 2, number) if number % 2 == 0 else (0, number)
        return tuple((energy(step * self.tick) if step else "0", self.at(step * self.tick)) for step in shown)


def scale_of(values: Sequence[float | None]) -> Scale | None:
    """An axis that holds all values; None where there is nothing above 0."""
    largest = max((value for value in values if value is not None), default=0.0)
    if largest <= 0:
        return None
    rough = largest / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    tick = next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= rough * 0.999)
    return Scale(tick * math.ceil(largest / tick * 0.999), tick)


def layer_scale(report: EnergyReport) -> Scale | None:
    """The axis of the layers' bars and whiskers."""
    return scale_of([layer.high for layer in report.layers])


def parts_of(layer: LayerEnergy) -> dict[str, float]:
    """Energy by class of part, in their order; parts without energy are left out."""
    found = dict.fromkeys(PARTS, 0.0)
    for part in layer.parts:
        found[_OF_OPERATION.get(part.operation, "other")] += part.value or 0.0
    return {name: value for name, value in found.items() if value > 0}


def parts_shown(report: EnergyReport) -> tuple[str, ...]:
    """Classes of parts that any layer has."""
    shown = {name for layer in report.layers for name in parts_of(layer)}
    return tuple(name for name in PARTS if name in shown)


def layer_bar(scale: Scale, layer: LayerEnergy) -> Markup:
    """What a layer spends, part behind part, and the range of their sum as a whisker below."""
    drawn, left = Markup(""), 0.0
    for name, value in parts_of(layer).items():
        width = scale.at(value)
        drawn += Markup('<rect class="part-{}" x="{:.2f}" y="2" width="{:.2f}" height="12"/>').format(name, left, width)
        left += width
    if layer.low is not None and layer.high is not None and layer.high > 0:
        low, high = scale.at(layer.low), scale.at(layer.high)
        drawn += Markup('<path class="reach" d="M{0:.2f} 18.5H{1:.2f}M{0:.2f} 16.5v4M{1:.2f} 16.5v4"/>').format(low, high)
    return Markup('<svg class="stack" viewBox="0 0 100 22" preserveAspectRatio="none" aria-hidden="true">{}</svg>').format(drawn)


def energy_curve(points: Sequence[EnergyPoint], knee: int | None, name: str) -> Markup:
    """Accuracy over energy, a point per number of steps with its range; the knee is a diamond. Empty without energies."""
    known = [(item.steps, item.value, item.low, item.high, item.accuracy) for item in points]
    shown = [
        (steps, value, low, high, accuracy)
        for steps, value, low, high, accuracy in known
        if value is not None and low is not None and high is not None and accuracy is not None
    ]
    scale = scale_of([high for _, _, _, high, _ in shown])
    if scale is None or len(shown) < 2:
        return Markup("")
    left, top, width, height = _CURVE
    lowest = min(accuracy for *_, accuracy in shown)
    floor = max(0.0, math.floor(lowest / 10) * 10)
    step = next(size for size in (2, 5, 10, 25) if (100 - floor) / size <= 6)

    def x(value: float) -> float:
        return left + width * scale.at(value) / 100

    def y(accuracy: float) -> float:
        return top + height * (100 - accuracy) / (100 - floor if floor < 100 else 1)

    lines = Markup("").join(
        Markup('<line class="tick" x1="{0:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{2:.1f}"/>').format(left, left + width, y(value))
        + Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="end">{:g} %</text>').format(left - 6, y(value) + 4, value)
        for value in range(int(floor), 101, step)
    )
    lines += Markup("").join(
        Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
            left + width * place / 100, top + height + 18, "end" if place > 99 else "middle", text
        )
        for text, place in scale.ticks()
    )
    path = "M" + "L".join(f"{x(value):.1f} {y(accuracy):.1f}" for _, value, _, _, accuracy in shown)
    marks = Markup("").join(
        Markup('<path class="reach" d="M{:.1f} {:.1f}H{:.1f}"/>').format(x(low), y(accuracy), x(high))
        for _, _, low, high, accuracy in shown
    )
    marks += Markup('<path class="line" d="{}"/>').format(path)
    marks += Markup("").join(
        Markup('<path class="knee" d="M{:.1f} {:.1f}l8 8l-8 8l-8 -8z"/>').format(x(value), y(accuracy) - 8)
        if steps == knee
        else Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(x(value), y(accuracy))
        for steps, value, _, _, accuracy in shown
    )
    title = f"Accuracy in percent over energy per inference, one point for each of 1 to {shown[-1][0]} steps"
    title += f"; the knee is at {knee} steps" if knee is not None else ""
    return Markup(
        '<svg class="curve" viewBox="0 0 352 270" width="352" height="270" role="img" aria-labelledby="{0}-title">'
        '<title id="{0}-title">{1}</title>{2}{3}<text x="{4:.1f}" y="264" text-anchor="middle">energy per inference</text></svg>'
    ).format(name, title, lines, marks, left + width / 2)


def mesh(placement: PlacementReport) -> Markup:
    """Routers with the number of cores in use, and links as wide as what travels over them, both ways side by side.

    The drawing ends with the first empty row and column behind those in use.
    """
    rows, columns = mesh_shown(placement)
    pitch = _ROUTER + _GAP
    width, height = (2 * _MARGIN + pitch * size - _GAP for size in (columns, rows))
    used: dict[tuple[int, int], int] = {}
    for core in placement.placed:
        used[core.row, core.column] = used.get((core.row, core.column), 0) + 1
    largest = max((link.packets for link in placement.links), default=0.0)
    drawn = _borders(placement, pitch)
    for link in placement.links:
        drawn += _link(link.row, link.column, link.to_row, link.to_column, link.packets / largest if largest else 0.0)
    for row in range(rows):
        for column in range(columns):
            drawn += _router(row, column, used.get((row, column), 0))
    title = (
        f"{rows} by {columns} routers of a mesh of {placement.rows} by {placement.columns}, with the cores in use at each; links "
        f"are as wide and dark as the packets that pass, {count(round(largest))} per inference at most"
    )
    return Markup(
        '<svg class="mesh" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" aria-labelledby="mesh-title">'
        '<title id="mesh-title">{2}</title>{3}</svg>'
    ).format(width, height, title, drawn)


def mesh_shown(placement: PlacementReport) -> tuple[int, int]:
    """Rows and columns of the mesh that are drawn: those up to the last one in use, and an empty one behind it."""
    rows = [core.row for core in placement.placed] + [row for link in placement.links for row in (link.row, link.to_row)]
    columns = [core.column for core in placement.placed]
    columns += [column for link in placement.links for column in (link.column, link.to_column)]
    return min(placement.rows, max(rows, default=0) + 2), min(placement.columns, max(columns, default=0) + 2)


def _corner(place: int) -> float:
    return _MARGIN + place * (_ROUTER + _GAP)


def _borders(placement: PlacementReport, pitch: int) -> Markup:
    """Outlines of the chips."""
    drawn = Markup("")
    for row in range(0, placement.rows, placement.chip_rows):
        for column in range(0, placement.columns, placement.chip_columns):
            drawn += Markup('<rect class="chip" x="{}" y="{}" width="{}" height="{}" rx="6"/>').format(
                _corner(column) - _GAP // 2 + 1, _corner(row) - _GAP // 2 + 1,
                pitch * placement.chip_columns - 2, pitch * placement.chip_rows - 2,
            )  # fmt: skip
    return drawn


def _link(row: int, column: int, to_row: int, to_column: int, share: float) -> Markup:
    """One direction of a link, on its own side."""
    width = 1 + 7 * share
    sideways = row == to_row
    forward = to_column > column if sideways else to_row > row
    shift = _ROUTER / 2 + (-6 if forward else 6)
    start = (min(column, to_column), min(row, to_row))
    x, y = _corner(start[0]), _corner(start[1])
    path = f"M{x + _ROUTER} {y + shift:.1f}h{_GAP}" if sideways else f"M{x + shift:.1f} {y + _ROUTER}v{_GAP}"
    return Markup('<path class="way" d="{}" stroke-width="{:.1f}" stroke-opacity="{:.2f}"/>').format(
        path, width, 0.35 + 0.65 * share
    )


def _router(row: int, column: int, cores: int) -> Markup:
    x, y = _corner(column), _corner(row)
    box = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="4"/>').format(
        "router" if cores else "router empty", x, y, _ROUTER, _ROUTER
    )
    if not cores:
        return box
    text = Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(x + _ROUTER / 2, y + _ROUTER / 2 + 4, cores)
    return box + text


def busiest_links(placement: PlacementReport, number: int = 8) -> tuple[int, ...]:
    """Indices of the links that carry most, the busiest first."""
    order = sorted(range(len(placement.links)), key=lambda index: (-placement.links[index].packets, index))
    return tuple(order[:number])
