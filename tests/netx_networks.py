"""Random lava-dl networks as files, for tests: every layer type, asymmetric geometry, biases, delays and recurrence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator

from snn_export.export import netx_io
from snn_export.export.deployment import Deployment
from snn_export.export.netx_layers import NetFile, NetLayer, NetNeuron, loaded_weights, write_file
from tests.builders import even


@dataclass(frozen=True)
class Wish:
    """Which kind of network; ``kinds`` are dense, rec, conv, flatten, in order."""

    kinds: tuple[str, ...]
    shape: tuple[int, ...] = (7,)
    delays: bool = False
    steps: int = 9
    host: bool = False
    interval: int = 0
    axons: bool = False


def random_net(rng: Generator, wish: Wish) -> NetFile:
    """The layers of a file; every population fires now and then."""
    layers: list[NetLayer] = []
    shape, drive = wish.shape, 1
    if wish.host:
        neuron = NetNeuron(4096, int(rng.integers(0, 2000)), int(rng.integers(100, 300)))
        bias = np.array([int(rng.integers(1, 40))]) if len(shape) != 2 else None
        layers.append(NetLayer("input", shape, np.array([int(rng.integers(30, 90))]), bias=bias, neuron=neuron))
    elif len(shape) > 1:
        layers.append(NetLayer("input", shape))
    for kind in wish.kinds:
        if kind == "flatten":
            layers.append(NetLayer("flatten"))
            shape = (int(np.prod(shape)),)
            continue
        layer = _conv(rng, shape) if kind == "conv" else _dense(rng, shape[0], kind == "rec", wish.delays)
        outputs = layer.weight.shape[0]  # type: ignore[union-attr]
        bias = rng.integers(-60, 61, outputs) if rng.random() < 0.8 else None
        decay = int(rng.integers(1, 4096)) if rng.random() < 0.5 else 4096
        neuron = NetNeuron(decay, int(rng.integers(1, 4096)), int(rng.integers(20, 300)))
        layers.append(replace(layer, bias=bias, neuron=neuron))
        shape = layer.shape
        drive *= 2
    if wish.axons:
        layers = _with_axons(rng, layers)
    return NetFile(tuple(layers), wish.interval or wish.steps, {"steps": float(wish.steps)} if wish.interval else {})


def _with_axons(rng: Generator, layers: list[NetLayer]) -> list[NetLayer]:
    """Every dense layer gets sources that always fire: inputs of the first, neurons of the layer before for the others."""
    found = list(layers)
    for index in range(len(found)):
        count, layer = int(rng.integers(1, 3)), found[index]
        columns = np.hstack([even(rng, (len(layer.weight), 1), 254) for _ in range(count)])  # type: ignore[arg-type]
        signs = np.sign(columns[:, :1])  # a bias beyond one source's reach has one sign in all of them
        columns = columns if count == 1 else np.hstack((254 * signs, signs * abs(columns[:, 1:])))
        weight = np.hstack((layer.weight // 2 * 2, columns))  # type: ignore[operator]
        weight[0, 0], weight[-1, 0] = 254, -256  # mixed signs: netx leaves them alone
        found[index] = replace(layer, weight=weight, always_on=count)
        if index:
            before = found[index - 1]
            loop = None if before.recurrent is None else np.pad(before.recurrent, ((0, count), (0, count)))
            bias = np.zeros(len(before.weight), np.int64) if before.bias is None else before.bias  # type: ignore[arg-type]
            found[index - 1] = replace(
                before, shape=(before.shape[0] + count,), weight=np.pad(before.weight, ((0, count), (0, 0))), recurrent=loop,  # type: ignore[arg-type]
                bias=np.append(bias, np.full(count, 4095)),
            )  # fmt: skip
    return found


def _dense(rng: Generator, inputs: int, recurrent: bool, delays: bool) -> NetLayer:
    outputs = inputs if recurrent and delays else int(rng.integers(2, 9))
    while True:
        reach = int(rng.choice([30, 127, 254]))
        weight = even(rng, (outputs, inputs), reach) if rng.random() < 0.7 else rng.integers(0, reach + 1, (outputs, inputs))
        loop = even(rng, (outputs, outputs), reach) if recurrent else None
        if recurrent and delays:
            weight[0, 0], weight[-1, -1] = 254, -256  # nothing to shift up: netx would not shift it back
        if not recurrent or not np.any(weight % 2):
            parts = [part for part in (weight, loop) if part is not None]
            loaded = loaded_weights(parts)
            if loaded is not None and all(np.array_equal(a, b) for a, b in zip(loaded, parts, strict=True)):
                break
    delay = rng.integers(0, 5, outputs) if delays else None
    if delays and not recurrent and rng.random() < 0.4:
        delay = rng.integers(0, 4, (outputs, 1)) + rng.integers(0, 4, (1, inputs))
    return NetLayer("dense_rec" if recurrent else "dense", (outputs,), weight, loop, delay=delay)


def _conv(rng: Generator, shape: tuple[int, ...]) -> NetLayer:
    groups = int(rng.choice([1, 2])) if shape[0] % 2 == 0 else 1
    kernel, stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4))), (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    padding, dilation = (int(rng.integers(0, 3)), int(rng.integers(0, 3))), (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    channels = 2 * int(rng.integers(1, 4))
    weight = even(rng, (channels, shape[0] // groups, *kernel), 254)
    sizes = [(shape[1 + a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in (0, 1)]
    if min(sizes) < 1:
        return _conv(rng, shape)
    return NetLayer("conv", (channels, *sizes), weight, stride=stride, padding=padding, dilation=dilation, groups=groups)


def as_deployment(net: NetFile, folder: Path) -> Deployment:
    """The deployment of a file with these layers."""
    path = folder / "random.net"
    write_file(net, path)
    return netx_io.read(path)


WISHES = {
    "dense": Wish(("dense", "dense", "dense")),
    "conv": Wish(("conv", "conv"), (2, 9, 6)),
    "mixed": Wish(("conv", "conv", "flatten", "dense", "dense"), (2, 8, 11)),
    "recurrent": Wish(("dense", "rec", "rec")),
    "delays": Wish(("dense", "dense", "dense"), delays=True),
    "conv and delays": Wish(("conv", "flatten", "dense"), (2, 6, 7), delays=True),
    "recurrent with delays": Wish(("rec", "rec"), delays=True),
    "host": Wish(("dense", "rec"), host=True),
    "host maps": Wish(("conv", "flatten", "dense"), (2, 5, 6), host=True),
    "flat maps": Wish(("flatten", "dense"), (2, 3, 2)),
    "reset": Wish(("dense", "dense"), steps=12, interval=4),
    "always-on": Wish(("dense", "rec", "dense"), axons=True),
    "always-on, feed-forward": Wish(("dense", "dense"), axons=True),
    "uneven reset": Wish(("dense", "rec"), steps=10, interval=4),
}
