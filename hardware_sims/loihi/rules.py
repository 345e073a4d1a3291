"""What integer Loihi can hold: each rule is one small function that returns findings, and all of them are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.bounds import memory_findings
from snn_export.export.chips import CHIPS
from snn_export.export.deployment import Deployment, IntegerSynapse, not_quantised
from snn_export.export.graph import SYNAPSE_TYPES, latencies
from snn_export.export.interpreter import programmable
from snn_export.export.wiring import weight_node
from snn_export.models import arithmetic
from snn_export.models.arithmetic import shift_mantissa
from snn_export.models.diagnostics import Diagnostic, UserError, diagnostics_of
from snn_export.models.weight_grid import DELAY_MAX, SINGLE_SIGN_MAX, WEIGHT_BITS, WEIGHT_EXPONENT_MAX, WEIGHT_EXPONENT_MIN

PROGRAMMABLE = " or ".join(chip.name for chip in CHIPS if chip.programmable_neurons)

SUM_LIMIT = 1 << 53
"""Up to here float64 adds integers exactly."""

DeploymentRule = Callable[[Deployment], Iterator[Diagnostic]]


def integers_exist(deployment: Deployment) -> Iterator[Diagnostic]:
    """Every weight node and population has its integers; weight nodes that the host computes have none."""
    if not deployment.quantised:
        yield from not_quantised("deployment").diagnostics
        return
    for name, node in deployment.graph.nodes.items():
        held = deployment.synapses if isinstance(node, SYNAPSE_TYPES) else deployment.populations
        needed = isinstance(node, SYNAPSE_TYPES) and name not in deployment.host_synapses
        if (needed or name in deployment.layers) and name not in held:
            yield from not_quantised(name).diagnostics


def graph_is_readable(deployment: Deployment) -> Iterator[Diagnostic]:
    """Known node types, shapes that fit, loops that take a step; everything about the graph at once."""
    asked: tuple[Callable[[], object], ...] = (
        lambda: deployment.shapes,
        lambda: deployment.connections,
        lambda: latencies(deployment.graph, deployment.contract.dt),
    )
    yield from dict.fromkeys(finding for question in asked for finding in diagnostics_of(question))


def connections_are_single_layers(deployment: Deployment) -> Iterator[Diagnostic]:
    """One weight node per connection, and nothing else but flattens and delays."""
    for incoming in deployment.connections.values():
        for connection in incoming:
            if any(name in deployment.host_synapses for name in connection.path):
                continue
            if weight_node(deployment.graph, connection) is None:
                yield Diagnostic(
                    "SNX209",
                    f"between {connection.source} and {connection.target} stand {' -> '.join(connection.path) or 'no nodes'}",
                    where=connection.target,
                    why="a chip connection is exactly one weight layer; pooling, scaling and chains of layers must be made one",
                    fix="quantise the float network: snn_export.quantize composes them",
                )


def delays_fit(deployment: Deployment) -> Iterator[Diagnostic]:
    """No spike waits longer than a synapse can hold it, what a shorter path waits for a longer one included."""
    for incoming in deployment.wires.values():
        for wire in incoming:
            longest = wire.most + deployment.latency_gap(wire)
            if longest > DELAY_MAX:
                yield Diagnostic(
                    "SNX327",
                    f"spikes on {wire.weight} wait {longest} steps",
                    where=wire.weight,
                    why=f"a synapse delays by up to {DELAY_MAX} steps; a path shorter than another one waits too",
                    fix="shorten the Delay nodes, or lead the signal through a relay population",
                )


def resets_are_known(deployment: Deployment) -> Iterator[Diagnostic]:
    """Spiking populations reset to zero in the step of the spike, or by subtraction where neurons are programmable (Loihi 2)."""
    return resets_on(deployment, programmable(deployment))


def resets_on(deployment: Deployment, programs: bool) -> Iterator[Diagnostic]:
    """Resets that a chip's neurons do not have; ``programs``: they may be programs of their own."""
    for name, spec in deployment.contract.neurons.items():
        finding = spec.reset_finding(name, programs)
        if finding is not None:
            more = f"; or quantise for {PROGRAMMABLE}, whose neurons can subtract" if spec.microcode else ""
            yield replace(finding, fix=finding.fix + more)


def thresholds_without_memory_forget(deployment: Deployment) -> Iterator[Diagnostic]:
    """A neuron without memory (NIR's Threshold) leaves nothing behind in a register that can only almost forget."""
    for name in deployment.contract.neurons:
        yield from memory_findings(deployment, name)


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
        yield from _weights_fit(name, synapse)
        exponent = synapse.weight_exponent
        if not WEIGHT_EXPONENT_MIN <= exponent <= WEIGHT_EXPONENT_MAX:
            yield _out_of_range(name, "weight exponent", exponent, WEIGHT_EXPONENT_MIN, WEIGHT_EXPONENT_MAX)
        elif exponent < 0 and np.any(synapse.weight & ((1 << -exponent) - 1)):
            yield Diagnostic(
                "SNX304",
                f"the weight exponent of {name} is {exponent} and shifts bits out of its weights",
                where=name,
                why="the chip shifts the sum of the weights, which keeps what the single weights lose",
                fix="quantise the network again; its weight exponent is 0",
            )
        if synapse.bias_mantissa is not None:
            yield from _mantissas_fit(name, "bias mantissa", synapse.bias_mantissa)
        if synapse.current_bias is not None and np.any(synapse.current_bias & 1):
            yield Diagnostic(
                "SNX304",
                f"some current biases of {name} are odd",
                where=name,
                why="they are carried by sources that fire in every step, over synapses of both signs, which hold even weights",
                fix="quantise the network again",
            )


def bias_sums_fit(deployment: Deployment) -> Iterator[Diagnostic]:
    """A neuron has one bias register, for the sum of the biases of all its connections."""
    for name, population in deployment.populations.items():
        biased = sum(deployment.synapses[wire.weight].bias_mantissa is not None for wire in deployment.wires[name])
        if biased > 1 and 0 <= population.bias_exponent <= arithmetic.BIAS_EXPONENT_MAX:
            mantissas = deployment.bias(name) >> population.bias_exponent
            yield from _mantissas_fit(name, f"sum of the bias mantissas of {biased} connections", mantissas)


def _mantissas_fit(name: str, what: str, mantissas: NDArray[np.signedinteger]) -> Iterator[Diagnostic]:
    low, high = int(mantissas.min(initial=0)), int(mantissas.max(initial=0))
    if low < arithmetic.BIAS_MANTISSA_MIN or high > arithmetic.BIAS_MANTISSA_MAX:
        worst = low if low < arithmetic.BIAS_MANTISSA_MIN else high
        yield _out_of_range(name, what, worst, arithmetic.BIAS_MANTISSA_MIN, arithmetic.BIAS_MANTISSA_MAX)


def _weights_fit(name: str, synapse: IntegerSynapse) -> Iterator[Diagnostic]:
    """Mixed signs: even integers of one range. One sign: any, up to the largest size."""
    low, high = int(synapse.weight.min(initial=0)), int(synapse.weight.max(initial=0))
    mixed = synapse.sign_mode == "mixed"
    odd = mixed and bool(np.any(synapse.weight & 1))
    least, most = (arithmetic.WEIGHT_MIN, arithmetic.WEIGHT_MAX) if mixed else (-SINGLE_SIGN_MAX, SINGLE_SIGN_MAX)
    if low < least or high > most or odd:
        yield Diagnostic(
            "SNX304",
            f"weights of {name} span {low}..{high}" + (" and some are odd" if odd else ""),
            where=name,
            why=f"{WEIGHT_BITS}-bit synapses of both signs hold the even integers "
            f"{arithmetic.WEIGHT_MIN}..{arithmetic.WEIGHT_MAX}; those of one sign any up to {SINGLE_SIGN_MAX}",
            fix="quantise the network again",
        )


def _out_of_range(name: str, what: str, value: int, low: int, high: int) -> Diagnostic:
    return Diagnostic(
        "SNX304",
        f"{what} of {name} is {value}",
        where=name,
        why=f"the chip's register holds {low}..{high}",
        fix="quantise the network again",
    )


def sums_are_exact(deployment: Deployment) -> Iterator[Diagnostic]:
    """No synaptic sum can reach 2^53, from the weights and the declared range of the input.

    Up to there a sum is exact in float64; below 2^24 the simulator takes float32.
    """
    encoder = deployment.contract.encoder
    for incoming in deployment.wires.values():
        for wire in incoming:
            if wire.weight not in deployment.synapses:
                continue
            graded = isinstance(deployment.graph.nodes[wire.source], nir.Input)
            largest = max(encoder.high, -encoder.low) if graded and encoder.gain is not None else 1
            synapse = deployment.synapses[wire.weight]
            weights = np.abs(shift_mantissa(synapse.weight.astype(object), synapse.weight_exponent))
            bound = int(weights.reshape(len(weights), -1).sum(axis=1).max(initial=0)) * largest
            if bound >= SUM_LIMIT:
                yield Diagnostic(
                    "SNX305",
                    f"synaptic sums in {wire.weight} may reach {bound}",
                    where=wire.weight,
                    why="no floating-point product adds integers of 2^53 or more without rounding",
                    fix="use fewer input levels, a smaller weight exponent or a smaller fan-in",
                )


RULES: tuple[DeploymentRule, ...] = (
    integers_exist,
    connections_are_single_layers,
    resets_are_known,
    integers_fit,
)
"""Asked of every graph that can be read."""

RULES_OF_WIRES: tuple[DeploymentRule, ...] = (delays_fit, bias_sums_fit, thresholds_without_memory_forget, sums_are_exact)
"""Asked where every connection is one wire and has its integers."""


def check(deployment: Deployment) -> list[Diagnostic]:
    """All findings of all rules; only those about the graph where its connections cannot even be read."""
    broken = list(graph_is_readable(deployment))
    if broken:
        return broken
    found = [finding for rule in RULES for finding in rule(deployment)]
    try:
        _ = deployment.wires
    except UserError as error:  # its delays; what its connections lack has been found already
        return found + [finding for finding in error.diagnostics if finding.code != "SNX209"]
    complete = not any(finding.code == "SNX302" for finding in found)
    return found + ([finding for rule in RULES_OF_WIRES for finding in rule(deployment)] if complete else [])
