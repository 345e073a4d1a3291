"""What real Lava can run, and what it would run differently from what the deployment says: every reason with its code.

The limits are those of the ``fixed_pt`` models of lava-nc 0.10.0, read in their source (lava/proc/{lif,dense,conv}/models.py).
Lava enforces none of them: it clips, truncates, wraps or ignores without a word, so they are enforced here.
"""

from __future__ import annotations

from collections.abc import Iterator

import nir
import numpy as np

from snn_export.export.bounds import memory_findings
from snn_export.export.deployment import Deployment, IntegerSynapse, not_quantised
from snn_export.export.graph import CONV_TYPES, Connection, latencies
from snn_export.export.wiring import Wire, weight_node
from snn_export.hardware_sims.lava.lowering import GEOMETRY_MAX, stays_convolution
from snn_export.models.arithmetic import (
    BIAS_EXPONENT_MAX,
    BIAS_MANTISSA_MAX,
    BIAS_MANTISSA_MIN,
    DECAY_MAX,
    DECAY_ONE,
    STATE_SHIFT,
    STATE_WRAP,
    THRESHOLD_MAX,
    WEIGHT_MAX,
    WEIGHT_MIN,
)
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.weight_grid import DELAY_MAX, SINGLE_SIGN_MAX, WEIGHT_EXPONENT_MAX

CONV_SUM_LIMIT = 1 << 23
"""Lava's Conv wraps its sum at 24 bits before it leaves the synapse."""

REGISTER_LIMIT = 1 << 31
"""Lava holds u and v in 32-bit integers and wraps u only once per step."""

ENTRIES_MAX = 1 << 26
"""Entries of a matrix that a convolution is written out as; more would not fit into memory several times over."""


def findings(deployment: Deployment) -> list[Diagnostic]:
    """Everything that keeps a deployment from running on Lava as its contract says; empty where it can run."""
    encoder = deployment.contract.encoder
    if not deployment.quantised or (encoder.gain is None and encoder.kind != "bias"):
        return list(not_quantised("deployment").diagnostics)
    try:
        _ = deployment.shapes, deployment.connections
    except UserError as error:
        return list(error.diagnostics)
    found = [*_latencies(deployment)]
    try:
        whole = not found and bool(deployment.wires)
    except UserError as error:  # said connection by connection below, but for wrong delays
        whole, found = False, [*found, *(item for item in error.diagnostics if item.code != "SNX209")]
    for name in deployment.layers:
        population = [*_neuron(deployment, name)]
        for connection in deployment.connections[name]:
            if not deployment.host_synapses.intersection(connection.path):
                population += _connection(deployment, connection)
        found += population
        if whole and not population:  # what follows computes with the integers
            found += [*_biases(deployment, name), *_sums(deployment, name), *memory_findings(deployment, name)]
    if not found:
        found = [item for wires in deployment.wires.values() for wire in wires for item in _wire(deployment, wire)]
    return list({(item.code, item.where): item for item in found}.values())


def _latencies(deployment: Deployment) -> Iterator[Diagnostic]:
    try:
        actual = latencies(deployment.graph, deployment.contract.dt)
    except UserError as error:
        yield from error.diagnostics
        return
    for name, steps in actual.items():
        stated = deployment.contract.latency.get(name)
        if stated != steps:
            yield Diagnostic(
                "SNX229",
                f"the contract states a latency of {stated} steps for {name}, the graph has {steps}",
                name,
                "samples are cut out of one stream by latency; a wrong one mixes neighbouring samples",
                "write the deployment again with this version",
            )


def _neuron(deployment: Deployment, name: str) -> Iterator[Diagnostic]:
    spec, integers = deployment.contract.neurons.get(name), deployment.populations.get(name)
    if spec is None or integers is None:
        yield _without_integers(name)
        return
    finding = spec.reset_finding(name)
    if finding is not None:
        yield finding
    limits = {"du": (integers.du, DECAY_MAX), "dv": (integers.dv, DECAY_MAX), "threshold": (integers.threshold, THRESHOLD_MAX)}
    for what, (value, high) in limits.items():
        if not 0 <= value <= high:
            yield Diagnostic(
                "SNX221",
                f"{what} of {name} is {value}",
                f"{name}.{what}",
                f"the chip holds it in 0..{high}; Lava would run on regardless",
                "quantise again with a smaller scale, or another decay",
            )
    if not 0 <= integers.bias_exponent <= BIAS_EXPONENT_MAX:
        yield Diagnostic(
            "SNX222",
            f"the bias exponent of {name} is {integers.bias_exponent}",
            f"{name}.bias_exponent",
            f"the chip holds it in 0..{BIAS_EXPONENT_MAX}",
            "quantise again",
        )


def _connection(deployment: Deployment, connection: Connection) -> Iterator[Diagnostic]:
    name = weight_node(deployment.graph, connection)
    if name is None:
        path = " -> ".join((connection.source, *connection.path, connection.target))
        yield Diagnostic(
            "SNX225",
            f"Lava has no connection for {path}",
            path,
            "between two populations there is exactly one layer of weights, with flattens and delays around it",
            "absorb pooling and scaling (snn_export.quantize does), and put one weight layer before each population",
        )
        return
    synapse = deployment.synapses.get(name)
    if synapse is None:
        yield _without_integers(name)
        return
    yield from _weights(name, synapse)
    if not 0 <= synapse.weight_exponent <= WEIGHT_EXPONENT_MAX:
        yield Diagnostic(
            "SNX224",
            f"the weight exponent of {name} is {synapse.weight_exponent}",
            name,
            f"it must lie in 0..{WEIGHT_EXPONENT_MAX}: Lava shifts the sum, and shifting each weight down rounds differently",
            "quantise again with weight exponent 0",
        )
    if synapse.current_bias is not None and np.any(synapse.current_bias % 2):
        yield Diagnostic(
            "SNX231",
            f"{int((synapse.current_bias % 2 != 0).sum())} biases of {name} into the current are odd",
            name,
            "they are weights of sources that fire in every step, and a mixed-sign 8-bit synapse holds even integers only",
            "quantise again",
        )


def _weights(name: str, synapse: IntegerSynapse) -> Iterator[Diagnostic]:
    weight, mixed = synapse.weight.astype(np.int64), synapse.sign_mode == "mixed"
    low, high = (WEIGHT_MIN, WEIGHT_MAX) if mixed else (-SINGLE_SIGN_MAX, SINGLE_SIGN_MAX)
    wrong = (weight < low) | (weight > high)
    if mixed:
        wrong |= weight % 2 != 0
    if wrong.any():
        kind = "even integers" if mixed else "integers"
        yield Diagnostic(
            "SNX223",
            f"{int(wrong.sum())} of {weight.size} weights of {name} are not {kind} in {low}..{high}",
            name,
            f"an 8-bit synapse of {'mixed' if mixed else 'one'} sign holds nothing else: Lava would clip and truncate them",
            "quantise again",
        )


def _wire(deployment: Deployment, wire: Wire) -> Iterator[Diagnostic]:
    """What a wire asks of the chip beyond its weights; only where everything else is in order."""
    steps, gap = wire.most, deployment.latency_gap(wire)
    where = f"{wire.source} -> {wire.target}"
    if steps + gap > DELAY_MAX:
        yield Diagnostic(
            "SNX230",
            f"a spike from {wire.source} has to wait {steps + gap} steps on its way to {wire.target}",
            where,
            f"a synapse delays by up to {DELAY_MAX} steps; {steps} are the network's own, {gap} make up for a shorter path",
            "shorten the delay, or put a population that only relays spikes into the way",
        )
    node = deployment.graph.nodes[wire.weight]
    if isinstance(node, CONV_TYPES) and not stays_convolution(deployment, wire):
        size = int(np.prod(node.weight.shape)) * int(np.prod(deployment.shapes[wire.weight][1:]))
        if size > ENTRIES_MAX:
            yield Diagnostic(
                "SNX226",
                f"{wire.weight} would have to be written out as a matrix of {size} entries",
                where,
                f"Lava's Conv has no delay and no weight exponent, pads both sides alike and holds sizes up to {GEOMETRY_MAX}",
                "use an odd kernel, no weight exponent and no delay on this layer, or split it",
            )


def _biases(deployment: Deployment, name: str) -> Iterator[Diagnostic]:
    mantissa = deployment.bias(name) >> deployment.populations[name].bias_exponent
    if mantissa.size and (mantissa.min() < BIAS_MANTISSA_MIN or mantissa.max() > BIAS_MANTISSA_MAX):
        yield Diagnostic(
            "SNX222",
            f"bias mantissas of {name} reach {mantissa.min()} to {mantissa.max()}",
            name,
            f"the chip holds {BIAS_MANTISSA_MIN}..{BIAS_MANTISSA_MAX} for the sum over all connections of a neuron",
            "quantise again with a larger bias exponent or a smaller scale",
        )


def _sums(deployment: Deployment, name: str) -> Iterator[Diagnostic]:
    """Bounds from the real weights, whatever the input is."""
    encoder, total = deployment.contract.encoder, int(np.abs(deployment.current_bias(name)).max(initial=0))
    for wire in deployment.wires[name]:
        synapse, node = deployment.synapses[wire.weight], deployment.graph.nodes[wire.weight]
        largest = 1 if wire.source in deployment.populations else max(abs(encoder.low), abs(encoder.high))
        weight = np.abs(synapse.weight.astype(np.int64))
        sums = weight if isinstance(node, nir.Scale) else weight.reshape(len(weight), -1).sum(axis=1)
        bound = (int(sums.max(initial=0)) * largest) << synapse.weight_exponent
        if isinstance(node, CONV_TYPES) and stays_convolution(deployment, wire) and bound >= CONV_SUM_LIMIT:
            yield Diagnostic(
                "SNX228",
                f"sums of {wire.weight} can reach {bound}",
                wire.weight,
                f"Lava's Conv wraps its sum at {CONV_SUM_LIMIT}",
                "use fewer input bits or a smaller scale",
            )
        total += bound
    integers = deployment.populations[name]
    held = min(deployment.contract.steps, -(-DECAY_ONE // (integers.du + 1)))
    if (total << STATE_SHIFT) * held + STATE_WRAP >= REGISTER_LIMIT:
        yield Diagnostic(
            "SNX228",
            f"the current of {name} can reach {(total << STATE_SHIFT) * held}",
            name,
            "Lava wraps u once per step and holds it in 32 bits, so it would leave the chip's 24 bits and overflow",
            "use fewer input bits or a smaller scale",
        )


def _without_integers(name: str) -> Diagnostic:
    return Diagnostic(
        "SNX227",
        f"there are no integers for {name}",
        name,
        "a quantised deployment states integers for every weight node and population",
        "quantise the deployment again; do not edit its graph afterwards",
    )
