"""Networks of five layers with one weight of a value that no other has, for a backend that misreads it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.random import Generator

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from tests.builders import LayerPlan, Plan, deployment_from, even, random_inputs
from tests.networks import with_real_parameters

ODD_ONE = 202
"""The weight's value; all others lie within -100..100."""


def dense_plan(
    rng: Generator, *, sizes: tuple[int, ...] = (40, 64, 56, 48, 32, 10), steps: int = 16, events: bool = False
) -> Plan:
    """Five dense layers with decays and biases."""
    layers = []
    for number, (inputs, outputs) in enumerate(pairwise(sizes), 1):
        source = f"lif{number - 1}" if number > 1 else "input"
        layers.append(LayerPlan(
            f"lif{number}", even(rng, (outputs, inputs), 100), source, dv=int(rng.integers(200, 1500)), threshold=300,
            bias=rng.integers(-40, 80, outputs), bias_exponent=3,
        ))  # fmt: skip
    return Plan((sizes[0],), tuple(layers), steps, 0, 1 if events else 3, events)


def conv_plan(rng: Generator, *, steps: int = 12, size: tuple[int, int] = (12, 10)) -> Plan:
    """Three convolutions, the second with a stride that is not square, the third with groups; two dense layers."""
    shared: dict[str, Any] = {"dv": 700, "threshold": 250, "bias_exponent": 3}
    convs = (
        LayerPlan("conv1", even(rng, (4, 2, 3, 3), 100), "input", padding=(1, 1), bias=rng.integers(0, 60, 4), **shared),
        LayerPlan("conv2", even(rng, (6, 4, 3, 2), 100), "conv1", stride=(2, 1), padding=(1, 0), **shared),
        LayerPlan("conv3", even(rng, (6, 3, 2, 3), 100), "conv2", groups=2, padding=(0, 1), **shared),
    )
    partial = deployment_from(Plan((2, *size), convs, steps, 0, 3))
    neurons = int(np.prod(partial.shapes["conv3"]))
    dense = (
        LayerPlan("fc1", even(rng, (20, neurons), 100), "conv3", dv=500, threshold=300, bias=rng.integers(0, 60, 20)),
        LayerPlan("fc2", even(rng, (10, 20), 100), "fc1", dv=300, threshold=300),
    )
    return Plan((2, *size), (*convs, *dense), steps, 0, 3)


def with_the_odd_one(plan: Plan, layer: str, rng: Generator, samples: int = 4) -> tuple[Deployment, Any]:
    """The network and its inputs, with the odd weight where a spike meets it: on the first weight from an active source."""
    before = deployment_from(plan)
    inputs = random_inputs(rng, before, samples)
    spikes = {name: found.spikes for name, found in interpreter.run(before, inputs, "int64").items()}
    assert all(found.any() for found in spikes.values()), {name: int(found.sum()) for name, found in spikes.items()}
    layers = tuple(_with_it(item, spikes.get(item.source)) if item.name == layer else item for item in plan.layers)
    return with_real_parameters(deployment_from(replace(plan, layers=layers))), inputs


def _with_it(layer: LayerPlan, arriving: Any) -> LayerPlan:
    weight = layer.weight.copy()
    place: tuple[int, ...] = (0,) * weight.ndim
    if arriving is not None:  # (T, B, features) or (T, B, channels, rows, columns)
        kernel = weight.shape[2:]
        maps = arriving if kernel else arriving.reshape(*arriving.shape[:2], -1)
        busiest = maps.sum(axis=(0, 1, *range(3, maps.ndim)))[: weight.shape[1]].argmax()
        place = (0 if layer.groups > 1 else len(weight) // 3, int(busiest), *(size // 2 for size in kernel))
    weight[place] = ODD_ONE
    return replace(layer, weight=weight)
