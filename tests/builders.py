"""Deployments made from integers, for tests: networks on Loihi's grid, planned or random."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from snn_export.export.contract import ExecutionContract, Quantisation
from snn_export.export.deployment import Deployment, IntegerPopulation, IntegerSynapse
from snn_export.export.graph import latencies, shapes
from snn_export.models.arithmetic import FULL_CURRENT_DECAY, THRESHOLD_MAX
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutSpec

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class SynapsePlan:
    """One weight node between ``source`` (a layer's name, or "input") and the layer it belongs to.

    weight: integers, (out, in) for a dense layer, (out, in/groups, kL) or (out, in/groups, kH, kW) for a convolution; with
        ``scale`` the factors of a Scale, the shape of the source or a single one.
    before, after: steps of delay in front of and behind it, one number or an array of the features' shape; 0 makes no node.
    bias: mantissas (out,), current_bias: added to the sum (out,); or None.
    """

    weight: Array
    source: str = "input"
    weight_exponent: int = 0
    bias: Array | None = None
    current_bias: Array | None = None
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] | str = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    scale: bool = False
    before: int | Array = 0
    after: int | Array = 0


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """A population, the weight node that drives it first (fields as in :class:`SynapsePlan`), and ``more`` of them.

    Weights are even integers in -256..254, or any in -255..255 where they have one sign. Sources of ``more`` may be later layers
    or the layer itself, which makes a loop; a matrix behind a map gets a Flatten.
    """

    name: str
    weight: Array
    source: str = "input"
    du: int = FULL_CURRENT_DECAY
    dv: int = 0
    threshold: int = THRESHOLD_MAX
    bias: Array | None = None
    bias_exponent: int = 0
    weight_exponent: int = 0
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] | str = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    current_bias: Array | None = None
    scale: bool = False
    before: int | Array = 0
    after: int | Array = 0
    reset_interval: int = 0
    reset_offset: int = 0
    more: tuple[SynapsePlan, ...] = ()

    @property
    def synapses(self) -> tuple[SynapsePlan, ...]:
        """All weight nodes that lead to it."""
        return (SynapsePlan(**{item.name: getattr(self, item.name) for item in fields(SynapsePlan)}), *self.more)


@dataclass(frozen=True, eq=False)
class Plan:
    """A network: layers in any order after their first sources. Input levels lie in low..high; the readout is ``readout``.

    encoder: replaces the one that ``low``, ``high`` and ``events`` make.
    """

    input_shape: tuple[int, ...]
    layers: tuple[LayerPlan, ...]
    steps: int = 8
    low: int = 0
    high: int = 1
    events: bool = False
    readout: str = ""
    extra_nodes: dict[str, nir.NIRNode] = field(default_factory=dict)
    encoder: EncoderSpec | None = None


def deployment_from(plan: Plan) -> Deployment:
    """The quantised deployment of a plan. Scale is 1, so a level is a real input and one membrane unit is 1/64."""
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(plan.input_shape)})}
    edges: list[tuple[str, str]] = []
    synapses, populations, neurons = {}, {}, {}
    encoder = plan.encoder or EncoderSpec("events" if plan.events else "direct", gain=1.0, low=plan.low, high=plan.high)
    axes = {"input": len(plan.input_shape)}
    for layer in plan.layers:
        axes[layer.name] = axes[layer.source] if layer.scale else max(1, layer.weight.ndim - 1)
    for layer in plan.layers:
        nodes[layer.name] = nir.I(r=np.ones(1))  # replaced below, when the number of neurons is known
        for number, synapse in enumerate(layer.synapses):
            name = f"{layer.name}.weight" + (f"{number}" if number else "")
            edges += _path(nodes, name, layer.name, synapse, axes[synapse.source])
            if encoder.kind != "bias" or synapse.source != "input":
                synapses[name] = _integers(synapse)
        populations[layer.name] = IntegerPopulation(layer.threshold, layer.du, layer.dv, 1.0, layer.bias_exponent)
        neurons[layer.name] = NeuronSpec(layer.dv, layer.du, reset_interval=layer.reset_interval, reset_offset=layer.reset_offset)
    readout = plan.readout or plan.layers[-1].name
    nodes |= {**plan.extra_nodes, "output": nir.Output({"output": np.array([1])})}
    edges.append((readout, "output"))
    found = shapes(nir.NIRGraph(nodes, edges, type_check=False))
    for layer in plan.layers:
        nodes[layer.name] = _neuron_node(layer, found[layer.name])
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    contract = ExecutionContract(
        dt=1e-3, steps=plan.steps, latency=latencies(graph, 1e-3), neurons=neurons, readout=ReadoutSpec(readout), encoder=encoder,
        quantisation=Quantisation(
            target="loihi2", weight_bits=8, scale=dict.fromkeys(neurons, 1.0), binding=dict.fromkeys(neurons, "test")
        ),
    )  # fmt: skip
    return Deployment(graph, contract, synapses, populations)


def _path(nodes: dict[str, nir.NIRNode], name: str, target: str, synapse: SynapsePlan, axes: int) -> list[tuple[str, str]]:
    """Add the nodes from a synapse's source to its target; returns the edges."""
    chain, shaped = [synapse.source], np.ndim(synapse.before) == axes > 1
    wanted = axes if synapse.scale else max(1, synapse.weight.ndim - 1)
    delays = {"before": synapse.before, "after": synapse.after}
    made = {f"{name}.{key}": nir.Delay(np.atleast_1d(steps) * 1e-3) for key, steps in delays.items() if np.any(steps)}
    flat = (
        {name.replace(".weight", ".flatten"): nir.Flatten({"input": np.ones(axes)}, start_dim=wanted - 1, end_dim=-1)}
        if axes > wanted
        else {}
    )
    first = [key for key in made if key.endswith("before")]
    chain += [*first, *flat] if shaped else [*flat, *first]
    chain += [name, *(key for key in made if key.endswith("after")), target]
    nodes |= {**made, **flat, name: _weight_node(synapse)}
    return list(pairwise(chain))


def _integers(synapse: SynapsePlan) -> IntegerSynapse:
    bias = None if synapse.bias is None else synapse.bias.astype(np.int16)
    current = None if synapse.current_bias is None else synapse.current_bias.astype(np.int32)
    return IntegerSynapse(synapse.weight.astype(np.int16), synapse.weight_exponent, bias, current)


def _weight_node(synapse: SynapsePlan) -> nir.NIRNode:
    weight = synapse.weight.astype(np.float64)
    if synapse.scale:
        return nir.Scale(weight)
    bias = np.zeros(len(weight)) if synapse.bias is None else synapse.bias.astype(np.float64)
    if weight.ndim == 2:
        return nir.Affine(weight, bias)
    stride, padding, dilation, groups = synapse.stride, synapse.padding, synapse.dilation, synapse.groups
    if weight.ndim == 4:
        return nir.Conv2d(None, weight, stride, padding, dilation, groups, bias)
    return nir.Conv1d(None, weight, stride[0], padding if isinstance(padding, str) else padding[0], dilation[0], groups, bias)


def _neuron_node(layer: LayerPlan, shape: tuple[int, ...]) -> nir.NIRNode:
    ones = np.ones(shape)
    tau = 1e-3 * 4096.0 / max(layer.dv, 1)
    if layer.du == FULL_CURRENT_DECAY:
        return nir.LIF(ones * tau, ones, ones * 0, ones * layer.threshold, ones * 0)
    tau_syn = 1e-3 * 4096.0 / (layer.du + 1)
    return nir.CubaLIF(ones * tau_syn, ones * tau, ones, ones * 0, ones * layer.threshold, ones * 0, ones)


def even(rng: Generator, shape: tuple[int, ...], reach: int = 254) -> Array:
    """Random even integers in -reach..reach; ``reach`` 256 adds the one value that exists on the negative side only."""
    return 2 * rng.integers(-(reach // 2), min(reach, 254) // 2 + 1, shape)


def random_neuron(rng: Generator, layer: LayerPlan, drive: int) -> LayerPlan:
    """A layer with random decays, threshold and biases; ``drive`` is the size of its sums, so that it fires sometimes."""
    decays = [0, 1, 2047, 4094, 4095]
    draw = lambda: int(rng.choice(decays)) if rng.random() < 0.4 else int(rng.integers(0, 4096))
    bias = rng.integers(-4096, 4096, len(layer.weight)) if rng.random() < 0.7 else None
    threshold = (
        int(rng.choice([0, THRESHOLD_MAX, THRESHOLD_MAX]))
        if rng.random() < 0.2
        else int(rng.integers(0, min(THRESHOLD_MAX, 4 * drive + 2)))
    )
    return replace(layer, du=draw(), dv=draw(), threshold=threshold, bias=bias, bias_exponent=int(rng.integers(0, 8)))


def random_dense(rng: Generator, name: str, source: str, sizes: tuple[int, int], reach: int = 256) -> LayerPlan:
    """A dense layer with ``sizes`` = (inputs, outputs), random weights, and a random neuron."""
    weight, sign = even(rng, (sizes[1], sizes[0]), reach), int(rng.choice([-1, 0, 0, 1]))
    weight = sign * np.minimum(np.abs(weight), 254) if sign else weight  # one sign only drives u and v to their limits
    layer = LayerPlan(name, weight, source, weight_exponent=int(rng.integers(0, 4)))
    return random_neuron(rng, layer, reach << layer.weight_exponent)


def random_conv(rng: Generator, name: str, source: str, channels: tuple[int, int], groups: int = 1) -> LayerPlan:
    """A convolution with a kernel, stride, padding and dilation that are all asymmetric where they can be."""
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    layer = LayerPlan(
        name, even(rng, (channels[1], channels[0] // groups, *kernel), 256), source, groups=groups,
        stride=(int(rng.integers(1, 3)), int(rng.integers(1, 3))), padding=(int(rng.integers(0, 3)), int(rng.integers(0, 3))),
        dilation=(int(rng.integers(1, 3)), int(rng.integers(1, 3))),
    )  # fmt: skip
    return random_neuron(rng, layer, 256)


def random_deployment(rng: Generator, *, steps: int = 8, high: int = 15, low: int = 0, channels: int = 4) -> Deployment:
    """Conv (not square, asymmetric), grouped conv, dense readout; graded input of shape (2, 9, 7)."""
    first = random_conv(rng, "conv1", "input", (2, channels))
    second = random_conv(rng, "conv2", "conv1", (channels, 2 * channels), groups=2)
    partial = deployment_from(Plan((2, 9, 7), (first, second), steps, low, high))
    neurons = int(np.prod(partial.shapes["conv2"]))
    last = LayerPlan("readout", even(rng, (10, neurons), 100), "conv2", dv=0)
    return deployment_from(Plan((2, 9, 7), (first, second, last), steps, low, high))


def random_inputs(rng: Generator, deployment: Deployment, samples: int) -> Array:
    """Inputs on the grid of a deployment's encoder: (B, *shape), or (T, B, *shape) for events."""
    encoder = deployment.contract.encoder
    shape = (samples, *deployment.input_shape)
    if encoder.kind == "events":
        shape = (deployment.contract.steps, *shape)
    return rng.integers(encoder.low, encoder.high + 1, shape).astype(np.float64)
