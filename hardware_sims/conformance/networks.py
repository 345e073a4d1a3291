"""Tiny deployments for the checks, stated once in the canonical neuron's units and built as floats or as Loihi's integers.

Every number is chosen so that nothing is rounded: weights and thresholds are multiples of 1/32, decays and the time step are
powers of two, and a float32 backend that computes the canonical neuron gets the same bits as a float64 one. On the integer grid
a real 1.0 is 4096 membrane units. Whether a spike is right is then never a question of tolerance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import grid
from snn_export.export.contract import ExecutionContract, Quantisation
from snn_export.export.deployment import Deployment, IntegerPopulation, IntegerSynapse
from snn_export.export.graph import CONV_TYPES, Shape, latencies, shapes, weight_array
from snn_export.export.passes.absorb_average_pooling import AbsorbAveragePooling
from snn_export.export.passes.balance_latency import BalanceLatency
from snn_export.export.passes.compose_linear import ComposeLinear
from snn_export.export.passes.insert_weights import InsertWeights
from snn_export.export.passes.portable_form import PortableForm
from snn_export.export.passes.rounding import GridRules, InputRange, integers
from snn_export.export.passes.split_populations import SplitPopulations
from snn_export.models.arithmetic import DECAY_ONE, FULL_CURRENT_DECAY, state_units, tau_from_integer
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutRule, ReadoutSpec, Reset
from snn_export.models.weight_grid import WEIGHT_BITS

Array = NDArray[Any]

DT = 2.0**-10
"""Seconds per step of the kit's networks: about a millisecond, and 1/tau is exact."""
SCALE = 64.0
"""Integer weight of a real 1.0."""
HALF = DECAY_ONE // 2
"""Decay of a membrane or current that halves in every step: dv = HALF, du = HALF - 1."""
HALF_CURRENT = HALF - 1
BIAS_EXPONENT = 6
"""Biases are multiples of 1/64, which every chip backend holds; lava-dl's netx holds no other exponent."""
EVENTS = EncoderSpec("events")
EXACTNESS = 1e-12


@dataclass(frozen=True, eq=False)
class Synapse:
    """One way from ``source`` into a population.

    weight: what a spike adds to u, (out, in), (out, in/groups, k) or (out, in/groups, kH, kW); None for a bare edge. With
        ``scale``, the factors of a Scale.
    bias: what every step adds to u, (out,); None for none.
    front: nodes in front of the weights: pools, Flatten, Delay.
    """

    weight: Any
    source: str = "input"
    bias: Any = None
    front: tuple[nir.NIRNode, ...] = ()
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    scale: bool = False


@dataclass(frozen=True, eq=False)
class Layer:
    """A population of canonical neurons, and the synapses into it.

    r, w_in: NIR's constants as multiples of the portable ones. The weights written are divided by them, so that the network is
        the same whatever they are.
    v_leak: NIR's resting potential, real units.
    threshold: one number, or one per neuron.
    """

    name: str
    synapses: tuple[Synapse, ...]
    threshold: Any = 1.0
    dv: int = 0
    du: int = FULL_CURRENT_DECAY
    reset: Reset = "zero"
    reset_delay: int = 0
    clears_input: bool = False
    double_to_refire: bool = False
    spiking: bool = True
    reset_interval: int = 0
    r: float = 1.0
    w_in: float = 1.0
    v_leak: float = 0.0

    @property
    def spec(self) -> NeuronSpec:
        """The contract's statement of it."""
        reset: Reset = self.reset if self.spiking else "none"
        return NeuronSpec(
            self.dv, self.du, reset, self.reset_delay, self.spiking, self.reset_interval,
            clears_input=self.clears_input, double_to_refire=self.double_to_refire,
        )  # fmt: skip

    @property
    def kind(self) -> type[nir.NIRNode]:
        """NIR's node type."""
        if self.du != FULL_CURRENT_DECAY:
            found: type[Any] = nir.CubaLIF if self.spiking else nir.CubaLI
        elif self.dv == DECAY_ONE:
            found = nir.Threshold
        elif self.dv:
            found = nir.LIF if self.spiking else nir.LI
        else:
            found = nir.IF if self.spiking else nir.I
        return found

    @property
    def gain(self) -> float:
        """What NIR's neuron multiplies its input with on the way to the membrane."""
        loss = (1.0 - self.spec.beta) if self.dv else 1.0
        return 1.0 if self.dv == DECAY_ONE else loss * self.r * self.w_in


@dataclass(frozen=True, eq=False)
class Network:
    """Layers in any order after their first sources; the last one is read out unless ``readout`` names another.

    rule: None: spike counts where the readout spikes, its last membrane where it does not.
    """

    layers: tuple[Layer, ...]
    steps: int
    input_shape: Shape = (1,)
    dt: float = DT
    encoder: EncoderSpec = EVENTS
    rule: ReadoutRule | None = None
    readout: str = ""


def network(steps: int, *layers: Layer, **options: Any) -> Network:
    """A :class:`Network`, layers listed."""
    return Network(layers, steps, **options)


def dense(name: str, weight: Any, source: str = "input", bias: Any = None, **neuron: Any) -> Layer:
    """A population behind one weight node; a single number stands for a 1 x 1 matrix."""
    return Layer(name, (Synapse(np.atleast_2d(weight) if np.ndim(weight) < 2 else weight, source, bias),), **neuron)


def float_deployment(net: Network) -> Deployment:
    """The network as a NIR graph in real units with its contract."""
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(net.input_shape)})}
    edges: list[tuple[str, str]] = []
    for layer in net.layers:
        nodes[layer.name] = nir.I(r=np.ones(1))  # its number of neurons is known below
        for number, synapse in enumerate(layer.synapses):
            made = dict(_nodes(layer, synapse, f"{number}" if number else ""))
            edges += pairwise((synapse.source, *made, layer.name))
            nodes |= made
    last = net.readout or net.layers[-1].name
    edges.append((last, "output"))
    nodes["output"] = nir.Output({"output": np.ones(1, np.int64)})
    found = shapes(nir.NIRGraph(nodes, edges, type_check=False))
    for layer in net.layers:
        nodes[layer.name] = _neuron(layer, found[layer.name], net.dt)
    for source, name in edges:
        if isinstance(nodes[name], CONV_TYPES):
            nodes[name] = _with_input_shape(nodes[name], found[source][1:])
    nodes["output"] = nir.Output({"output": np.array(found[last])})
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    spiking = next(layer.spiking for layer in net.layers if layer.name == last)
    contract = ExecutionContract(
        dt=net.dt, steps=net.steps, latency=latencies(graph, net.dt), encoder=net.encoder,
        neurons={layer.name: layer.spec for layer in net.layers},
        readout=ReadoutSpec(last, net.rule or ("spike_count" if spiking else "membrane_last")),
    )  # fmt: skip
    return Deployment(graph, contract)


def _nodes(layer: Layer, synapse: Synapse, number: str) -> Iterator[tuple[str, nir.NIRNode]]:
    """Nodes between a source and the population, by name, in order of flow."""
    for index, node in enumerate(synapse.front):
        yield f"{layer.name}.front{number}{index or ''}", node
    if synapse.weight is None:
        return
    weight = np.asarray(synapse.weight, np.float64) / layer.gain
    bias = None if synapse.bias is None else np.asarray(synapse.bias, np.float64) / layer.gain
    yield f"{layer.name}.weight{number}", _weight_node(synapse, weight, bias)


def _weight_node(synapse: Synapse, weight: Array, bias: Array | None) -> nir.NIRNode:
    if synapse.scale:
        return nir.Scale(weight)
    if weight.ndim == 2:
        return nir.Linear(weight) if bias is None else nir.Affine(weight, bias)
    kind = nir.Conv1d if weight.ndim == 3 else nir.Conv2d
    bias = np.zeros(len(weight)) if bias is None else bias
    return kind(None, weight, synapse.stride, synapse.padding, synapse.dilation, synapse.groups, bias)


def _with_input_shape(node: Any, given: Shape) -> nir.NIRNode:
    shape = given[0] if isinstance(node, nir.Conv1d) else given
    return type(node)(shape, node.weight, node.stride, node.padding, node.dilation, node.groups, node.bias)


def _neuron(layer: Layer, shape: Shape, dt: float) -> nir.NIRNode:
    """The NIR node of a population, all constants in its shape."""

    def full(value: Any) -> Array:
        return np.broadcast_to(np.asarray(value, np.float64), shape).copy()

    kind = layer.kind
    if kind is nir.Threshold:
        return nir.Threshold(full(layer.threshold))
    constants: dict[str, Array] = {"r": full(layer.r if layer.dv else layer.r / dt)}
    if layer.spiking:
        constants |= {"v_threshold": full(layer.threshold), "v_reset": full(0.0)}
    if layer.dv:
        constants |= {"v_leak": full(layer.v_leak)}
        tau = "tau_mem" if kind in (nir.CubaLIF, nir.CubaLI) else "tau"
        constants[tau] = full(tau_from_integer(layer.dv, dt))
    if kind in (nir.CubaLIF, nir.CubaLI):
        constants["tau_syn"] = full(tau_from_integer(layer.du + 1, dt))
        constants["w_in"] = full(layer.w_in / (1.0 - layer.spec.alpha))
    return kind(**constants)


def lowered(deployment: Deployment) -> Deployment:
    """The deployment in the form a chip needs: pools absorbed, one weight node per connection, uniform populations, r = 1."""
    passes = (AbsorbAveragePooling(), InsertWeights(), ComposeLinear(), SplitPopulations(), PortableForm(), BalanceLatency())
    for step in passes:
        deployment = step(deployment)
    return deployment


def on_integers(
    deployment: Deployment, low: int = 0, high: int = 1, gain: float = 1.0, bias_exponent: int = BIAS_EXPONENT
) -> Deployment:
    """A float deployment on the integer grid of Loihi 2, one real unit = ``SCALE``; nothing is rounded.

    Args:
        deployment: float.
        low: smallest input level.
        high: largest input level.
        gain: levels per real input of 1.0.
        bias_exponent: of all biases.

    Raises:
        ValueError: for a parameter that is not on the grid, which would be a mistake of the check that made it.
    """
    ready = lowered(deployment)
    encoder = ready.contract.encoder
    if encoder.kind in ("direct", "events"):
        encoder = replace(encoder, gain=gain, low=low, high=high)
    rules = GridRules(WEIGHT_BITS, bias_exponent, InputRange(low / gain, high / gain))
    synapses, populations = integers(ready, encoder, dict.fromkeys(ready.layers, SCALE), rules)
    synapses |= _resting(ready, synapses, populations)
    placed = grid.on_grid(ready, encoder, synapses, populations)
    _check_unrounded(ready, placed)
    stated = Quantisation(
        target="loihi2", weight_bits=WEIGHT_BITS, scale=dict.fromkeys(ready.layers, SCALE),
        binding=dict.fromkeys(ready.layers, "chosen by the conformance kit"),
    )  # fmt: skip
    return placed.replace(contract=placed.contract.model_copy(update={"quantisation": stated}))


def _resting(
    deployment: Deployment, synapses: Mapping[str, IntegerSynapse], populations: Mapping[str, IntegerPopulation]
) -> dict[str, IntegerSynapse]:
    """Synapses with v_leak of the populations behind a synaptic filter as a bias onto their membrane."""
    found = {}
    for name, population in populations.items():
        leak = np.ravel(getattr(deployment.graph.nodes[name], "v_leak", np.zeros(1)))
        if np.any(leak) and grid.is_filtered(deployment, name):
            weight = deployment.wires[name][0].weight
            unit = state_units(population.scale) / (1 << population.bias_exponent)
            mantissa = (1.0 - deployment.contract.neurons[name].beta) * leak * unit
            found[weight] = replace(synapses[weight], bias_mantissa=np.rint(mantissa).astype(np.int16))
    return found


def _check_unrounded(ready: Deployment, placed: Deployment) -> None:
    for name, node in ready.graph.nodes.items():
        pairs: Sequence[tuple[Any, Any]] = ()
        if name in placed.synapses:
            other = placed.graph.nodes[name]
            biases = (getattr(one, "bias", None) for one in (node, other))
            before, after = (0.0 if bias is None else bias for bias in biases)
            pairs = ((weight_array(node), weight_array(other)), (before, after))
        elif name in placed.populations and ready.contract.neurons[name].spiking:
            pairs = ((grid.threshold_of(node), grid.threshold_of(placed.graph.nodes[name])),)
        if not all(np.allclose(one, other, rtol=0, atol=EXACTNESS) for one, other in pairs):
            raise ValueError(f"{name} is not on the grid of the conformance kit's integers")
