"""Layers that the export merged: synapses that exist, and an ANN that pools first."""

from __future__ import annotations

from functools import cache

import nir
import numpy as np
import pytest
import torch
from torch import nn

from snn_export import library
from snn_export.energy import baselines
from snn_export.energy.cost_table import load_table
from snn_export.energy.estimate import estimate
from snn_export.energy.observer import EnergyObserver
from snn_export.energy.operations import Beside
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.chips.chip_table import load_chip
from snn_export.hardware_sims.placement.placement import place
from snn_export.hardware_sims.placement.resources import population_needs
from snn_export.hardware_sims.registry import simulator
from snn_export.models.neurons.integrator import Integrator
from snn_export.reporting.energy_records import EnergyReport, LayerOperations
from snn_export.training.mac_counts import count_macs
from tests.networks import leaky, named, read

POOLS = {
    "overlapping": (nn.AvgPool2d(3, 2, 1), 12),
    "odd rows and padding": (nn.AvgPool2d(2), 13),
    "absorbed": (nn.AvgPool2d(2), 12),
}
MATRIX = ("overlapping", "odd rows and padding")


def layers(pool: nn.Module, size: int, spiking: bool) -> nn.Sequential:
    """Two convolutions, a pool between them, a dense readout; the same as an ANN where it is not to spike."""
    torch.manual_seed(0)
    first, second, readout = (leaky(900, 0.05), leaky(123, 0.02), Integrator()) if spiking else [nn.Identity() for _ in range(3)]
    return named(
        conv1=nn.Conv2d(1, 4, 3, padding=1, bias=False), lif1=first, pool=pool, conv2=nn.Conv2d(4, 8, 3, padding=1, bias=False),
        lif2=second, flatten=nn.Flatten(), fc=nn.Linear(8 * 36, 5, bias=False), readout=readout,
    )  # fmt: skip


@cache
def counted(case: str) -> tuple[Deployment, EnergyReport]:
    pool, size = POOLS[case]
    x = np.random.default_rng(0).random((4, 1, size, size))
    deployment = library.quantize(read(layers(pool, size, spiking=True), (1, size, size), 6), x)
    runner, observer = simulator("loihi"), EnergyObserver("loihi", deployment)
    trace = runner.run(runner.compile(deployment), x, ("spikes", "membrane"))
    observer.chunk(x, {"loihi": trace}, 0, np.zeros(4, np.int64))
    found = observer.counted
    placement = place(deployment, load_chip("loihi1"), found.activity)
    beside = Beside(by_step=found.steps.records(), placement=placement)
    return deployment, estimate(deployment, found.counts, load_table("loihi1"), beside)


def of(report: EnergyReport, deployment: Deployment, number: int) -> LayerOperations:
    return {layer.layer: layer for layer in report.operations.layers}[deployment.layers[number]]


@pytest.mark.parametrize("case", POOLS)
def test_the_twin_multiplies_and_stores_what_torch_counts_for_the_same_layers(case: str) -> None:
    pool, size = POOLS[case]
    _, report = counted(case)
    ann, _ = count_macs(layers(pool, size, spiking=False), np.ones((1, 1, size, size), np.float32), "ann")
    work = baselines.twin_work(report.operations)
    assert work.macs == ann.dense_macs
    assert sum(layer.twin_weights for layer in report.operations.layers) == ann.weights
    activations = report.operations.input_values + 2 * sum(layer.neurons for layer in report.operations.layers)
    assert work.moved_bits[1] == 8 * (ann.weights + activations)
    assert ann.dense_macs * 0.5 < work.fewest_macs <= work.macs


@pytest.mark.parametrize("case", MATRIX)
def test_entries_of_zero_in_a_matrix_of_windows_are_no_synapses(case: str) -> None:
    """Of the matrix only what is not zero: as many synapses as a core is given."""
    deployment, report = counted(case)
    layer = of(report, deployment, 1)
    (node,) = (name for name in deployment.merged if isinstance(deployment.graph.nodes[name], nir.Linear | nir.Affine))
    weight = deployment.synapses[node].weight
    nonzero = int(np.count_nonzero(weight))
    assert nonzero < weight.size / 2, "the example must have zeros"
    assert (layer.synapses, layer.nonzero_synapses, layer.weights, layer.nonzero_weights) == (nonzero,) * 4
    assert layer.spike_operations == layer.effective_spike_operations > 0
    (needs,) = population_needs(deployment, load_chip("loihi1").synapses)[layer.layer].layers
    whole = tuple((0, size) for size in population_needs(deployment, load_chip("loihi1").synapses)[layer.layer].shape)
    assert int(needs.reach.sizes(whole).sum()) == nonzero
    others = sum(item.weights for item in report.operations.layers if item is not layer)
    assert report.neurobench.footprint == nonzero + others, "8 bits each, no biases"
    assert report.neurobench.dense == 6 * sum(item.synapses + item.input_synapses for item in report.operations.layers)


def test_a_pool_that_a_convolution_absorbed_still_has_every_synapse_of_its_kernel() -> None:
    deployment, report = counted("absorbed")
    layer = of(report, deployment, 1)
    assert layer.synapses > layer.twin_macs, "each neuron listens to four times as many sources as a pooled one"
    assert layer.twin_nonzero_macs == layer.twin_macs
    assert layer.weights == 4 * 8 * 6 * 6
    assert layer.twin_weights == 4 * 8 * 3 * 3


def test_zeros_are_skipped_in_the_first_layer_unless_it_was_merged() -> None:
    """Behind a pool the zeros of the input are not known, so all multiplications count."""
    torch.manual_seed(0)
    x = np.zeros((2, 1, 8, 8))
    x[:, :, 0, 0] = 1.0
    for pool, skipped in ((True, False), (False, True)):
        first = {"pool": nn.AvgPool2d(2)} if pool else {}
        net = named(**first, conv=nn.Conv2d(1, 2, 3), flat=nn.Flatten(), lif=leaky(900, 0.05))
        deployment = library.quantize(read(net, (1, 8, 8), 3), x)
        runner, observer = simulator("loihi"), EnergyObserver("loihi", deployment)
        observer.chunk(x, {"loihi": runner.run(runner.compile(deployment), x, ("spikes", "membrane"))}, 0)
        (layer,) = estimate(deployment, observer.counts, load_table("loihi1")).operations.layers
        assert (layer.twin_input_macs < 2 * layer.twin_macs) is skipped
        assert skipped or layer.twin_input_macs == 2 * layer.twin_macs
