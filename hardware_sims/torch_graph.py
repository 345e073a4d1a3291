"""A deployment stepped in torch, float32: signals, connections, delays and loops; the neurons are a backend's own.

A backend brings a :class:`Cell` per population and a torch module per linear node. What stands between them is the same for
all: biases count once and act from the first step whatever delays stand behind them, a loop without a Delay node costs one
step, several connections into a population add up (the rules of ``export/interpreter.py``, which tests hold this file to).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.export.graph import Connection, Shape, delay_steps
from snn_export.export.grid import is_filtered
from snn_export.export.interpreter import loop_step
from snn_export.hardware_sims.torch_layers import without_bias
from snn_export.hardware_sims.trace import Record, Trace, layer_trace, read_out
from snn_export.models.arithmetic import STATE_SHIFT

CHUNK = 128
"""Samples run at once."""


class Fired(NamedTuple):
    """One step of a population, each (B, *features): spikes 0, 1 or more; u and v after the step, v in real units."""

    spikes: Tensor
    current: Tensor
    membrane: Tensor


class Cell(Protocol):
    """One population of a backend."""

    def begin(self, shape: Shape) -> None:
        """Zero state, nothing in flight, for (B, *features)."""
        ...

    def clear(self) -> None:
        """Zero u and v; spikes that are in flight stay."""
        ...

    def step(self, drive: Tensor) -> Fired:
        """One step on the sum of all synapses, (B, *features), before any gain of the neuron."""
        ...


@dataclass(frozen=True, eq=False)
class _Link:
    """One node of a connection: a module, or a delay in steps (one number or one per feature) that begins with ``rest``."""

    module: nn.Module | None
    delay: NDArray[np.int64]
    rest: Tensor


@dataclass(frozen=True, eq=False)
class _Chain:
    """A connection with its modules."""

    connection: Connection
    links: tuple[_Link, ...]
    shape: Shape
    first: int
    """Steps of delay that a loop has by itself, taken at its source."""


@dataclass(frozen=True, eq=False)
class TorchProgram:
    """A deployment with the parts of a backend.

    Attributes:
        given: the deployment that was asked for.
        deployment: the network the parts were made from: ``given``, or an equal one; in grid units where ``given`` is quantised.
        cells: by population.
        layers: torch modules by linear node.
        inside: connections that a cell carries in itself.
        current_units: by population, what 1 in a cell's current is in the units of ``given`` or of its grid, one number or
            (*features); 1.0 where nothing is said.
        provenance: versions and settings, for the trace.
    """

    given: Deployment
    deployment: Deployment
    cells: Mapping[str, Cell]
    layers: Mapping[str, nn.Module]
    inside: Collection[Connection] = ()
    current_units: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def chains(self) -> dict[str, tuple[_Chain, ...]]:
        """Connections into every population, but for those inside its cell."""
        return {name: tuple(self._chains(name)) for name in self.deployment.layers}

    def _chains(self, population: str) -> Iterator[_Chain]:
        deployment, counted = self.deployment, set[str]()
        with torch.inference_mode():
            for connection in deployment.connections[population]:
                rest = torch.zeros(1, *deployment.shapes[connection.source])
                links = []
                for name in connection.path:
                    node = deployment.graph.nodes[name]
                    if isinstance(node, nir.Delay):
                        links.append(_Link(None, delay_steps(name, node, deployment.contract.dt), rest))
                        continue
                    module = without_bias(self.layers[name]) if name in counted else self.layers[name]
                    counted.add(name)
                    rest = module(rest)
                    links.append(_Link(module, np.zeros((), np.int64), rest))
                if connection not in self.inside:
                    yield _Chain(connection, tuple(links), deployment.shapes[population], loop_step(deployment, connection))


def run(program: TorchProgram, backend: str, inputs: NDArray[np.generic], record: frozenset[Record]) -> Trace:
    """Run a program on inputs (T, B, *shape) or (B, *shape) and make its trace."""
    given, deployment, contract = program.given, program.deployment, program.deployment.contract
    signal = encoding.levels(given, inputs) if given.quantised else encoding.signal(given, inputs)
    source = next(name for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Input))
    parts = []
    with torch.inference_mode():
        for start in range(0, signal.shape[1], CHUNK):
            part = np.ascontiguousarray(signal[:, start : start + CHUNK], np.float32)
            parts.append(_run_chunk(program, {source: torch.from_numpy(part)}, part.shape[1]))
    layers, joined = {}, {}
    for name in deployment.layers:
        spikes, currents, membranes = (np.concatenate([part[name][i] for part in parts], axis=1) for i in range(3))
        currents = currents * np.asarray(program.current_units.get(name, 1.0), np.float32)
        if given.quantised:
            currents, membranes = _real_units(given, name, currents), membranes / np.float32(given.populations[name].scale)
        joined[name] = (spikes, membranes)
        several = spikes if spikes.max(initial=0) > 1 else None
        layers[name] = layer_trace(spikes > 0, membranes, currents, record, latency=contract.latency[name], several=several)
    readout, predictions, ties = read_out(contract.readout, *joined[contract.readout.node])
    return Trace(backend, layers, readout, predictions, ties, dict(program.provenance))


def _real_units(given: Deployment, name: str, currents: NDArray[np.float32]) -> NDArray[np.float32]:
    """U in real units, without the bias on the membrane that grid units put at the weights of a neuron without a filter."""
    bias = 0 if is_filtered(given, name) else given.bias(name) / (1 << STATE_SHIFT)
    found: NDArray[np.float32] = ((currents - bias) / given.populations[name].scale).astype(np.float32)
    return found


Recorded = tuple[NDArray[np.float32], ...]


def _run_chunk(program: TorchProgram, signals: dict[str, Tensor], batch: int) -> dict[str, Recorded]:
    """Spikes, u and v of every population, (T, B, *features) each."""
    deployment, found = program.deployment, dict[str, Recorded]()
    for stage in deployment.stages:
        for name in stage:
            program.cells[name].begin((batch, *deployment.shapes[name]))
        history = _run_stage(program, stage, signals, batch)
        for name, steps in history.items():
            stacked = tuple(torch.stack(values) for values in zip(*steps, strict=True))
            found[name] = tuple(values.numpy() for values in stacked)
            signals[name] = stacked[0]
    return found


def _run_stage(program: TorchProgram, stage: Sequence[str], signals: Mapping[str, Tensor], batch: int) -> dict[str, list[Fired]]:
    """Populations that hear each other, or one that does not: all of them in step t, then all of them in step t + 1."""
    deployment = program.deployment
    contract = deployment.contract
    inner = {name: [chain for chain in program.chains[name] if chain.connection.source in stage] for name in stage}
    outer = {name: _drive(program, name, signals, stage, batch) for name in stage}
    history: dict[str, list[Fired]] = {name: [] for name in stage}
    for t in range(contract.steps):
        for name in stage:
            drive = outer[name][min(t, len(outer[name]) - 1)]
            for chain in inner[name]:
                arrived = _arriving(chain, history, t, len(chain.links), batch, deployment)
                drive = drive + arrived.reshape(drive.shape)
            if contract.neurons[name].resets_at(t):
                program.cells[name].clear()
            history[name].append(program.cells[name].step(drive))
    return history


def _drive(program: TorchProgram, name: str, signals: Mapping[str, Tensor], leave_out: Sequence[str], batch: int) -> Tensor:
    """What connections from other stages bring to a population, (S, B, *features); S = 1 where all steps are the same."""
    total: Tensor | None = None
    steps = program.deployment.contract.steps
    for chain in program.chains[name]:
        if chain.connection.source in leave_out:
            continue
        x = signals[chain.connection.source]
        for link in chain.links:
            if link.module is None:
                x = _later(x, link.delay, link.rest, steps)
            else:
                flat = link.module(x.flatten(0, 1))
                x = flat.reshape(-1, batch, *flat.shape[1:])
        x = x.reshape(len(x), batch, *chain.shape)
        total = x if total is None else total + x
    return torch.zeros(1, batch, *program.deployment.shapes[name]) if total is None else total


def _later(x: Tensor, delay: NDArray[np.int64], rest: Tensor, steps: int) -> Tensor:
    """A signal (S, B, *features) delayed, (T, B, *features); before anything arrives there is ``rest``, (1, *features)."""
    if not delay.any():
        return x
    whole = x.expand(steps, *x.shape[1:])
    later = rest.expand_as(whole).clone()
    each = torch.from_numpy(np.broadcast_to(delay, tuple(x.shape[2:])).copy())
    for found in np.unique(delay).tolist():
        if found < steps:
            later[found:] = torch.where(each == found, whole[: steps - found], later[found:])
    return later


def _arriving(
    chain: _Chain, history: Mapping[str, Sequence[Fired]], t: int, nodes: int, batch: int, deployment: Deployment
) -> Tensor:
    """What the first ``nodes`` nodes of a connection within a stage give in step t, (B, *features)."""
    source = chain.connection.source
    if nodes == 0:
        t -= chain.first
        return history[source][t].spikes if t >= 0 else torch.zeros(batch, *deployment.shapes[source])
    link = chain.links[nodes - 1]
    if link.module is not None:
        found: Tensor = link.module(_arriving(chain, history, t, nodes - 1, batch, deployment))
        return found
    delays = np.unique(link.delay).tolist()
    arrived = [_arriving(chain, history, t - delay, nodes - 1, batch, deployment) for delay in delays]
    result = arrived[0]
    each = torch.from_numpy(np.broadcast_to(link.delay, tuple(result.shape[1:])).copy())
    for delay, later in zip(delays[1:], arrived[1:], strict=True):
        result = torch.where(each == delay, later, result)
    return result
