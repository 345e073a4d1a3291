"""From a deployment to what a worker is told, and from its answers to a trace; for packages whose neurons a worker steps.

The graph is walked here (``torch_graph.py``: delays, loops, biases, several sources), its linear nodes are torch modules of this
process, and every population is stepped by a cell of the package, in a worker (``session.py``, ``cell_server.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation, sentences
from snn_export.export.gains import input_gains, membrane_bias, threshold_array
from snn_export.export.graph import is_population
from snn_export.export.grid import is_filtered
from snn_export.hardware_sims.float_networks import ON_GRID, float_network
from snn_export.hardware_sims.isolated.cell_server import CONSTANTS, Neuron
from snn_export.hardware_sims.isolated.session import Session
from snn_export.hardware_sims.mapping import LayerMapping, provenance_of
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.hardware_sims.worker_process import Progress
from snn_export.models.diagnostics import Diagnostic

if TYPE_CHECKING:
    from torch import Tensor

    from snn_export.export.graph import Shape
    from snn_export.hardware_sims.torch_graph import Fired

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Program:
    """A deployment, the network its cells are made from (in grid units where it is quantised), and what to say about it."""

    given: Deployment
    deployment: Deployment
    neurons: tuple[Neuron, ...]
    provenance: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Rules:
    """What a backend says about a network in grid units, all of it without importing the package.

    Attributes:
        mapping: by node, what carries it.
        deviations: by population that does otherwise than the contract, what it does.
        findings: what keeps the network from running, beyond what every cell backend refuses.
    """

    mapping: Callable[[Deployment], dict[str, LayerMapping]]
    deviations: Callable[[Deployment], dict[str, Deviation]]
    findings: Callable[[Deployment], list[Diagnostic]]


def program_of(backend: str, deployment: Deployment, rules: Rules, options: Mapping[str, Any]) -> Program:
    """What a worker's cells are made from; ``options`` are theirs, see ``cell_server.Neuron``."""
    network = float_network(deployment)
    provenance = {f"{backend} mapping": provenance_of(rules.mapping(network))}
    told = sentences(rules.deviations(network))
    if told:
        provenance[f"{backend} deviations"] = "; ".join(told)
    if deployment.quantised:
        provenance[f"{backend} state"] = ON_GRID
    neurons = tuple(_neuron(network, name, options) for name in network.layers)
    return Program(deployment, network, neurons, provenance)


def run_program(
    backend: str, program: Program, session: Session, inputs: Array, record: frozenset[Record], progress: Progress | None
) -> Trace:
    """Let a worker make the cells of a program, and step the graph. ``progress`` counts the steps of all populations together.

    Raises:
        UserError: those of :func:`snn_export.export.encoding.signal`.
        BackendError: as :meth:`~snn_export.hardware_sims.isolated.session.Session.ask`.
    """
    from snn_export.hardware_sims import torch_graph
    from snn_export.hardware_sims.torch_layers import layer_of

    deployment = program.deployment
    layers = {}
    for name, node in deployment.graph.nodes.items():
        source = next((source for source, target in deployment.graph.edges if target == name), None)
        if source is not None and not is_population(node) and not isinstance(node, nir.Output | nir.Delay):
            layers[name] = layer_of(name, node, deployment.shapes[source])
    answer, _ = session.ask(*_make(program.neurons))
    axis = np.ndim(inputs) - len(deployment.input_shape) - 1
    samples = np.shape(inputs)[axis] if axis >= 0 else 0  # what has no batch is refused where it is encoded
    count = _Count(deployment.contract.steps * len(program.neurons) * -(-samples // torch_graph.CHUNK), progress)
    cells = {neuron.name: _RemoteCell(session, neuron.name, count) for neuron in program.neurons}
    provenance = {**answer.get("versions", {}), **program.provenance}
    walked = torch_graph.TorchProgram(program.given, deployment, cells, layers, provenance=provenance)
    return torch_graph.run(walked, backend, inputs, record)


@dataclass
class _Count:
    """How far a run is: steps of all populations and chunks."""

    total: int
    progress: Progress | None
    done: int = 0

    def one(self) -> None:
        """One more."""
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


class _RemoteCell:
    """A population that a worker steps; see :class:`~snn_export.hardware_sims.torch_graph.Cell`."""

    def __init__(self, session: Session, population: str, count: _Count) -> None:
        self._session, self._population, self._count = session, population, count

    def begin(self, shape: Shape) -> None:
        """Zero state for (B, *features)."""
        self._session.ask({"do": "begin", "population": self._population, "batch": int(shape[0])})

    def clear(self) -> None:
        """Zero u and v."""
        self._session.ask({"do": "clear", "population": self._population})

    def step(self, drive: Tensor) -> Fired:
        """One step on (B, *features)."""
        import torch

        from snn_export.hardware_sims.torch_graph import Fired

        message = {"do": "step", "population": self._population}
        _, results = self._session.ask(message, [drive.numpy()], [tuple(drive.shape)] * 3)
        if not np.array_equal(results[0], np.abs(np.trunc(results[0]))):  # NaN is not equal to itself
            raise self._session.broken_promise("step", f"spikes of {self._population} that are no counts")
        self._count.one()
        spikes, current, membrane = (torch.from_numpy(part) for part in results)
        return Fired(spikes, current, membrane)


def _neuron(deployment: Deployment, name: str, options: Mapping[str, Any]) -> Neuron:
    """A population as its cell is told."""
    node, spec, shape = deployment.graph.nodes[name], deployment.contract.neurons[name], deployment.shapes[name]
    current_gain, membrane_gain = input_gains(deployment, name)
    threshold = threshold_array(node) if spec.spiking else np.inf
    filtered = is_filtered(deployment, name)

    def full(values: Any) -> Array:
        return np.array(np.broadcast_to(values, shape), np.float64)

    return Neuron(
        name=name, shape=shape, filtered=filtered, alpha=spec.alpha if filtered else 0.0, beta=spec.beta,
        current_gain=full(current_gain), membrane_gain=full(membrane_gain), bias=full(membrane_bias(deployment, name)),
        threshold=full(threshold), spiking=spec.spiking, reset=spec.reset, reset_delay=spec.reset_delay,
        clears_input=spec.clears_input, memoryless=spec.memoryless, options=options,
    )  # fmt: skip


def _make(neurons: tuple[Neuron, ...]) -> tuple[dict[str, Any], list[Array]]:
    """The first message: every population's constants."""
    described, arrays = [], []
    for neuron in neurons:
        plain = asdict(neuron)
        arrays += [plain.pop(name) for name in CONSTANTS]
        described.append(plain)
    return {"do": "make", "neurons": described}, arrays
