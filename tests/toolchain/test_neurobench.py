"""Our counts against those of NeuroBench 2.3, which runs in an environment of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snntorch
import torch
from numpy.typing import NDArray
from torch import nn

import snn_export
from snn_export.energy.cost_table import load_table
from snn_export.energy.counts import Counter
from snn_export.energy.estimate import estimate
from snn_export.export.deployment import Deployment
from snn_export.models.spec import EncoderSpec
from snn_export.reporting.energy_records import NeurobenchMetrics
from tests.neurobench_environment import counted, require_neurobench

STEPS, SAMPLES, SIDE = 7, 6, 9
LAYERS: list[dict[str, Any]] = [
    {"kind": "conv", "stride": [1, 1], "padding": [1, 1], "groups": 1, "beta": 0.75, "threshold": 1.0},
    {"kind": "conv", "stride": [2, 3], "padding": [1, 0], "groups": 2, "beta": 0.75, "threshold": 1.0},
    {"kind": "dense", "beta": 0.75, "threshold": 1.0},
]
"""Borders, a stride that leaves inputs unread, groups, a dense layer. Weights are multiples of 1/8: no sum is ever rounded."""


def parameters(rng: np.random.Generator) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    shapes = [(4, 2, 3, 3), (6, 2, 3, 3), (5, 6 * 5 * 3)]
    weights = [(rng.integers(-3, 5, shape) / 8 * (rng.random(shape) < 0.7)).astype(np.float32) for shape in shapes]
    return weights, [(rng.integers(-1, 3, len(weight)) / 8).astype(np.float32) for weight in weights]


def measured(
    tmp_path: Path, inputs: NDArray[np.float32], encoder: EncoderSpec | None = None
) -> tuple[dict[str, Any], NeurobenchMetrics, Deployment]:
    """NeuroBench's answer and ours, on inputs (T, B, *shape); and the network they were asked about."""
    python = require_neurobench()
    weights, biases = parameters(np.random.default_rng(5))
    arrays = {f"weight{n}": weight for n, weight in enumerate(weights)} | {f"bias{n}": bias for n, bias in enumerate(biases)}
    np.savez(tmp_path / "request.npz", layers=json.dumps(LAYERS), inputs=np.swapaxes(inputs, 0, 1), **arrays)
    theirs = counted(python, tmp_path / "request.npz")
    deployment = snn_export.from_snntorch(
        network(weights, biases), inputs.shape[2:], STEPS, inputs, rule="membrane_last", encoder=encoder or EncoderSpec("events")
    )
    trace = snn_export.simulate(deployment, inputs, "reference", record=("spikes", "membrane"))
    spikes = [[int(step.sum()) for step in trace.layers[name].spikes] for name in deployment.layers]
    assert spikes == theirs["spikes"], "both must have run the same network on the same inputs"
    assert min(map(sum, spikes)) > 10, "a silent network shows nothing"
    ours = estimate(deployment, Counter(deployment).count(trace, inputs), load_table("loihi1")).neurobench
    assert ours is not None
    return theirs, ours, deployment


def network(weights: list[NDArray[np.float32]], biases: list[NDArray[np.float32]]) -> nn.Sequential:
    made: list[nn.Module] = []
    for layer, weight, bias in zip(LAYERS, weights, biases, strict=True):
        if layer["kind"] == "conv":
            module: nn.Module = nn.Conv2d(
                weight.shape[1] * layer["groups"], len(weight), 3, tuple(layer["stride"]), tuple(layer["padding"]),
                groups=layer["groups"],
            )  # fmt: skip
        else:
            made.append(nn.Flatten())
            module = nn.Linear(weight.shape[1], len(weight))
        module.weight.data, module.bias.data = torch.tensor(weight), torch.tensor(bias)
        made += [module, snntorch.Leaky(beta=layer["beta"], threshold=1.0, reset_mechanism="zero", reset_delay=False)]
    return nn.Sequential(*made)


def events(rng: np.random.Generator) -> NDArray[np.float32]:
    return (rng.random((STEPS, SAMPLES, 2, SIDE, SIDE)) < 0.3).astype(np.float32)


def test_counts_equal_neurobench_on_spikes(tmp_path: Path) -> None:
    theirs, ours, deployment = measured(tmp_path, events(np.random.default_rng(1)))
    operations = theirs["SynapticOperations"]
    assert (ours.effective_acs, ours.effective_macs) == (operations["Effective_ACs"], operations["Effective_MACs"])
    assert ours.effective_macs == 0
    assert ours.dense == operations["Dense"]
    assert ours.activation_sparsity == pytest.approx(theirs["ActivationSparsity"], abs=1e-12)
    assert ours.membrane_updates == theirs["MembraneUpdates"]
    assert round(ours.connection_sparsity, 4) == theirs["ConnectionSparsity"], "NeuroBench rounds to four decimals"
    assert ours.footprint + theirs["buffers"] == theirs["Footprint"], "NeuroBench adds every buffer of snnTorch's neurons"
    assert ours.footprint == 4 * theirs["ParameterCount"]

    naive = STEPS * sum(
        int(np.prod(deployment.shapes[node])) * int(np.prod(deployment.graph.nodes[node].weight.shape[1:]))
        for node in deployment.graph.nodes
        if hasattr(deployment.graph.nodes[node], "weight")
    )
    assert ours.dense < naive, "neither multiplies padding: outputs x kernel would be more"


def test_counts_equal_neurobench_on_graded_input(tmp_path: Path) -> None:
    """A value in every step: multiplications in the first layer, additions behind it."""
    rng = np.random.default_rng(2)
    frame = rng.integers(0, 7, (1, SAMPLES, 2, SIDE, SIDE)).astype(np.float32) / 8
    inputs = np.repeat(frame, STEPS, axis=0)
    theirs, ours, _ = measured(tmp_path, inputs, EncoderSpec("direct"))
    operations = theirs["SynapticOperations"]
    assert ours.effective_macs == operations["Effective_MACs"] > 0
    assert ours.effective_acs == operations["Effective_ACs"] > 0
    assert ours.dense == operations["Dense"]


def test_where_the_first_layer_counts_otherwise(tmp_path: Path) -> None:
    """Whether an input is a spike: NeuroBench looks at the values of a batch in a step, and takes -1 for a spike too. Here the
    encoder decides, since a chip that may be sent a value in some step needs graded input in all of them."""
    inputs = events(np.random.default_rng(3))
    inputs[2] *= -1
    theirs, ours, _ = measured(tmp_path, inputs)
    operations = theirs["SynapticOperations"]
    assert operations["Effective_MACs"] == 0, "-1, 0 and 1 are spikes to NeuroBench"
    assert ours.effective_macs > 0, "-1 is none on a chip with unsigned spikes: the input counts as graded"
    assert ours.effective_macs + ours.effective_acs == pytest.approx(operations["Effective_ACs"]), "the operations are the same"
    assert ours.dense == operations["Dense"]
    inputs[4] *= 0.5
    (tmp_path / "mixed").mkdir()
    theirs, ours, _ = measured(tmp_path / "mixed", inputs)
    operations = theirs["SynapticOperations"]
    assert 0 < operations["Effective_MACs"] < ours.effective_macs, "NeuroBench: graded in the one step with values of 0.5"
    assert ours.effective_macs + ours.effective_acs == pytest.approx(operations["Effective_ACs"] + operations["Effective_MACs"])
