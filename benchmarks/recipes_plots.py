"""Pictures of the recipes benchmark: accuracy of every recipe with its seeds, and of conversions against T."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

from benchmarks.recipes_answers import STEPS, best_student
from benchmarks.recipes_measures import Group, baseline_mode, group_of
from benchmarks.recipes_plan import STEPS_OF_BALANCING

FLOAT, INTEGER = "#1f5fa8", "#d1671f"
NEAR = 8.0
"""Points below the lower student that the second panel shows."""
CURVES = {"qcfs": ("#1f5fa8", "o"), "max_norm": ("#2b8a3e", "s"), "calibration": ("#8a3ea8", "^")}
STYLE: Any = {
    "svg.hashsalt": "recipes", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "grid.color": "#dddddd", "grid.linewidth": 0.7, "legend.frameon": False, "figure.facecolor": "white",
}  # fmt: skip


def write_plots(lines: Mapping[str, Sequence[Group]], folder: Path) -> dict[str, tuple[str, ...]]:
    """Write the SVG files of every data set that has rows; returns their names."""
    written: dict[str, tuple[str, ...]] = {}
    for data, found in lines.items():
        there = [line for line in found if line.results]
        if not there:
            continue
        names = [_save(_accuracies(data, there), folder, f"recipes_{data}.svg")]
        if any(line.curve() for line in there):
            names.append(_save(_against_steps(data, there), folder, f"recipes_{data}_steps.svg"))
        written[data] = tuple(names)
    return written


def _save(figure: Any, folder: Path, name: str) -> str:
    """The same rows give the same bytes: no date, and identifiers from a fixed salt."""
    temporary = folder / f"{name}.tmp"
    with mpl.rc_context(STYLE):
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    plt.close(figure)
    temporary.replace(folder / name)
    return name


def _accuracies(data: str, lines: Sequence[Group]) -> Any:
    """A row per recipe: dots for seeds, a tick for their mean; float above, integers below."""
    low, high = _range(lines)
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 1.3 + 0.34 * len(lines)), layout="constrained")
        axes.set_xlim(low, high)
        for place, line in enumerate(lines):
            for name, colour, offset in (("test_accuracy", FLOAT, -0.17), ("integer_accuracy", INTEGER, 0.17)):
                _seeds(axes, [100 * value for value in line.values(name)], place + offset, colour, filled=colour == FLOAT)
            if str(line.first.get("deployed", "")).startswith("refused"):
                middle = max(100 * line.mean("test_accuracy"), low + 0.05 * (high - low))
                axes.text(middle, place + 0.19, "refused", color=INTEGER, fontsize=7, ha="center", va="center")
        baseline = group_of(lines, "no_teacher", baseline_mode(data))
        if baseline is not None:
            axes.axvline(100 * baseline.mean("test_accuracy"), color="#777777", linewidth=0.9, linestyle=":", zorder=1)
        axes.set_yticks(range(len(lines)), [line.name for line in lines])
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_xlabel("test accuracy, %")
        axes.set_title(data, loc="left", fontweight="bold")
        figure.legend(handles=_legend(baseline), loc="outside upper right", ncols=4, fontsize="small")
    return figure


def _range(lines: Sequence[Group]) -> tuple[float, float]:
    """Limits, in percent, that hold everything but a conversion far below: one of those would press the others together."""
    kept = [line for line in lines if line.mode != "conversion"] or list(lines)
    values = [100 * value for line in kept for name in ("test_accuracy", "integer_accuracy") for value in line.values(name)]
    highest = max(100 * value for line in lines for value in line.values("test_accuracy"))
    margin = 0.08 * max(highest - min(values), 1.0)
    return min(values) - 2 * margin, highest + margin


def _seeds(axes: Any, values: Sequence[float], height: float, colour: str, *, filled: bool) -> None:
    """Dots and their mean; an arrow with the mean where they lie left of the limits."""
    if not values:
        return
    mean, left = math.fsum(values) / len(values), axes.get_xlim()[0]
    if min(values) < left:
        axes.annotate(
            f"{mean:.1f}", (0.0, height), (0.025, height), xycoords=axes.get_yaxis_transform(), va="center", color=colour,
            fontsize=7, arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 1},
        )  # fmt: skip
        return
    axes.scatter(
        values,
        [height] * len(values),
        s=20,
        linewidths=1.1,
        zorder=3,
        edgecolors=colour,
        facecolors=colour if filled else "white",
    )
    if len(values) > 1:
        axes.plot([mean, mean], [height - 0.16, height + 0.16], color=colour, linewidth=2, zorder=2)


def _legend(baseline: Group | None) -> list[Any]:
    line = mpl.lines.Line2D
    found = [
        line([], [], marker="o", linestyle="", color=FLOAT, markersize=5, label="float, one seed"),
        line([], [], marker="o", linestyle="", markerfacecolor="white", color=INTEGER, markersize=5, label="Loihi 2 integers"),
        line([], [], marker="|", linestyle="", color="#555555", markersize=9, markeredgewidth=2, label="mean"),
    ]
    if baseline is not None:
        found.append(line([], [], color="#777777", linestyle=":", label=f"mean of {baseline.name}"))
    return found


def _against_steps(data: str, lines: Sequence[Group]) -> Any:
    """Conversions against T, whole and near the students, which are horizontal lines with a diamond at the T they have."""
    students = [line for line in (group_of(lines, "no_teacher", baseline_mode(data)), best_student(lines)) if line is not None]
    with mpl.rc_context(STYLE):
        figure, (whole, near) = plt.subplots(1, 2, figsize=(9.6, 3.9), layout="constrained")
        for axes in (whole, near):
            _curves(axes, lines, students)
        if students:
            heights = [100 * line.mean("test_accuracy") for line in students]
            reached = [100 * value for line in lines for value in line.curve().values()]
            near.set_ylim(min(heights) - NEAR, max(*heights, *reached) + 0.1 * NEAR)
        whole.set_ylabel("test accuracy, %")
        whole.set_title(data, loc="left", fontweight="bold")
        near.set_title("near the students", loc="left")
        figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    return figure


def _curves(axes: Any, lines: Sequence[Group], students: Sequence[Group]) -> None:
    for line in lines:
        curve = line.curve()
        if curve:
            colour, marker = CURVES.get(line.recipe, ("#555555", "x"))
            label = f"{line.recipe} ({len(line.results)} seed{'s' if len(line.results) > 1 else ''})"
            axes.plot(
                list(curve), [100 * value for value in curve.values()], marker=marker, color=colour, markersize=5, label=label
            )
    for student in students:
        height, style = 100 * student.mean("test_accuracy"), "--" if student.recipe == "no_teacher" else "-"
        axes.axhline(height, color="#333333", linestyle=style, linewidth=1, label=f"{student.name}, T = {STEPS}")
        axes.plot([STEPS], [height], marker="D", color="#333333", markersize=4.5, zorder=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks(STEPS_OF_BALANCING, [str(steps) for steps in STEPS_OF_BALANCING])
    axes.minorticks_off()
    axes.grid()
    axes.set_xlabel("T")
