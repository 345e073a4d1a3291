"""Static bounds of u and v for every neuron, from its real fan-in and the declared range of its input.

For a neuron with integer weights w and inputs in [lo, hi] (spikes: [0, 1]; graded input: the encoder's range)::

    a_max = sum(w+) hi + sum(w-) lo         a_min = sum(w-) hi + sum(w+) lo
    |u|  <= 64 |a| / (1 - alpha)
    v    in the worst case integrates u + bias for T steps; its upper side ends at the threshold, its lower side does not

Truncation toward zero only shrinks states, so real-valued geometric sums bound the integers. Convolution borders count with
the inputs they really have.
"""

from __future__ import annotations

from dataclasses import dataclass

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment, integer_parameters
from snn_export.export.linear import apply
from snn_export.models.arithmetic import CURRENT_MAX, DECAY_ONE, STATE_MAX, STATE_SHIFT


@dataclass(frozen=True)
class PopulationBounds:
    """Worst case over all neurons of a population, in the chip's units.

    membrane_limit: what the membrane must not exceed: 24 bits, and for a readout the threshold it must never reach.
    """

    current: int
    membrane: int
    readout_in_reach: bool
    membrane_limit: int = STATE_MAX

    @property
    def headroom(self) -> dict[str, float]:
        """By name of the limit: the factor by which the population's scale may grow until it is met, rounding aside."""
        return {
            "current (24 bits)": CURRENT_MAX / max(self.current, 1),
            "membrane (24 bits)": self.membrane_limit / max(self.membrane, 1),
        }

    @property
    def safe(self) -> bool:
        """True where u can never wrap, v never saturate and a readout never fire."""
        return self.current < CURRENT_MAX and self.membrane <= STATE_MAX and not self.readout_in_reach


def sums(deployment: Deployment, population: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Smallest and largest synaptic sum of every neuron, each (*features), int64."""
    encoder = deployment.contract.encoder
    low = np.zeros(deployment.shapes[population], np.int64)
    high = low.copy()
    for connection in deployment.connections[population]:
        graded = isinstance(deployment.graph.nodes[connection.source], nir.Input)
        least, most = (encoder.low, encoder.high) if graded and encoder.gain is not None else (0, 1)
        ones = np.ones((1, *deployment.shapes[connection.source]), np.int64)
        ranges = {1: ones, -1: ones}
        for name in connection.path:
            weight, bias = integer_parameters(deployment.synapses.get(name))
            node = deployment.graph.nodes[name]
            if weight is None:
                ranges = {sign: apply(name, node, x) for sign, x in ranges.items()}
                continue
            positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
            ranges = {1: apply(name, node, ranges[1], positive, bias), -1: apply(name, node, ranges[-1], negative, bias)}
        high += ranges[1][0] * most + ranges[-1][0] * least
        low += ranges[-1][0] * most + ranges[1][0] * least
    return low, high


def population_bounds(deployment: Deployment, population: str) -> PopulationBounds:
    """Bounds of one population of a quantised deployment."""
    spec, grid = deployment.contract.neurons[population], deployment.populations[population]
    low, high = sums(deployment, population)
    gather = DECAY_ONE / (grid.du + 1)
    u_low, u_high = (np.minimum(low, 0) << STATE_SHIFT) * gather, (np.maximum(high, 0) << STATE_SHIFT) * gather
    bias = deployment.bias(population)
    steps = deployment.contract.steps
    reach = float(steps) if grid.dv == 0 else (1.0 - spec.beta**steps) * DECAY_ONE / grid.dv
    push, pull = np.maximum(u_high + bias, 0), np.minimum(u_low + bias, 0)
    ceiling = grid.threshold << STATE_SHIFT
    v_high = push * reach
    if spec.spiking:
        v_high = np.minimum(v_high, spec.beta * ceiling + push)
    v_low = -pull * reach
    return PopulationBounds(
        current=int(np.ceil(max(np.max(u_high, initial=0.0), -np.min(u_low, initial=0.0)))),
        membrane=int(np.ceil(max(np.max(v_high, initial=0.0), np.max(v_low, initial=0.0)))),
        readout_in_reach=bool(not spec.spiking and np.max(v_high, initial=0.0) > ceiling),
        membrane_limit=STATE_MAX if spec.spiking else ceiling,
    )


def all_bounds(deployment: Deployment) -> dict[str, PopulationBounds]:
    """Bounds of every population."""
    return {name: population_bounds(deployment, name) for name in deployment.layers}
