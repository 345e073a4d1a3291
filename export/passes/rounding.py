"""Limits of a population's scale, and the integers that belong to a scale.

Each weight layer into a population has a range of its own, and they share the population's scale S. A layer of large weights
(the identity of a residual connection) beside one of small weights takes a weight exponent: it is stored as w >> e, and the
small one keeps its bits. Convolutions have no exponent (Lava ignores theirs), so they limit S.

A bias in front of a synaptic filter (CubaLIF, CubaLI) enters the current and is filtered with it; moved to the membrane it
would be another network. It becomes an always-on current of even integers, in units of the synaptic sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import grid
from snn_export.export.deployment import Deployment, IntegerPopulation, IntegerSynapse
from snn_export.export.graph import CONV_TYPES, weight_array
from snn_export.export.linear import apply
from snn_export.models import arithmetic
from snn_export.models.spec import EncoderSpec
from snn_export.models.weight_grid import WEIGHT_EXPONENT_MAX, WeightGrid, signs_of, weight_grid

AXON_STEP = 2
"""Always-on currents are carried by mixed-sign synapses, which hold even integers."""


@dataclass(frozen=True)
class InputRange:
    """Range of real inputs seen in calibration data; levels beyond it are clipped."""

    low: float
    high: float


NETX_BIAS_EXPONENT = 6
"""lava-dl's netx shifts every bias by this much."""


@dataclass(frozen=True)
class GridRules:
    """What the integers must obey.

    bias_exponent: fixed for all populations, or None: free. 6 is netx's, which reads every bias as << 6; its files have no place
    for a weight exponent either, so then there are none.
    """

    weight_bits: int
    bias_exponent: int | None
    input_range: InputRange

    @property
    def weight_exponents(self) -> bool:
        """True where layers may have weight exponents."""
        return self.bias_exponent != NETX_BIAS_EXPONENT

    @property
    def largest_bias_exponent(self) -> int:
        """Exponent of the largest bias."""
        return arithmetic.BIAS_EXPONENT_MAX if self.bias_exponent is None else self.bias_exponent


@dataclass(frozen=True, eq=False)
class _Layer:
    """A weight node in real units: effect on the membrane of one step, of a spike or a level of 1."""

    name: str
    weight: NDArray[np.float64]
    bias: NDArray[np.float64] | None
    grid: WeightGrid
    shifts: bool
    """True where it has a weight exponent."""

    @property
    def factor(self) -> float:
        """Largest scale without an exponent; infinity for weights of zero."""
        return self.grid.largest_factor(self.weight)


def scale_limits(deployment: Deployment, encoder: EncoderSpec, population: str, rules: GridRules) -> dict[str, float]:
    """Largest scale each register of the chip allows, by name of the limit."""
    layers, limits = list(_layers(deployment, encoder, population, rules)), dict[str, float]()
    weights = _weight_limit(layers)
    if math.isfinite(weights):
        limits[f"weight ({rules.weight_bits} bit{'s' if rules.weight_bits > 1 else ''})"] = weights
    if deployment.contract.neurons[population].spiking:
        threshold = grid.threshold_of(deployment.graph.nodes[population])
        limits["threshold (17 bits)"] = arithmetic.THRESHOLD_MAX / threshold if threshold > 0 else math.inf
    exponent = rules.largest_bias_exponent
    largest = _largest_bias(deployment, population, layers, rules)
    if largest > 0:
        room = (arithmetic.BIAS_MANTISSA_MAX - 1) << exponent
        limits[f"bias (13-bit mantissa, exponent {exponent})"] = room / arithmetic.state_units(largest)
    finite = {what: limit for what, limit in limits.items() if math.isfinite(limit)}
    return finite or {"none (no weights)": 64.0}


def integers(
    deployment: Deployment, encoder: EncoderSpec, scales: Mapping[str, float], rules: GridRules
) -> tuple[dict[str, IntegerSynapse], dict[str, IntegerPopulation]]:
    """Round every parameter to the grid of its population's scale."""
    synapses: dict[str, IntegerSynapse] = {}
    populations: dict[str, IntegerPopulation] = {}
    for population in deployment.layers:
        scale, spec = scales[population], deployment.contract.neurons[population]
        layers = list(_layers(deployment, encoder, population, rules))
        filtered = grid.is_filtered(deployment, population)
        exponent = _bias_exponent(deployment, population, layers, scale, rules)
        unclipped = min(scale, _weight_limit(layers))
        for layer in layers:
            shift = _weight_exponent(layer, unclipped)
            weight = layer.grid.nearest(layer.weight * scale / (1 << shift)).astype(np.int16)
            synapses[layer.name] = IntegerSynapse(weight, shift, *_rounded_bias(layer.bias, scale, exponent, filtered))
        threshold = arithmetic.THRESHOLD_MAX
        if spec.spiking:
            threshold = round(grid.threshold_of(deployment.graph.nodes[population]) * scale)
        populations[population] = IntegerPopulation(threshold, spec.du, spec.decay_register, scale, exponent)
    return synapses, populations


def _layers(deployment: Deployment, encoder: EncoderSpec, population: str, rules: GridRules) -> Iterator[_Layer]:
    gain = grid.input_gain(deployment, population)
    for name, (target, graded) in grid.synapse_targets(deployment).items():
        if target == population:
            node = deployment.graph.nodes[name]
            level = (encoder.gain or 1.0) if graded else 1.0
            weight, bias = np.asarray(weight_array(node), np.float64) * gain / level, getattr(node, "bias", None)
            yield _Layer(
                name, weight, None if bias is None else np.asarray(bias, np.float64) * gain,
                weight_grid(rules.weight_bits, signs_of(weight)),
                rules.weight_exponents and not isinstance(node, CONV_TYPES),
            )  # fmt: skip


def _weight_limit(layers: list[_Layer]) -> float:
    """Scale at which the layer of the smallest weights uses its whole range, as far as the others can follow."""
    factors = [layer.factor for layer in layers if math.isfinite(layer.factor)]
    allowed = [layer.factor * (1 << WEIGHT_EXPONENT_MAX if layer.shifts else 1) for layer in layers]
    return min([max(factors), *allowed]) if factors else math.inf


def _weight_exponent(layer: _Layer, scale: float) -> int:
    """Smallest exponent at which the layer's weights fit."""
    if not layer.shifts or not math.isfinite(layer.factor) or scale <= layer.factor:
        return 0
    return min(WEIGHT_EXPONENT_MAX, math.ceil(math.log2(scale / layer.factor) - 1e-9))


def _largest_bias(deployment: Deployment, population: str, layers: list[_Layer], rules: GridRules) -> float:
    """Largest bias onto the membrane, real units: of the layers together, and of what a host computes from the input."""
    total = 0.0 if grid.is_filtered(deployment, population) else sum(_size(layer.bias) for layer in layers)
    return total + _largest_host_drive(deployment, population, rules.input_range)


def _bias_exponent(deployment: Deployment, population: str, layers: list[_Layer], scale: float, rules: GridRules) -> int:
    if rules.bias_exponent is not None:
        return rules.bias_exponent
    largest = _largest_bias(deployment, population, layers, rules) * arithmetic.state_units(scale)
    # One mantissa per connection is rounded up by at most a half, and the chip holds their sum.
    room = arithmetic.BIAS_MANTISSA_MAX - (len(layers) + 1) / 2
    return min(arithmetic.BIAS_EXPONENT_MAX, max(0, math.ceil(math.log2(max(largest, 1.0) / room))))


def _rounded_bias(
    bias: NDArray[np.float64] | None, scale: float, exponent: int, filtered: bool
) -> tuple[NDArray[np.int16] | None, NDArray[np.int32] | None]:
    """Mantissa onto the membrane, and current."""
    if bias is None or not np.any(bias):
        return None, None
    if filtered:
        return None, (AXON_STEP * np.rint(bias * scale / AXON_STEP)).astype(np.int32)
    mantissa = np.rint(bias * arithmetic.state_units(scale) / (1 << exponent))
    return np.clip(mantissa, arithmetic.BIAS_MANTISSA_MIN, arithmetic.BIAS_MANTISSA_MAX).astype(np.int16), None


def _largest_host_drive(deployment: Deployment, population: str, seen: InputRange) -> float:
    """Largest |W x + b| over inputs of the declared range, for weight nodes that the host computes; real units."""
    if not deployment.host_synapses:
        return 0.0
    low, high = np.zeros(deployment.shapes[population]), np.zeros(deployment.shapes[population])
    for connection in deployment.connections[population]:
        if not any(name in deployment.host_synapses for name in connection.path):
            continue
        ends = {sign: np.ones((1, *deployment.shapes[connection.source])) for sign in (1, -1)}
        offset = np.zeros((1, *deployment.shapes[connection.source]))
        for name in connection.path:
            node = deployment.graph.nodes[name]
            has_weight = hasattr(node, "weight") or isinstance(node, nir.Scale)
            weight = weight_array(node) if has_weight else None
            none = np.zeros(len(weight)) if weight is not None else None
            offset = apply(name, node, offset)
            ends = {sign: apply(name, node, x, _one_sided(weight, sign), none) for sign, x in ends.items()}
        rise, fall, constant = (x.reshape(low.shape) for x in (ends[1], ends[-1], offset))
        high += rise * seen.high + fall * seen.low + constant
        low += fall * seen.high + rise * seen.low + constant
    return float(max(high.max(initial=0.0), -low.min(initial=0.0))) * grid.input_gain(deployment, population)


def _one_sided(weight: NDArray[Any] | None, sign: int) -> NDArray[Any] | None:
    if weight is None:
        return None
    part: NDArray[Any] = np.maximum(weight, 0.0) if sign > 0 else np.minimum(weight, 0.0)
    return part


def _size(values: NDArray[np.float64] | None) -> float:
    return 0.0 if values is None else float(np.abs(values).max(initial=0.0))
