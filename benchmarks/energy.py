"""Whether spiking pays: a student against its ANN twin and its teacher, in 8 and 32 bits, with ranges.

    snn-export init && snn-export run                                     # the digits
    python benchmarks/energy.py [--report snn-export-out/report/report.json]
    python benchmarks/recipes.py --data cifar10 --only idsnn              # CIFAR-10
    python benchmarks/energy.py --cifar [--recipe idsnn] [--samples 512]

The first takes the counts of a finished run. The second takes a student that the recipes benchmark trained, and its teacher,
deploys it as that benchmark does, runs the integer simulator on test images and counts.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import snn_export
from snn_export.config_schema import Config
from snn_export.energy import break_even
from snn_export.energy.cost_table import find_table
from snn_export.energy.estimate import estimate_from
from snn_export.energy.observer import EnergyObserver
from snn_export.models.students.student import SpikingStudent
from snn_export.pipeline import energy_run
from snn_export.reporting import formatting
from snn_export.reporting.energy_records import EnergyReport
from snn_export.reporting.energy_words import takes_less
from snn_export.reporting.json_file import read_report
from snn_export.training.checkpoint import load_model
from snn_export.training.mac_counts import count_macs

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.recipes_data import available, load
from benchmarks.recipes_plan import EXPERIMENTS, Row
from benchmarks.recipes_row import on_the_grid, shared_teacher

ROOT = Path(__file__).parents[1]
BACKEND = "loihi"
CHUNK = 32
"""Test images per call of the simulator: all their spikes and membranes are kept."""


def lines(energy: EnergyReport) -> Iterator[str]:
    """The comparison as Markdown: who wins on which terms, then rates, fewer steps, time."""
    yield "| terms | this network | against | it takes | this over the other | takes less |"
    yield "| --- | ---: | --- | ---: | ---: | --- |"
    for item in energy.comparisons:
        own = formatting.energy_range(item.own_value, item.own_low, item.own_high)
        other = formatting.energy_range(item.value, item.low, item.high)
        terms = item.terms if item.like_for_like else f"{energy.table}, against {item.terms}"
        terms += ", early exit" if item.subject == "early_exit" else ""
        ratio = "-" if item.ratio is None else f"{item.ratio:.2f}"
        yield f"| {terms} | {own} | {item.other} | {other} | {ratio} | {takes_less(item, 'spiking', 'ANN')} |"
    yield ""
    yield from (f"- {sentence}" for sentence in (*energy.verdict, *energy.break_even))
    found = energy.operations
    if found is not None:
        yield f"- Firing rate {100 * break_even.firing_rate(found):.1f} % against {100 * break_even.RATE:.1f} %."
    yield ""
    yield "| steps | accuracy | energy |"
    yield "| ---: | ---: | ---: |"
    for point in energy.curve:
        mark = " (knee)" if point.steps == energy.knee else ""
        taken = formatting.energy_range(point.value, point.low, point.high)
        yield f"| {point.steps}{mark} | {_percent(point.accuracy)} | {taken} |"
    early = energy.early_exit
    if early is not None:
        taken = formatting.energy_range(early.value, early.low, early.high)
        yield f"| {early.mean_steps:.2f} (early exit) | {_percent(early.accuracy)} | {taken} |"
    yield ""
    if energy.latency is not None:
        whole = energy.latency.inference
        told = "" if whole is None else f"{formatting.time_range(whole.value, whole.low, whole.high)} per inference; "
        yield f"- Time: {told}{energy.latency.reason}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def cifar(options: argparse.Namespace) -> tuple[str, EnergyReport]:
    """A student of the recipes benchmark, deployed as there: what it is, and its energy on test images."""
    row, experiment = Row("cifar10", options.recipe, "rate", 0), EXPERIMENTS["cifar10"]
    weights = options.work / f"{row.key}.safetensors"
    if not available(row.data):
        raise SystemExit("cifar10_jpeg.npz is not here: name its folder in SNN_EXPORT_BENCHMARK_DATA")
    if not weights.is_file():
        raise SystemExit(f"{weights} is not there: python benchmarks/recipes.py --data cifar10 --only {options.recipe}")
    data = load(row.data)
    student, (teacher, _) = load_model(weights), shared_teacher(experiment, data, options.work)
    if not isinstance(student, SpikingStudent):
        raise SystemExit(f"{weights} holds no student")
    quantised, _ = on_the_grid(student, data, experiment.fine_tune_epochs)
    config, chosen = energy_run.with_threshold(Config(), quantised, data, BACKEND, lambda line: print(line, file=sys.stderr))
    observer = EnergyObserver(BACKEND, quantised, config.energy.exit_margin)
    x, y, right = data.x_test[: options.samples], data.y_test[: options.samples], 0
    for start in range(0, len(y), CHUNK):
        part, labels = x[start : start + CHUNK], y[start : start + CHUNK]
        trace = snn_export.simulate(quantised, part, BACKEND, record=("spikes", "membrane"))
        observer.chunk(part, {BACKEND: trace}, start, labels)
        right += int((trace.predictions == labels).sum())
    macs, _ = count_macs(teacher, x, "teacher")
    energy = energy_run.energy_report(quantised, observer.counted, config, Path(), chosen, macs)
    if energy is None:
        raise SystemExit("nothing was counted")
    name, shape = experiment.student
    told = (
        f"{name} of width {shape['width']}, recipe {options.recipe}, T = {student.config.steps}, {len(data.y_train)} CIFAR-10 "
        f"images; {right} of {len(y)} test images right"
    )
    return told, energy


def main() -> None:
    parser = argparse.ArgumentParser(description="Energy of a student against ANNs.")
    parser.add_argument("--report", type=Path, default=Path("snn-export-out/report/report.json"), help="of a finished run")
    parser.add_argument("--cifar", action="store_true", help="a student of benchmarks/recipes.py on CIFAR-10 instead")
    parser.add_argument("--recipe", default="idsnn", help="the recipe it was trained by")
    parser.add_argument("--work", type=Path, default=ROOT / "benchmarks" / "results" / "recipes", help="where recipes.py left it")
    parser.add_argument("--samples", type=int, default=512, help="test images")
    parser.add_argument("--table", help="cost table: a name, or a TOML file")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if options.cifar:
        told, energy = cifar(options)
    else:
        report = read_report(options.report)
        if report.energy is None:
            raise SystemExit(f"{options.report} holds no energy")
        told, energy = f"{report.network} on {report.dataset}, {report.samples} samples, T = {report.steps}", report.energy
    if options.table and energy.operations is not None:
        energy = estimate_from(energy.operations, find_table(options.table, Path.cwd()))
    print(f"{told}\n\n" + "\n".join(lines(energy)))


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
