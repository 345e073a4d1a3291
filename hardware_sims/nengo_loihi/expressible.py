"""What nengo-loihi's emulator can run as the contract says: every reason against it with its code, and what becomes of each node.

The emulator is a third statement of Loihi's arithmetic, beside ``loihi`` and Lava. Blocks are given the chip's integers, so its
own discretisation never runs. What of it is like Lava's and what is not, each line seen by running it (nengo-loihi 1.1.0):

    decays          12 bits, with an offset of 1 in that of u; trunc toward zero                the same
    weights         int32 in units of u: weight << (6 + exponent), no grid, no clipping         the grid is enforced here, SNX269
    synaptic sum    q wraps at 22 bits, [-2^21, 2^21)                                           Lava: 32 bits; SNX268
    current u       wraps at 24 bits, [-2^23, 2^23)                                             Lava: (-2^23, 2^23]; SNX268
    u + bias        wraps at 24 bits before it is added to v                                    Lava: does not; SNX268
    membrane v      saturates at +-(2^23 - 1), where vmin and vmax say so                       the same
    spike, reset    v > vth << 6, strict; to zero, in the step of the spike                     the same
    refractory      1 step at the least, which means none                                       the same
    latency         one step per synapse and per input, in loops too                            the same
    delays          none ("delay not yet implemented")                                          relay neurons, see lowering
    graded spikes   none                                                                        bits over several axons
    bias            of the membrane, from the first step on                                     switched on with the first input
    an axon         that reaches a neuron over two synapses of one matrix counts once           matrices hold each pair once

Its own discretisation of floats would give other integers. Decays are multiplied by 4095 and not 4096: a dv from 2049 on and a du
from 2047 on come out one lower. Weights are scaled until the largest is 255, then rounded to even numbers and clipped to +-254;
the threshold is scaled with them and not clipped, so at a largest weight of 254 it comes out 0.4 % too high for them.

SNX268 depends on the inputs and comes while the network runs: a run that returns agrees with Lava in every bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import nir
import numpy as np

from snn_export.export.bounds import memory_findings, sums
from snn_export.export.deployment import Deployment, IntegerSynapse, not_quantised
from snn_export.export.graph import CONV_TYPES, Connection, is_population, latencies
from snn_export.export.wiring import Wire, weight_node
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.hardware_sims.nengo_loihi.lowering import delay_of, level_bits, synapses_of
from snn_export.models.arithmetic import (
    BIAS_EXPONENT_MAX,
    BIAS_MANTISSA_MAX,
    BIAS_MANTISSA_MIN,
    DECAY_MAX,
    STATE_SHIFT,
    THRESHOLD_MAX,
    WEIGHT_MAX,
    WEIGHT_MIN,
)
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.weight_grid import DELAY_MAX, SINGLE_SIGN_MAX, WEIGHT_EXPONENT_MAX, WEIGHT_EXPONENT_MIN

SYNAPSES_MAX = 1 << 25
"""Synapses of one layer, 8 bytes each in the emulator; those behind a graded input count once per bit of its levels."""

REGISTER_LIMIT = 1 << 31
"""NumPy adds the emulator's synaptic sums in 32 bits, and tells nobody where they are left."""

QUANTISE = "quantise the network again"


def findings(deployment: Deployment) -> list[Diagnostic]:
    """Everything that keeps a deployment from running as its contract says; empty where it can run."""
    encoder = deployment.contract.encoder
    if not deployment.quantised or (encoder.gain is None and encoder.kind != "bias"):
        return list(not_quantised("deployment").diagnostics)
    try:
        _ = deployment.shapes, deployment.connections
    except UserError as error:
        return list(error.diagnostics)
    found = [*_latencies(deployment)]
    for name in deployment.layers:
        found += _neuron(deployment, name)
        for connection in deployment.connections[name]:
            if not deployment.host_synapses.intersection(connection.path):
                found += _connection(deployment, connection)
    if not found:
        try:
            found = [item for name in deployment.layers for item in _wires(deployment, name)]
        except UserError as error:  # wrong delays
            found = list(error.diagnostics)
    if not found:  # what follows computes with the integers
        found = [item for name in deployment.layers for item in _numbers(deployment, name)]
    return list({(item.code, item.where): item for item in found}.values())


def mapping(deployment: Deployment) -> dict[str, LayerMapping]:
    """By node: the emulator's own (native), another form of the same (rewritten), or refused (unsupported)."""
    found = {
        name: _kind(deployment, name, node)
        for name, node in deployment.graph.nodes.items()
        if not isinstance(node, nir.Input | nir.Output)
    }
    for finding in findings(deployment):
        for name in found.keys() & {finding.where, (finding.where or "").partition(".")[0]}:
            found[name] = LayerMapping("unsupported", f"{finding.code} {finding.what}")
    return found


def _kind(deployment: Deployment, name: str, node: nir.NIRNode) -> LayerMapping:
    if is_population(node):
        return LayerMapping("native", "the emulator's compartments, given the chip's integers")
    if isinstance(node, nir.Delay):
        return LayerMapping("rewritten", "the emulator has no delays: relay neurons, or inputs sent later")
    if isinstance(node, nir.Flatten):
        return LayerMapping("native", "neurons are numbered in that order")
    if name in deployment.host_synapses:
        return LayerMapping("emulated", "the host computes it, and neurons get the result as a bias")
    synapse = deployment.synapses.get(name)
    if synapse is not None and synapse.current_bias is not None:
        return LayerMapping("rewritten", "its bias enters the current: a source that fires in every step")
    graded = any(edge == (source, name) for edge in deployment.graph.edges for source in _graded_inputs(deployment))
    if graded:
        return LayerMapping("rewritten", "the emulator has no graded spikes: every bit of a level is a spike of its own")
    if isinstance(node, CONV_TYPES):
        return LayerMapping("rewritten", "written out as the sparse matrix it is")
    return LayerMapping("native", "the emulator's synapses, given the chip's integers")


def _graded_inputs(deployment: Deployment) -> list[str]:
    plain = deployment.contract.encoder.kind == "bias" or level_bits(deployment) == (1, (1,))
    return [] if plain else [name for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Input)]


def _latencies(deployment: Deployment) -> Iterator[Diagnostic]:
    try:
        actual = latencies(deployment.graph, deployment.contract.dt)
    except UserError as error:
        yield from error.diagnostics
        return
    for name, steps in actual.items():
        stated = deployment.contract.latency.get(name)
        if stated != steps:
            yield _refused(
                f"the contract states a latency of {stated} steps for {name}, the graph has {steps}", name,
                "every population's steps are cut out of the run by its latency", "write the deployment again with this version",
            )  # fmt: skip


def _neuron(deployment: Deployment, name: str) -> Iterator[Diagnostic]:
    spec, integers = deployment.contract.neurons.get(name), deployment.populations.get(name)
    if spec is None or integers is None:
        yield from not_quantised(name).diagnostics
        return
    finding = spec.reset_finding(name)
    if finding is not None:
        yield finding
    limits = {
        "du": (integers.du, DECAY_MAX), "dv": (integers.dv, DECAY_MAX), "threshold": (integers.threshold, THRESHOLD_MAX),
        "bias_exponent": (integers.bias_exponent, BIAS_EXPONENT_MAX),
    }  # fmt: skip
    for what, (value, high) in limits.items():
        if not 0 <= value <= high:
            yield _outside(f"{what} of {name} is {value}", f"{name}.{what}", f"the chip holds it in 0..{high}")


def _connection(deployment: Deployment, connection: Connection) -> Iterator[Diagnostic]:
    name = weight_node(deployment.graph, connection)
    if name is None:
        path = " -> ".join((connection.source, *connection.path, connection.target))
        yield _refused(
            f"the emulator has no connection for {path}", path,
            "between two populations there is exactly one layer of weights, with flattens and delays around it",
            "absorb pooling and scaling (snn_export.quantize does), and put one weight layer before each population",
        )  # fmt: skip
        return
    synapse = deployment.synapses.get(name)
    if synapse is None:
        yield from not_quantised(name).diagnostics
        return
    yield from _weights(name, synapse)
    if synapse.current_bias is not None and np.any(synapse.current_bias % 2):
        yield _outside(f"some current biases of {name} are odd", name, "synapses of both signs hold even weights")


def _weights(name: str, synapse: IntegerSynapse) -> Iterator[Diagnostic]:
    weight, mixed, exponent = synapse.weight.astype(np.int64), synapse.sign_mode == "mixed", synapse.weight_exponent
    low, high = (WEIGHT_MIN, WEIGHT_MAX) if mixed else (-SINGLE_SIGN_MAX, SINGLE_SIGN_MAX)
    wrong = (weight < low) | (weight > high) | (mixed & (weight % 2 != 0))
    if wrong.any():
        kind = "even integers" if mixed else "integers"
        yield _outside(
            f"{int(wrong.sum())} of {weight.size} weights of {name} are not {kind} in {low}..{high}", name,
            f"a synapse of {'both signs' if mixed else 'one sign'} holds nothing else; the emulator would add whatever it gets",
        )  # fmt: skip
    if not WEIGHT_EXPONENT_MIN <= exponent <= WEIGHT_EXPONENT_MAX:
        why = f"a synapse holds {WEIGHT_EXPONENT_MIN}..{WEIGHT_EXPONENT_MAX}"
        yield _outside(f"the weight exponent of {name} is {exponent}", f"{name}.exponent", why)
    elif exponent < 0 and np.any(weight & ((1 << -exponent) - 1)):
        yield _outside(
            f"the weight exponent of {name} is {exponent} and shifts bits out of its weights", f"{name}.exponent",
            "Lava shifts the sum of the weights, which keeps what single weights lose",
        )  # fmt: skip


def _wires(deployment: Deployment, name: str) -> Iterator[Diagnostic]:
    """What the wires into a population ask for beyond their weights."""
    for wire in deployment.wires[name]:
        where = f"{wire.source} -> {wire.target}"
        most = sum(int(part.max(initial=0)) for part in delay_of(deployment, wire))
        if most > DELAY_MAX:
            yield _refused(
                f"a spike from {wire.source} has to wait {most} steps on its way to {wire.target}", where,
                f"a synapse delays by up to {DELAY_MAX} steps; what a shorter path waits for a longer one counts", "shorten it",
            )  # fmt: skip
        yield from _size(deployment, wire)


def _size(deployment: Deployment, wire: Wire) -> Iterator[Diagnostic]:
    bits, signs = level_bits(deployment) if wire.source not in deployment.populations else (1, (1,))
    count = synapses_of(deployment, wire) * bits * len(signs)
    if count > SYNAPSES_MAX:
        yield _refused(
            f"{wire.weight} has {count:,} synapses", wire.weight,
            f"the emulator holds each by itself; beyond {SYNAPSES_MAX:,} in a layer that takes gigabytes",
            "run this network on loihi",
        )  # fmt: skip


def _numbers(deployment: Deployment, name: str) -> Iterator[Diagnostic]:
    yield from memory_findings(deployment, name)
    mantissa = deployment.bias(name) >> deployment.populations[name].bias_exponent
    if mantissa.size and (mantissa.min() < BIAS_MANTISSA_MIN or mantissa.max() > BIAS_MANTISSA_MAX):
        yield _outside(
            f"bias mantissas of {name} reach {mantissa.min()} to {mantissa.max()}", name,
            f"the chip holds {BIAS_MANTISSA_MIN}..{BIAS_MANTISSA_MAX} for the sum over all connections of a neuron",
        )  # fmt: skip
    low, high = sums(deployment, name)
    reach = max(-int(low.min(initial=0)), int(high.max(initial=0)))
    if reach << STATE_SHIFT >= REGISTER_LIMIT:
        yield Diagnostic(
            "SNX268", f"synaptic sums of {name} can reach {reach}", name,
            "the emulator adds them in 32 bits, shifted left by 6, and does not notice where they are left",
            "use fewer input bits or a smaller scale",
        )  # fmt: skip


def _refused(what: str, where: str, why: str, fix: str) -> Diagnostic:
    return Diagnostic("SNX267", what, where, why, fix)


def _outside(what: str, where: str, why: str) -> Diagnostic:
    return Diagnostic("SNX269", what, where, why, QUANTISE)
