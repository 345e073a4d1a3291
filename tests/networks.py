"""Small snnTorch networks and quantised deployments of them, for tests of the export layer."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import nir
import numpy as np
import snntorch
import torch
from numpy.random import Generator
from torch import nn

from snn_export.export import grid
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.passes.quantize import Quantize
from snn_export.export.passes.rounding import InputRange
from snn_export.export.snntorch_reader import deployment_from_snntorch
from snn_export.models.delay import Delay
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import Lif
from snn_export.models.neurons.recurrent import Recurrent
from snn_export.models.residual import ResidualSum
from snn_export.models.surrogates import Surrogate
from tests.builders import random_deployment


def leaky(dv: int = 512, threshold: float = 1.0, reset: str = "zero") -> snntorch.Leaky:
    """A snnTorch neuron on the decay grid that resets in the step of its spike."""
    return snntorch.Leaky(beta=1 - dv / 4096, threshold=threshold, reset_mechanism=reset, reset_delay=False)


def firing(dv: int, threshold: float, reset: str) -> nn.Module:
    """A neuron that resets in the step of its spike; by subtraction, one that subtracts once, as snnTorch's own does not."""
    if reset == "subtract":
        return Lif(dv=dv, threshold=threshold, surrogate=Surrogate("atan", 2.0), reset=reset)
    return leaky(dv, threshold, reset)


def named(**layers: nn.Module) -> nn.Sequential:
    """``nn.Sequential`` with named children, in evaluation mode."""
    return nn.Sequential(OrderedDict(layers)).eval()


def dense_net(seed: int = 0, reset: str = "zero") -> nn.Sequential:
    """Four inputs, two hidden layers that fire, three classes."""
    torch.manual_seed(seed)
    return named(
        fc1=nn.Linear(4, 6), lif1=firing(700, 0.3, reset), fc2=nn.Linear(6, 5), lif2=firing(300, 0.2, reset),
        fc3=nn.Linear(5, 3), readout=Integrator(),
    )  # fmt: skip


def conv_net(seed: int = 0) -> nn.Sequential:
    """(2, 9, 7) -> conv (3x2) -> grouped conv with stride -> dense readout: nothing square, nothing symmetric."""
    torch.manual_seed(seed)
    return named(
        conv1=nn.Conv2d(2, 4, (3, 2), padding=(1, 0)), lif1=leaky(900, 0.2),
        conv2=nn.Conv2d(4, 6, (2, 3), stride=(2, 1), groups=2), lif2=leaky(123, 0.15),
        flatten=nn.Flatten(), fc=nn.Linear(96, 5), readout=Integrator(),
    )  # fmt: skip


def synaptic(du: int = 2500, dv: int = 600, threshold: float = 1.0, reset: str = "zero") -> snntorch.Synaptic:
    """A snnTorch neuron with a synaptic filter, on the decay grid, that resets in the step of its spike."""
    return snntorch.Synaptic(
        alpha=1 - (du + 1) / 4096, beta=1 - dv / 4096, threshold=threshold, reset_mechanism=reset, reset_delay=False
    )


def rleaky(features: int | None = None, dv: int = 512, threshold: float = 1.0, **options: Any) -> snntorch.RLeaky:
    """A snnTorch neuron that hears its population; without ``features``, itself alone."""
    loop = {"linear_features": features} if features else {"all_to_all": False}
    return snntorch.RLeaky(
        beta=1 - dv / 4096, threshold=threshold, reset_mechanism="zero", reset_delay=False, **{**loop, **options}
    )


def residual_net(seed: int = 0) -> nn.Sequential:
    """(2, 8, 6): a block with a projection and one without, paths of unequal depth, batch-norms, dense readout with leak."""
    torch.manual_seed(seed)
    block1 = ResidualSum(
        named(conv1=nn.Conv2d(4, 4, 3, stride=2, padding=1), norm=nn.BatchNorm2d(4), lif=leaky(300, 0.2),
              conv2=nn.Conv2d(4, 6, 3, padding=1)),
        named(conv=nn.Conv2d(4, 6, 1, stride=2), norm=nn.BatchNorm2d(6)),
    )  # fmt: skip
    block2 = ResidualSum(
        named(conv1=nn.Conv2d(6, 6, 3, padding=1), lif=leaky(700, 0.1), conv2=nn.Conv2d(6, 6, (3, 1), padding=(1, 0), bias=False))
    )
    return named(
        stem=named(conv=nn.Conv2d(2, 4, 3, padding=1), lif=leaky(500, 0.25)),
        block1=block1, lif1=leaky(900, 0.3), block2=block2, lif2=leaky(400, 0.9),
        flatten=nn.Flatten(), fc=nn.Linear(72, 5), readout=Integrator(dv=200),
    )  # fmt: skip


def recurrent_net(seed: int = 0) -> nn.Sequential:
    """Seven inputs, a recurrent CubaLIF with biases, a recurrent LIF, a filtered readout."""
    torch.manual_seed(seed)
    return named(
        fc1=nn.Linear(7, 12), hidden=Recurrent(synaptic(2500, 600, 0.6), nn.Linear(12, 12)),
        fc2=nn.Linear(12, 9), rlif=rleaky(9, 700, 0.35), fc3=nn.Linear(9, 4), readout=Integrator(dv=300, du=3000),
    )  # fmt: skip


def delayed_net(seed: int = 0) -> nn.Sequential:
    """Six inputs; a delay per neuron, one for all, and neurons that hear themselves alone."""
    torch.manual_seed(seed)
    return named(
        fc1=nn.Linear(6, 8), lif1=leaky(500, 0.2), axons=Delay(torch.arange(8) % 4), fc2=nn.Linear(8, 5),
        lif2=rleaky(None, 300, 0.3, V=torch.linspace(-0.4, 0.5, 5)), later=Delay(2), fc3=nn.Linear(5, 3), readout=Integrator(),
    )  # fmt: skip


def read(layers: nn.Sequential, shape: tuple[int, ...], steps: int = 8, **options: Any) -> Deployment:
    """The float deployment of a network."""
    return deployment_from_snntorch(layers, shape, steps, **options)


def finest(deployment: Deployment) -> float:
    """A score that prefers large scales, so that a limit stays binding."""
    return -sum(population.scale for population in deployment.populations.values())


def quantised(
    deployment: Deployment, low: float = 0.0, high: float = 1.0, weight_bits: int = 8, score: Any = finest
) -> Deployment:
    """On Loihi 2's grid, for inputs in low..high."""
    return Quantize("loihi2", score, InputRange(low, high), weight_bits)(deployment)


def uniform(rng: Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Inputs in low..high."""
    return rng.uniform(low, high, shape)


def conv_deployment(rng: Generator, **options: Any) -> Deployment:
    """A ``random_deployment`` of ``builders`` whose second kernel fits into what the first one leaves."""
    while True:
        try:
            return random_deployment(rng, **options)
        except UserError as error:
            if error.code != "SNX206":
                raise


def with_real_parameters(deployment: Deployment) -> Deployment:
    """A deployment of ``builders`` whose NIR parameters are the real values of its integers, so that it can be a file."""
    nodes = {
        name: nir.Conv2d(
            deployment.shapes[source][1:], node.weight, node.stride, node.padding, node.dilation, node.groups, node.bias
        )
        for source, name in deployment.graph.edges
        if isinstance(node := deployment.graph.nodes[name], nir.Conv2d)
    }
    deployment = deployment.replace(graph=replace_nodes(deployment.graph, nodes))
    return grid.on_grid(deployment, deployment.contract.encoder, deployment.synapses, deployment.populations)
