"""Pairs of a float network and an integer form of it, for tests of the effects between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import nir
import numpy as np
import torch
from numpy.random import Generator
from torch import nn

from snn_export.export import bounds, grid
from snn_export.export.contract import Quantisation
from snn_export.export.deployment import Deployment, IntegerPopulation
from snn_export.export.graph import SYNAPSE_TYPES, replace_nodes, weight_array
from snn_export.export.passes.rounding import GridRules, InputRange, integers
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.spec import EncoderSpec
from tests.networks import firing, named, with_real_parameters


def float_form(quantised: Deployment) -> Deployment:
    """The float network whose parameters are the real values of a quantised one's integers."""
    real = with_real_parameters(quantised)
    encoder = quantised.contract.encoder
    floats = encoder if encoder.kind == "rate" else EncoderSpec("direct" if encoder.kind == "bias" else encoder.kind)
    contract = real.contract.model_copy(update={"quantisation": None, "encoder": floats})
    return real.replace(contract=contract, synapses={}, populations={})


def disturbed(rng: Generator, floats: Deployment, size: float = 0.3) -> Deployment:
    """A float network with other weights, biases and thresholds: each off by up to ``size`` of its layer's mean magnitude."""

    def noisy(values: Any) -> Any:
        reach = size * float(np.mean(np.abs(values)))
        return values + rng.uniform(-reach, reach, np.shape(values))

    nodes: dict[str, nir.NIRNode] = {}
    for name, node in floats.graph.nodes.items():
        if isinstance(node, SYNAPSE_TYPES):
            bias = getattr(node, "bias", None)
            nodes[name] = grid.with_parameters(node, noisy(weight_array(node)), None if bias is None else noisy(bias))
    for name, spec in floats.contract.neurons.items():
        if spec.spiking:
            factor = 1.0 + rng.uniform(0, size)
            nodes[name] = grid._placed(floats.graph.nodes[name], threshold=grid.threshold_of(floats.graph.nodes[name]) * factor)
            if isinstance(floats.graph.nodes[name], nir.CubaLIF | nir.CubaLI):
                nodes[name].v_leak = floats.graph.nodes[name].v_leak * (1 + size)
    return floats.replace(graph=replace_nodes(floats.graph, nodes))


def on_scales(
    floats: Deployment, scales: float | Mapping[str, float], encoder: EncoderSpec, bits: int = 8, exponent: int | None = None
) -> Deployment:
    """A float network put on the grid at scales of the caller's choice, whether they are good or not."""
    chosen = {name: scales if isinstance(scales, float | int) else scales[name] for name in floats.layers}
    gain = encoder.gain or 1.0
    rules = GridRules(bits, exponent, InputRange(encoder.low / gain, encoder.high / gain))
    synapses, populations = integers(floats, encoder, chosen, rules)
    placed = grid.on_grid(floats, encoder, synapses, populations)
    held = Quantisation(target="loihi2", weight_bits=bits, scale=chosen, binding=dict.fromkeys(chosen, "test"))
    return placed.replace(contract=placed.contract.model_copy(update={"quantisation": held}))


def with_population(quantised: Deployment, name: str, **changes: Any) -> Deployment:
    """A quantised network whose chip holds other integers in one population; its contract follows."""
    populations = {**quantised.populations, name: replace(quantised.populations[name], **changes)}
    found: IntegerPopulation = populations[name]
    spec = replace(quantised.contract.neurons[name], dv=found.dv, du=found.du)
    neurons = {**quantised.contract.neurons, name: spec}
    return quantised.replace(populations=populations, contract=quantised.contract.model_copy(update={"neurons": neurons}))


def overflows(quantised: Deployment) -> bool:
    """Whether some input of the declared range may take a state out of its register."""
    return not all(bound.safe for bound in bounds.all_bounds(quantised).values())


def sensitive_net(seed: int = 0, dv: int = 300, reset: str = "zero", threshold: float = 0.5) -> nn.Sequential:
    """Eight inputs, two hidden layers of which most neurons fire now and then, four classes."""
    torch.manual_seed(seed)
    net = named(
        fc1=nn.Linear(8, 24), lif1=firing(dv, threshold, reset), fc2=nn.Linear(24, 16), lif2=firing(dv, threshold, reset),
        fc3=nn.Linear(16, 4), readout=Integrator(),
    )  # fmt: skip
    with torch.no_grad():
        net.fc2.weight.mul_(3.0)
    return net
