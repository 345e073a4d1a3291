"""Deployments from and to lava-dl's HDF5 networks (``.net``), as ``lava.lib.dl.netx.hdf5.Network`` of lava-dl 0.6.0 runs them.

=================  =====================================================================================================
``.net``           deployment
=================  =====================================================================================================
dense, conv        Affine or Conv2d and a population; du = iDecay - 1, dv = vDecay, threshold = vThMant, bias exponent 6
dense_rec          the same with a Linear from the population to itself, which arrives one step later
flatten            Flatten
delay              a Delay node behind the weights, in seconds of dt = 1 ms (per synapse: one in front of them, one behind)
input with neuron  encoder ``bias``: the host adds weight x + bias to the membrane in every step
input without      the input's shape
tSample            ``reset_interval`` of every population, and T
=================  =====================================================================================================

The last layer is a non-spiking readout where its threshold is out of reach, 131071 or more, or where it has no neuron at all:
netx then makes one that never fires, whose membrane is the sum of all it received, and so does the integrator made here (its u
is the sum of one step, netx's the whole). Everywhere else netx's numbers are the deployment's, bit for bit.

Inputs of such a file are spikes, (T, B, *shape). What the format cannot say - names, scales, T, the levels of graded input and
the readout's rule - is written into HDF5 attributes, which netx does not read.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import grid
from snn_export.export.contract import ExecutionContract, Quantisation
from snn_export.export.deployment import Deployment, IntegerPopulation, IntegerSynapse
from snn_export.export.graph import Shape, conv_padding, latencies, per_axis, shapes
from snn_export.export.netx_layers import (
    BIAS_EXPONENT,
    MAX_DELAY,
    Integers,
    NetFile,
    NetLayer,
    NetNeuron,
    loaded_weights,
    read_file,
    write_file,
)
from snn_export.export.netx_rules import Link, chain, file_delay, file_weight, findings, host_integers
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

DT = 1e-3
DEFAULT_STEPS = 100
"""T of a file that does not say how long a sample is."""
HOST_MATRIX_MAX = 4096
"""Features up to which the bias of a flat input layer is written as a diagonal matrix."""


def read(
    path: str | os.PathLike[str],
    *,
    steps: int | None = None,
    input_shape: Shape | None = None,
    ignore: Collection[str] = (),
) -> Deployment:
    """Read a ``.net`` file into a quantised deployment.

    Args:
        path: of the file.
        steps: T; by default what the file says (``simulation/tSample``), else 100.
        input_shape: of one sample, (channels, rows, columns), for a file that begins with a convolution and has no input layer.
        ignore: names of fields that netx ignores and that mean nothing here either.

    Raises:
        UserError: SNX101 to SNX103 for a file that is missing, damaged or unsafe; SNX124 no lava-dl network; SNX125 a layer, a
            neuron or a field that netx does not run; SNX126 a number that the chip cannot hold or netx would change; SNX127 for
            options that are missing or impossible; SNX128 fields that netx ignores. All at once.
    """
    source = Path(path)
    if steps is not None and steps < 1:
        raise _option("steps", f"steps is {steps}", "pass 1 or more")
    net = read_file(source, ignore)
    builder = _Builder(source, net, steps, input_shape)
    try:
        return builder.deployment()
    except (ValueError, TypeError, IndexError) as error:  # pydantic and NumPy, on a file whose parts do not fit
        raise UserError(
            "SNX124", f"{source.name} is no lava-dl network that fits together", where=str(source), why=str(error).splitlines()[0],
            fix="export it again",
        ) from error  # fmt: skip


def write(deployment: Deployment, path: str | os.PathLike[str]) -> Path:
    """Write a quantised deployment as a ``.net`` file; it appears complete or not at all.

    Raises:
        UserError: SNX250 to SNX257 for what netx cannot run, all at once; SNX123 where it cannot be written there.
    """
    target = Path(path)
    write_file(net_file(deployment), target)
    return target


def net_file(deployment: Deployment) -> NetFile:
    """What :func:`write` writes. Raises as it does, without SNX123."""
    found = findings(deployment)
    if found:
        raise UserError.from_diagnostics(tuple(found))
    contract, links = deployment.contract, chain(deployment)
    layers: list[NetLayer] = []
    shape = deployment.input_shape
    if links[0].wire is not None and len(shape) > 1:
        layers.append(NetLayer("input", shape))
    for link in links:
        layer = _layer_from_link(deployment, link)
        if layer.kind.startswith("dense") and len(shape) > 1:
            layers.append(NetLayer("flatten"))
        layers.append(layer)
        shape = layer.shape
    encoder, interval = contract.encoder, contract.neurons[links[0].population].reset_interval
    notes: dict[str, float | str] = {
        "steps": float(contract.steps), "reset_interval": float(interval), "readout": contract.readout.rule,
        "encoder": encoder.kind, "gain": float(encoder.gain or 1.0), "low": float(encoder.low), "high": float(encoder.high),
        "seed": float(encoder.seed), "full_scale": encoder.full_scale,
    }  # fmt: skip
    return NetFile(tuple(layers), interval or contract.steps, notes)


def _layer_from_link(deployment: Deployment, link: Link) -> NetLayer:
    """One layer of a deployment that has no findings."""
    integers, shape = deployment.populations[link.population], deployment.shapes[link.population]
    neuron = NetNeuron(integers.du + 1, integers.dv, integers.threshold)
    named = NetLayer("dense", (int(np.prod(shape)),), neuron=neuron, name=link.population, scale=integers.scale)
    mantissa = (deployment.bias(link.population) >> BIAS_EXPONENT).reshape(shape[0], -1)
    if link.wire is None:
        weight, bias = host_integers(deployment, link.population) or (0, 0)
        return replace(named, kind="input", shape=shape, weight=np.array([weight]), bias=np.array([bias]))
    node, weight = deployment.graph.nodes[link.wire.weight], file_weight(deployment, link.wire.weight)
    named = replace(named, weight=weight, bias=np.ravel(mantissa) if mantissa.any() else None)
    if isinstance(node, nir.Conv2d):
        (top, _), (left, _) = conv_padding(node)
        stride, dilation = per_axis(node.stride, 2), per_axis(node.dilation, 2)
        return replace(
            named, kind="conv", shape=shape, bias=mantissa[:, 0] if mantissa.any() else None, padding=(top, left),
            stride=(stride[0], stride[1]), dilation=(dilation[0], dilation[1]), groups=int(node.groups),
        )  # fmt: skip
    named = replace(named, delay=file_delay(deployment, link.wire))
    if link.loop is None:
        return named
    return replace(named, kind="dense_rec", recurrent=file_weight(deployment, link.loop.weight))


class _Builder:
    """Makes the deployment of a file, layer by layer, and collects what keeps it from being one."""

    def __init__(self, path: Path, net: NetFile, steps: int | None, input_shape: Shape | None) -> None:
        self.path, self.net = path, net
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
        weighty = [index for index, layer in enumerate(self.net.layers) if layer.neuron or layer.weight is not None]
        for index, layer in enumerate(self.net.layers):
            if layer.kind == "flatten":
                self.flatten = True
            elif layer.kind != "input" or layer.neuron is not None:
                self.layer(index, layer, last=index == weighty[-1])
            elif index:
                self.refuse("SNX125", index, "it is an input in the middle of the network", "a network has one input", "export it again")
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
        first = self.net.layers[0]
        stated = first.shape if first.kind == "input" else ()
        if stated or given is not None:
            shape = tuple(given or stated)
            if not all(shape) or (stated and shape != stated):
                raise _option("input_shape", f"input_shape is {shape}, the file says {stated}", "pass none: the file states it")
            return shape
        entry = next((layer for layer in self.net.layers if layer.weight is not None), None)
        if entry is None or entry.weight is None or entry.weight.ndim != 2:
            raise _option("input_shape", f"{self.path.name} does not say what a sample looks like, and begins with a convolution",
                          "pass input_shape=(channels, rows, columns)")  # fmt: skip
        return (int(entry.weight.shape[1]),)

    def _encoder(self) -> EncoderSpec:
        notes = self.net.notes
        if self.hosted:
            return EncoderSpec("bias", gain=float(notes.get("gain", 1.0)), low=int(notes.get("low", 0)), high=int(notes.get("high", 1)))
        kind = str(notes.get("encoder", "events"))
        if kind not in get_args(EncoderKind):
            raise ValueError(f"it names the unknown encoder {kind!r}")
        levels = {key: int(notes.get(key, default)) for key, default in (("low", 0), ("high", 1), ("seed", 0))}
        return EncoderSpec(
            kind, gain=float(notes.get("gain", 1.0)), full_scale=float(notes.get("full_scale", 1.0)), **levels  # type: ignore[arg-type]
        )

    def _rule(self) -> ReadoutRule:
        default = "spike_count" if self.neurons[self.last].spiking else "membrane_last"
        rule = str(self.net.notes.get("readout", default))
        if rule not in get_args(ReadoutRule):
            raise ValueError(f"it names the unknown readout rule {rule!r}")
        return rule  # type: ignore[return-value]

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
            self._wires(name, layer, bias, delays)
        self.neurons[name], self.populations[name] = spec, integers
        self.last, self.shape, self.flatten = name, out, False

    def _free(self, name: str) -> bool:
        return bool(name) and "/" not in name and name not in (".", "input", "output") and name not in self.nodes

    def _wires(self, name: str, layer: NetLayer, bias: Integers | None, delays: tuple[Integers | None, Integers | None]) -> None:
        """The nodes between the layer before and this one, and from this one to itself."""
        chain: list[str] = []

        def put(suffix: str, node: nir.NIRNode) -> str:
            self.nodes[f"{name}.{suffix}"] = node
            chain.append(f"{name}.{suffix}")
            return f"{name}.{suffix}"

        if len(self.shape) > 1 and layer.kind != "conv":
            put("flatten", nir.Flatten({"input": np.array(self.shape)}, start_dim=0, end_dim=-1))
        before, after = delays
        if before is not None:
            put("delay_in", nir.Delay(before * DT))
        mantissa = None if bias is None else bias.astype(np.int16)
        node = self._weight_node(layer, bias)
        self.synapses[put("weight", node)] = _synapse(layer.weight, mantissa)
        if after is not None:
            put("delay", nir.Delay(after * DT))
        whole = (self.last, *chain, name)
        self.edges += list(zip(whole[:-1], whole[1:], strict=True))
        if layer.recurrent is not None:
            chain.clear()
            self.synapses[put("recurrent", nir.Linear(np.zeros(layer.recurrent.shape)))] = _synapse(layer.recurrent, None)
            if after is not None:
                put("recurrent_delay", nir.Delay((after + 1) * DT))
            whole = (name, *chain, name)
            self.edges += list(zip(whole[:-1], whole[1:], strict=True))

    def _weight_node(self, layer: NetLayer, bias: Integers | None) -> nir.NIRNode:
        zeros = np.zeros(layer.weight.shape)  # type: ignore[union-attr]  # grid.on_grid puts the real values in
        if layer.kind == "conv":
            return nir.Conv2d(self.shape[1:], zeros, layer.stride, layer.padding, layer.dilation, layer.groups, np.zeros(len(zeros)))
        return nir.Linear(zeros) if bias is None else nir.Affine(zeros, np.zeros(len(zeros)))

    def _host(self, index: int, layer: NetLayer, name: str, integers: IntegerPopulation) -> None:
        """Input layer with neurons: the host scales each feature, as ``weight x + bias`` in units of the bias mantissa."""
        self.hosted = True
        if index:
            self.refuse("SNX125", index, "an input layer with neurons stands behind others", "a network has one input", "export it again")
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
            return layer.shape
        weight, given = layer.weight, self.shape
        if weight is None or not weight.size or min(weight.shape) < 1:
            raise ValueError(f"layer/{index} has no weights")
        if layer.kind == "conv":
            fits = weight.ndim == 4 and len(given) == 3 and not self.flatten and layer.groups > 0
            if not fits or weight.shape[1] * layer.groups != given[0] or weight.shape[0] % layer.groups:
                self.refuse("SNX125", index, f"a convolution with weights {weight.shape} in {layer.groups} groups behind {given}",
                            "netx needs (channels, rows, columns) in front of it",
                            "give the file an input layer with the shape of a sample, and no flatten before a convolution")  # fmt: skip
                return None
            node = nir.Conv2d(given[1:], np.zeros(weight.shape), layer.stride, layer.padding, layer.dilation, layer.groups, np.zeros(1))
            graph = {"a": nir.Input({"input": np.array(given)}), "b": node}
            found = shapes(nir.NIRGraph(graph, [("a", "b")], type_check=False))["b"]
        else:
            inputs = int(np.prod(given))
            mapped = (len(given) == 3) == self.flatten or (self.last == "input" and len(given) == 1)
            if weight.ndim != 2 or weight.shape[1] != inputs or not (mapped or self.last == "input"):
                self.refuse("SNX125", index, f"a dense layer with weights {weight.shape} behind {given}{' and a flatten' * self.flatten}",
                            "netx flattens maps only, and only where a flatten layer says so", "export it again")  # fmt: skip
                return None
            if layer.recurrent is not None and layer.recurrent.shape != (weight.shape[0],) * 2:
                raise ValueError(f"layer/{index} has recurrent weights of shape {layer.recurrent.shape}")
            found = (int(weight.shape[0]),)
        if layer.shape and layer.shape != found:
            raise ValueError(f"layer/{index} states the shape {layer.shape} and has {found}")
        self._check_weights(index, layer)
        return found

    def _check_weights(self, index: int, layer: NetLayer) -> None:
        """What Lava computes with is what the file states, and a chip can hold it."""
        parts = [part for part in (layer.weight, layer.recurrent) if part is not None]
        if any(not _on_chip(part) for part in parts):
            low, high = min(part.min() for part in parts), max(part.max() for part in parts)
            self.refuse(
                "SNX126", index, f"weights from {low} to {high} that are no eight-bit synapse",
                f"mixed signs hold even integers {WEIGHT_MIN}..{WEIGHT_MAX} (odd ones up to 127), one sign 0..255; netx clips or runs on",
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
                "it shifts them up to fill eight bits, and loses some: all zero, or one sign with a power of two as the lowest weight, "
                "or recurrent with delays", "change the lowest weight by one, or drop the delays",
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
                "the chip holds iDecay 1..4096, vDecay 0..4095 and a threshold of 17 bits; NIR has no neuron that filters its current "
                "(iDecay below 4096) and never leaks (vDecay 0)", "train with other decays or a lower threshold",
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

    def _delays(self, index: int, layer: NetLayer) -> tuple[Integers | None, Integers | None]:
        """Delays in front of the weights (in,) and behind them (out,), None each where there are none."""
        delay = layer.delay
        if delay is None or not delay.any():
            return None, None
        problem, found = "", (None, delay)
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
            self.refuse("SNX125", index, problem, "another delay is another network", "export without delays, or with one per neuron")
        return found

    def refuse(self, code: str, index: int, what: str, why: str, fix: str) -> None:
        """Note a finding about one layer."""
        self.findings.append(Diagnostic(code, f"layer/{index}: {what}", f"{self.path.name}: layer/{index}", why, fix))


def _option(name: str, what: str, fix: str) -> UserError:
    return UserError("SNX127", what, where=f"load({name}=...)", why="the file alone does not say how it is to be run", fix=fix)


def _on_chip(weight: Integers) -> bool:
    """An eight-bit synapse holds these weights, if need be with a negative exponent."""
    low, high = int(weight.min()), int(weight.max())
    if low >= 0 or (high <= 0 and low > WEIGHT_MIN):
        return max(high, -low) <= WEIGHT_MAX + 1
    return low >= WEIGHT_MIN and high <= WEIGHT_MAX and (not np.any(weight % 2) or (2 * low >= WEIGHT_MIN and 2 * high <= WEIGHT_MAX))


def _synapse(weight: Integers | None, mantissa: NDArray[np.int16] | None) -> IntegerSynapse:
    """Odd weights of mixed signs are twice as large with an exponent of -1: the same effect, on the grid."""
    values = np.zeros(0, np.int64) if weight is None else weight
    odd = values.min() < 0 < values.max() and bool(np.any(values % 2))
    return IntegerSynapse((values << odd).astype(np.int16), -int(odd), mantissa)


def _separated(delay: Integers) -> tuple[Integers | None, Integers | None] | None:
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
