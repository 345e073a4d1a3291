"""From the layers of a lava-dl file to a deployment; :func:`snn_export.export.netx_io.read` is the way in."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, cast, get_args

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import grid
from snn_export.export.contract import ExecutionContract, Quantisation
from snn_export.export.deployment import Deployment, IntegerPopulation, IntegerSynapse
from snn_export.export.graph import Shape, latencies, shapes
from snn_export.export.netx_layers import (
    BIAS_EXPONENT,
    MAX_DELAY,
    Integers,
    NetFile,
    NetLayer,
    NetNeuron,
    fits_synapse,
    loaded_weights,
)
from snn_export.models.arithmetic import (
    BIAS_MANTISSA_MAX,
    BIAS_MANTISSA_MIN,
    DECAY_MAX,
    DECAY_ONE,
    FULL_CURRENT_DECAY,
    THRESHOLD_MAX,
    WEIGHT_MAX,
    WEIGHT_MIN,
    tau_from_integer,
)
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.spec import EncoderKind, EncoderSpec, NeuronSpec, ReadoutRule, ReadoutSpec

Delays = tuple[Integers | None, Integers | None]
"""Steps in front of the weights, (in,), and behind them, (out,); None each where there are none."""
DT = 1e-3
DEFAULT_STEPS = 100
"""T of a file that does not say how long a sample is."""
MAX_NEURONS = 1 << 25
"""Neurons of a layer, or features of the input: more are not a network but a mistake, or an attack on memory."""
HOST_MATRIX_MAX = 4096
"""Features up to which the bias of a flat input layer is written as a diagonal matrix."""


class Builder:
    """Makes the deployment of a file, layer by layer, and collects what keeps it from being one."""

    def __init__(self, path: Path, net: NetFile, steps: int | None, input_shape: Shape | None) -> None:
        self.path, self.net = path, net
        self.layers, self.current = without_axons(net.layers)
        self.steps = steps or int(net.notes.get("steps", 0)) or net.sample_steps or DEFAULT_STEPS
        self.interval = int(net.notes.get("reset_interval", net.sample_steps))
        self.findings: list[Diagnostic] = []
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.synapses: dict[str, IntegerSynapse] = {}
        self.populations: dict[str, IntegerPopulation] = {}
        self.neurons: dict[str, NeuronSpec] = {}
        self.last, self.shape = "input", self._input_shape(input_shape)
        self.hosted = False
        self.flatten = False

    def deployment(self) -> Deployment:
        """All layers, or everything that is wrong with them."""
        self.nodes["input"] = nir.Input({"input": np.array(self.shape)})
        weighty = [index for index, layer in enumerate(self.layers) if layer.neuron or layer.weight is not None]
        for index, layer in enumerate(self.layers):
            if layer.kind == "flatten":
                self.flatten = True
            elif layer.kind != "input" or layer.neuron is not None:
                self.layer(index, layer, last=index == weighty[-1])
            elif index:
                self.refuse(
                    "SNX125", index, "it is an input in the middle of the network", "a network has one input", "export it again"
                )
        if not self.populations and not self.findings:
            self.refuse("SNX125", 0, "the file has no layer with neurons", "there is nothing to run", "export it again")
        if self.findings:
            raise UserError.from_diagnostics(tuple(self.findings))
        self.nodes["output"] = nir.Output({"output": np.array(self.shape)})
        self.edges.append((self.last, "output"))
        return self._on_grid()

    def _on_grid(self) -> Deployment:
        graph = nir.NIRGraph(self.nodes, self.edges, type_check=False)
        scale = {name: integers.scale for name, integers in self.populations.items()}
        contract = ExecutionContract(
            dt=DT, steps=self.steps, latency=latencies(graph, DT), encoder=self._encoder(), neurons=self.neurons,
            readout=ReadoutSpec(self.last, self._rule()),
            quantisation=Quantisation(
                target="loihi2", weight_bits=8, scale=scale, binding=dict.fromkeys(scale, "stated by a lava-dl file")
            ),
        )  # fmt: skip
        bare = Deployment(graph, contract, self.synapses, self.populations)
        return grid.on_grid(bare, contract.encoder, self.synapses, self.populations)

    def _input_shape(self, given: Shape | None) -> Shape:
        first = self.layers[0]
        stated = first.shape if first.kind == "input" else ()
        if stated or given is not None:
            shape = tuple(given or stated)
            if min(shape) < 1 or prod(shape) > MAX_NEURONS:
                raise ValueError(f"its samples would have the shape {shape}")
            if stated and shape != stated:
                what = f"input_shape is {shape}, the file says {stated}"
                raise option_error("input_shape", what, "pass none: the file states it")
            return shape
        entry = next((layer for layer in self.layers if layer.weight is not None), None)
        if entry is None or entry.weight is None or entry.weight.ndim != 2:
            what = f"{self.path.name} begins with a convolution and does not say what a sample looks like"
            raise option_error("input_shape", what, "pass input_shape=(channels, rows, columns)")
        return (int(entry.weight.shape[1]),)

    def _encoder(self) -> EncoderSpec:
        notes = self.net.notes
        if self.hosted:
            return EncoderSpec(
                "bias", gain=float(notes.get("gain", 1.0)), low=int(notes.get("low", 0)), high=int(notes.get("high", 1))
            )
        kind = str(notes.get("encoder", "events"))
        if kind not in get_args(EncoderKind):
            raise ValueError(f"it names the unknown encoder {kind!r}")
        levels = {key: int(notes.get(key, default)) for key, default in (("low", 0), ("high", 1), ("seed", 0))}
        return EncoderSpec(
            cast(EncoderKind, kind),
            gain=float(notes.get("gain", 1.0)),
            full_scale=float(notes.get("full_scale", 1.0)),
            **levels,
        )

    def _rule(self) -> ReadoutRule:
        default = "spike_count" if self.neurons[self.last].spiking else "membrane_last"
        rule = str(self.net.notes.get("readout", default))
        if rule not in get_args(ReadoutRule):
            raise ValueError(f"it names the unknown readout rule {rule!r}")
        return cast(ReadoutRule, rule)

    def layer(self, index: int, layer: NetLayer, last: bool) -> None:
        """Add a layer: its nodes, edges and integers."""
        name = layer.name if self._free(layer.name) else f"{layer.kind}{index}"
        before = len(self.findings)
        out = self._geometry(index, layer)
        spec, integers = self._neuron(index, layer, last)
        bias = self._bias(index, layer, len(layer.weight) if layer.weight is not None else 1)
        delays = self._delays(index, layer)
        if len(self.findings) > before or out is None:
            self.last, self.shape, self.flatten = name, out or layer.shape, False
            return
        self.nodes[name] = _population(spec, integers.threshold / integers.scale, out)
        if layer.kind == "input":
            self._host(index, layer, name, integers)
        else:
            self._wires(name, layer, bias, delays, self.current.get(index))
        self.neurons[name], self.populations[name] = spec, integers
        self.last, self.shape, self.flatten = name, out, False

    def _free(self, name: str) -> bool:
        return bool(name) and "/" not in name and name not in (".", "input", "output") and name not in self.nodes

    def _wires(self, name: str, layer: NetLayer, bias: Integers | None, delays: Delays, current: Integers | None) -> None:
        """The nodes between the layer before and this one, and from this one to itself."""
        chain: list[str] = []

        def put(suffix: str, node: nir.NIRNode) -> str:
            if f"{name}.{suffix}" in self.nodes:
                raise ValueError(f"two layers would both have a node {name}.{suffix}")
            self.nodes[f"{name}.{suffix}"] = node
            chain.append(f"{name}.{suffix}")
            return f"{name}.{suffix}"

        if len(self.shape) > 1 and layer.kind != "conv":
            put("flatten", nir.Flatten({"input": np.array(self.shape)}, start_dim=0, end_dim=-1))
        before, after = delays
        if before is not None:
            put("delay_in", nir.Delay(before * DT))
        mantissa = None if bias is None else bias.astype(np.int16)
        node = self._weight_node(layer, bias is None and current is None)
        self.synapses[put("weight", node)] = _synapse(layer.weight, mantissa, current)
        if after is not None:
            put("delay", nir.Delay(after * DT))
        self.edges += pairwise((self.last, *chain, name))
        if layer.recurrent is not None:
            chain.clear()
            self.synapses[put("recurrent", nir.Linear(np.zeros(layer.recurrent.shape)))] = _synapse(layer.recurrent)
            if after is not None:
                put("recurrent_delay", nir.Delay((after + 1) * DT))
            self.edges += pairwise((name, *chain, name))

    def _weight_node(self, layer: NetLayer, plain: bool) -> nir.NIRNode:
        zeros = np.zeros(layer.weight.shape)  # type: ignore[union-attr]  # grid.on_grid puts the real values in
        if layer.kind == "conv":
            return nir.Conv2d(
                self.shape[1:], zeros, layer.stride, layer.padding, layer.dilation, layer.groups, np.zeros(len(zeros))
            )
        return nir.Linear(zeros) if plain else nir.Affine(zeros, np.zeros(len(zeros)))

    def _host(self, index: int, layer: NetLayer, name: str, integers: IntegerPopulation) -> None:
        """Input layer with neurons: the host scales each feature, as ``weight x + bias`` in units of the bias mantissa."""
        self.hosted = True
        if index:
            self.refuse(
                "SNX125", index, "an input layer with neurons stands behind others", "a network has one input", "export it again"
            )
        weight = 64 if layer.weight is None else int(np.ravel(layer.weight)[0])
        offset = 0 if layer.bias is None else int(np.ravel(layer.bias)[0])
        gain = _gain(self.nodes[name]) * integers.scale
        if not offset:
            node = nir.Scale(np.full(self.shape, weight / gain))
        elif len(self.shape) == 3:
            channels = self.shape[0]
            node = nir.Conv2d(
                self.shape[1:], np.full((channels, 1, 1, 1), weight / gain), 1, 0, 1, channels, np.full(channels, offset / gain)
            )
        elif len(self.shape) == 1 and self.shape[0] <= HOST_MATRIX_MAX:
            node = nir.Affine(np.eye(self.shape[0]) * weight / gain, np.full(self.shape[0], offset / gain))
        else:
            self.refuse("SNX125", index, f"its bias of {offset} on an input of shape {self.shape}", "NIR has no node for it",
                        "export the input layer without a bias, or with maps")  # fmt: skip
            return
        self.nodes[f"{name}.weight"] = node
        self.edges += [("input", f"{name}.weight"), (f"{name}.weight", name)]

    def _geometry(self, index: int, layer: NetLayer) -> Shape | None:
        """Output shape, None where the layer does not fit behind the one before."""
        if layer.kind == "input":
            return self.shape
        weight, given = layer.weight, self.shape
        if weight is None or not weight.size or min(weight.shape) < 1:
            raise ValueError(f"layer/{index} has no weights")
        if layer.kind == "conv":
            fits = weight.ndim == 4 and len(given) == 3 and not self.flatten and layer.groups > 0
            if not fits or weight.shape[1] * layer.groups != given[0] or weight.shape[0] % layer.groups:
                self.refuse(
                    "SNX125", index, f"a convolution with weights {weight.shape} in {layer.groups} groups behind {given}",
                    "netx needs (channels, rows, columns) in front of it",
                    "give the file an input layer with the shape of a sample, and no flatten before a convolution",
                )  # fmt: skip
                return None
            node = nir.Conv2d(
                given[1:], np.zeros(weight.shape), layer.stride, layer.padding, layer.dilation, layer.groups, np.zeros(1)
            )
            graph = {"a": nir.Input({"input": np.array(given)}), "b": node}
            found = shapes(nir.NIRGraph(graph, [("a", "b")], type_check=False))["b"]
        else:
            inputs = prod(given)
            mapped = (len(given) == 3) == self.flatten or (self.last == "input" and len(given) == 1)
            if weight.ndim != 2 or weight.shape[1] != inputs or not (mapped or self.last == "input"):
                behind = f"{given}{' and a flatten' * self.flatten}"
                self.refuse("SNX125", index, f"a dense layer with weights {weight.shape} behind {behind}",
                            "netx flattens maps only, and only where a flatten layer says so", "export it again")  # fmt: skip
                return None
            if layer.recurrent is not None and layer.recurrent.shape != (weight.shape[0],) * 2:
                raise ValueError(f"layer/{index} has recurrent weights of shape {layer.recurrent.shape}")
            found = (int(weight.shape[0]),)
        if prod(found) > MAX_NEURONS:
            raise ValueError(f"layer/{index} would have {prod(found)} neurons")
        if layer.shape and layer.shape != found:
            raise ValueError(f"layer/{index} states the shape {layer.shape} and has {found}")
        self._check_weights(index, self.net.layers[index])
        return found

    def _check_weights(self, index: int, layer: NetLayer) -> None:
        """What Lava computes with is what the file states, and a chip can hold it."""
        parts = [part for part in (layer.weight, layer.recurrent) if part is not None]
        if any(not fits_synapse(part) for part in parts):
            low, high = min(part.min() for part in parts), max(part.max() for part in parts)
            self.refuse(
                "SNX126", index, f"weights from {low} to {high} that are no eight-bit synapse",
                f"mixed signs hold even integers {WEIGHT_MIN}..{WEIGHT_MAX} (odd ones up to 127), one sign 0..255; netx clips",
                "quantise to 8 bits in slayer (weights of 2/64), then export again",
            )  # fmt: skip
            return
        if layer.kind == "conv":
            return
        delayed = layer.recurrent is not None and layer.delay is not None and bool(np.any(layer.delay))
        loaded = loaded_weights(parts, shifted_back=not delayed)
        if loaded is None or any(np.any(a != b) for a, b in zip(loaded, parts, strict=True)):
            self.refuse(
                "SNX126", index, "weights that netx changes while it loads them",
                "it shifts them up to fill eight bits and loses some where all are zero, where one sign has a power of two as "
                "its lowest weight, or where a recurrence has delays", "change the lowest weight by one, or drop the delays",
            )  # fmt: skip

    def _neuron(self, index: int, layer: NetLayer, last: bool) -> tuple[NeuronSpec, IntegerPopulation]:
        stated = layer.neuron
        if stated is None and (not last or (layer.bias is not None and np.any(layer.bias))):
            self.refuse("SNX125", index, "no neuron, though it is not the last layer or has a bias",
                        "netx makes one that never fires, and adds its bias once",
                        "use a block with neurons, or no bias in the last one")  # fmt: skip
        neuron = stated or NetNeuron(DECAY_ONE, 0, THRESHOLD_MAX)
        spiking = not last or neuron.threshold < THRESHOLD_MAX
        if layer.kind == "input" and neuron.i_decay != DECAY_ONE:  # its current stays zero whatever its decay is
            neuron = replace(neuron, i_decay=DECAY_ONE)
        du, dv, threshold = neuron.i_decay - 1, neuron.v_decay, neuron.threshold if spiking else THRESHOLD_MAX
        fine = 0 <= du <= DECAY_MAX and 0 <= dv <= DECAY_MAX and 0 <= threshold <= THRESHOLD_MAX
        if not fine or (du != FULL_CURRENT_DECAY and dv == 0):
            self.refuse(
                "SNX126", index, f"iDecay {neuron.i_decay}, vDecay {neuron.v_decay}, vThMant {neuron.threshold}",
                "the chip holds iDecay 1..4096, vDecay 0..4095 and a threshold of 17 bits; NIR has no neuron that filters its "
                "current (iDecay below 4096) and never leaks (vDecay 0)", "train with other decays or a lower threshold",
            )  # fmt: skip
            du, dv, threshold = FULL_CURRENT_DECAY, 1, 1
        spec = NeuronSpec(dv, du, "zero" if spiking else "none", spiking=spiking, reset_interval=self.interval)
        return spec, IntegerPopulation(threshold, du, dv, layer.scale, BIAS_EXPONENT)

    def _bias(self, index: int, layer: NetLayer, channels: int) -> Integers | None:
        if layer.bias is None or layer.kind == "input":
            return None
        bias = np.ravel(layer.bias)
        if layer.bias.shape != (channels,) or bias.min() < BIAS_MANTISSA_MIN or bias.max() > BIAS_MANTISSA_MAX:
            self.refuse("SNX126", index, f"a bias of shape {layer.bias.shape} from {bias.min()} to {bias.max()}",
                        f"there is one per output channel, with a mantissa of {BIAS_MANTISSA_MIN}..{BIAS_MANTISSA_MAX}",
                        "export smaller biases")  # fmt: skip
            return None
        return bias

    def _delays(self, index: int, layer: NetLayer) -> Delays:
        """Delays in front of the weights (in,) and behind them (out,), None each where there are none."""
        delay = layer.delay
        if delay is None or not delay.any():
            return None, None
        problem, found = "", cast(Delays, (None, delay))
        outputs, inputs = layer.weight.shape[:2] if layer.weight is not None else (0, 0)
        if layer.kind == "conv":
            problem = "netx ignores the delays of a convolution"
        elif delay.min() < 0 or delay.max() > MAX_DELAY:
            problem = f"delays from {delay.min()} to {delay.max()}, which netx clips to 0..{MAX_DELAY}"
        elif layer.recurrent is not None and outputs != inputs:
            problem = "netx gives input and recurrence the same delays, and they have different sizes"
        elif delay.ndim == 0:
            found = (None, np.full(outputs, int(delay)))
        elif delay.shape == (outputs,):
            found = (None, delay)
        elif delay.shape == (inputs,):
            found = (delay, None)
        else:
            parts = _separated(delay) if delay.shape == (outputs, inputs) else None
            problem = "" if parts else "delays of single synapses are not the sum of one per input and one per output"
            found = parts or found
        if not problem and layer.recurrent is not None and found[0] is not None:
            problem = "a recurrence with delays per input"
        if problem:
            self.refuse(
                "SNX125", index, problem, "another delay is another network", "export without delays, or with one per neuron"
            )
        return found

    def refuse(self, code: str, index: int, what: str, why: str, fix: str) -> None:
        """Note a finding about one layer."""
        self.findings.append(Diagnostic(code, f"layer/{index}: {what}", f"{self.path.name}: layer/{index}", why, fix))


def option_error(name: str, what: str, fix: str) -> UserError:
    """The error for an option of ``load`` that is missing or impossible."""
    return UserError("SNX127", what, where=f"load({name}=...)", why="the file alone does not say how it is to be run", fix=fix)


def _synapse(
    weight: Integers | None, mantissa: NDArray[np.int16] | None = None, current: Integers | None = None
) -> IntegerSynapse:
    """Odd weights of mixed signs are twice as large with an exponent of -1: the same effect, on the grid."""
    values = np.zeros(0, np.int64) if weight is None else weight
    odd = values.min() < 0 < values.max() and bool(np.any(values % 2))
    carried = None if current is None else current.astype(np.int32)
    return IntegerSynapse((values << odd).astype(np.int16), -int(odd), mantissa, carried)


def without_axons(layers: tuple[NetLayer, ...]) -> tuple[tuple[NetLayer, ...], dict[int, Integers]]:
    """The layers without the sources that fire in every step, and the biases of the current that they carry, by layer.

    Raises:
        ValueError: where a layer says that it has some and they are not what this project writes.
    """
    kept, found = list(layers), dict[int, Integers]()
    for index, layer in enumerate(layers):
        count, weight = layer.always_on, kept[index].weight
        if not count:
            continue
        if weight is None or weight.ndim != 2 or not 0 < count < weight.shape[1]:
            raise ValueError(f"layer/{index} cannot have {count} inputs that always fire")
        found[index] = weight[:, -count:].sum(axis=1)
        kept[index] = replace(kept[index], weight=weight[:, :-count])
        if index:
            kept[index - 1] = _without_relays(index - 1, kept[index - 1], count)
            if index - 1 in found:
                found[index - 1] = found[index - 1][:-count]
    return tuple(kept), found


def _without_relays(index: int, layer: NetLayer, count: int) -> NetLayer:
    """A layer without its last neurons, which hear nothing and fire by their bias."""
    weight, recurrent, bias = layer.weight, layer.recurrent, layer.bias
    silent = weight is not None and weight.ndim == 2 and len(weight) > count and not weight[-count:].any()
    if weight is None or bias is None or not silent or np.any(bias[-count:] != BIAS_MANTISSA_MAX) or layer.delay is not None:
        raise ValueError(f"the last {count} neurons of layer/{index} do not fire in every step")
    if recurrent is not None:
        if recurrent[-count:].any() or recurrent[:, -count:].any():
            raise ValueError(f"the last {count} neurons of layer/{index} are not apart from the others")
        recurrent = recurrent[:-count, :-count]
    rest = bias[:-count] if bias[:-count].any() else None
    return replace(layer, shape=(len(weight) - count,), weight=weight[:-count], recurrent=recurrent, bias=rest)


def _separated(delay: Integers) -> Delays | None:
    """Delays (out, in) as one per input and one per output, where they are such sums."""
    after = delay[:, 0] - delay[:, 0].min()
    before = delay[int(np.argmin(delay[:, 0]))]
    if np.any(after[:, None] + before[None] != delay):
        return None
    return (before if before.any() else None), (after if after.any() else None)


def _population(spec: NeuronSpec, threshold: float, shape: Shape) -> nir.NIRNode:
    """The NIR node of a population in portable form: r = 1 (IF and I: 1/dt), w_in = 1/(1 - alpha)."""
    ones = np.ones(shape)
    zeros, theta = np.zeros(shape), ones * threshold
    if spec.du != FULL_CURRENT_DECAY:
        filtered: dict[str, Any] = {
            "tau_syn": ones * tau_from_integer(spec.du + 1, DT), "tau_mem": ones * tau_from_integer(spec.dv, DT), "r": ones,
            "v_leak": zeros, "w_in": ones / (1.0 - spec.alpha),
        }  # fmt: skip
        return nir.CubaLIF(**filtered, v_threshold=theta, v_reset=zeros) if spec.spiking else nir.CubaLI(**filtered)
    if spec.dv == 0:
        return nir.IF(r=ones / DT, v_threshold=theta, v_reset=zeros) if spec.spiking else nir.I(r=ones / DT)
    leaky = {"tau": ones * tau_from_integer(spec.dv, DT), "r": ones, "v_leak": zeros}
    return nir.LIF(**leaky, v_threshold=theta, v_reset=zeros) if spec.spiking else nir.LI(**leaky)


def _gain(node: nir.NIRNode) -> float:
    """Input gain of a node made by :func:`_population`: (1 - beta) r with r = 1, or 1 without leak."""
    return DT / float(np.ravel(node.tau)[0]) if hasattr(node, "tau") else 1.0
