"""Static bounds of u and v for every neuron, from its real fan-in and the declared range of its input.

For a neuron with integer weights w, inputs in [lo, hi] (spikes: [0, 1]; graded input: the encoder's range) and an always-on
current c::

    a_max = sum(w+) hi + sum(w-) lo + c         a_min = sum(w-) hi + sum(w+) lo + c
    |u|  <= 64 |a| (1 - alpha^T) / (1 - alpha)
    v    in the worst case integrates u + bias for T steps. Its upper side ends where a neuron is reset: one that is reset to
         zero starts its last step at the threshold at most; its lower side has no such end

Truncation toward zero only shrinks states, so real-valued geometric sums bound the integers. Convolution borders count with
the inputs they really have. T is the number of steps, or the interval of a periodic reset where that is shorter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment, integer_parameters
from snn_export.export.gains import input_gains, membrane_bias
from snn_export.export.graph import weight_array
from snn_export.export.linear import apply
from snn_export.export.wiring import Wire
from snn_export.models.arithmetic import CURRENT_MAX, DECAY_MAX, DECAY_ONE, STATE_MAX, STATE_SHIFT
from snn_export.models.diagnostics import Diagnostic
from snn_export.models.spec import NeuronSpec

Array = NDArray[np.float64]
MEMORYLESS_LIMIT = DECAY_ONE - 1
"""A membrane up to here leaves nothing behind under the largest decay a register holds: trunc(v / 4096) = 0."""


@dataclass(frozen=True)
class PopulationBounds:
    """Worst case over all neurons of a population, in the chip's units.

    membrane_limit: what the membrane must not exceed: 24 bits, for a readout the threshold it must never reach, for a neuron
        without memory what its register forgets.
    current_neuron, membrane_neuron: index of the neuron with the largest bound.
    """

    current: int
    membrane: int
    readout_in_reach: bool
    membrane_limit: int = STATE_MAX
    current_neuron: tuple[int, ...] = ()
    membrane_neuron: tuple[int, ...] = ()

    @property
    def headroom(self) -> dict[str, float]:
        """By name of the limit: the factor by which the population's scale may grow until it is met, rounding aside."""
        return {
            "current (24 bits)": CURRENT_MAX / max(self.current, 1),
            "membrane (24 bits)": self.membrane_limit / max(self.membrane, 1),
        }

    @property
    def safe(self) -> bool:
        """True where u can never wrap, v never saturate, a readout never fire, and no memory is left that should not be."""
        return self.current < CURRENT_MAX and self.membrane <= self.membrane_limit and not self.readout_in_reach


def sums(deployment: Deployment, population: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Smallest and largest synaptic sum of every neuron, each (*features), int64."""
    shape = deployment.shapes[population]
    low = deployment.current_bias(population)
    high = low.copy()
    for wire in deployment.wires[population]:
        least, most = source_range(deployment, wire)
        positive, negative = _one_sided(deployment, wire)
        high += (positive * most + negative * least).reshape(shape)
        low += (negative * most + positive * least).reshape(shape)
    return low, high


def source_range(deployment: Deployment, wire: Wire) -> tuple[int, int]:
    """Least and largest value that a synapse of this wire receives: levels of a graded input, else 0 and 1."""
    encoder = deployment.contract.encoder
    if not isinstance(deployment.graph.nodes[wire.source], nir.Input) or encoder.gain is None:
        return 0, 1
    delayed = wire.most > 0  # nothing arrives before the first delayed level
    return (min(encoder.low, 0), max(encoder.high, 0)) if delayed else (encoder.low, encoder.high)


def _one_sided(deployment: Deployment, wire: Wire) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum of the positive and of the negative weights of every neuron, with the inputs it really has."""
    weight, bias = integer_parameters(deployment.synapses[wire.weight])
    found = []
    for part in (np.maximum(weight, 0), np.minimum(weight, 0)):  # type: ignore[arg-type]
        x = np.ones((1, *deployment.shapes[wire.source]), np.int64)
        for name in wire.connection.path:
            node = deployment.graph.nodes[name]
            if isinstance(node, nir.Flatten):
                x = apply(name, node, x)
            elif name == wire.weight:
                x = apply(name, node, x, part, bias)
        found.append(x)
    return found[0], found[1]


def population_bounds(deployment: Deployment, population: str) -> PopulationBounds:
    """Bounds of one population of a quantised deployment."""
    spec, grid = deployment.contract.neurons[population], deployment.populations[population]
    low, high = sums(deployment, population)
    steps = min(deployment.contract.steps, spec.reset_interval or deployment.contract.steps)
    gather = _reach(grid.du + 1, steps)
    u_low, u_high = (np.minimum(low, 0) << STATE_SHIFT) * gather, (np.maximum(high, 0) << STATE_SHIFT) * gather
    bias_low, bias_high = _bias_range(deployment, population)
    ceiling = grid.threshold << STATE_SHIFT
    v_high = _highest(spec, np.maximum(u_high + bias_high, 0), ceiling, steps)
    v_low = -np.minimum(u_low + bias_low, 0) * _reach(spec.dv, steps)
    limit = STATE_MAX if spec.spiking else ceiling
    current, membrane = np.maximum(u_high, -u_low), np.maximum(v_high, v_low)
    return PopulationBounds(
        current=int(np.ceil(np.max(current, initial=0.0))),
        membrane=int(np.ceil(np.max(membrane, initial=0.0))),
        readout_in_reach=bool(not spec.spiking and np.max(v_high, initial=0.0) > ceiling),
        membrane_limit=MEMORYLESS_LIMIT if spec.memoryless else limit,
        current_neuron=_largest(current),
        membrane_neuron=_largest(membrane),
    )


def highest_membrane(deployment: Deployment, population: str) -> Array:
    """Upper bound of the membrane of every neuron that never fires, (*features), membrane units: v <= push sum beta^k.

    A threshold that none of these exceeds is never passed: a membrane that no spike has reset yet is at most this large.
    """
    spec, grid = deployment.contract.neurons[population], deployment.populations[population]
    steps = min(deployment.contract.steps, spec.reset_interval or deployment.contract.steps)
    _, high = sums(deployment, population)
    _, bias = _bias_range(deployment, population)
    push = (np.maximum(high, 0) << STATE_SHIFT) * _reach(grid.du + 1, steps) + bias
    return np.asarray(np.maximum(push, 0) * _reach(spec.dv, steps), np.float64)


def highest_real_membrane(deployment: Deployment, population: str) -> Array | None:
    """The same of a float population, (*features), real units; one weight layer per connection, spikes of 0 or 1.

    None where it cannot be told: for an input without a declared range, for biases that a host computes from the input, and where
    a neuron turns the sign of what it hears.
    """
    spec = deployment.contract.neurons[population]
    steps = min(deployment.contract.steps, spec.reset_interval or deployment.contract.steps)
    total = np.zeros(deployment.shapes[population])
    if _is_hosted(deployment, population):
        return None
    for wire in deployment.wires[population]:
        if isinstance(deployment.graph.nodes[wire.source], nir.Input) and not deployment.contract.encoder.binary:
            return None
        x = np.ones((1, *deployment.shapes[wire.source]))
        for name in wire.connection.path:
            node = deployment.graph.nodes[name]
            if isinstance(node, nir.Flatten):
                x = apply(name, node, x)
            elif name == wire.weight:
                x = apply(name, node, x, np.maximum(weight_array(node), 0))
        total += x.reshape(total.shape)
    current, membrane = input_gains(deployment, population)
    if np.any(np.less(current, 0)) or np.any(np.less(membrane, 0)):
        return None
    push = np.maximum(total * current, 0) * _reach(spec.du + 1, steps) * membrane + membrane_bias(deployment, population)
    return np.asarray(np.maximum(push, 0) * _reach(spec.dv, steps), np.float64)


def _reach(decay: int, steps: int) -> float:
    """Sum of (1 - decay/4096)^k for k = 0 .. steps - 1: what a constant input of 1 adds up to."""
    kept = 1.0 - decay / DECAY_ONE
    return float(steps) if decay == 0 else (1.0 - kept**steps) * DECAY_ONE / decay


def _highest(spec: NeuronSpec, push: Array, ceiling: int, steps: int) -> Array:
    """Upper bound of v before its reset, for at most ``push`` in a step."""
    free: Array = push * _reach(spec.dv, steps)
    if not spec.spiking or spec.reset == "none":
        return free
    after_silence = spec.beta * ceiling + push
    if spec.reset == "zero":
        return np.minimum(free, after_silence)
    # By subtraction a membrane may stay above the threshold: m = beta (m - theta) + push, or grow without end where beta = 1.
    above = (push - spec.beta * ceiling) * DECAY_ONE / spec.dv if spec.dv else np.where(push > ceiling, np.inf, 0.0)
    return np.minimum(free, np.maximum(after_silence, above))


def _bias_range(deployment: Deployment, population: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Least and largest bias of every neuron, membrane units; where the host computes biases, what their register holds."""
    bias = deployment.bias(population)
    if not _is_hosted(deployment, population):
        return bias, bias
    reach = DECAY_ONE << deployment.populations[population].bias_exponent
    return np.full_like(bias, -reach), np.full_like(bias, reach)


def _is_hosted(deployment: Deployment, population: str) -> bool:
    """True where a host computes biases of the population from the input."""
    return any(name in deployment.host_synapses for c in deployment.connections[population] for name in c.path)


def _largest(values: Array) -> tuple[int, ...]:
    """Index of the largest value."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(values)), values.shape)) if values.size else ()


def memory_findings(deployment: Deployment, population: str) -> list[Diagnostic]:
    """SNX328 where a neuron without memory (NIR's Threshold) would keep a rest: its decay of 4095/4096 forgets |v| < 4096."""
    spec, held = deployment.contract.neurons.get(population), population in deployment.populations
    if spec is None or not spec.memoryless or not held:
        return []
    found = population_bounds(deployment, population)
    if found.membrane <= found.membrane_limit:
        return []
    return [
        Diagnostic(
            "SNX328",
            f"the membrane of {population} can reach {found.membrane:,}, and a neuron without memory forgets less than "
            f"{MEMORYLESS_LIMIT + 1:,}",
            where=population,
            why=f"the largest decay a register holds is {DECAY_MAX} of {DECAY_ONE}: of a larger membrane a rest is left for the "
            "next step",
            fix="use a smaller scale or fewer inputs, or a LIF neuron that keeps its membrane",
        )
    ]


def all_bounds(deployment: Deployment) -> dict[str, PopulationBounds]:
    """Bounds of every population."""
    return {name: population_bounds(deployment, name) for name in deployment.layers}


def overflow_findings(deployment: Deployment, populations: Iterable[str] | None = None) -> list[Diagnostic]:
    """What may overflow for some input of the declared range, one warning per population; empty where nothing can.

    populations: all of them where it is None.

    Simulators run such a network and count what wraps and saturates.
    """
    names = deployment.layers if populations is None else populations
    bounded = ((name, population_bounds(deployment, name)) for name in names)
    return [_finding(deployment, name, found) for name, found in bounded if not found.safe]


def _finding(deployment: Deployment, name: str, found: PopulationBounds) -> Diagnostic:
    what, bound, limit, neuron = "current u", found.current, CURRENT_MAX, found.current_neuron
    if found.current < CURRENT_MAX:
        what, bound, limit, neuron = "membrane v", found.membrane, found.membrane_limit, found.membrane_neuron
    consequence = "wraps" if what == "current u" else "saturates"
    if found.readout_in_reach:
        consequence = "reaches the threshold, and a readout that should not fire is reset"
    if deployment.contract.neurons[name].memoryless:
        consequence = "leaves a remainder in a neuron that should forget it"
    scale = deployment.populations[name].scale
    safe = scale * 0.98 * min(1.0, *found.headroom.values())
    return Diagnostic(
        "SNX309",
        f"the {what} of {name} can reach {bound:,}, the limit is {limit:,}",
        where=f"{name}{list(neuron)}",
        why=f"there are inputs in the declared range for which it {consequence}",
        fix=f"quantise {name} with a scale of at most {safe:.6g} (now {scale:.6g}), or declare a smaller input range",
        severity="warning",
    )
