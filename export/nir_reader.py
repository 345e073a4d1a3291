"""Anybody's NIR graph -> Deployment.

NIR says what neurons compute in continuous time. It has no field for the time step, the reset, the encoder or the number of
steps, so whoever reads a graph states them. What is read here is then exact or refused: time constants become integer decays,
nested graphs are written out, neurons that differ become populations of their own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import nir_io
from snn_export.export.contract import ExecutionContract, Lineage
from snn_export.export.deployment import Deployment
from snn_export.export.graph import (
    CONV_TYPES,
    POOL_TYPES,
    SPIKING_TYPES,
    SYNAPSE_TYPES,
    connections,
    input_node,
    is_population,
    latencies,
    output_node,
    predecessors,
    shapes,
    unsupported,
)
from snn_export.export.nested import flattened
from snn_export.export.populations import broadcast, constant_findings, constants, with_constants
from snn_export.export.splitting import split
from snn_export.export.well_formed import malformed
from snn_export.models.arithmetic import DECAY_ONE, FULL_CURRENT_DECAY, tau_from_integer
from snn_export.models.diagnostics import Diagnostic, UserError, diagnostics_of
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutRule, ReadoutSpec, Reset

GRID_TOLERANCE = 1e-6
"""Relative distance from an integer decay up to which a time constant counts as that decay: files often hold float32."""

_TAUS = {"tau": DECAY_ONE - 1, "tau_mem": DECAY_ONE - 1, "tau_syn": DECAY_ONE}
"""Time constants, and the largest part of 4096 that may be lost in a step: a membrane keeps something, a current need not."""


def deployment_from_nir(
    source: nir.NIRGraph | str | os.PathLike[str],
    *,
    steps: int,
    dt: float,
    reset: Reset = "zero",
    rule: ReadoutRule | None = None,
    encoder: EncoderSpec | None = None,
    round_decays: bool = False,
) -> Deployment:
    """Read a NIR graph that carries no contract into a float Deployment.

    Decays: a membrane with time constant tau keeps 1 - dt/tau per step, so dv = 4096 dt / tau, and du = 4096 dt / tau_syn - 1.
    Spikes that close a loop without a Delay node arrive one step later.

    Args:
        source: the graph, or a ``.nir`` file.
        steps: T.
        dt: seconds per step, in the unit the file's time constants are in: NIR's documents say ms, snnTorch writes seconds with
            dt = 1e-4.
        reset: what a neuron does in the step of its spike.
        rule: how the last population is read out; by default its last membrane, or its spike counts where it spikes.
        encoder: default direct encoding.
        round_decays: take the nearest integer decay where a time constant lies between two. Changes the network; recorded in
            the lineage.

    Returns:
        A deployment whose populations are uniform; ``snn_export.quantize`` brings it to portable form.

    Raises:
        UserError: SNX101 an unreadable file, SNX129 numbers that cannot be; all of these at once: SNX109 steps or dt, SNX201 a
            node type, SNX204 a loop without a neuron, SNX205 not one input and one output, SNX206 shapes, SNX207, SNX248, SNX249
            delays, SNX218 too many ways, SNX241 a decay off the grid, SNX261 a population that cannot be split, SNX262 neuron
            constants, SNX263 a nested graph, SNX265 no readout, SNX266 a time constant that dt cannot follow.
    """
    graph = source if isinstance(source, nir.NIRGraph) else nir_io.read_graph(Path(source))
    found = findings(graph, steps=steps, dt=dt, round_decays=round_decays)
    if found:
        raise UserError.from_diagnostics(tuple(found))
    graph, parts = split(_normalised(flattened(graph), dt), dt)
    whole = {part: name for name, some in parts.items() for part in some}
    neurons = {name: _spec(node, dt, reset) for name, node in graph.nodes.items() if is_population(node)}
    readout = predecessors(graph, output_node(graph))[0]
    contract = ExecutionContract(
        dt=dt,
        steps=steps,
        latency=latencies(graph, dt),
        encoder=encoder or EncoderSpec(),
        neurons=neurons,
        readout=ReadoutSpec(readout, rule or ("spike_count" if neurons[readout].spiking else "membrane_last")),
        origin={name: whole.get(name, name) for name in neurons},
        lineage=Lineage(passes=("from_nir", *(("round_decays",) if round_decays else ()))),
    )
    return Deployment(graph, contract)


def findings(graph: nir.NIRGraph, *, steps: int, dt: float, round_decays: bool = False) -> list[Diagnostic]:
    """Everything that keeps a NIR graph from being read, told at once; empty where :func:`deployment_from_nir` reads it."""
    found: list[Diagnostic] = []
    if steps < 1 or not (math.isfinite(dt) and dt > 0):
        found.append(Diagnostic(
            "SNX109", f"steps = {steps} and dt = {dt}", "contract", "a network runs for one step or more, each of a duration",
            "pass steps >= 1 and dt > 0, in the unit of the file's time constants",
        ))  # fmt: skip
        return found
    if wrong := malformed(graph):
        return wrong
    try:
        flat = flattened(graph)
    except UserError as error:
        return [*error.diagnostics, *_neurons(graph, dt, round_decays)]
    found += [*_types(flat), *_neurons(flat, dt, round_decays)]
    found += diagnostics_of(lambda: input_node(flat)) + diagnostics_of(lambda: output_node(flat))
    if not found:
        found += diagnostics_of(lambda: connections(flat))
    if any(item.code in ("SNX104", "SNX201", "SNX204", "SNX205") for item in found):
        return found  # without edges, types, an input and an output there are no shapes to look at
    found += _readout(flat)
    mismatched = diagnostics_of(lambda: shapes(flat))
    found += mismatched + diagnostics_of(lambda: latencies(flat, dt))
    if not found:
        found += diagnostics_of(lambda: split(_normalised(flat, dt), dt))
    return found


def _types(graph: nir.NIRGraph) -> Iterator[Diagnostic]:
    known = (*SYNAPSE_TYPES, *POOL_TYPES, nir.Flatten, nir.Delay, nir.Input, nir.Output)
    for name, node in graph.nodes.items():
        if not isinstance(node, known) and not is_population(node):
            yield from unsupported(name, node).diagnostics


def _neurons(graph: nir.NIRGraph, dt: float, round_decays: bool) -> Iterator[Diagnostic]:
    """Constants of neurons that the canonical neuron does not have."""
    for name, node in graph.nodes.items():
        if is_population(node):
            yield from constant_findings(name, node)
            for key, most in _TAUS.items():
                if getattr(node, key, None) is not None:
                    yield from _time_constant(name, key, np.asarray(getattr(node, key)), dt, most, round_decays)


def _time_constant(name: str, key: str, tau: NDArray[Any], dt: float, most: int, round_decays: bool) -> Iterator[Diagnostic]:
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = DECAY_ONE * dt / np.asarray(tau, np.float64).ravel()
    lost = np.rint(exact)
    outside = ~((tau.ravel() > 0) & (lost >= 1) & (lost <= most))
    if outside.any():
        worst = float(tau.ravel()[np.argmax(outside)])
        yield Diagnostic(
            "SNX266", f"{key} of {name} is {worst:g}, with steps of {dt:g}", name,
            f"a step loses 1 to {most} parts of 4096: a time constant from {dt * DECAY_ONE / most:.6g} to {dt * DECAY_ONE:g}",
            "state dt in the unit of the file's time constants (snnTorch writes seconds with dt = 1e-4), or choose another dt; a "
            "neuron without leak is an IF or I, one without memory a Threshold",
        )  # fmt: skip
    exact, lost = np.where(outside, 1.0, exact), np.where(outside, 1.0, lost)
    off = ~outside & (np.abs(exact - lost) > GRID_TOLERANCE * lost)
    if off.any() and not round_decays:
        first = int(np.argmax(off))
        yield Diagnostic(
            "SNX241", f"{key} of {name} is {float(tau.ravel()[first]):.8g}, a loss of {exact[first]:.6g} of 4096 parts per step",
            name, "Loihi holds decays in 1/4096; another decay is another network",
            f"use {tau_from_integer(int(lost[first]), dt):.8g}, or accept the nearest with round_decays=True, --round-decays",
        )  # fmt: skip


def _readout(graph: nir.NIRGraph) -> Iterator[Diagnostic]:
    last = predecessors(graph, output_node(graph))
    if len(last) != 1 or not is_population(graph.nodes[last[0]]):
        kinds = ", ".join(f"{name} ({type(graph.nodes[name]).__name__})" for name in last) or "nothing"
        yield Diagnostic(
            "SNX265", f"{kinds} leads to the output", output_node(graph),
            "predictions are read from one population: its spikes, or the membrane of one that never spikes",
            "end the graph with one population; a readout of currents is an I (a sum over time) or an LI",
        )  # fmt: skip


def _normalised(graph: nir.NIRGraph, dt: float) -> nir.NIRGraph:
    """Float64, every constant in the shape of its features, time constants exactly those of their integer decays."""
    found = shapes(graph)
    nodes: dict[str, nir.NIRNode] = {}
    for name, node in graph.nodes.items():
        if is_population(node):
            full = broadcast(node, found[name])
            taus = {key: value for key, value in constants(full).items() if key in _TAUS}
            nodes[name] = with_constants(full, **{key: _on_grid(value, dt) for key, value in taus.items()})
        else:
            nodes[name] = _linear(node, found[name])
    return nir.NIRGraph(nodes, list(graph.edges), metadata={}, type_check=False)


def _on_grid(tau: NDArray[Any], dt: float) -> NDArray[np.float64]:
    lost, member = np.unique(np.rint(DECAY_ONE * dt / tau), return_inverse=True)
    return np.array([tau_from_integer(int(n), dt) for n in lost])[member].reshape(tau.shape)


def _linear(node: nir.NIRNode, shape: tuple[int, ...]) -> nir.NIRNode:
    if isinstance(node, nir.Affine):
        return nir.Affine(_wide(node.weight), _wide(node.bias))
    if isinstance(node, nir.Linear):
        return nir.Linear(_wide(node.weight))
    if isinstance(node, CONV_TYPES):
        weight = _wide(node.weight)
        bias = np.zeros(len(weight)) if node.bias is None else _wide(node.bias)
        return type(node)(node.input_shape, weight, node.stride, node.padding, node.dilation, int(node.groups), bias)
    if isinstance(node, nir.Scale):
        return nir.Scale(np.broadcast_to(_wide(node.scale), shape).copy())
    if isinstance(node, nir.Delay):
        return nir.Delay(np.broadcast_to(_wide(node.delay), shape).copy())
    return node


def _wide(value: Any) -> NDArray[np.float64]:
    return np.asarray(value, np.float64)


def _spec(node: nir.NIRNode, dt: float, reset: Reset) -> NeuronSpec:
    """Semantics of a uniform population."""
    if isinstance(node, nir.Threshold):
        return NeuronSpec(DECAY_ONE, reset=reset)
    lost = {key: round(DECAY_ONE * dt / float(value.flat[0])) for key, value in constants(node).items() if key in _TAUS}
    dv = lost.get("tau", lost.get("tau_mem", 0))
    du = lost["tau_syn"] - 1 if "tau_syn" in lost else FULL_CURRENT_DECAY
    spiking = isinstance(node, SPIKING_TYPES)
    return NeuronSpec(dv, du, reset=reset if spiking else "none", spiking=spiking)
