"""Random networks that use everything Lava has, for comparisons with it; many of them run side by side and read one input."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.lava.simulator import Program
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
from snn_export.hardware_sims.trace import Record, Trace
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, even, random_neuron


@dataclass(frozen=True)
class Size:
    """How large networks are: the shape of their input, neurons of a dense layer, its density, and the longest delays."""

    input: tuple[int, int, int]
    dense: tuple[int, int]
    density: float
    delays: tuple[int, ...]


SMALL = Size((2, 5, 4), (3, 6), 1.0, (2, 6, 30))
WIDE = Size((2, 40, 36), (200, 600), 0.03, (1, 2))
"""Many neurons in few processes of Lava: the way to many neuron-steps."""

EVERYTHING: tuple[Record, ...] = ("spikes", "membrane", "current")
KINDS = ("dense", "deep", "conv", "grouped", "mixed", "line", "scale", "residual", "loop", "self", "cycle", "map loop")


def random_network(rng: Generator, name: str, kind: str = "", size: Size = SMALL) -> tuple[LayerPlan, ...]:
    """One to three populations, their names starting with ``name``; the kind is drawn where it is not given."""
    kind = kind or str(rng.choice(KINDS))
    if kind == "line":
        return (_line(rng, f"{name}.1", size),)
    if kind not in ("dense", "deep", "residual", "loop", "self", "cycle"):
        return _maps(rng, name, kind, size)
    neurons = [int(rng.integers(size.dense[0], size.dense[1] + 1)) for _ in range(3)]
    one, two, three = ((count,) for count in neurons)
    first = _dense(rng, f"{name}.1", "input", size.input, one, size)
    second = _dense(rng, f"{name}.2", first.name, one, two, size)
    if kind == "dense":
        return (first,)
    if kind == "deep":
        return first, second
    if kind == "cycle":  # as many steps of delay as connections
        back = _delayed(rng, SynapsePlan(_matrix(rng, two, one, size), second.name), two, one, size)
        return replace(first, more=(replace(back, before=back.before + 2),)), second
    if kind == "residual":
        third = _dense(rng, f"{name}.3", second.name, two, three, size)
        short = _synapse(rng, SynapsePlan(_matrix(rng, one, three, size), first.name), one, three, size)
        shorter = _synapse(rng, SynapsePlan(_matrix(rng, size.input, three, size)), size.input, three, size)
        return first, second, replace(third, more=(short, shorter)[: int(rng.integers(1, 3))])
    back = SynapsePlan(even(rng, one) if kind == "self" else _matrix(rng, one, one, size), first.name, scale=kind == "self")
    return (replace(first, more=(_synapse(rng, back, one, one, size, least=1),)),)


def _maps(rng: Generator, name: str, kind: str, size: Size) -> tuple[LayerPlan, ...]:
    first = _convolution(rng, f"{name}.1", "input", size.input, (4, int(rng.choice([1, 2]))), size)
    shape = _shape(first, size)
    if kind == "conv":
        return (first,)
    if kind == "grouped":
        second = _convolution(rng, f"{name}.2", first.name, shape, (6, 2), size)
        return first, replace(second, dilation=(1, 1), padding=(2, 2))
    if kind == "mixed":
        return first, _dense(rng, f"{name}.2", first.name, shape, (size.dense[0],), size)
    if kind == "scale":
        weight = even(rng, shape if rng.random() < 0.7 else (1,))
        layer = _synapse(rng, LayerPlan(f"{name}.2", weight, first.name, scale=True), shape, shape, size)
        return first, replace(random_neuron(rng, layer, 256), bias=None)
    kernel = even(rng, (4, 4 // first.groups, 3, 1), 100)
    back = SynapsePlan(kernel, first.name, padding=(1, 0), groups=first.groups)
    return (replace(first, more=(_delayed(rng, back, shape, shape, size, least=1),)),)


def _shape(layer: LayerPlan, size: Size) -> tuple[int, ...]:
    return deployment_from(Plan(size.input, (replace(layer, before=0, after=0),))).shapes[layer.name]


def _matrix(rng: Generator, given: tuple[int, ...], taken: tuple[int, ...], size: Size) -> Any:
    shape = (int(np.prod(taken)), int(np.prod(given)))
    return even(rng, shape, 256) * (rng.random(shape) < size.density)


def _dense(rng: Generator, name: str, source: str, given: tuple[int, ...], taken: tuple[int, ...], size: Size) -> LayerPlan:
    layer = LayerPlan(name, _matrix(rng, given, taken, size), source)
    return _neuron(rng, _synapse(rng, layer, given, taken, size), taken[0])


def _convolution(rng: Generator, name: str, source: str, given: tuple[int, ...], out: tuple[int, int], size: Size) -> LayerPlan:
    """``out`` channels and groups. Kernel, stride, padding and dilation are all asymmetric where they can be; some kernels of
    even size are padded unevenly, by ``same``."""
    kernel, padding = (int(rng.integers(1, 4)), int(rng.integers(1, 4))), (int(rng.integers(0, 3)), int(rng.integers(0, 3)))
    channels, groups = out
    layer = LayerPlan(
        name, even(rng, (channels, given[0] // groups, *kernel), 256), source, groups=groups,
        padding="same" if rng.random() < 0.15 else padding, dilation=(int(rng.integers(1, 3)), 1),
    )  # fmt: skip
    if layer.padding != "same":
        layer = replace(layer, stride=(int(rng.integers(1, 3)), int(rng.integers(1, 3))))
        if kernel[0] == 3:
            layer = replace(layer, padding=(2, padding[1]))  # a dilated kernel of three fits into five rows
    shape = _shape(layer, size) if source == "input" else ()
    return _neuron(rng, _synapse(rng, layer, given, shape, size, plain=0.6), channels)


def _line(rng: Generator, name: str, size: Size) -> LayerPlan:
    """A Conv1d over the rows one after the other."""
    groups, kernel = int(rng.choice([1, 2])), int(rng.integers(1, 5))
    layer = LayerPlan(
        name, even(rng, (4, 2 // groups, kernel), 256), groups=groups, stride=(int(rng.integers(1, 4)),),
        padding=(int(rng.integers(0, 3)),) if rng.random() < 0.8 else "same", dilation=(int(rng.integers(1, 3)),),
    )  # fmt: skip
    layer = replace(layer, stride=(1,)) if layer.padding == "same" else layer
    given = (size.input[0], size.input[1] * size.input[2])
    return _neuron(rng, _synapse(rng, layer, given, _shape(layer, size), size, plain=0.5), 4)


def _neuron(rng: Generator, layer: LayerPlan, channels: int) -> LayerPlan:
    layer = random_neuron(rng, layer, 2048)
    if rng.random() < 0.3:
        layer = replace(layer, current_bias=even(rng, (channels,), int(rng.choice([100, 900]))))
    if rng.random() < 0.12:
        interval = int(rng.integers(1, 7))
        layer = replace(layer, reset_interval=interval, reset_offset=int(rng.integers(0, interval)) if rng.random() < 0.5 else 0)
    return layer


def _synapse(
    rng: Generator,
    synapse: Any,
    given: tuple[int, ...],
    taken: tuple[int, ...],
    size: Size,
    plain: float = 0.4,
    least: int = 0,
) -> Any:
    """A synapse or layer with a weight exponent, with odd weights of one sign, with delays, or with nothing of the kind."""
    if rng.random() < plain:
        return synapse
    if rng.random() < 0.4:
        weight = rng.integers(0, 256, synapse.weight.shape) * (synapse.weight != 0)
        synapse = replace(synapse, weight=weight if rng.random() < 0.5 else -weight)
    if rng.random() < 0.5:
        synapse = replace(synapse, weight_exponent=int(rng.integers(0, 3)))
    return _delayed(rng, synapse, given, taken, size, least) if rng.random() < 0.5 else synapse


def _delayed(rng: Generator, synapse: Any, given: tuple[int, ...], taken: tuple[int, ...], size: Size, least: int = 0) -> Any:
    """Delays in front of the weights, behind them, or both; the same for all or one per feature."""
    most = int(rng.choice(size.delays))
    before: Any = int(rng.integers(least, most + 1))
    if rng.random() < 0.5:
        before = rng.integers(least, most + 1, given if rng.random() < 0.5 else (int(np.prod(given)),))
        before = before if synapse.weight.ndim == 2 or synapse.scale else before.reshape(given)
        before = before.reshape(given) if synapse.scale else before
    after: Any = int(rng.integers(0, most + 1)) if rng.random() < 0.3 else 0
    if taken and rng.random() < 0.3:
        after = rng.integers(0, most + 1, taken)
    return replace(synapse, before=before, after=after)


@dataclass(frozen=True)
class Comparison:
    """A trace against the int64 interpreter: how much was compared, how much differs, and where it begins."""

    neuron_steps: int
    spikes: int
    overflows: int
    mismatched: dict[str, int]
    places: tuple[str, ...]
    networks: int = 1


def compare(deployment: Deployment, inputs: NDArray[Any], trace: Trace) -> Comparison:
    """Spikes, u and v of every population in every step, bit for bit; ``mismatched`` counts by what differs."""
    places, mismatched, steps, spikes, overflows = [], dict.fromkeys(EVERYTHING, 0), 0, 0, 0
    for name, want in interpreter.run(deployment, inputs, "int64").items():
        got = trace.layers[name]
        wrong = {
            what: getattr(got, what) != getattr(want, what)
            if getattr(got, what).shape == getattr(want, what).shape
            else np.ones(getattr(want, what).shape, bool)
            for what in EVERYTHING
        }
        steps, spikes, overflows = steps + want.spikes.size, spikes + int(want.spikes.sum()), overflows + want.overflows
        for what, where in wrong.items():
            mismatched[what] += int(where.sum())
        firsts = [tuple(np.argwhere(where)[0].tolist()) for where in wrong.values() if where.any()]
        if firsts:
            places.append(f"{name} from (step, sample, neuron...) {min(firsts)} on: {deployment.populations[name]}")
    return Comparison(steps, spikes, overflows, mismatched, tuple(places))


def compare_with_loihi(deployments: list[Deployment], inputs: NDArray[Any]) -> Comparison:
    """The same for our own simulator, network by network, over those that it takes."""
    ours, found = LoihiSimulator(), list[Comparison]()
    for deployment in deployments:
        if not ours.check(deployment):
            found.append(compare(deployment, inputs, ours.run(ours.compile(deployment), inputs, EVERYTHING)))
    return Comparison(
        sum(item.neuron_steps for item in found),
        sum(item.spikes for item in found),
        sum(item.overflows for item in found),
        {what: sum(item.mismatched[what] for item in found) for what in EVERYTHING},
        tuple(place for item in found for place in item.places),
        len(found),
    )


def operations(deployment: Deployment, program: Program) -> Counter[str]:
    """How often a program uses what Lava has."""
    found: Counter[str] = Counter()
    for facts in program.connections:
        name = {"dense": "Dense", "sparse": "Sparse", "conv": "Conv"}[facts["kind"]]
        found["Delay" * facts["delayed"] + name] += 1
        found["graded input"] += facts["message_bits"] > 0
        found["weight exponent"] += facts["weight_exponent"] > 0
        found["weights of one sign"] += facts["sign_mode"] != "mixed"
    for number, facts in enumerate(program.populations):
        found["LIFReset"] += 1
        found["filtered current (CubaLIF)"] += facts["du"] != 4095
        found["bias on the membrane"] += bool(program.arrays[f"bias_{number}"].any())
        found["bias into the current"] += facts["axons"]
        found["periodic reset"] += deployment.contract.neurons[facts["name"]].reset_interval > 0
        wires = deployment.wires[facts["name"]]
        found["several sources"] += len(wires) > 1
        found["loop"] += any(wire.recurrent for wire in wires)
        found["waits for a longer path"] += any(deployment.latency_gap(wire) > 0 for wire in wires)
    return found
