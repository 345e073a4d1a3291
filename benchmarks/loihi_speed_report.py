"""The table and the plot of ``loihi_speed.py``: ratios first, times behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

BACKENDS = ("loihi", "bare", "bare, channels last", "snnTorch", "Norse")


def write(result: dict[str, Any], folder: Path) -> str:
    """Write Markdown and plots; returns the table as text."""
    text = "\n".join([*_networks(result), *_growth(result)])
    (folder / "loihi_speed.md").write_text(text + "\n", encoding="utf-8")
    _plot(result, folder)
    return text


def _networks(result: dict[str, Any]) -> list[str]:
    lines = [
        f"{result['threads']} threads; microseconds per sample and step, median (minimum); ratios of medians, and (of minima).",
        "bare = the convolutions and products alone, in the faster of two memory layouts.",
        "",
        "| network | T | B | Lava / ours | ours / bare | snnTorch / ours | Norse / ours "
        "| ours | bare | Lava | runs | fire | bits off |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for network in result["networks"]:
        lava = network["lava"]
        wrong = network["mismatches"] + (lava["mismatches"] if lava else 0)
        for size in network["sizes"]:
            times = size["times"]
            ours, plain = times["loihi"], _faster(times)
            rates = " ".join(f"{100 * rate:.0f}%" for rate in size["rates"].values())
            cells = [
                network["name"], f"{size['steps']}", f"{size['batch']}",
                _ratio(lava, ours) if lava else "-", _ratio(ours, plain), _ratio(times["snnTorch"], ours),
                _ratio(times["Norse"], ours), _time(ours), _time(plain), _time(lava) if lava else "-", f"{ours['runs']}", rates,
                f"{wrong}",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Networks, and MiB that one run adds to a process (T = 100, B = 32; VGG-9: T = 16, B = 8):", ""]
    for network in result["networks"]:
        memory = ", ".join(f"{name} {value:.0f}" for name, value in network["memory"].items() if value is not None)
        lines.append(f"- {network['name']}: {network['what']}; {network['synapses']:,} weights; {memory}")
    return lines


def _growth(result: dict[str, Any]) -> list[str]:
    lines = ["", "Growth of our time per sample and step (conv net unless named):", ""]
    for axis, points in result["growth"].items():
        lines.append(f"- {axis}: " + ", ".join(f"{point['x']:g}: {point['median']:.2f}" for point in points))
    return lines


def _faster(times: dict[str, dict[str, float]]) -> dict[str, float]:
    return min((times["bare"], times["bare, channels last"]), key=lambda item: item["median"])


def _ratio(above: dict[str, float], below: dict[str, float]) -> str:
    first, second = above["median"] / below["median"], above["minimum"] / below["minimum"]
    return f"{first:,.0f} ({second:,.0f})" if first >= 20 else f"{first:.2f} ({second:.2f})"


def _time(found: dict[str, float]) -> str:
    return f"{found['median']:,.1f} ({found['minimum']:,.1f})"


def _plot(result: dict[str, Any], folder: Path) -> None:
    """Left: how many times our time each backend takes, best size of each network. Right: growth."""
    figure, (left, *rest) = plt.subplots(1, 1 + len(result["growth"]), figsize=(4 + 3 * len(result["growth"]), 3.6))
    names = [network["name"] for network in result["networks"]]
    for offset, backend in enumerate(("Lava", "snnTorch", "Norse", "bare")):
        heights = [_best(network, backend) for network in result["networks"]]
        left.bar([x + 0.2 * offset for x in range(len(names))], heights, 0.2, label=backend)
    left.set_yscale("log")
    left.axhline(1, color="black", linewidth=0.8)
    left.set_xticks([x + 0.3 for x in range(len(names))], names, rotation=20)
    left.set_ylabel("times our time per sample-step, best batch")
    left.legend(fontsize="small")
    for axis, (name, points) in zip(rest, result["growth"].items(), strict=True):
        axis.loglog([point["x"] for point in points], [point["median"] for point in points], marker="o")
        axis.set_xlabel(name)
        axis.set_ylabel("µs per sample-step")
    figure.tight_layout()
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"loihi_speed.{suffix}", dpi=120)
    plt.close(figure)


def _best(network: dict[str, Any], backend: str) -> float:
    """Ratio of a backend's time to ours at the size where ours is best; 0 where it did not run."""
    size = min(network["sizes"], key=lambda item: item["times"]["loihi"]["median"])
    ours = size["times"]["loihi"]["median"]
    if backend == "Lava":
        return network["lava"]["median"] / ours if network["lava"] else 0.0
    found = _faster(size["times"]) if backend == "bare" else size["times"][backend]
    return found["median"] / ours
