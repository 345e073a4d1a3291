"""Between a float network and its integer form: one network in which every numeric effect can be switched on or off by itself.

A chip does not change a network in one way but in several at once: levels for inputs, integers for weights, thresholds, biases
and decays, states that are truncated and bounded. :func:`run` computes the network with any choice of them, for all layers or
with one layer spared. With no effect it is the float network, with all of them the int64 interpreter, bit for bit.

Everything is computed in float64 in the units of the integer states (real values times 64 S, S the scale of the population), in
which the integers of the chip are whole numbers below 2^53 and the float network's parameters are what they are::

    u = kept(u, alpha) + 64 a        a: sum of weights (float or integer) times levels (rounded or not) and spikes
    v = kept(v, beta) + u + bias     kept: truncated to a whole number, or not; u wraps and v saturates, or not
    s = v > theta                    reset as one form does it, or the other

**State truncation** with float weights: a state is then no whole number, and neither is what is added to it. What is truncated
is what the decay leaves, as in a register that drops the fraction of a product and then adds: half a unit is lost per step on
average, as in the integer network. A state that does not decay is not multiplied and loses nothing.

**Discretisation of tau** is no effect of this pair: the contract states the decays of both forms as dv and du, and a time
constant is derived from them. exp(-dt/tau) against 1 - dt/tau is a question of the model that was trained, before either form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import bounds, encoding, grid, interpreter
from snn_export.export.deployment import Deployment, integer_parameters, not_quantised
from snn_export.export.gains import input_gains, membrane_bias, threshold_array
from snn_export.export.graph import delay_steps, input_node, replace_nodes, weight_array
from snn_export.models import arithmetic
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec, NeuronSpec

Array = NDArray[Any]

INPUT: Final = "input rounding"
TAU: Final = "discretisation of tau"
WEIGHTS: Final = "weight rounding"
THRESHOLDS: Final = "threshold rounding"
DECAYS: Final = "decay rounding"
BIASES: Final = "bias rounding"
TRUNCATION: Final = "state truncation"
OVERFLOW: Final = "state overflow"
RESET: Final = "reset rule"
LATENCY: Final = "latency"
FIRE: Final = "fire rule"
ORDER: Final = (INPUT, TAU, WEIGHTS, THRESHOLDS, DECAYS, BIASES, TRUNCATION, OVERFLOW, RESET, LATENCY, FIRE)
"""From the parameters to the states to the rules: the order in which effects are switched on, and, reversed, the opposite one."""

AS_PARAMETERS: Final = frozenset({INPUT, WEIGHTS, THRESHOLDS, DECAYS, BIASES, RESET, LATENCY})
"""Effects that, where they change nothing, are left on: both forms say the same, and the chip's numbers are the exact ones."""


class Two(NamedTuple):
    """One thing as the float network has it and as the chip does, in the units of the integer states."""

    floats: Any
    chip: Any

    def pick(self, on: bool) -> Any:
        """The chip's where the effect is on."""
        return self.chip if on else self.floats

    @property
    def equal(self) -> bool:
        """Equal up to the rounding of a quotient."""
        one, other = np.asarray(self.floats, np.float64), np.asarray(self.chip, np.float64)
        size = max(float(np.max(np.abs(one), initial=0.0)), float(np.max(np.abs(other), initial=0.0)))
        return bool(np.all(np.abs(one - other) <= grid.AGREEMENT * size))


@dataclass(frozen=True)
class Switches:
    """Effects that are on. ``spared``: one of them that is off in ``layer`` alone."""

    on: frozenset[str]
    spared: str = ""
    layer: str = ""

    def holds(self, effect: str, layer: str) -> bool:
        """Whether an effect is on in a layer."""
        return effect in self.on and (effect, layer) != (self.spared, self.layer)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Inputs in both forms, (T or 1, B, *shape) in levels, and what a host computes for a layer, (B, *features)."""

    signal: Two
    host: Mapping[str, Two] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def rounded(self) -> bool:
        """Whether any value is changed by the levels, or by the grid of the biases that carry it."""
        return any(not np.array_equal(one, other) for one, other in (self.signal, *self.host.values()))


@dataclass(frozen=True, eq=False)
class Forms:
    """A float network and its integer form, parameter by parameter. Made by :func:`forms_of`.

    Attributes:
        floats, integers: the two deployments; the same populations, and the same nodes between them.
    """

    floats: Deployment
    integers: Deployment

    @cached_property
    def units(self) -> dict[str, float]:
        """By population: membrane units per real 1.0."""
        return {name: arithmetic.state_units(found.scale) for name, found in self.integers.populations.items()}

    @cached_property
    def weights(self) -> dict[str, Two]:
        """By weight node on the chip: its weights, per spike or level, in units of the synaptic sum."""
        found = {}
        for name, (population, graded) in grid.synapse_targets(self.integers).items():
            level = (self.integers.contract.encoder.gain or 1.0) if graded else 1.0
            factor = grid.input_gain(self.floats, population) * self.integers.populations[population].scale / level
            held = np.asarray(integer_parameters(self.integers.synapses[name])[0], np.float64)
            found[name] = Two(np.asarray(weight_array(self.floats.graph.nodes[name]), np.float64) * factor, held)
        return found

    @cached_property
    def thresholds(self) -> dict[str, Two]:
        """By population that fires."""
        return {
            name: Two(
                threshold_array(self.floats.graph.nodes[name]) * self.units[name],
                float(found.threshold << arithmetic.STATE_SHIFT),
            )
            for name, found in self.integers.populations.items()
            if self.floats.contract.neurons[name].spiking
        }

    @cached_property
    def kept(self) -> dict[str, Two]:
        """By population: what (u, v) keep of themselves in a step, in 4096ths."""
        found = {}
        for name, held in self.integers.populations.items():
            spec = self.floats.contract.neurons[name]
            floats = (spec.alpha * arithmetic.DECAY_ONE, spec.beta * arithmetic.DECAY_ONE)
            found[name] = Two(floats, (float(arithmetic.DECAY_MAX - held.du), float(arithmetic.DECAY_ONE - held.dv)))
        return found

    @cached_property
    def biases(self) -> dict[str, Two]:
        """By population: what is added to (u, v) in every step, each (*features).

        A float network's bias stands in front of u; without a synaptic filter that is the same as one on v, as the chip has it.
        """
        found = {}
        plain = _without_host_biases(self.integers, self.floats)
        silent = {name: np.zeros((1, 1, *plain.shapes[name])) for name in (input_node(plain.graph), *plain.layers)}
        for name in self.integers.layers:
            current, membrane = input_gains(plain, name)
            drive = interpreter.synaptic_drive(plain, name, silent)[0, 0] * current * membrane * self.units[name]
            leak = np.broadcast_to(np.asarray(membrane_bias(plain, name)) * self.units[name], drive.shape)
            filtered = grid.is_filtered(plain, name)
            chip = (self.integers.current_bias(name) << arithmetic.STATE_SHIFT, self.integers.bias(name))
            floats = (drive if filtered else np.zeros_like(drive), leak if filtered else drive + leak)
            found[name] = Two(floats, tuple(part.astype(np.float64) for part in chip))
        return found

    @cached_property
    def delays(self) -> dict[str, tuple[str, Two]]:
        """By Delay node: a population that hears through it, and its steps."""
        dt, found = self.integers.contract.dt, {}
        for target, incoming in self.integers.connections.items():
            for name in (name for connection in incoming for name in connection.path):
                nodes = self.floats.graph.nodes[name], self.integers.graph.nodes[name]
                if isinstance(nodes[1], nir.Delay):
                    found[name] = (target, Two(*(delay_steps(name, node, dt) for node in nodes)))
        return found

    def encoded(self, inputs: Array) -> Encoded:
        """Inputs in both forms; shapes and errors as :func:`snn_export.export.encoding.signal`, SNX308 for a host's biases."""
        encoder, form = self.integers.contract.encoder, self.integers
        if encoder.kind == "bias":
            nothing = np.zeros(encoding.signal(form, inputs).shape)
            held = encoding.host_bias(form, inputs)
            drives = encoding.host_drive(form, inputs)
            host = {name: Two(drive * self.units[name], held[name].astype(np.float64)) for name, drive in drives.items()}
            return Encoded(Two(nothing, nothing), host)
        levels = encoding.levels(form, inputs).astype(np.float64)
        return Encoded(Two(encoding.signal(self.floats, inputs) * (encoder.gain or 1.0), levels))


def forms_of(floats: Deployment, integers: Deployment) -> Forms:
    """Pair a float deployment with the quantised one that was made from it.

    Raises:
        UserError: SNX302 where the second is not quantised; SNX505 where they are not two forms of one network; SNX203 for a
            float neuron that resets more than a step late; SNX244.
    """
    if not integers.quantised:
        raise not_quantised("forms_of(integers)")
    if difference := next(_differences(floats, integers), ""):
        raise UserError(
            "SNX505", f"the float network and the integer one differ in {difference}", where="forms_of",
            why="an effect is switched on layer by layer and node by node, so both must be forms of one network",
            fix="take the float deployment that was quantised; of a graph with pooling or chains of layers, its prepared form",
        )  # fmt: skip
    for name, spec in floats.contract.neurons.items():
        if spec.reset_delay > 1 and (finding := spec.reset_finding(name)) is not None:
            raise UserError.from_diagnostics((finding,))
    return Forms(floats, integers)


def _differences(floats: Deployment, integers: Deployment) -> Iterator[str]:
    """What keeps two deployments from being forms of one network."""
    if floats.quantised:
        yield "nothing: the first one is on an integer grid too"
    if (floats.contract.steps, floats.contract.dt) != (integers.contract.steps, integers.contract.dt):
        yield "their steps"
    if floats.layers != integers.layers:
        yield f"their populations: {', '.join(floats.layers)} and {', '.join(integers.layers)}"
        return
    for name in integers.layers:
        if wrong := _differing_layer(floats, integers, name):
            yield wrong
    for name in integers.host_synapses:
        if not np.array_equal(weight_array(floats.graph.nodes[name]), weight_array(integers.graph.nodes[name])):
            yield f"the weights of {name}, which the host computes with"
    for name in integers.synapses:
        if weight_array(floats.graph.nodes[name]).shape != integers.synapses[name].weight.shape:
            yield f"the weights of {name}"
    kinds = floats.contract.encoder.kind, integers.contract.encoder.kind
    if kinds[0] != kinds[1] and kinds != ("direct", "bias"):
        yield "their encoders"


def _differing_layer(floats: Deployment, integers: Deployment, name: str) -> str:
    """What keeps a population of two deployments from being the same one; empty where nothing does."""
    one, other = floats.contract.neurons[name], integers.contract.neurons[name]
    filtered = grid.is_filtered(integers, name)
    if floats.shapes[name] != integers.shapes[name] or floats.connections[name] != integers.connections[name]:
        return f"the shape of {name} or the nodes that lead to it"
    if (one.spiking, one.reset_interval, one.reset_offset) != (other.spiking, other.reset_interval, other.reset_offset):
        return f"whether {name} fires, or when its state is cleared"
    if grid.is_filtered(floats, name) != filtered:
        return f"the synaptic filter of {name}"
    if filtered and any(node in integers.host_synapses for way in integers.connections[name] for node in way.path):
        return f"where the input enters {name}: the host adds it behind the synaptic filter"
    return ""


def _without_host_biases(integers: Deployment, floats: Deployment) -> Deployment:
    """The float network without the biases of nodes that the host computes: they are part of what it gives."""
    nodes = {}
    for name in integers.host_synapses:
        node = floats.graph.nodes[name]
        if getattr(node, "bias", None) is not None:
            nodes[name] = grid.with_parameters(node, weight_array(node), np.zeros_like(node.bias))
    return floats.replace(graph=replace_nodes(floats.graph, nodes)) if nodes else floats


def constant(forms: Forms, rounded: bool = True) -> dict[str, str]:
    """Effects that cannot change anything between these two forms, each with the reason.

    rounded: whether any input is changed by the levels (:attr:`Encoded.rounded`).
    """
    floats, integers = forms.floats.contract.neurons, forms.integers.contract.neurons
    found = {TAU: "both forms step with the integer decays dv and du of the contract; time constants are derived from them"}
    if not rounded:
        found[INPUT] = "every input lies on a level of the encoder"
    parameters = (
        (WEIGHTS, forms.weights.values(), "every weight of the float network lies on the grid"),
        (THRESHOLDS, forms.thresholds.values(), "every threshold of the float network lies on the grid"),
        (DECAYS, forms.kept.values(), "the float network steps with decays that the chip holds: beta = 1 - dv/4096"),
        (BIASES, _parts(forms), "every bias of the float network lies on the grid"),
        (LATENCY, [two for _, two in forms.delays.values()], "both forms wait equally long on every connection"),
    )
    found |= {effect: reason for effect, pairs, reason in parameters if all(two.equal for two in pairs)}
    if BIASES in found and not any(np.any(part) for two in forms.biases.values() for part in two.floats):
        found[BIASES] = "the network has no biases"
    if LATENCY in found and not forms.delays:
        found[LATENCY] = "no connection has a delay; layers are compared in local time"
    if all(keep in (0, arithmetic.DECAY_ONE) for two in forms.kept.values() for side in two for keep in side):
        found[TRUNCATION] = "no state decays, so nothing is multiplied that could lose a fraction"
    worst = bounds.all_bounds(forms.integers).values()
    if all(bound.current < arithmetic.CURRENT_MAX and bound.membrane <= arithmetic.STATE_MAX for bound in worst):
        found[OVERFLOW] = "proven: no input of the declared range takes u or v out of 24 bits"
    if all(_reset_of(floats[name]) == _reset_of(integers[name]) for name in floats if floats[name].spiking):
        found[RESET] = "both forms reset alike"
    if not forms.floats.firing and not any(bound.readout_in_reach for bound in worst):
        found[FIRE] = "both forms fire above the threshold, and no readout can reach the one that the chip gives it"
    return {effect: found[effect] for effect in ORDER if effect in found}


def _parts(forms: Forms) -> list[Two]:
    """Biases into currents and biases onto membranes, one by one: they have different sizes."""
    return [Two(one, other) for two in forms.biases.values() for one, other in zip(two.floats, two.chip, strict=True)]


def _reset_of(spec: NeuronSpec) -> tuple[object, ...]:
    return spec.reset, spec.reset_delay, spec.clears_input, spec.double_to_refire


def run(forms: Forms, inputs: Encoded, switches: Switches) -> dict[str, interpreter.Activity]:
    """Run the network with these effects; states are in membrane units of the integer form.

    Args:
        forms: the two ends.
        inputs: of :meth:`Forms.encoded`.
        switches: what is on. A name outside :data:`ORDER` counts as off.
    """
    source = input_node(forms.integers.graph)
    own: dict[str, Mapping[str, Array]] = {}
    if switches.spared == INPUT and switches.layer:
        own[switches.layer] = {source: inputs.signal.floats}
    steps = {}
    for name in forms.integers.layers:
        host = inputs.host[name].pick(switches.holds(INPUT, name)) if name in inputs.host else 0.0
        steps[name] = _step(forms, name, switches, host)
    signals = {source: inputs.signal.pick(INPUT in switches.on)}
    return interpreter.run_with(_network(forms, switches), signals, steps, own=own)


def _network(forms: Forms, switches: Switches) -> Deployment:
    """The connections with their weights in units of the synaptic sum; biases and neurons stand in the steps."""
    graph, nodes = forms.integers.graph, dict[str, nir.NIRNode]()
    for name, (population, _) in grid.synapse_targets(forms.integers).items():
        weight = forms.weights[name].pick(switches.holds(WEIGHTS, population))
        nodes[name] = grid.with_parameters(graph.nodes[name], weight, np.zeros(len(weight)))
    for name in forms.integers.host_synapses:
        if getattr(graph.nodes[name], "bias", None) is not None:
            node = graph.nodes[name]
            nodes[name] = grid.with_parameters(node, weight_array(node), np.zeros_like(node.bias))
    for name, (population, _) in forms.delays.items():
        if not switches.holds(LATENCY, population):
            nodes[name] = forms.floats.graph.nodes[name]
    contract = forms.integers.contract.model_copy(update={"quantisation": None, "encoder": EncoderSpec()})
    return Deployment(replace_nodes(graph, nodes), contract, firing=forms.floats.firing)


def _step(forms: Forms, name: str, switches: Switches, host: Array | float) -> interpreter.Step:
    """One step of a population on what its synapses give it."""
    on = {effect: switches.holds(effect, name) for effect in ORDER}
    spec, threshold = _rule(forms, name, on)
    firing = interpreter.CANONICAL if on[FIRE] else forms.floats.firing.get(name, interpreter.CANONICAL)
    kept_u, kept_v = forms.kept[name].pick(on[DECAYS])
    into_current, onto_membrane = forms.biases[name].pick(on[BIASES])
    bias = onto_membrane + host

    def integrate(u: Array, v: Array, a: Array) -> tuple[Array, Array, int]:
        drive = a * (1 << arithmetic.STATE_SHIFT) + into_current
        u, v, wrapped, clipped = arithmetic.loihi_integrate_in_floats(
            u, v, drive, bias, kept_u, kept_v, on[TRUNCATION], on[OVERFLOW]
        )
        return u, v, int(np.count_nonzero(wrapped) + np.count_nonzero(clipped))

    def step(u: Array, v: Array, a: Array) -> tuple[Array, Array, Array, int]:
        u, after, overflows = integrate(u, v, a)
        return u, *interpreter.fire_and_reset(spec, firing, v, after, threshold), overflows

    def late_step(u: Array, v: Array, a: Array) -> tuple[Array, Array, Array, int]:
        before = interpreter.spikes_of(firing, v, threshold)
        clears_before = spec.reset == "zero" and not spec.clears_input
        u, v, overflows = integrate(u, arithmetic.reset_to_zero(v, before > 0) if clears_before else v, a)
        if spec.reset == "subtract":
            v = arithmetic.reset_by_subtraction(v, before, threshold)
        elif spec.clears_input:
            v = arithmetic.reset_to_zero(v, before > 0)
        return u, v, interpreter.spikes_of(firing, v, threshold), overflows

    return late_step if spec.spiking and spec.reset_delay and spec.reset != "none" else step


def _rule(forms: Forms, name: str, on: Mapping[str, bool]) -> tuple[NeuronSpec, Array]:
    """How a population fires and resets, and above what.

    The chip has no neuron without a threshold: what only integrates in the float network is reset to zero above the largest one.
    """
    floats, chip = forms.floats.contract.neurons[name], forms.integers.contract.neurons[name]
    if not floats.spiking:
        largest = np.asarray(forms.integers.populations[name].threshold << arithmetic.STATE_SHIFT, np.float64)
        return replace(floats, spiking=on[FIRE], reset="zero", reset_delay=0), largest
    threshold = np.broadcast_to(forms.thresholds[name].pick(on[THRESHOLDS]), forms.integers.shapes[name])
    return chip if on[RESET] else floats, np.where(np.isinf(threshold), interpreter.UNREACHED, threshold)
