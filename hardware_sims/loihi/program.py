"""A deployment in the form the engine runs: neurons as registers, wires as fan-outs and dense products, in stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.bounds import population_bounds
from snn_export.export.deployment import Deployment, integer_parameters
from snn_export.export.graph import Shape
from snn_export.export.wiring import Delays, Wire
from snn_export.hardware_sims.loihi.drives import DenseDrive, dense_drive, sum_bound
from snn_export.hardware_sims.loihi.fan_out import Ends, FanOut, Indices, Uniform, fan_out, storage_order, uniform
from snn_export.hardware_sims.loihi.kernels import LANES, MODE_FAST, MODE_SUBTRACT, MODE_ZERO
from snn_export.hardware_sims.loihi.memory import at_cache_line
from snn_export.models.arithmetic import DECAY_ONE, FULL_CURRENT_DECAY, STATE_SHIFT, STATE_WRAP

INT32_LIMIT = 1 << 31


@dataclass(frozen=True, eq=False)
class Synapses:
    """One wire. ``ends`` says how its two sides are stored; the two forms of its weights are made when first asked for."""

    source: str
    node: nir.NIRNode
    weight: NDArray[np.int64]
    ends: Ends
    largest: int
    """Largest |value| the source sends: 1 for spikes."""

    @cached_property
    def events(self) -> FanOut:
        """Weights by source neuron, for a source that sends spikes; delays included."""
        return fan_out(self.node, self.weight, self.ends)

    @cached_property
    def uniform(self) -> Uniform:
        """The same with runs of one length, for ``kernels.advance``; empty where that does not pay."""
        return uniform(self.events, LANES)

    @cached_property
    def dense(self) -> DenseDrive:
        """Weights as a dense product; delays are left to the caller."""
        return dense_drive(self.node, self.weight, self.ends, self.largest)

    @cached_property
    def delayed(self) -> bool:
        """True where any synapse waits."""
        return bool(np.any(self.ends.before) or np.any(self.ends.after))


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons of one population, in stored order.

    Attributes:
        order: logical index of the neuron stored at each position.
        number: int32 where neither a sum nor u or v before wrap and saturation can leave it, else int64: the width of its
            state and arithmetic.
        registers: du, dv, threshold (membrane units), mode, reset interval, reset offset; dtype ``number``.
        constant: (N,) added to every synaptic sum; empty where all are 0.
        bias: (N,) membrane units; empty where all are 0.
        host: its bias depends on the sample.
    """

    name: str
    shape: Shape
    order: Indices
    registers: NDArray[np.signedinteger]
    constant: NDArray[np.signedinteger]
    bias: NDArray[np.signedinteger]
    host: bool

    @cached_property
    def size(self) -> int:
        """Neurons."""
        return len(self.order)

    @cached_property
    def number(self) -> np.dtype[np.signedinteger]:
        """Dtype of state and sums."""
        return self.registers.dtype


@dataclass(frozen=True, eq=False)
class Inside:
    """Fan-out of the neurons of a group to itself; ``targets`` (runs,) says which population each run ends in."""

    table: FanOut
    targets: NDArray[np.int32]


def _inside(sources: list[tuple[int, list[tuple[int, FanOut]]]]) -> Inside:
    """Join the fan-outs of populations, given as (neurons, [(target, fan-out)])."""
    owner, runs, delays, targets, weights = [], [], [], [], []
    row = place = 0
    for size, wires in sources:
        for target, table in wires:
            owner.append(row + np.repeat(np.arange(size), np.diff(table.first)))
            runs.append(table.runs.reshape(-1, 3) + np.array([0, place, 0], np.int32))
            delays.append(table.delays)
            targets.append(np.full(len(table.delays), target, np.int32))
            weights.append(table.weights)
            place += len(table.weights)
        row += size
    by_owner = np.argsort(np.concatenate(owner), kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(np.concatenate(owner), minlength=row))])
    joined = FanOut(
        first.astype(np.int32),
        np.ascontiguousarray(np.concatenate(runs)[by_owner].reshape(-1)),
        np.concatenate(weights),
        np.concatenate(delays)[by_owner],
        sum(table.synapses for _, wires in sources for _, table in wires),
    )
    return Inside(joined, np.concatenate(targets)[by_owner])


@dataclass(frozen=True, eq=False)
class Stage:
    """Populations that are stepped together: one without a loop, or a group that hears itself.

    Attributes:
        populations: in the order in which they are stepped.
        outer: wires from outside, one tuple per population.
        inner: (target, wire) of those from inside, by source population.
    """

    populations: tuple[Population, ...]
    outer: tuple[tuple[Synapses, ...], ...]
    inner: Mapping[str, tuple[tuple[int, Synapses], ...]]

    @property
    def recurrent(self) -> bool:
        """True where it hears itself."""
        return bool(self.inner)

    @cached_property
    def inside(self) -> Inside:
        """Fan-out of all its neurons, in the order of the populations, to targets inside it."""
        return _inside([(p.size, [(q, wire.events) for q, wire in self.inner[p.name]]) for p in self.populations])


@dataclass(frozen=True, eq=False)
class Program:
    """What :meth:`LoihiSimulator.compile` makes and :meth:`LoihiSimulator.run` runs."""

    deployment: Deployment
    source: str
    stages: tuple[Stage, ...]

    @cached_property
    def populations(self) -> tuple[Population, ...]:
        """All populations, sources first."""
        return tuple(population for stage in self.stages for population in stage.populations)

    @cached_property
    def bytes_per_step(self) -> int:
        """Memory that a sample takes in a step: spikes of all layers, and the sums of the largest as a dense product."""
        sizes = [prod(self.deployment.input_shape), *(population.size for population in self.populations)]
        return sum(sizes) + 8 * max(sizes)


def compile_deployment(deployment: Deployment) -> Program:
    """Program of a deployment that passed ``rules.check``."""
    source = next(name for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Input))
    orders = {name: storage_order(deployment.shapes[name]) for name in deployment.layers}
    orders[source] = np.arange(int(np.prod(deployment.input_shape)), dtype=np.int64)
    wires = {
        name: [(wire, _synapses(deployment, wire, orders)) for wire in incoming] for name, incoming in deployment.wires.items()
    }
    stages = []
    for names in deployment.stages:
        together = deployment.is_recurrent(names)
        narrow = all(_fits_int32(deployment, name, [s for _, s in wires[name]]) for name in names)
        number: np.dtype[Any] = np.dtype(np.int32 if narrow else np.int64)
        outer = tuple(tuple(s for wire, s in wires[name] if not (together and wire.source in names)) for name in names)
        inner = {
            source_name: tuple(
                (index, s) for index, name in enumerate(names) for wire, s in wires[name] if wire.source == source_name
            )
            for source_name in (names if together else ())
        }
        stages.append(Stage(tuple(_population(deployment, name, orders[name], number) for name in names), outer, inner))
    return Program(deployment, source, tuple(stages))


def _synapses(deployment: Deployment, wire: Wire, orders: Mapping[str, Indices]) -> Synapses:
    weight, _ = integer_parameters(deployment.synapses[wire.weight])
    place = wire.connection.path.index(wire.weight)
    entered = (wire.source, *wire.connection.path)[place]
    node, encoder = deployment.graph.nodes[wire.weight], deployment.contract.encoder
    ends = Ends(
        deployment.shapes[entered],
        deployment.shapes[wire.weight],
        orders[wire.source],
        orders[wire.target],
        _plain(wire.before),
        _plain(wire.after),
    )
    largest = 1 if wire.source in deployment.contract.neurons else max(encoder.high, -encoder.low)
    return Synapses(wire.source, node, np.asarray(weight, np.int64), ends, largest)


def _plain(delays: Delays) -> Delays:
    """One number where all delays are alike."""
    array = np.asarray(delays)
    return int(array.flat[0]) if array.size and np.all(array == array.flat[0]) else delays


def _largest_sum(deployment: Deployment, name: str, wires: list[Synapses]) -> int:
    """Bound of every partial sum of a population: all weights, the inputs' range and the constant."""
    constant = int(np.abs(deployment.current_bias(name)).max(initial=0))
    return constant + sum(sum_bound(wire.node, wire.weight, wire.largest) for wire in wires)


def _fits_int32(deployment: Deployment, name: str, wires: list[Synapses]) -> bool:
    """True where a population's arithmetic stays inside int32 in every step, whatever the input is.

    u wraps once per step and may leave 24 bits for good: it grows to 64 |a| (1 - alpha^T) / (1 - alpha). A wrap makes no |u|
    larger, so this bounds it before and after. v before it saturates is at most 2^23 + |u| + |bias|, and a bias has 13 bits,
    shifted by 7 at most; that, the decay's rounding and the wrap itself fit into another 2^24.
    """
    total = _largest_sum(deployment, name, wires)
    held = min(deployment.contract.steps, -(-DECAY_ONE // (deployment.populations[name].du + 1)))
    if (total << STATE_SHIFT) * held + STATE_WRAP < INT32_LIMIT:
        return True
    # The exact fan-in and the signs of the input may still allow it; they take longer to ask.
    return max(total, population_bounds(deployment, name).current) + STATE_WRAP < INT32_LIMIT


def _population(deployment: Deployment, name: str, order: Indices, number: np.dtype[Any]) -> Population:
    spec, integers = deployment.contract.neurons[name], deployment.populations[name]
    host = any(step in deployment.host_synapses for connection in deployment.connections[name] for step in connection.path)
    mode = MODE_ZERO
    if spec.microcode:
        mode = MODE_SUBTRACT
    elif integers.du == FULL_CURRENT_DECAY and not host and population_bounds(deployment, name).safe:
        mode = MODE_FAST
    registers = (integers.du, integers.dv, integers.threshold << STATE_SHIFT, mode, spec.reset_interval, spec.reset_offset)
    return Population(
        name,
        deployment.shapes[name],
        order,
        np.array(registers, number),
        _unless_zero(deployment.current_bias(name).reshape(-1)[order].astype(number)),
        _unless_zero(deployment.bias(name).reshape(-1)[order].astype(number)),
        host,
    )


def _unless_zero(values: NDArray[np.signedinteger]) -> NDArray[np.signedinteger]:
    """Nothing in place of zeros: what is not there needs no room in the cache."""
    return at_cache_line(values) if np.any(values) else values[:0]
