"""What integer Loihi can hold: each rule is one small function that returns findings, and all of them are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import nir
import numpy as np

from snn_export.export.deployment import Deployment, not_quantised
from snn_export.export.graph import SYNAPSE_TYPES, latencies
from snn_export.models import arithmetic
from snn_export.models.arithmetic import shift_mantissa
from snn_export.models.diagnostics import Diagnostic, UserError

SUM_LIMIT = 1 << 24

Rule = Callable[[Deployment], Iterator[Diagnostic]]


def integers_exist(deployment: Deployment) -> Iterator[Diagnostic]:
    """Every weight node and population has its integers."""
    if not deployment.quantised:
        yield from not_quantised("deployment").diagnostics
        return
    for name, node in deployment.graph.nodes.items():
        held = deployment.synapses if isinstance(node, SYNAPSE_TYPES) else deployment.populations
        if (isinstance(node, SYNAPSE_TYPES) or name in deployment.layers) and name not in held:
            yield from not_quantised(name).diagnostics


def graph_is_readable(deployment: Deployment) -> Iterator[Diagnostic]:
    """Feed-forward, known node types, shapes that fit, paths of equal length."""
    try:
        _ = deployment.shapes
        latencies(deployment.graph, deployment.contract.dt)
    except UserError as error:
        yield from error.diagnostics


def connections_are_single_layers(deployment: Deployment) -> Iterator[Diagnostic]:
    """One weight node per connection, and nothing else but flattens."""
    for incoming in deployment.connections.values():
        for connection in incoming:
            weights = [n for n in connection.path if isinstance(deployment.graph.nodes[n], SYNAPSE_TYPES)]
            others = [n for n in connection.path if not isinstance(deployment.graph.nodes[n], (*SYNAPSE_TYPES, nir.Flatten))]
            if len(weights) != 1 or others:
                yield Diagnostic(
                    "SNX209",
                    f"between {connection.source} and {connection.target} stand {' -> '.join(connection.path) or 'no nodes'}",
                    where=connection.target,
                    why="a chip connection is exactly one weight layer; pooling and scaling must be absorbed into it",
                    fix="use average pooling with kernel = stride directly before a Conv2d or Linear, which absorbs it exactly",
                )


def neurons_reset_to_zero(deployment: Deployment) -> Iterator[Diagnostic]:
    """Spiking populations reset to zero, in the step of the spike."""
    findings = (spec.reset_finding(name) for name, spec in deployment.contract.neurons.items())
    yield from (finding for finding in findings if finding is not None)


def integers_fit(deployment: Deployment) -> Iterator[Diagnostic]:
    """Weights, thresholds, decays and biases lie in the chip's ranges."""
    for name, population in deployment.populations.items():
        limits = {
            "threshold": (population.threshold, 0, arithmetic.THRESHOLD_MAX),
            "du": (population.du, 0, arithmetic.DECAY_MAX),
            "dv": (population.dv, 0, arithmetic.DECAY_MAX),
            "bias exponent": (population.bias_exponent, 0, arithmetic.BIAS_EXPONENT_MAX),
        }
        for what, (value, low, high) in limits.items():
            if not low <= value <= high:
                yield _out_of_range(name, what, value, low, high)
    for name, synapse in deployment.synapses.items():
        low, high = int(synapse.weight.min(initial=0)), int(synapse.weight.max(initial=0))
        if low < arithmetic.WEIGHT_MIN or high > arithmetic.WEIGHT_MAX or np.any(synapse.weight & 1):
            yield Diagnostic(
                "SNX304",
                f"weights of {name} span {low}..{high}" + (" and some are odd" if np.any(synapse.weight & 1) else ""),
                where=name,
                why="a mixed-sign 8-bit synapse holds the even integers -256..254",
                fix="quantise the network again",
            )
        if synapse.weight_exponent < 0 and np.any(synapse.weight & ((1 << -synapse.weight_exponent) - 1)):
            yield Diagnostic(
                "SNX304",
                f"the weight exponent of {name} is {synapse.weight_exponent} and shifts bits out of its weights",
                where=name,
                why="the chip shifts the sum of the weights, which keeps what the single weights lose",
                fix="quantise the network again; its weight exponent is 0",
            )
        if synapse.bias_mantissa is not None and synapse.bias_mantissa.size:
            low, high = int(synapse.bias_mantissa.min()), int(synapse.bias_mantissa.max())
            if low < arithmetic.BIAS_MANTISSA_MIN or high > arithmetic.BIAS_MANTISSA_MAX:
                worst = low if low < arithmetic.BIAS_MANTISSA_MIN else high
                yield _out_of_range(name, "bias mantissa", worst, arithmetic.BIAS_MANTISSA_MIN, arithmetic.BIAS_MANTISSA_MAX)


def _out_of_range(name: str, what: str, value: int, low: int, high: int) -> Diagnostic:
    return Diagnostic(
        "SNX304",
        f"{what} of {name} is {value}",
        where=name,
        why=f"the chip's register holds {low}..{high}",
        fix="quantise the network again",
    )


def sums_are_exact(deployment: Deployment) -> Iterator[Diagnostic]:
    """No synaptic sum can reach 2^24, from each neuron's weights and the declared range of its input."""
    encoder = deployment.contract.encoder
    for incoming in deployment.connections.values():
        for connection in incoming:
            graded = isinstance(deployment.graph.nodes[connection.source], nir.Input)
            largest = max(encoder.high, -encoder.low) if graded and encoder.gain is not None else 1
            for name in connection.path:
                synapse = deployment.synapses.get(name)
                if synapse is None:
                    continue
                weights = np.abs(shift_mantissa(synapse.weight.astype(np.int64), synapse.weight_exponent))
                bound = int(weights.reshape(len(weights), -1).sum(axis=1).max(initial=0)) * largest
                if bound >= SUM_LIMIT:
                    yield Diagnostic(
                        "SNX305",
                        f"synaptic sums in {name} may reach {bound}",
                        where=name,
                        why="a sum of 2^24 or more wraps the 24-bit current many times, and Lava itself rounds it",
                        fix="use fewer input levels, smaller weights or a smaller fan-in",
                    )


RULES: tuple[Rule, ...] = (integers_exist, connections_are_single_layers, neurons_reset_to_zero, integers_fit, sums_are_exact)


def check(deployment: Deployment) -> list[Diagnostic]:
    """All findings of all rules; only those about the graph where its connections cannot even be read."""
    broken = list(graph_is_readable(deployment))
    return broken or [finding for rule in RULES for finding in rule(deployment)]
