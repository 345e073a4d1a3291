"""What real Lava can run, and what it would run differently from what the deployment says: every reason with its code.

The limits are those of the ``fixed_pt`` models of lava-nc 0.10.0, read in their source (lava/proc/{lif,dense,conv}/models.py).
Lava enforces none of them: it clips, truncates, wraps or ignores without a word, so they are enforced here.
"""

from __future__ import annotations

from collections.abc import Iterator

import nir
import numpy as np

from snn_export.export.deployment import Deployment, not_quantised
from snn_export.export.graph import SYNAPSE_TYPES, Connection, conv_padding, latencies, pair
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

CONV_SUM_LIMIT = 1 << 23
"""Lava's Conv wraps its sum at 24 bits before it leaves the synapse."""

REGISTER_LIMIT = 1 << 31
"""Lava holds u and v in 32-bit integers and wraps u only once per step."""

WEIGHT_EXPONENT_MAX = 7
GEOMETRY_MAX = 127
"""Lava's Conv holds kernel size, stride, padding, dilation and groups in 8 bits."""


def findings(deployment: Deployment) -> list[Diagnostic]:
    """Everything that keeps a deployment from running on Lava as its contract says; empty where it can run."""
    if not deployment.quantised or deployment.contract.encoder.gain is None:
        return list(not_quantised("deployment").diagnostics)
    try:
        _ = deployment.shapes, deployment.connections
    except UserError as error:
        return list(error.diagnostics)
    found = [*_latencies(deployment)]
    for name in deployment.layers:
        population = [*_neuron(deployment, name)]
        for connection in deployment.connections[name]:
            population += _connection(deployment, connection)
        found += population or [*_biases(deployment, name), *_sums(deployment, name)]
    return list({(item.code, item.where): item for item in found}.values())


def weight_node(deployment: Deployment, connection: Connection) -> str | None:
    """The one weight node of a connection ``[Flatten] weight [Flatten]``; None where it has another form."""
    nodes = [(name, deployment.graph.nodes[name]) for name in connection.path]
    weights = [name for name, node in nodes if isinstance(node, SYNAPSE_TYPES)]
    plain = all(isinstance(node, (*SYNAPSE_TYPES, nir.Flatten)) for _, node in nodes)
    return weights[0] if plain and len(weights) == 1 else None


def _latencies(deployment: Deployment) -> Iterator[Diagnostic]:
    try:
        actual = latencies(deployment.graph)
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
    name = weight_node(deployment, connection)
    if name is None:
        path = " -> ".join((connection.source, *connection.path, connection.target))
        yield Diagnostic(
            "SNX225",
            f"Lava has no connection for {path}",
            path,
            "between two populations there is exactly one Dense or Conv",
            "absorb pooling and scaling (snn_export.quantize does), and put one weight layer before each population",
        )
        return
    synapse, node = deployment.synapses.get(name), deployment.graph.nodes[name]
    if synapse is None:
        yield _without_integers(name)
        return
    weight = synapse.weight.astype(np.int64)
    wrong = int(((weight % 2 != 0) | (weight < WEIGHT_MIN) | (weight > WEIGHT_MAX)).sum())
    if wrong:
        yield Diagnostic(
            "SNX223",
            f"{wrong} of {weight.size} weights of {name} are not even integers in {WEIGHT_MIN}..{WEIGHT_MAX}",
            name,
            "a mixed-sign 8-bit synapse holds nothing else: Lava's Dense would clip and truncate them, its Conv would not",
            "quantise again",
        )
    highest = 0 if isinstance(node, nir.Conv2d) else WEIGHT_EXPONENT_MAX
    if not 0 <= synapse.weight_exponent <= highest:
        yield Diagnostic(
            "SNX224",
            f"the weight exponent of {name} is {synapse.weight_exponent}",
            name,
            f"it must lie in 0..{highest}: Lava's Conv ignores it, and its Dense shifts the sum, not the weights",
            "quantise again with weight exponent 0",
        )
    if isinstance(node, nir.Conv2d):
        yield from _geometry(name, node)


def _geometry(name: str, node: nir.Conv2d) -> Iterator[Diagnostic]:
    (top, bottom), (left, right) = conv_padding(node)
    sizes = (*node.weight.shape[2:], *pair(node.stride), *pair(node.dilation), top, bottom, left, right, int(node.groups))
    if top != bottom or left != right:
        yield Diagnostic(
            "SNX226",
            f"{name} is padded unevenly: rows {top}, {bottom}, columns {left}, {right}",
            name,
            "Lava's Conv pads both sides alike",
            "use an odd kernel with padding 'same', or state the padding as numbers",
        )
    elif max(sizes) > GEOMETRY_MAX:
        yield Diagnostic(
            "SNX226",
            f"{name} has a size of {max(sizes)} (kernel, stride, padding, dilation or groups)",
            name,
            f"Lava's Conv holds these in 8 bits, up to {GEOMETRY_MAX}, and wraps beyond",
            "split the layer",
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
    encoder, total = deployment.contract.encoder, 0
    for connection in deployment.connections[name]:
        node = weight_node(deployment, connection)
        if node is None:
            continue
        synapse = deployment.synapses[node]
        largest = 1 if connection.source in deployment.populations else max(abs(encoder.low), abs(encoder.high))
        weight = np.abs(synapse.weight.astype(np.int64))
        bound = (int(weight.reshape(len(weight), -1).sum(axis=1).max()) * largest) << synapse.weight_exponent
        if isinstance(deployment.graph.nodes[node], nir.Conv2d) and bound >= CONV_SUM_LIMIT:
            yield Diagnostic(
                "SNX228",
                f"sums of {node} can reach {bound}",
                node,
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
