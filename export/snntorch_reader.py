"""snnTorch -> Deployment: our own reader of trained modules.

snnTorch 1.0.0's own exporter loses the reset mechanism, fixes dt at 1e-4 s, forgets average-pool padding and drops modules it
does not know with a printed line. This one reads or refuses, and refuses everything it cannot read at once. It folds
batch-norm while it reads, because NIR cannot hold it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import nir
import numpy as np
import snntorch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_export.export.contract import ExecutionContract, Lineage
from snn_export.export.deployment import Deployment
from snn_export.export.graph import CONV_TYPES, Shape, latencies, shapes
from snn_export.export.snntorch_neurons import population_node, read_lif, read_neuron, refused
from snn_export.models.delay import Delay
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import Lif
from snn_export.models.neurons.recurrent import Recurrent
from snn_export.models.residual import ResidualSum
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutRule, ReadoutSpec
from snn_export.models.unroll import leaves

DEFAULT_DT = 1e-3


@dataclass
class _Reading:
    """State while a network is read from front to back.

    heads: the nodes whose outputs, added up, are the value at this point; several behind a residual sum.
    shape: of that value, None where a finding left it unknown.
    foldable: the weight node right before this point, where a batch-norm may still be folded into it.
    """

    dt: float
    round_decays: bool
    shape: Shape | None
    nodes: dict[str, nir.NIRNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    neurons: dict[str, NeuronSpec] = field(default_factory=dict)
    fold_magnitude: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    findings: list[Diagnostic] = field(default_factory=list)
    heads: tuple[str, ...] = ()
    foldable: str | None = None

    @property
    def known_shape(self) -> Shape:
        """The shape; () stands for an unknown one, which only a network that is refused anyway has."""
        return self.shape or ()

    def add(self, name: str, node: nir.NIRNode) -> None:
        """Append a node behind the heads; its name becomes its id."""
        for head in self.heads:
            if head in self.neurons and not self.neurons[head].spiking and not isinstance(node, nir.Output):
                why = "it never spikes, so nothing behind it would hear anything"
                raise refused("SNX210", head, "is a readout in the middle of the network", why, "move it to the end")
        if self.shape is not None:
            self.shape = output_shape(name, node, self.shape)
        self.nodes[name] = node
        self.edges += [(head, name) for head in self.heads]
        self.heads, self.foldable = (name,), None

    def add_population(self, name: str, spec: NeuronSpec, threshold: float = 1.0) -> None:
        """Append a population."""
        self.add(name, population_node(spec, threshold, self.known_shape, self.dt))
        self.neurons[name] = spec

    def add_loop(self, name: str, weights: str, node: nir.NIRNode) -> None:
        """Let the population ``name`` hear itself through a weight node."""
        if self.shape is not None and (found := output_shape(weights, node, self.shape)) != self.shape:
            why = "its recurrence must give every neuron one current"
            raise refused(
                "SNX211", name, f"maps spikes of shape {self.shape} to {found}", why, "keep the shape: padding = k // 2"
            )
        self.nodes[weights] = node
        self.edges += [(name, weights), (weights, name)]


def output_shape(name: str, node: nir.NIRNode, given: Shape) -> Shape:
    """Shape behind one node. Raises SNX206 where the node does not take ``given``."""
    if isinstance(node, nir.Input):
        return given
    graph = nir.NIRGraph({"": nir.Input({"input": np.array(given)}), name: node}, [("", name)], type_check=False)
    return shapes(graph)[name]


def deployment_from_snntorch(
    layers: nn.Sequential,
    input_shape: Shape,
    steps: int,
    *,
    rule: ReadoutRule | None = None,
    encoder: EncoderSpec | None = None,
    dt: float = DEFAULT_DT,
    round_decays: bool = False,
) -> Deployment:
    """Read a trained ``nn.Sequential`` of torch layers and snnTorch neurons into a float Deployment.

    Understood: Conv1d, Conv2d, Linear, BatchNorm1d/2d after any of them (folded), AvgPool2d, Flatten, Dropout and Identity
    (nothing at inference), ``snntorch.Leaky``, ``Synaptic``, ``RLeaky``, ``RSynaptic``; :class:`Lif`, :class:`Recurrent`,
    :class:`Delay`, :class:`Integrator` and :class:`ResidualSum` of ``snn_export.models``; nested ``nn.Sequential``. Parameters
    are taken as they stand in evaluation mode and widened to float64.

    Args:
        layers: the network; names of its layers become layer ids, "block1.conv1" for those inside a container "block1".
        input_shape: shape of one sample, (channels, rows, columns), (channels, length) or (features,).
        steps: T.
        rule: how the last population is read out; by default its last membrane, or its spike counts where it spikes.
        encoder: default direct encoding.
        dt: seconds per step, for the time constants NIR stores.
        round_decays: accept a beta or alpha that is not 1 - n/4096 and take the nearest that is. Changes the network; recorded
            in the lineage.

    Returns:
        A deployment with unit-gain neurons (r = tau/dt); ``passes.portable_form`` brings it to r = 1.

    Raises:
        UserError: SNX210 unknown module, SNX211 neuron settings, SNX213 a residual sum that does not fit, SNX214 a delay behind
            a bias, SNX215 a filter without leak, SNX240 misplaced batch-norm, SNX241 a decay off the grid, SNX350 a membrane that
            does not begin at zero, SNX206 shapes; all findings of all layers in one error.
    """
    reading = _Reading(dt, round_decays, tuple(int(size) for size in input_shape))
    _check_request(reading, layers, steps)
    reading.add("input", nir.Input({"input": np.array(reading.shape)}))
    _read_layers(reading, "", layers)
    last = reading.heads[-1]
    refused_last = next(reversed(list(leaves(layers))), ("",))[0] in {item.where for item in reading.findings}
    if (len(reading.heads) != 1 or last not in reading.neurons) and not refused_last:
        why, fix = "predictions are read from a population", "end with Integrator()"
        reading.findings += refused("SNX210", last, "is the last layer and has no state", why, fix).diagnostics
    if reading.findings:
        raise UserError.from_diagnostics(tuple(reading.findings))
    readout = ReadoutSpec(last, rule or ("spike_count" if reading.neurons[last].spiking else "membrane_last"))
    reading.add("output", nir.Output({"output": np.array(reading.shape)}))
    graph = nir.NIRGraph(reading.nodes, reading.edges, type_check=False)
    contract = ExecutionContract(
        dt=dt,
        steps=steps,
        latency=latencies(graph, dt),
        encoder=encoder or EncoderSpec(),
        neurons=reading.neurons,
        readout=readout,
        origin={name: name for name in reading.neurons},
        lineage=Lineage(passes=("fold_batch_norm", *(("round_decays",) if round_decays else ()))),
    )
    return Deployment(graph, contract, fold_magnitude=MappingProxyType(reading.fold_magnitude))


def _check_request(reading: _Reading, layers: nn.Sequential, steps: int) -> None:
    if steps < 1 or not (math.isfinite(reading.dt) and reading.dt > 0):
        what, why = (
            f"cannot have steps = {steps} and dt = {reading.dt}",
            "a network runs for one step or more, each of a duration",
        )
        reading.findings += refused("SNX109", "contract", what, why, "pass steps >= 1 and dt > 0 in seconds").diagnostics
        reading.dt = DEFAULT_DT  # only to go on looking
    seen: set[int] = set()
    for name, module in leaves(layers):
        if id(module) in seen:
            why = "torch names a shared module once, so its second place would be lost"
            reading.findings += refused("SNX210", name, "holds a module of another place", why, "make one per place").diagnostics
        seen.add(id(module))


def _read_layers(reading: _Reading, outer: str, layers: nn.Module) -> None:
    for child, module in layers.named_children():
        name = f"{outer}.{child}" if outer else child
        if isinstance(module, nn.Sequential):
            _read_layers(reading, name, module)
            continue
        if isinstance(module, ResidualSum):
            _read_sum(reading, name, module)
            continue
        try:
            if name in ("input", "output") or "/" in name:
                why = "NIR's input and output nodes and HDF5 paths need it"
                raise refused("SNX210", name, "is a reserved name", why, "rename it")
            reader = _reader_of(name, module)
            before = reading.shape
            reader(reading, name, module)
        except UserError as error:
            # Go on behind it, so that all findings are told at once; what follows only from an unknown shape is not one.
            reading.findings += [item for item in error.diagnostics if reading.shape is not None or item.code != "SNX206"]
            reading.shape = _shape_behind(module, reading.shape)
            reading.foldable = None
        else:
            if before is None:
                reading.shape = _shape_behind(module, None)


def _read_sum(reading: _Reading, name: str, module: ResidualSum) -> None:
    """Both paths from the same heads; behind them, their ends together are the value."""
    start, shape, ends, ended = reading.heads, reading.shape, [], []
    for path in ("main", "shortcut"):
        reading.heads, reading.shape, reading.foldable = start, shape, None
        found = module.get_submodule(path)
        if isinstance(found, nn.Sequential):
            _read_layers(reading, f"{name}.{path}", found)
        ends.append(reading.heads)
        ended.append(reading.shape)
    reading.heads, reading.shape, reading.foldable = ends[0] + ends[1], ended[0], None
    why = "the two paths of a residual sum end in the same neurons, and each is a connection of its own"
    if None not in ended and ended[0] != ended[1]:
        fix = "project the shortcut, e.g. a 1x1 convolution with the main path's stride"
        reading.findings += refused("SNX213", name, f"adds shapes {ended[0]} and {ended[1]}", why, fix).diagnostics
    if set(ends[0]) & set(ends[1]):
        fix = "put a weight layer into one path, or multiply the weights before it by two"
        reading.findings += refused("SNX213", name, "adds a value to itself", why, fix).diagnostics
        reading.heads = ends[0]


def _read_conv(reading: _Reading, name: str, module: nn.Conv1d | nn.Conv2d) -> None:
    reading.add(name, _conv_node(name, module, reading.known_shape))
    reading.foldable = name


def _conv_node(name: str, module: nn.Conv1d | nn.Conv2d, shape: Shape) -> nir.NIRNode:
    if module.padding_mode != "zeros":
        why = "NIR's convolutions pad with zeros"
        raise refused("SNX210", name, f"pads with {module.padding_mode!r}", why, "use padding_mode='zeros'")
    flat = isinstance(module, nn.Conv1d)

    def plain(value: Any) -> Any:
        return value if isinstance(value, str) else int(value[0]) if flat else tuple(value)

    return (nir.Conv1d if flat else nir.Conv2d)(
        input_shape=(int(shape[1]) if flat else shape[1:]) if len(shape) > 1 else None,
        weight=_array(module.weight),
        stride=plain(module.stride),
        padding=plain(module.padding),
        dilation=plain(module.dilation),
        groups=module.groups,
        bias=_bias(module.bias, module.out_channels),
    )


def _read_linear(reading: _Reading, name: str, module: nn.Linear) -> None:
    reading.add(name, _linear_node(module))
    reading.foldable = name


def _linear_node(module: nn.Linear) -> nir.NIRNode:
    return nir.Affine(weight=_array(module.weight), bias=_bias(module.bias, module.out_features))


def _read_batch_norm(reading: _Reading, name: str, module: nn.BatchNorm2d | nn.BatchNorm1d) -> None:
    """Y = (x - mean) g + b with g = gamma / sqrt(var + eps): weights times g, bias (bias - mean) g + b."""
    target = reading.nodes.get(reading.foldable or "")
    if not isinstance(target, (*CONV_TYPES, nir.Affine)) or reading.foldable is None:
        raise refused(
            "SNX240",
            name,
            f"follows {' and '.join(reading.heads)}, which has no weights to fold it into",
            "NIR has no batch-norm; it can only be folded into the convolution or Linear right before it",
            "move the batch-norm directly behind a Conv1d, Conv2d or Linear",
        )
    if module.running_mean is None or module.running_var is None:
        raise refused("SNX240", name, "keeps no running statistics", "inference needs them", "use track_running_stats=True")
    if len(module.running_mean) != len(target.weight):
        what = f"has {len(module.running_mean)} channels, {reading.foldable} has {len(target.weight)}"
        raise refused("SNX240", name, what, "one gain belongs to one channel", "give both the same number of channels")
    mean, variance = _array(module.running_mean), _array(module.running_var)
    gain = (_array(module.weight) if module.affine else np.ones_like(mean)) / np.sqrt(variance + module.eps)
    shift = _array(module.bias) if module.affine else np.zeros_like(mean)
    reading.fold_magnitude[reading.foldable] = np.abs(target.bias * gain) + np.abs(mean * gain) + np.abs(shift)
    target.weight = target.weight * gain.reshape(-1, *(1,) * (target.weight.ndim - 1))
    target.bias = (target.bias - mean) * gain + shift
    reading.foldable = None


def _read_pool(reading: _Reading, name: str, module: nn.AvgPool2d) -> None:
    if module.ceil_mode or not module.count_include_pad or module.divisor_override:
        raise refused(
            "SNX210",
            name,
            "uses ceil_mode, count_include_pad=False or a divisor",
            "NIR's AvgPool2d has no such fields",
            "use a plain AvgPool2d(kernel)",
        )
    size = [np.broadcast_to(np.asarray(value), 2).copy() for value in (module.kernel_size, module.stride, module.padding)]
    reading.add(name, nir.AvgPool2d(kernel_size=size[0], stride=size[1], padding=size[2]))


def _read_flatten(reading: _Reading, name: str, module: nn.Flatten) -> None:
    axes = len(reading.known_shape) + 1  # torch counts the batch axis, NIR does not
    start, end = module.start_dim % axes, module.end_dim % axes
    if not 1 <= start <= end and reading.shape is not None:
        what = f"flattens axes {module.start_dim} to {module.end_dim}"
        raise refused("SNX210", name, what, "the batch axis must be left alone", "use nn.Flatten()")
    reading.add(name, nir.Flatten({"input": np.array(reading.known_shape)}, start_dim=start - 1, end_dim=end - 1))


def _read_delay(reading: _Reading, name: str, module: Delay) -> None:
    biased = _biased(reading, reading.heads)
    if biased:
        why = "the chip adds a bias in every step from the first on; a delay in front of it would hold it back"
        raise refused("SNX214", name, f"delays the bias of {biased}", why, "put the Delay in front of the weight layer")
    steps = np.asarray(module.steps.cpu().numpy(), np.float64)
    reading.add(name, nir.Delay(np.broadcast_to(steps, reading.known_shape).copy() * reading.dt))


def _biased(reading: _Reading, names: tuple[str, ...]) -> str | None:
    """A node with a bias between these nodes and the populations before them."""
    for name in names:
        if np.any(getattr(reading.nodes[name], "bias", 0)):
            return name
        if name not in reading.neurons:
            found = _biased(reading, tuple(source for source, target in reading.edges if target == name))
            if found:
                return found
    return None


def _read_spiking(reading: _Reading, name: str, module: Any) -> None:
    """A Leaky as LIF or, without leak, IF; a Synaptic as CubaLIF; with their recurrence where they have one."""
    neuron = module.neuron if isinstance(module, Recurrent) else module
    found = read_neuron(name, neuron, reading.round_decays)
    reading.add_population(name, found.spec, found.threshold)
    if isinstance(module, Recurrent):
        reading.add_loop(name, f"{name}.weights", _recurrence(f"{name}.weights", module.weights, reading.known_shape))
    elif isinstance(module, snntorch.RLeaky | snntorch.RSynaptic):
        reading.add_loop(name, f"{name}.recurrent", _recurrence(f"{name}.recurrent", module.recurrent, reading.known_shape))


def _read_lif(reading: _Reading, name: str, module: Lif) -> None:
    found = read_lif(name, module)
    reading.add_population(name, found.spec, found.threshold)


def _recurrence(name: str, module: Any, shape: Shape) -> nir.NIRNode:
    """Weights on the way back: dense, a convolution, or one V per neuron or for all (a Scale)."""
    if type(module) is nn.Linear:
        return _linear_node(module)
    if type(module) in (nn.Conv1d, nn.Conv2d):
        return _conv_node(name, module, shape)
    strength = _array(torch.as_tensor(module.V))
    return nir.Scale(np.broadcast_to(strength, shape).copy())


def _read_integrator(reading: _Reading, name: str, module: Integrator) -> None:
    reading.add_population(name, module.spec)


def _skip(reading: _Reading, name: str, module: nn.Module) -> None:
    """Dropout and Identity do nothing at inference."""
    del reading, name, module


_READERS: tuple[tuple[type[nn.Module], Callable[[_Reading, str, Any], None]], ...] = (
    (nn.Conv1d, _read_conv),
    (nn.Conv2d, _read_conv),
    (nn.Linear, _read_linear),
    (nn.BatchNorm2d, _read_batch_norm),
    (nn.BatchNorm1d, _read_batch_norm),
    (nn.AvgPool2d, _read_pool),
    (nn.Flatten, _read_flatten),
    (Delay, _read_delay),
    (snntorch.Leaky, _read_spiking),
    (snntorch.Synaptic, _read_spiking),
    (snntorch.RLeaky, _read_spiking),
    (snntorch.RSynaptic, _read_spiking),
    (Recurrent, _read_spiking),
    (Lif, _read_lif),
    (Integrator, _read_integrator),
    (nn.Dropout, _skip),
    (nn.Dropout1d, _skip),
    (nn.Dropout2d, _skip),
    (nn.Identity, _skip),
)


def _reader_of(name: str, module: nn.Module) -> Callable[[_Reading, str, Any], None]:
    for kind, reader in _READERS:
        if type(module) is kind:
            return reader
    known = ", ".join(kind.__name__ for kind, _ in _READERS)
    raise refused(
        "SNX210",
        name,
        f"is a {type(module).__name__}",
        f"the reader knows {known}, nn.Sequential and ResidualSum",
        "build the network from these; in place of max pooling, use AvgPool2d or a stride",
    )


def _shape_behind(module: nn.Module, shape: Shape | None) -> Shape | None:
    """Shape behind a layer that was not read, as torch computes it; None where even torch cannot say."""
    if isinstance(module, nn.Linear):
        return (int(module.out_features),)
    if shape is None or isinstance(module, snntorch.SpikingNeuron | Recurrent | Lif | Integrator | Delay):
        return shape
    was_training = module.training
    try:
        with torch.no_grad():
            found = module.eval()(torch.zeros(1, *shape))
    except Exception:  # a module nobody knows may raise anything; then what follows is looked at without its shapes
        return None
    finally:
        module.train(was_training)
    return tuple(found.shape[1:]) if isinstance(found, Tensor) else None


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().cpu().numpy(), np.float64)


def _bias(tensor: Tensor | None, size: int) -> NDArray[np.float64]:
    return np.zeros(size) if tensor is None else _array(tensor)
