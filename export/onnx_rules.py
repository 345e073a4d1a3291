"""What a deployment must have to become one ONNX graph, and which numbers it is computed in. Nothing here imports onnx.

**Exactness.** Integer sums are formed in floating point: 8-bit integer products saturate at 16 bits on some processors. A sum of
products of integers is exact in any order while every partial sum is representable. With weights that are multiples of 2^p and
inputs of at most x in size, every partial sum is a multiple of 2^p of at most ``sum |w| x``; float32 holds it where that is below
2^(24 + p), float64 below 2^(53 + p). :func:`exact_type` chooses by that bound, from the weights and the declared range of the
input, to which the graph clips it. (A proof about IEEE arithmetic: TF32 is none.)

Behind the sums everything is int64. A current that keeps (4095 - du) of 4096 of itself never exceeds 64 |a| 4096 / (du + 1),
whatever T is, and a membrane 24 bits plus that; where this could pass 2^62 the network is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import bounds
from snn_export.export.deployment import Deployment, integer_parameters, not_quantised
from snn_export.export.gains import input_gains, membrane_bias, threshold_array
from snn_export.export.graph import SYNAPSE_TYPES, input_node, latencies, weight_array
from snn_export.export.interpreter import programmable
from snn_export.export.wiring import Wire
from snn_export.models.diagnostics import Diagnostic, UserError, diagnostics_of

Precision = Literal["float32", "float64"]
Probe = Literal["spikes", "membrane", "current"]
FOREVER = 1 << 62
"""Steps, for bounds that must hold whatever T is."""
INT64_ROOM = 1 << 62
"""A current up to here leaves room in int64 for its update."""


MANTISSA_BITS: Mapping[np.dtype[Any], int] = {np.dtype(np.float32): 24, np.dtype(np.float64): 53}


def exact_type(node: nir.NIRNode, weight: NDArray[np.int64], largest: int) -> np.dtype[Any] | None:
    """The narrowest floating-point type that adds a node's products exactly, for integer inputs in -largest..largest.

    None where even float64 may round.
    """
    bound, unit = sum_bound(node, weight, largest), int(np.bitwise_or.reduce(np.abs(weight), axis=None)) if weight.size else 0
    lowest = max(unit & -unit, 1)  # 2^p, of which every weight is a multiple
    fitting = [number for number, bits in MANTISSA_BITS.items() if bound < lowest << bits and largest <= 1 << bits]
    return fitting[0] if fitting else None


def sum_bound(node: nir.NIRNode, weight: NDArray[np.int64], largest: int) -> int:
    """Largest |partial sum| of any output, for inputs in -largest..largest."""
    size = np.abs(weight)
    if isinstance(node, nir.Scale):
        return int(size.max(initial=0)) * largest
    return int(size.reshape(len(size), -1).sum(axis=1).max(initial=0)) * largest if size.size else 0


@dataclass(frozen=True)
class Numbers:
    """Types of numbers: of u and v, and of spikes and inputs as weights take them."""

    state: np.dtype[Any]
    signal: np.dtype[Any]


def numbers_of(deployment: Deployment, precision: Precision) -> Numbers:
    """Integers for a quantised deployment, whose spikes meet their weights in floating point; else ``precision``."""
    if deployment.quantised:
        return Numbers(np.dtype(np.int64), np.dtype(np.float32))
    return Numbers(np.dtype(precision), np.dtype(precision))


def check_options(precision: str, probes: Collection[str]) -> tuple[Probe, ...]:
    """The probes in their order. Raises SNX161 for an option that does not exist."""
    unknown = [probes] if isinstance(probes, str) else sorted(set(probes) - set(get_args(Probe)))
    if unknown or precision not in get_args(Precision):
        raise UserError(
            "SNX161", f"there is no probe {unknown[0]!r}" if unknown else f"precision {precision!r} is not known",
            where="save(format='onnx')",
            why="an ONNX file computes in float32 or float64, and shows spikes, membrane or current of every layer",
            fix='save(deployment, "net.onnx", precision="float32", probes=("spikes", "membrane"))',
        )  # fmt: skip
    return tuple(probe for probe in get_args(Probe) if probe in probes)


def findings(deployment: Deployment, precision: Precision = "float32") -> list[Diagnostic]:
    """Everything that keeps a deployment from being written as ONNX, all at once; empty where it can be.

    Returns:
        Findings with codes SNX201 to SNX209, SNX218, SNX248, SNX249 for a graph that cannot be read; SNX203, SNX285 to SNX287,
        SNX302.
    """
    if not deployment.graph.nodes or deployment.contract.readout.node not in deployment.graph.nodes:
        return [_no_readout(deployment)]
    asked: tuple[Callable[[], object], ...] = (
        lambda: deployment.shapes,
        lambda: deployment.connections,
        lambda: input_node(deployment.graph),
        lambda: latencies(deployment.graph, deployment.contract.dt),
    )
    broken = list(dict.fromkeys(finding for question in asked for finding in diagnostics_of(question)))
    if broken:
        return broken
    if deployment.contract.readout.node not in deployment.layers:
        return [_no_readout(deployment)]
    return list(_integers(deployment) if deployment.quantised else _floats(deployment, precision))


def _no_readout(deployment: Deployment) -> Diagnostic:
    node = deployment.contract.readout.node
    return Diagnostic(
        "SNX287", f"the readout {node} is no population of the graph", where="contract.readout",
        why="the file's outputs are what this population does",
        fix="name a LIF, IF, LI, I, CubaLIF, CubaLI or Threshold node of the graph as the readout",
    )  # fmt: skip


def _integers(deployment: Deployment) -> Iterator[Diagnostic]:
    missing = [name for name in deployment.layers if name not in deployment.populations]
    missing += [
        name for name, node in deployment.graph.nodes.items()
        if isinstance(node, SYNAPSE_TYPES) and name not in deployment.synapses and name not in deployment.host_synapses
    ]  # fmt: skip
    if deployment.contract.encoder.gain is None and deployment.contract.encoder.kind != "bias":
        missing.append("contract.encoder")
    for name in missing:
        yield from not_quantised(name).diagnostics
    for name, spec in deployment.contract.neurons.items():
        finding = spec.reset_finding(name, programmable(deployment))
        if finding is not None:
            yield finding
    wrong = diagnostics_of(lambda: deployment.wires)
    yield from wrong
    if not wrong and not missing:
        yield from _sums(deployment)


def _sums(deployment: Deployment) -> Iterator[Diagnostic]:
    """SNX285 where a synaptic sum is not exact in float64, or a current could leave 64 bits."""
    forever = unending(deployment)
    for name, incoming in deployment.wires.items():
        inexact = []
        for wire in incoming:
            weight, _ = integer_parameters(deployment.synapses[wire.weight])
            if weight is not None and exact_type(deployment.graph.nodes[wire.weight], weight, _largest(deployment, wire)) is None:
                inexact.append(wire.weight)
        for weight_name in dict.fromkeys(inexact):
            yield _too_large(weight_name, f"synaptic sums in {weight_name} may need more than 53 bits",
                             "the file adds synaptic sums in floating point, and only where that is proven exact")  # fmt: skip
        if not inexact and bounds.population_bounds(forever, name).current >= INT64_ROOM:
            yield _too_large(name, f"the current of {name} may leave 64 bits", "the file carries currents in int64, for any T")


def _too_large(where: str, what: str, why: str) -> Diagnostic:
    fix = "use fewer input levels, a smaller weight exponent or a smaller fan-in"
    return Diagnostic("SNX285", what, where=where, why=why, fix=fix)


def _floats(deployment: Deployment, precision: Precision) -> Iterator[Diagnostic]:
    for name, spec in deployment.contract.neurons.items():
        finding = spec.reset_finding(name)
        if finding is not None and spec.reset_delay > 1 and spec.reset != "none":
            yield finding
    limit = float(np.finfo(precision).max)
    for name in deployment.graph.nodes:
        if any(value.size and not np.all(np.abs(value) <= limit) for value in _numbers_in(deployment, name)):
            yield Diagnostic(
                "SNX286", f"{name} holds numbers that {precision} does not", where=name,
                why=f"the largest is {limit:.3g}; beyond it a weight would become infinite",
                fix='scale the network\'s weights, or save(..., precision="float64")',
            )  # fmt: skip


def _numbers_in(deployment: Deployment, name: str) -> Iterator[NDArray[Any]]:
    """What a float network's file holds of a node."""
    node, spec = deployment.graph.nodes[name], deployment.contract.neurons.get(name)
    if isinstance(node, SYNAPSE_TYPES):
        yield weight_array(node)
        if getattr(node, "bias", None) is not None:
            yield node.bias
    if spec is not None:
        yield from map(np.asarray, (*input_gains(deployment, name), membrane_bias(deployment, name)))
        yield threshold_array(node) if spec.spiking else np.zeros(0)


def unending(deployment: Deployment) -> Deployment:
    """The same network with a T that no run reaches, for bounds that hold in a file whose T is free."""
    contract = deployment.contract.model_copy(update={"steps": FOREVER})
    return deployment.replace(contract=contract)


def largest_input(deployment: Deployment, weight: str) -> int:
    """Largest |value| that the synapses of a weight node receive."""
    return max(
        (_largest(deployment, wire) for incoming in deployment.wires.values() for wire in incoming if wire.weight == weight),
        default=1,
    )


def _largest(deployment: Deployment, wire: Wire) -> int:
    least, most = bounds.source_range(deployment, wire)
    return max(abs(least), abs(most))


def is_host_biased(deployment: Deployment) -> bool:
    """True where the host computes what the input does: a quantised deployment whose encoder makes biases of it."""
    return deployment.quantised and deployment.contract.encoder.kind == "bias"


def host_biased(deployment: Deployment) -> tuple[str, ...]:
    """Populations that get biases from the host, where :func:`is_host_biased`."""
    return tuple(
        name
        for name, incoming in deployment.connections.items()
        if any(isinstance(deployment.graph.nodes[connection.source], nir.Input) for connection in incoming)
    )
