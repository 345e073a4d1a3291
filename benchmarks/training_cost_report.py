"""What ``training_cost.py`` found, as JSON, Markdown and a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from snn_export.reporting.json_file import write_text

Row = dict[str, Any]
LIMIT = "convolutions"
NAME = "training-cost"
COLOURS = {"rates": "#0b6e4f", "floats": "#6fb98f", "bptt": "#3566b0", "snntorch": "#c1440e", "spikingjelly": "#7a5195"}
SPEED_WANTED = {8: 4.0, 32: 7.0}
"""How many times faster than snnTorch's loop a rate-based step is to be, by T."""
MEMORY_WANTED = (4, 32, 1.6)
"""The peak at the second T is to be at most so many times that at the first."""


def write(result: dict[str, Any], folder: Path) -> str:
    """Write the three files, each whole or not at all; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(result)
    write_text(folder / f"{NAME}.json", json.dumps(result, indent=1) + "\n")
    write_text(folder / f"{NAME}.md", text)
    _plot(result, folder / f"{NAME}.svg")
    return text


def markdown(result: dict[str, Any]) -> str:
    """The whole page."""
    return "\n".join([*_head(result), *_verdicts(result), "", *_times(result), "", *_memory(result)]) + "\n"


def _head(result: dict[str, Any]) -> list[str]:
    size, versions = result["size"], result["versions"]
    installed = ", ".join(f"{name} {number}" for name, number in versions.items())
    found = result["agreement"]
    apart = max(found["logits_apart"].values())
    firing = " ".join(f"{100 * rate:.0f}%" for rate in found["rates"].values())
    loads = [f"{result[key]:.1f}" for key in ("load_before", "load_after") if result.get(key) is not None]
    busy = f"; load average {' before and '.join(loads)} after, so other work ran beside it" if _busy(result) else ""
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    return [
        "# Cost of a training step",
        "",
        f"`{result['command'].strip()}` on {result['cores']} cores of an {result['processor']} ({result['instructions']}), "
        f"{threads} for every method ({installed}, Python {result['python']}{busy}).",
        "",
        f"One step is forward, cross-entropy, backward and SGD of the conv5 student: five convolutions, width {size['width']}, "
        f"random images 3x{size['side']}x{size['side']}, batch {size['batch']}, membrane kept 0.5, threshold 1, reset to zero "
        "seen by the gradient, sigmoid surrogate of slope 4. snnTorch's loop runs all layers for one step, then for the next, as "
        "its tutorials write it; SpikingJelly runs in its multi-step mode, torch backend. Seconds are medians (minima) of "
        "interleaved steps; memory is the peak of a process of its own, everything it holds included: torch and snnTorch, and "
        "for the rate-based pass about 130 MiB for the compiler of its LIF steps. *Float32 convolutions alone* is the limit of a "
        "rate-based step in float32: the first convolution once and the others T times forward, all of them once forward and "
        "back, and nothing else.",
        "",
        _convolutions(result),
        "",
        f"The same network: in evaluation mode at T = {found['steps']}, same weights and batch-norm statistics, float64, the "
        f"logits of {len(found['logits_apart'])} methods lie at most {apart:.1g} apart (losses "
        f"{', '.join(f'{loss:.6f}' for loss in found['losses'].values())}; layers fire at {firing}). In training snnTorch's loop "
        "normalises every step by itself, the others all steps together.",
        "",
        "SpikingJelly is no dependency of this project: its licence is not one that the Open Source Initiative has approved.",
        "",
        f"![seconds per step and peak memory against T]({NAME}.svg)",
        "",
    ]


def _convolutions(result: dict[str, Any]) -> str:
    if not result["integer_convolutions"]:
        return (
            "This processor has no matrix units for bytes (or torch no operators for them): the rate-based pass convolves "
            "spikes as float32, and its two columns measure the same."
        )
    share = 100 * result["agreement"]["rates_in_integers"]
    others = "" if share == 100 else ", the others a membrane that a rounding moved across its threshold"
    return (
        "This processor has matrix units for bytes (AMX). The rate-based pass convolves spikes with them, in integers "
        "(`models/rate_based/spike_convolution.py`); *float32 alone* is what it takes on a processor without them. Both run this "
        f"network at T = {result['agreement']['steps']}, in float32: {share:.6g} % of the neurons fire at the same rate in "
        f"both{others}."
    )


def _busy(result: dict[str, Any]) -> bool:
    before = result.get("load_before")
    return before is not None and before > 0.5


def _verdicts(result: dict[str, Any]) -> list[str]:
    lines = ["| what | asked for | found |", "| --- | ---: | ---: |"]
    for steps, wanted in SPEED_WANTED.items():
        factor = _ratio(_cell(result, "snntorch", steps), _cell(result, "rates", steps), _median)
        lines.append(f"| snnTorch's loop / rate-based, seconds at T = {steps} | at least {wanted:g} | {factor} |")
        in_floats, most_possible = (
            _ratio(_cell(result, "snntorch", steps), _cell(result, name, steps), _median) for name in ("floats", LIMIT)
        )
        alone = "the same, in float32 alone, as without matrix units"
        lines.append(f"| {alone} | at least {wanted:g} | {in_floats} |")
        lines.append(f"| the same, if nothing but a rate-based step's convolutions in float32 took time | | {most_possible} |")
    low, high, most = MEMORY_WANTED
    for name, title in result["titles"].items():
        growth = _ratio(_cell(result, name, high), _cell(result, name, low), _peak)
        wanted_growth = f"at most {most:g}" if name == "rates" else ""
        lines.append(f"| {title}, peak memory at T = {high} / at T = {low} | {wanted_growth} | {growth} |")
    return lines


def _times(result: dict[str, Any]) -> list[str]:
    titles = result["titles"]
    lines = [
        "Seconds per step:",
        "",
        "| T | "
        + " | ".join(titles.values())
        + " | float32 convolutions alone | snnTorch / rate-based | BPTT / rate-based | rounds |",
        "| ---: |" + " ---: |" * (len(titles) + 4),
    ]
    for steps in _steps(result):
        cells = {name: _cell(result, name, steps) for name in titles}
        shown = [
            _shown(cell, lambda row: f"{row['seconds']['median']:.3f} ({row['seconds']['minimum']:.3f})")
            for cell in [*cells.values(), _cell(result, LIMIT, steps)]
        ]
        ratios = [_ratio(cells[name], cells["rates"], _median) for name in ("snntorch", "bptt")]
        rounds = max((cell["seconds"]["runs"] for cell in cells.values() if cell["seconds"]), default=0)
        lines.append(f"| {steps} | " + " | ".join([*shown, *ratios, str(rounds)]) + " |")
    return lines


def _memory(result: dict[str, Any]) -> list[str]:
    titles = result["titles"]
    lines = [
        "Peak memory in MiB (what the process held before its first step):",
        "",
        "| T | " + " | ".join(titles.values()) + " |",
        "| ---: |" + " ---: |" * len(titles),
    ]
    for steps in _steps(result):
        shown = [_shown(_cell(result, name, steps), _held) for name in titles]
        lines.append(f"| {steps} | " + " | ".join(shown) + " |")
    return lines


def _held(row: Row) -> str:
    return f"{row['peak']:,.0f}" + (f" ({row['base']:,.0f})" if row["base"] else "")


def _shown(row: Row, text: Callable[[Row], str]) -> str:
    return row["skipped"] or text(row)


def _steps(result: dict[str, Any]) -> list[int]:
    return sorted({row["steps"] for row in result["rows"]})


def _cell(result: dict[str, Any], name: str, steps: int) -> Row:
    missing = {"method": name, "steps": steps, "skipped": "not measured", "seconds": None, "base": None, "peak": None}
    return next((row for row in result["rows"] if row["method"] == name and row["steps"] == steps), missing)


def _median(row: Row) -> float:
    return float(row["seconds"]["median"])


def _peak(row: Row) -> float:
    return float(row["peak"])


def _ratio(above: Row, below: Row, value: Callable[[Row], float]) -> str:
    if above["skipped"] or below["skipped"]:
        return "-"
    return f"{value(above) / value(below):.2f}"


def _plot(result: dict[str, Any], path: Path) -> None:
    """Two log-log panels against T, each line named at its end."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
    _lines(left, result, _median, "seconds per training step")
    _lines(right, result, _peak, "peak memory of the process, MiB")
    size = result["size"]
    figure.suptitle(
        f"conv5, width {size['width']}, {size['side']}x{size['side']}, batch {size['batch']}, {result['threads']} thread(s)"
    )
    figure.tight_layout()
    temporary = path.with_name(f".{path.name}.part")
    with mpl.rc_context({"svg.hashsalt": NAME}):
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    plt.close(figure)
    temporary.replace(path)


def _lines(axis: Axes, result: dict[str, Any], value: Callable[[Row], float], label: str) -> None:
    ends: list[tuple[str, float, float]] = []
    values = []
    for name in result["titles"]:
        rows = [row for row in result["rows"] if row["method"] == name and not row["skipped"]]
        if rows:
            points = [(row["steps"], value(row)) for row in rows]
            axis.loglog(*zip(*points, strict=True), marker="o", markersize=4, color=COLOURS[name])
            ends.append((name, *points[-1]))
            values += [y for _, y in points]
    steps = _steps(result)
    axis.set_xticks(steps, [str(step) for step in steps])
    axis.minorticks_off()
    axis.set_xlim(steps[0] / 1.15, steps[-1] * 12)  # room for the names
    axis.set_xlabel("steps T")
    axis.set_ylabel(label)
    axis.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda y, _: f"{y:g}"))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    span = math.log(max(values) / min(values)) or 1.0 if values else 1.0
    lowest = -math.inf
    for name, x, y in sorted(ends, key=lambda end: end[2]):
        height = max(math.log(y), lowest + 0.07 * span)  # names that would lie on each other move up
        lowest = height
        axis.annotate(
            result["titles"][name], (x, math.exp(height)), xytext=(7, 0), textcoords="offset points", va="center",
            color=COLOURS[name], fontsize=9,
        )  # fmt: skip
    if ends:
        axis.set_ylim(top=max(axis.get_ylim()[1], math.exp(lowest + 0.05 * span)))  # a name above the axes would not be drawn
