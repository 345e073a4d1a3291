"""The networks of ``loihi_speed.py``: integers drawn at random, thresholds chosen so that a given part of each layer fires."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from snn_export.export.contract import ExecutionContract, Quantisation
from snn_export.export.deployment import Deployment, IntegerPopulation, IntegerSynapse
from snn_export.export.graph import latencies
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutSpec

DT = 1e-3
DECAY = 400
"""dv of every neuron: beta = 1 - 400/4096 = 0.902."""

INPUT_RATE, RATE = 0.10, 0.07
"""Part of the inputs and of each layer's neurons that fires in a step."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Weights (even integers), stride of a convolution (padding 1), weights of a loop; ``threshold`` in units of the sum."""

    name: str
    weight: NDArray[np.int64]
    stride: int = 1
    loop: NDArray[np.int64] | None = None
    threshold: int = 0

    @property
    def convolution(self) -> bool:
        """True for a convolution, False for a matrix."""
        return self.weight.ndim == 4

    def drive(self, x: torch.Tensor) -> torch.Tensor:
        """Sums of spikes (N, ...); a matrix flattens them."""
        weight = torch.from_numpy(self.weight).float()
        if self.convolution:
            return functional.conv2d(x, weight, stride=self.stride, padding=1)
        return functional.linear(x.flatten(1), weight)


@dataclass(frozen=True, eq=False)
class Network:
    """Layers and the deployment they make; inputs are events of shape ``shape``."""

    name: str
    what: str
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]

    def deployment(self, steps: int) -> Deployment:
        """The network on Loihi 2's grid, T = ``steps``."""
        return _deployment(self, steps)

    def inputs(self, steps: int, batch: int, rate: float = INPUT_RATE, seed: int = 1) -> NDArray[np.bool_]:
        """Random events (T, B, *shape)."""
        return np.random.default_rng(seed).random((steps, batch, *self.shape), dtype=np.float32) < rate

    @property
    def synapses(self) -> int:
        """Weights, shared ones counted once."""
        return sum(layer.weight.size + (0 if layer.loop is None else layer.loop.size) for layer in self.layers)


def _weights(rng: np.random.Generator, *shape: int) -> NDArray[np.int64]:
    return 2 * rng.integers(-60, 64, shape)


def small_conv(channels: tuple[int, int] = (16, 32), side: int = 32, rate: float = RATE) -> Network:
    """2x32x32 -> conv 16, 3x3, stride 2, padding 1 -> conv 32, likewise -> dense 10."""
    rng, (a, b) = np.random.default_rng(0), channels
    last = -(-side // 4)
    layers = (
        Layer("conv1", _weights(rng, a, 2, 3, 3), 2), Layer("conv2", _weights(rng, b, a, 3, 3), 2),
        Layer("out", _weights(rng, 10, b * last * last)),
    )  # fmt: skip
    what = f"2x{side}x{side} - conv {a} - conv {b} (3x3, stride 2, padding 1) - dense 10"
    return _balanced("conv net", what, (2, side, side), layers, rate)


def vgg9() -> Network:
    """Seven 3x3 convolutions and two dense layers on 3x32x32; stride 2 stands where VGG pools."""
    rng, layers, given = np.random.default_rng(0), [], 3
    for index, (channels, stride) in enumerate([(64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 1), (256, 2)]):
        layers.append(Layer(f"conv{index + 1}", _weights(rng, channels, given, 3, 3), stride))
        given = channels
    layers += [Layer("dense1", _weights(rng, 1024, 256 * 16)), Layer("out", _weights(rng, 10, 1024))]
    return _balanced("VGG-9", "3x32x32 - 64 - 64s - 128 - 128s - 256 - 256 - 256s - 1024 - 10", (3, 32, 32), tuple(layers))


def dense(hidden: int = 800) -> Network:
    """784-800-10."""
    rng = np.random.default_rng(0)
    layers = (Layer("hidden", _weights(rng, hidden, 784)), Layer("out", _weights(rng, 10, hidden)))
    return _balanced("dense", f"784 - {hidden} - 10", (784,), layers)


def recurrent(hidden: int = 256) -> Network:
    """700-256-20, the hidden layer hears itself one step later."""
    rng = np.random.default_rng(0)
    layers = (
        Layer("hidden", _weights(rng, hidden, 700), loop=2 * rng.integers(-12, 13, (hidden, hidden))),
        Layer("out", _weights(rng, 20, hidden)),
    )
    return _balanced("recurrent", f"700 - {hidden} (recurrent) - 20", (700,), layers)


NETWORKS: dict[str, Callable[[], Network]] = {
    "conv net": small_conv, "VGG-9": vgg9, "dense": dense, "recurrent": recurrent,
}  # fmt: skip


def _balanced(name: str, what: str, shape: tuple[int, ...], layers: tuple[Layer, ...], rate: float = RATE) -> Network:
    """Choose thresholds, layer by layer, by halving on a short run of some of its neurons."""
    steps, batch = 24, 4
    x = torch.from_numpy(np.random.default_rng(2).random((steps * batch, *shape)) < INPUT_RATE).float()
    made = []
    for layer in layers:
        sums = layer.drive(x)
        sums = sums.reshape(steps, batch, *sums.shape[1:])
        some = sums if layer.loop is not None else sums.flatten(2)[:, :, :: max(1, sums[0, 0].numel() // 2000)]
        low, high = 0, 131071
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if float(_fired(some, middle, layer.loop).mean()) > rate else (low, middle)
        x = _fired(sums, high, layer.loop).flatten(0, 1)
        made.append(Layer(layer.name, layer.weight, layer.stride, layer.loop, high))
    return Network(name, what, shape, tuple(made))


def _fired(sums: torch.Tensor, threshold: int, loop: NDArray[np.int64] | None) -> torch.Tensor:
    """Spikes (T, B, ...) of sums, in floats: good enough to choose a threshold."""
    v = spikes = torch.zeros_like(sums[0])
    back = None if loop is None else torch.from_numpy(loop).float()
    found = []
    for a in sums:
        v = v * (1 - DECAY / 4096) + a + (0 if back is None else spikes @ back.T)
        spikes = (v > threshold).float()
        v = v * (1 - spikes)
        found.append(spikes)
    return torch.stack(found)


def _deployment(network: Network, steps: int) -> Deployment:
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(network.shape)})}
    edges, synapses, shape, before = [], dict[str, IntegerSynapse](), network.shape, "input"
    for layer in network.layers:
        name = f"{layer.name}.weight"
        if layer.convolution:
            nodes[name] = nir.Conv2d(None, layer.weight.astype(float), layer.stride, 1, 1, 1, np.zeros(len(layer.weight)))
            sides = [-(-size // layer.stride) for size in shape[1:]]
            shape = (len(layer.weight), *sides)
        else:
            if len(shape) > 1:
                nodes[f"{layer.name}.flatten"] = nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)
                edges.append((before, f"{layer.name}.flatten"))
                before = f"{layer.name}.flatten"
            nodes[name] = nir.Linear(layer.weight.astype(float))
            shape = (len(layer.weight),)
        ones = np.ones(shape)
        nodes[layer.name] = nir.LIF(ones * DT * 4096 / DECAY, ones, ones * 0, ones * layer.threshold, ones * 0)
        edges += [(before, name), (name, layer.name)]
        synapses[name] = IntegerSynapse(layer.weight.astype(np.int16))
        if layer.loop is not None:
            nodes[f"{layer.name}.loop"] = nir.Linear(layer.loop.astype(float))
            edges += [(layer.name, f"{layer.name}.loop"), (f"{layer.name}.loop", layer.name)]
            synapses[f"{layer.name}.loop"] = IntegerSynapse(layer.loop.astype(np.int16))
        before = layer.name
    nodes["output"] = nir.Output({"output": np.array(shape)})
    edges.append((before, "output"))
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    names = [layer.name for layer in network.layers]
    populations = {layer.name: IntegerPopulation(layer.threshold, 4095, DECAY, 1.0) for layer in network.layers}
    grid: dict[str, Any] = {"scale": dict.fromkeys(names, 1.0), "binding": dict.fromkeys(names, "benchmark")}
    contract = ExecutionContract(
        dt=DT, steps=steps, latency=latencies(graph, DT), neurons={name: NeuronSpec(DECAY) for name in names},
        readout=ReadoutSpec(names[-1], "spike_count"), encoder=EncoderSpec("events", gain=1.0, low=0, high=1),
        quantisation=Quantisation(target="loihi2", weight_bits=8, **grid),
    )  # fmt: skip
    return Deployment(graph, contract, synapses, populations)
