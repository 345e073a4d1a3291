"""Whether spiking pays: a student against its ANN twin and its teacher, in 8 and 32 bits, with ranges.

    snn-export init && snn-export run                                     # the digits
    python benchmarks/energy.py [--report snn-export-out/report/report.json]
    python benchmarks/energy.py --cifar [--epochs 4] [--images 3000] [--width 8] [--steps 4] [--samples 64]

The first takes the counts of a finished run. The second trains a small VGG-9 on CIFAR-10 for a few epochs
(``benchmarks/recipes_data.py`` says where the images are looked for), quantises it, runs the integer simulator on test images and
counts. The training is brief, so the accuracy is low and stands beside the figures; what an ANN of the same layers takes does not
depend on it, the firing rate does.
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
from snn_export.data.dataset import Dataset
from snn_export.energy import break_even
from snn_export.energy.cost_table import find_table
from snn_export.energy.estimate import estimate_from
from snn_export.energy.observer import EnergyObserver
from snn_export.models.students.registry import build_student
from snn_export.models.teachers.registry import build_teacher
from snn_export.pipeline import energy_run
from snn_export.reporting import formatting
from snn_export.reporting.energy_records import EnergyReport
from snn_export.reporting.json_file import read_report
from snn_export.training.loop import fit
from snn_export.training.mac_counts import count_macs
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.settings import TrainingSettings

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.recipes_data import available, load

BACKEND = "loihi"
CALIBRATION = 64


def lines(energy: EnergyReport) -> Iterator[str]:
    """The comparison as Markdown: who wins on which terms, then rates, fewer steps, time."""
    yield "| terms | this network | against | it takes | this over the other | takes less | at either end |"
    yield "| --- | ---: | --- | ---: | ---: | --- | --- |"
    names = {"snn": "spiking", "ann": "ANN", "undecided": "cannot be told"}
    for item in energy.comparisons:
        own = formatting.energy_range(item.own_value, item.own_low, item.own_high)
        other = formatting.energy_range(item.value, item.low, item.high)
        terms = item.terms if item.like_for_like else f"{energy.table}, against {item.terms}"
        terms += ", early exit" if item.own.endswith("early exit") else ""
        ends = names[item.at_every_end] if item.at_every_end != "undecided" else "-"
        yield f"| {terms} | {own} | {item.other} | {other} | {item.ratio:.2f} | {names[item.winner]} | {ends} |"
    yield ""
    yield from (f"- {sentence}" for sentence in (*energy.verdict, *energy.break_even))
    found = energy.operations
    if found is not None:
        yield f"- Firing rate {100 * break_even.firing_rate(found):.1f} % against {100 * break_even.RATE:.1f} %."
    yield ""
    yield "| steps | accuracy | energy |"
    yield "| ---: | ---: | ---: |"
    for point in energy.curve:
        accuracy = "-" if point.accuracy is None else f"{point.accuracy:.1f} %"
        mark = " (knee)" if point.steps == energy.knee else ""
        yield f"| {point.steps}{mark} | {accuracy} | {formatting.energy_range(point.value, point.low, point.high)} |"
    early = energy.early_exit
    if early is not None:
        taken = formatting.energy_range(early.value, early.low, early.high)
        yield f"| {early.mean_steps:.2f} (early exit) | {early.accuracy:.1f} % | {taken} |"
    yield ""
    if energy.latency is not None:
        whole = energy.latency.inference
        told = "" if whole is None else f"{formatting.time_range(whole.value, whole.low, whole.high)} per inference; "
        yield f"- Time: {told}{energy.latency.reason}"


def cifar(options: argparse.Namespace) -> tuple[str, EnergyReport]:
    """A VGG-9 that was trained briefly: what it is, and its energy."""
    if not available("cifar10"):
        raise SystemExit("cifar10_jpeg.npz is not here: name its folder in SNN_EXPORT_BENCHMARK_DATA")
    data = reduced(load("cifar10"), options.images, options.samples)
    shape = data.input_shape
    teacher = build_teacher("vgg9", input_shape=shape, classes=data.classes, width=options.width)
    student = build_student("vgg9", input_shape=shape, classes=data.classes, width=options.width, steps=options.steps)
    settings = TrainingSettings(epochs=options.epochs)
    for name, model, recipe in (("teacher", teacher, "teacher"), ("student", student, "no_teacher")):
        print(f"training the {name}, {options.epochs} epochs on {len(data.y_train)} images", file=sys.stderr, flush=True)
        fit(model, data.train, data.validation, load_recipe(recipe), settings)
    calibration = data.x_train[:CALIBRATION]
    deployment = snn_export.from_snntorch(student.eval().layers, shape, options.steps, calibration)
    quantised = snn_export.quantize(deployment, calibration, input_range=(data.input_low, data.input_high))
    config, chosen = energy_run.with_threshold(Config(), quantised, data, BACKEND, lambda line: print(line, file=sys.stderr))
    observer = EnergyObserver(BACKEND, quantised, config.energy.exit_margin)
    right = 0
    for start in range(0, len(data.y_test), 8):
        part, labels = data.x_test[start : start + 8], data.y_test[start : start + 8]
        trace = snn_export.simulate(quantised, part, BACKEND, record=("spikes", "membrane"))
        observer.chunk(part, {BACKEND: trace}, start, labels)
        right += int((trace.predictions == labels).sum())
    macs, _ = count_macs(teacher, data.x_test, "teacher")
    energy = energy_run.energy_report(quantised, observer.counted, config, Path(), chosen, macs)
    if energy is None:
        raise SystemExit("nothing was counted")
    told = (
        f"VGG-9 of width {options.width}, T = {options.steps}, trained for {options.epochs} epochs on {len(data.y_train)} "
        f"CIFAR-10 images; {right} of {len(data.y_test)} test images right"
    )
    return told, energy


def reduced(data: Dataset, images: int, samples: int) -> Dataset:
    """The first training, validation and test images of a set."""
    held = max(100, images // 5)
    return Dataset(
        data.name, data.x_train[:images], data.y_train[:images], data.x_val[:held], data.y_val[:held], data.x_test[:samples],
        data.y_test[:samples], data.classes, data.input_low, data.input_high,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Energy of a student against ANNs.")
    parser.add_argument("--report", type=Path, default=Path("snn-export-out/report/report.json"), help="of a finished run")
    parser.add_argument("--cifar", action="store_true", help="a VGG-9 on CIFAR-10 instead, trained briefly")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--samples", type=int, default=64)
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
