"""Keeping a network that learns inside the limits of its registers.

A quantised network is proven safe by an interval: the largest sum each neuron can receive over all inputs of the declared
range. Training moves that interval. Here it is computed from the integers of the moment, and a neuron that left its limits has
the weights and biases of its channel scaled back into them - rounded toward zero, so that the scaled sums cannot be larger.
Whatever the parameters are, what is run, and what is exported, is safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from snn_export.models.arithmetic import STATE_SHIFT
from snn_export.models.quantised.layer import QuantisedLayer
from snn_export.models.quantised.plan import PopulationPlan

MARGIN = 1.0 - 1e-5
"""Left free when a sum is scaled back to its limit: the products are rounded in float32."""


@dataclass(frozen=True)
class Integers:
    """Integers of one layer as they are used: weight before its exponent; biases, each on its own grid."""

    weight: Tensor
    biases: tuple[Tensor, ...]


def safe_integers(population: PopulationPlan, layers: Mapping[str, QuantisedLayer]) -> dict[str, Integers]:
    """Integers of all layers into a population, within its limits, with the gradient of the unlimited ones.

    Args:
        population: where they end, and its limits.
        layers: by name, those of its wires.
    """
    found = {name: Integers(layer.integer_weight(), layer.integer_biases()) for name, layer in layers.items()}
    with torch.no_grad():
        factors = _factors(population, layers, found)
        if factors is None:
            return found
    return {name: _scaled_back(layers[name], found[name], factors) for name in found}


def _factors(population: PopulationPlan, layers: Mapping[str, QuantisedLayer], integers: Mapping[str, Integers]) -> Tensor | None:
    """Factor of every neuron, (*shape), at most 1, that brings it inside the limits; None where all are inside."""
    shape, limits = population.shape, population.limits
    low, high = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for wire in population.wires:
        layer = layers[wire.layer]
        ones = torch.ones(1, *layer.geometry.input_shape)
        weight = integers[wire.layer].weight.double()  # one sign alone can reach beyond what float32 holds
        rise = layer.apply_weight(ones, weight.clamp(min=0))[0].reshape(shape)
        fall = layer.apply_weight(ones, weight.clamp(max=0))[0].reshape(shape)
        high += rise * wire.high + fall * wire.low
        low += fall * wire.high + rise * wire.low
    current, membrane, slack = torch.zeros_like(low), torch.zeros_like(low), 0
    for name, layer in layers.items():
        for plan, bias in zip(layer.bias_plans, integers[name].biases, strict=True):
            spread = layer.spread_bias(bias).reshape(shape)
            if plan.onto == "current":
                current += spread
                slack += plan.step << STATE_SHIFT
            elif limits.biased:
                membrane += spread * float(1 << population.bias_exponent)
                slack += 1 << population.bias_exponent
    unit = limits.gather * (1 << STATE_SHIFT)
    # A bias on the current acts whether an input spikes or not; before it has, the sum is zero.
    rise, fall = unit * (high + current).clamp(min=0), unit * (low + current).clamp(max=0)
    wanted = ((rise, limits.current), (-fall, limits.current), (rise + membrane, limits.push), (-fall - membrane, limits.pull))
    if all(bool((value <= limit).all()) for value, limit in wanted):
        return None
    room = float(slack) * limits.gather
    shares = [(MARGIN * (limit - room) / value.clamp(min=1.0)).clamp(0.0, 1.0) for value, limit in wanted]
    inside = torch.stack([value <= limit for value, limit in wanted]).all(dim=0)
    return torch.where(inside, torch.ones_like(shares[0]), torch.stack(shares).amin(dim=0)).float()


def _scaled_back(layer: QuantisedLayer, integers: Integers, factors: Tensor) -> Integers:
    """Integers times the factors, rounded toward zero onto the grid, where a factor is below 1."""
    per_weight = layer.per_channel(factors.reshape(layer.geometry.output_shape))
    weight = _toward_zero(integers.weight, per_weight, layer.grid.step)
    shared = per_weight.reshape(-1)
    biases = zip(layer.bias_plans, integers.biases, strict=True)
    return Integers(weight, tuple(_toward_zero(bias, shared, plan.step) for plan, bias in biases))


def _toward_zero(values: Tensor, factors: Tensor, step: int) -> Tensor:
    """Scaled values with the gradient of the unscaled ones; those of factor 1 are left as they are."""
    with torch.no_grad():
        smaller = torch.trunc(values * factors / step) * step
        change = torch.where(factors < 1, smaller - values, torch.zeros(()))
    return values + change
