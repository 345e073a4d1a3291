"""Placement of whole networks: cores, seconds, and spike-hops beside cores laid row by row.

    python benchmarks/placement.py [--only NAME] [--chip loihi1]

Networks are students as they are built, read through the library's own path (batch-norm folded, pools absorbed), with 8-bit
weights assumed; where nothing is measured every neuron fires once per step. "digits, trained" is trained for a few epochs first,
and its cores are placed by the spikes that it fires on the test images. Row by row means the same cores in the order of the
layers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from snn_export import library
from snn_export.data.digits import load_digits
from snn_export.energy.observer import EnergyObserver
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.chips.chip_table import load_chip
from snn_export.hardware_sims.placement.placement import Placement, place
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec
from snn_export.models.students.registry import build_student
from snn_export.models.students.student import SpikingStudent
from snn_export.training.loop import fit
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.settings import TrainingSettings

CIFAR, EVENTS = (3, 32, 32), EncoderSpec("events")
EPOCHS, MEASURED = 5, 64
BACKEND = "reference"
Activity = Mapping[str, NDArray[Any]] | None


@dataclass(frozen=True)
class Network:
    """A row of the table: how it is built, and what it is."""

    name: str
    what: str
    build: Callable[[], tuple[Deployment, Activity]]


def student(name: str, shape: tuple[int, ...], classes: int = 10, **config: Any) -> tuple[Deployment, Activity]:
    """A student as it is built, read as users read it."""
    built = build_student(name, input_shape=shape, classes=classes, **config).eval()
    return read(built), None


def read(built: SpikingStudent) -> Deployment:
    """The float deployment of a student; the exact passes are checked on two samples."""
    config, rng = built.config, np.random.default_rng(0)
    events = config.encoder == "events"
    shape = (config.steps, 2, *config.input_shape) if events else (2, *config.input_shape)
    samples = (rng.random(shape) < 0.1) if events else rng.random(shape)
    return library.from_snntorch(
        built.layers, config.input_shape, config.steps, samples.astype(np.float32), encoder=EVENTS if events else None
    )


def trained_digits() -> tuple[Deployment, Activity]:
    """The digits student of width 64, and its mean spikes per inference on test images."""
    data = load_digits(0)
    built = build_student("convnet", input_shape=(1, 8, 8), classes=10, width=64)
    fit(built, data.train, data.validation, load_recipe("no_teacher"), TrainingSettings(epochs=EPOCHS))
    deployment = read(built.eval())
    return deployment, measured(deployment, data.test.x[:MEASURED])


def measured(deployment: Deployment, images: NDArray[Any]) -> Activity:
    """Mean spikes per inference on images, counted as a verification counts them."""
    observer = EnergyObserver(BACKEND, deployment)
    trace = library.simulate(deployment, images, BACKEND, record=("spikes", "membrane"))
    observer.chunk(images, {BACKEND: trace}, 0)
    return None if observer.counted is None else observer.counted.activity


NETWORKS = (
    Network("digits", "convnet, width 16, 1x8x8", lambda: student("convnet", (1, 8, 8))),
    Network("digits, wide", "convnet, width 64, 1x8x8", lambda: student("convnet", (1, 8, 8), width=64)),
    Network("digits, trained", f"the same after {EPOCHS} epochs, measured on {MEASURED} test images", trained_digits),
    Network(
        "spoken digits", "recurrent2, width 128, 64 channels, T = 32",
        lambda: student("recurrent2", (64,), width=128, steps=32, encoder="events"),
    ),
    Network(
        "spoken digits, wide", "recurrent2, width 1024, 64 channels, T = 32",
        lambda: student("recurrent2", (64,), width=1024, steps=32, encoder="events"),
    ),
    Network("VGG-9", "width 16, 3x32x32", lambda: student("vgg9", CIFAR, steps=4)),
    Network("ResNet-18", "width 16, 3x32x32", lambda: student("resnet18", CIFAR, steps=4)),
    Network("dense", "784-2048-2048-10, random weights", lambda: student("dense", (784,), width=2048, steps=4)),
)  # fmt: skip


def rows(network: Network, chips: tuple[str, ...]) -> Iterator[str]:
    """Lines of the table, one per chip."""
    deployment, activity = network.build()
    for name in chips:
        started = time.perf_counter()
        try:
            placement = place(deployment, load_chip(name), activity)
        except UserError as error:
            yield f"| {network.name} | {name} | - | - | {time.perf_counter() - started:.1f} | {error.code} | | | |"
            continue
        yield line(network.name, placement, time.perf_counter() - started)


def line(name: str, placement: Placement, seconds: float) -> str:
    """One row: cores, chips, seconds, spike-hops, those of rows, their quotient, the fullest limit."""
    ours, naive = placement.spike_hops, placement.naive_spike_hops
    routers = {(core.row, core.column) for core in placement.cores}
    gain = f"{naive / ours:.2f}" if ours else "one router" if len(routers) == 1 else "-"
    means = {resource: float(np.mean(placement.utilisation(resource))) for resource in placement.chip.capacities}
    fullest = max(means, key=lambda resource: means[resource])
    sizes = f"{len(placement.cores)} | {placement.chips} | {seconds:.1f}"
    return f"| {name} | {placement.chip.name} | {sizes} | {ours:,.0f} | {naive:,.0f} | {gain} | {fullest} {means[fullest]:.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Placement of whole networks.")
    parser.add_argument("--only", help="one network, by name")
    parser.add_argument("--chip", action="append", help="a chip; default: loihi1 and loihi2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [network for network in NETWORKS if options.only in (None, network.name)]
    print("| network | chip | cores | chips | seconds | spike-hops | row by row | gain | fullest limit, mean over cores |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for network in chosen:
        for row in rows(network, tuple(options.chip or ("loihi1", "loihi2"))):
            print(row, flush=True)
    print()
    for network in chosen:
        print(f"- {network.name}: {network.what}")


if __name__ == "__main__":
    main()
