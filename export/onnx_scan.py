"""The network's time loop as an ONNX Scan: one step is the body, membranes, currents and delayed spikes are carried.

What a step computes is ``models/arithmetic.py``, called with :class:`snn_export.export.onnx_graph.Value` in place of arrays; how
signals travel is what ``export/interpreter.py`` does. Populations are written in the order of the graph, sources first; what a
loop or a Delay node holds back stands in a *line*, (batch, steps, *features), newest first.

Integer deployments carry int64; ``onnx_rules`` says why nothing leaves it. Where a bound shows, for any T and any input of the
declared range, that u cannot wrap, the wrap is left out, as it changes nothing; likewise the saturation of v. (States handed in
from outside must be states of this network.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import bounds, interpreter
from snn_export.export.deployment import Deployment, integer_parameters
from snn_export.export.gains import input_gains, membrane_bias, threshold_array
from snn_export.export.graph import Shape, delay_steps, populations, weight_array
from snn_export.export.onnx_graph import Graph, Value
from snn_export.export.onnx_linear import apply
from snn_export.export.onnx_rules import Numbers, Probe, exact_type, is_host_biased, largest_input, unending
from snn_export.models import arithmetic
from snn_export.models.arithmetic import CURRENT_MAX, FULL_CURRENT_DECAY, STATE_MAX, STATE_SHIFT
from snn_export.models.spec import NeuronSpec

Key = tuple[str, tuple[str, ...], bool]
"""A place in the network: a source, the linear nodes behind it, and whether the loop's own step lies in between."""


def late_step(spec: NeuronSpec) -> Callable[..., tuple[Any, Any]] | None:
    """The equations of a float neuron whose reset comes in the step after its spike; None for any other neuron."""
    if not (spec.spiking and spec.reset_delay) or spec.reset == "none":
        return None
    if spec.reset == "subtract":
        return arithmetic.late_subtract_step
    return arithmetic.late_clearing_step if spec.clears_input else arithmetic.late_zero_step


@dataclass(frozen=True, eq=False)
class Given:
    """What comes from outside the loop, values of the main graph.

    source: (S, batch, *shape), or None where the host computes what the input does.
    biases: by population, (S, batch, *features), membrane units.
    batch: its size, shape (1,).
    row: scalars scanned over time: which of the S rows this step reads; ``step``: the step's number since the start.
    """

    source: Value | None
    biases: dict[str, Value]
    batch: Value
    row: Value
    step: Value | None


@dataclass(frozen=True, eq=False)
class State:
    """What is carried from step to step: its first value in the main graph, its place in the body, its shape per sample."""

    name: str
    shape: Shape
    first: Value
    held: Value


class TimeLoop:
    """Writes the body and the Scan around it.

    Attributes:
        states: in the order of the Scan.
        ends: their last values, by name; filled by :meth:`run`, as is the next.
        made: stacked over time, (T, batch, *features), by (what, population).
    """

    def __init__(self, main: Graph, deployment: Deployment, numbers: Numbers, given: Given, streaming: bool) -> None:
        self._main, self._body = main, Graph("step", main)
        self._deployment, self._numbers, self._given, self._streaming = deployment, numbers, given, streaming
        self._forever = unending(deployment)
        self._row = Value(self._body, "_row", np.int64)  # declared behind the states, as a Scan wants them
        self._step = None if given.step is None else Value(self._body, "_step", np.int64)
        self._spikes: dict[str, Value] = {}
        self._known: dict[Key, Value] = {}
        self._outside: dict[tuple[str, ...], Value] = {}
        self._lines: dict[Key, tuple[State, int]] = {}
        self._next: dict[str, Value] = {}
        self._stacked: list[tuple[tuple[str, str], Value, Shape]] = []
        self.states: list[State] = []
        self.ends: dict[str, Value] = {}
        self.made: dict[tuple[str, str], Value] = {}

    # --- the loop as a whole -----------------------------------------------------------------------------------------

    def run(self, probes: Collection[Probe]) -> None:
        """Write all populations, and stack over time what ``probes`` and the readout need."""
        contract = self._deployment.contract
        for name in populations(self._deployment.graph):
            u, v, spikes = self._population(name)
            self._spikes[name] = spikes
            found = {"spikes": spikes, "membrane": self._shown(v, np.int32), "current": self._shown(u, np.int64)}
            wanted = set(probes)
            if name == contract.readout.node:
                wanted.add("spikes" if contract.readout.rule == "spike_count" else "membrane")
                self._rank(name, v, spikes)
            for what in (probe for probe in found if probe in wanted):
                self._stacked.append(((what, name), found[what], self._deployment.shapes[name]))
        self._fill_lines()
        self._close()

    def _shown(self, value: Value, integer: Any) -> Value:
        return self._body.cast(value, integer) if self._deployment.quantised else value

    def _rank(self, name: str, v: Value, spikes: Value) -> None:
        """Carry what the readout rule gathers over time; the last membrane is there without."""
        rule, shape = self._deployment.contract.readout.rule, self._deployment.shapes[name]
        number = self._numbers.state
        if rule == "membrane_mean":
            held = self._state("readout/sum", shape, number)
            self._next[held.name] = held.held + v
        elif rule == "membrane_max":
            lowest = np.iinfo(number).min if number.kind == "i" else -np.inf
            held = self._state("readout/largest", shape, number, lowest)
            self._next[held.name] = self._body.node("Max", held.held, v)
        elif rule == "spike_count":
            held = self._state("readout/count", shape, np.dtype(np.int64))
            self._next[held.name] = held.held + self._body.cast(spikes, np.int64)

    def _state(self, name: str, shape: Shape, number: np.dtype[Any], value: float = 0) -> State:
        """Declare something carried. Streaming: an input of the file, optional; one row of it serves all samples."""
        held = self._body.input(f"_held {name}", number, ("batch", *shape))
        dims = self._main.constant(shape, np.int64)
        whole = self._main.node("Concat", self._given.batch, dims, attributes={"axis": 0})
        if self._streaming:
            default = np.full((1, *shape), value, number)
            start = self._main.input(f"state/{name}", number, ("state_batch", *shape), default)
        else:
            start = self._main.constant(value, number)
        found = State(name, shape, self._main.node("Expand", start, whole), held)
        self.states.append(found)
        return found

    def _close(self) -> None:
        for value in (self._row, self._step):
            if value is not None:
                self._body.input(value.name, value.dtype, ())
        for state in self.states:
            self._body.output(f"_next {state.name}", self._next[state.name], ("batch", *state.shape))
        for (what, name), value, shape in self._stacked:
            self._body.output(f"_{what} {name}", value, ("batch", *shape))
        scanned = [self._given.row, *([] if self._given.step is None else [self._given.step])]
        made = [(f"end {state.name}", state.held.dtype) for state in self.states]
        made += [(f"{what} {name}", value.dtype) for (what, name), value, _ in self._stacked]
        found = self._main.scan(self._body, [state.first for state in self.states], scanned, made)
        self.ends = {state.name: value for state, value in zip(self.states, found, strict=False)}
        self.made = {key: value for (key, _, _), value in zip(self._stacked, found[len(self.states) :], strict=True)}

    # --- neurons -----------------------------------------------------------------------------------------------------

    def _population(self, name: str) -> tuple[Value, Value, Value]:
        """One step of a population: u, v after the reset, spikes."""
        spec, shape, number = self._deployment.contract.neurons[name], self._deployment.shapes[name], self._numbers.state
        keeps_u = spec.du != FULL_CURRENT_DECAY
        keeps_v = self._deployment.quantised or not spec.memoryless or late_step(spec) is not None or spec.double_to_refire
        states = [self._state(f"{key}/{name}", shape, number) if kept else None for key, kept in (("u", keeps_u), ("v", keeps_v))]
        u, v = (0 if state is None else self._cleared(spec, state.held) for state in states)
        x = self._drive(name, shape)
        u, v, spikes = (self._integer if self._deployment.quantised else self._float)(name, spec, u, v, x)
        for state, value in zip(states, (u, v), strict=True):
            if state is not None:
                self._next[state.name] = value
        return u, v, spikes

    def _cleared(self, spec: NeuronSpec, value: Value) -> Value:
        """A state before a step, zero where the periodic reset clears it."""
        if not spec.reset_interval or self._step is None:
            return value
        interval, offset = (self._body.constant(n, np.int64) for n in (spec.reset_interval, spec.reset_offset))
        due = self._body.node("Equal", self._body.node("Mod", self._step, interval), offset, dtype=bool)
        return self._body.node("Where", due, self._body.constant(0, value.dtype), value, dtype=value.dtype)

    def _integer(self, name: str, spec: NeuronSpec, u: Any, v: Any, x: Value) -> tuple[Value, Value, Value]:
        grid, limits = self._deployment.populations[name], bounds.population_bounds(self._forever, name)
        bias = self._deployment.bias(name)
        u = arithmetic.loihi_current(u, grid.du, x)
        u = u if limits.current < CURRENT_MAX else arithmetic.wrap_current(u)
        host = self._given.biases.get(name)
        v = arithmetic.loihi_membrane(v, grid.dv, u, bias if host is None else self._now(host) + bias)
        v = v if limits.membrane <= STATE_MAX else arithmetic.saturate_membrane(v)
        threshold = grid.threshold << STATE_SHIFT
        spikes = arithmetic.fires(v, threshold)  # a readout too: the chip has no neuron without a threshold
        if spec.microcode:
            return u, arithmetic.reset_by_subtraction(v, spikes, threshold), spikes
        return u, arithmetic.reset_to_zero(v, spikes), spikes

    def _float(self, name: str, spec: NeuronSpec, u: Any, before: Any, x: Value) -> tuple[Value, Value, Value]:
        current_gain, membrane_gain = input_gains(self._deployment, name)
        parameters = (spec.alpha, spec.beta, membrane_gain, membrane_bias(self._deployment, name))
        threshold, shape = threshold_array(self._deployment.graph.nodes[name]), self._deployment.shapes[name]
        late = late_step(spec)
        if late is not None:
            u, v = (self._whole(value, shape) for value in late(u, before, x * current_gain, *parameters, threshold))
            return u, v, arithmetic.fires(v, threshold)
        u, v = (self._whole(value, shape) for value in arithmetic.canonical_step(u, before, x * current_gain, *parameters))
        if not spec.spiking:
            return u, v, self._zeros(shape, np.dtype(bool))
        if spec.double_to_refire:
            return u, *arithmetic.reset_by_double_subtraction(before, v, threshold)
        spikes = arithmetic.fires(v, threshold)
        if spec.reset == "zero":
            v = arithmetic.reset_to_zero(v, spikes)
        elif spec.reset == "subtract":
            v = arithmetic.reset_by_subtraction(v, spikes, threshold)
        return u, v, spikes

    def _whole(self, value: Any, shape: Shape) -> Value:
        """A value of (batch, *features), where constants of zero left only a number."""
        if isinstance(value, Value):
            return value
        whole: Value = self._zeros(shape, self._numbers.state) + value
        return whole

    def _zeros(self, shape: Shape, number: np.dtype[Any]) -> Value:
        dims = self._main.node("Concat", self._given.batch, self._main.constant(shape, np.int64), attributes={"axis": 0})
        return self._body.node("Expand", self._body.constant(np.zeros((), number)), dims)

    # --- signals -----------------------------------------------------------------------------------------------------

    def _drive(self, name: str, shape: Shape) -> Value:
        """What all connections bring to a population, (batch, *features), in the numbers of its state."""
        total: Any = 0
        for connection in self._deployment.connections[name]:
            if is_host_biased(self._deployment) and connection.source not in self._deployment.connections:
                continue
            late = interpreter.loop_step(self._deployment, connection) > 0
            arrived = self._body.cast(self._at((connection.source, connection.path, late)), self._numbers.state)
            if self._deployment.shapes[(connection.source, *connection.path)[-1]] != shape:
                arrived = self._body.reshaped(arrived, shape)
            total = arrived + total
        return self._whole(total + self._constant_drive(name), shape)

    def _constant_drive(self, name: str) -> NDArray[Any]:
        """What the biases of all connections bring in every step, (*features)."""
        sources = tuple(dict.fromkeys(connection.source for connection in self._deployment.connections[name]))
        silent = {"": np.zeros((1, 1))}
        return np.asarray(interpreter.synaptic_drive(self._deployment, name, silent, leave_out=sources)[0, 0])

    def _at(self, place: Key) -> Value:
        """The signal at a place of the network in this step, (batch, *features)."""
        if place not in self._known:
            self._known[place] = self._found(place)
        return self._known[place]

    def _found(self, place: Key) -> Value:
        source, path, late = place
        nodes = self._deployment.graph.nodes
        if isinstance(nodes[source], nir.Input) and not any(isinstance(nodes[name], nir.Delay) for name in path):
            return self._from_input(source, path)
        if not path:
            return self._delayed(place, np.ones(1, np.int64)) if late else self._signal(source)
        name, before = path[-1], (source, path[:-1], late)
        if isinstance(nodes[name], nir.Delay):
            steps = delay_steps(name, nodes[name], self._deployment.contract.dt)
            return self._delayed(place, steps) if np.any(steps) else self._at(before)
        return self._linear(self._body, name, self._at(before), (source, *path)[-2])

    def _signal(self, source: str) -> Value:
        """Spikes of this step as numbers that weights multiply."""
        return self._body.cast(self._spikes[source], self._numbers.signal)

    def _from_input(self, source: str, path: tuple[str, ...]) -> Value:
        """The input behind linear nodes. They stand before the loop where one row may serve all steps."""
        given = self._given.source
        if given is None:
            raise ValueError(f"{source} has a connection that the host does not compute")
        if self._deployment.contract.encoder.kind in ("direct", "bias"):
            return self._now(self._before_the_loop(given, source, path))
        if not path:
            return self._now(given)
        return self._linear(self._body, path[-1], self._at((source, path[:-1], False)), (source, *path)[-2])

    def _before_the_loop(self, given: Value, source: str, path: tuple[str, ...]) -> Value:
        """The input behind linear nodes, (S, batch, *features) in the main graph."""
        if not path:
            return given
        if path not in self._outside:
            main, shapes = self._main, self._deployment.shapes
            x = self._before_the_loop(given, source, path[:-1])
            before = (source, *path)[-2]
            flat = main.node("Reshape", x, main.constant((-1, *shapes[before]), np.int64), attributes={"allowzero": 1})
            found = self._linear(main, path[-1], flat, before)
            start, end = main.constant([0], np.int64), main.constant([2], np.int64)
            lead = main.node("Slice", main.node("Shape", x, dtype=np.int64), start, end)
            dims = main.node("Concat", lead, main.constant(shapes[path[-1]], np.int64), attributes={"axis": 0})
            self._outside[path] = main.node("Reshape", found, dims, attributes={"allowzero": 1})
        return self._outside[path]

    def _now(self, value: Value) -> Value:
        """This step's row of something (S, batch, *features)."""
        inside = Value(self._body, value.name, value.dtype)
        return self._body.node("Gather", inside, self._row, attributes={"axis": 0})

    def _linear(self, graph: Graph, name: str, x: Value, before: str) -> Value:
        """One linear node. On integers the narrowest type that is exact multiplies, whatever type the signal has."""
        node, shapes = self._deployment.graph.nodes[name], self._deployment.shapes
        weight: NDArray[Any] | None = None
        if hasattr(node, "weight") or isinstance(node, nir.Scale):
            weight = weight_array(node)
            if self._deployment.quantised:
                weight, _ = integer_parameters(self._deployment.synapses[name])
                number = exact_type(node, weight, largest_input(self._deployment, name))  # type: ignore[arg-type]
                x = graph.cast(x, number or np.float64)
        return apply(graph, name, node, x, shapes[before], shapes[name], weight)

    # --- lines -------------------------------------------------------------------------------------------------------

    def _delayed(self, place: Key, steps: NDArray[np.int64]) -> Value:
        """What entered a place ``steps`` earlier: one number for all features, or one each."""
        source, path, _ = place
        shape = self._deployment.shapes[(source, *path)[-1]]
        longest, least = int(steps.max()), int(steps.min())
        entering = None if least else self._at(self._before(place))
        number = self._number_at(self._before(place)) if entering is None else entering.dtype
        name = f"line/{' -> '.join((source, *path))}"
        taken = {state.name for state in self.states}
        name = name if name not in taken else f"{name} ({len(taken)})"
        line = self._state(name, (longest, *shape), number)
        self._lines[place] = line, longest
        if least == longest:
            return self._body.node("Gather", line.held, self._body.constant(longest - 1, np.int64), attributes={"axis": 1})
        whole = line.held
        if entering is not None:
            newest = self._body.node("Unsqueeze", entering, self._body.constant([1], np.int64))
            whole = self._body.node("Concat", newest, whole, attributes={"axis": 1})
        ages = np.arange(1 if entering is None else 0, longest + 1)
        chosen = ages.reshape(-1, *(1,) * len(shape)) == np.broadcast_to(steps, shape)
        picked = self._body.node("Where", self._body.constant(chosen), whole, self._body.constant(0, number), dtype=number)
        return self._body.node("ReduceSum", picked, self._body.constant([1], np.int64), attributes={"keepdims": 0})

    def _before(self, place: Key) -> Key:
        """The place in front of a delay: the node before it, or the source without the loop's step."""
        source, path, late = place
        return (source, path[:-1], late) if path else (source, (), False)

    def _number_at(self, place: Key) -> np.dtype[Any]:
        """The type of a signal before it is known: integers take the type of the last weight node on their way."""
        if not self._deployment.quantised:
            return self._numbers.signal
        weights = [name for name in place[1] if name in self._deployment.synapses]
        if not weights:
            return self._numbers.signal
        node, (weight, _) = self._deployment.graph.nodes[weights[-1]], integer_parameters(self._deployment.synapses[weights[-1]])
        return exact_type(node, weight, largest_input(self._deployment, weights[-1])) or np.dtype(np.float64)  # type: ignore[arg-type]

    def _fill_lines(self) -> None:
        """Push what enters each line in this step; what that needs may read lines that nobody read before."""
        filled: set[Key] = set()
        while waiting := [place for place in self._lines if place not in filled]:
            for place in waiting:
                filled.add(place)
                line, longest = self._lines[place]
                newest = self._body.node("Unsqueeze", self._at(self._before(place)), self._body.constant([1], np.int64))
                if longest > 1:
                    at, stop, axis = (self._body.constant([n], np.int64) for n in (0, longest - 1, 1))
                    kept = self._body.node("Slice", line.held, at, stop, axis)
                    newest = self._body.node("Concat", newest, kept, attributes={"axis": 1})
                self._next[line.name] = newest
