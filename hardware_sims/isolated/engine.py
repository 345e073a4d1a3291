"""What the backends share whose neurons live in an environment of their own: from a deployment to its trace.

The graph is walked here (``torch_graph.py``: delays, loops, biases, several sources), its linear nodes are torch modules of this
process, and every population is stepped by a cell of the package, in a worker (``session.py``, ``cell_server.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation, sentences
from snn_export.export.gains import input_gains, membrane_bias, threshold_array
from snn_export.export.graph import connections, is_population, least_delay
from snn_export.export.grid import is_filtered
from snn_export.export.grid_units import in_grid_units
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.isolated.cell_server import CONSTANTS, Neuron
from snn_export.hardware_sims.isolated.session import KeptSession, Session
from snn_export.hardware_sims.mapping import LayerMapping, provenance_of
from snn_export.hardware_sims.self_test import Probe, worker_probe
from snn_export.hardware_sims.simulator import Availability
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.hardware_sims.worker_process import Progress, Worker, new_log
from snn_export.models.diagnostics import Diagnostic, UserError, diagnostics_of

if TYPE_CHECKING:
    from torch import Tensor

    from snn_export.export.graph import Shape
    from snn_export.hardware_sims.torch_graph import Fired

Array = NDArray[Any]
ON_GRID = "the integers as they are, float32 state: no truncation of the decay, no wrap, no saturation"


@dataclass(frozen=True, eq=False)
class Program:
    """A deployment, the network its cells are made from (in grid units where it is quantised), and what to say about it."""

    given: Deployment
    deployment: Deployment
    neurons: tuple[Neuron, ...]
    provenance: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Rules:
    """What a backend says about a network, all of it without importing the package.

    Attributes:
        mapping: by node, what carries it.
        deviations: by population that does otherwise than the contract, what it does.
        findings: what keeps the network from running, beyond what every cell backend refuses.
    """

    mapping: Callable[[Deployment], dict[str, LayerMapping]]
    deviations: Callable[[Deployment], dict[str, Deviation]]
    findings: Callable[[Deployment], list[Diagnostic]]


@dataclass(frozen=True)
class CellEngine:
    """The part of a backend that is the same for all packages whose neurons are stepped in a worker.

    Attributes:
        backend: its name, also of its environment.
        rules: about a network.
        options: for the worker's cells, plain data; see ``cell_server.Neuron``.
        time_limit: seconds per run, after which its worker is killed.
        log_folder: where the worker's logs are kept, also of good runs; by default only those of failed runs are kept, in the
            cache folder.
        python: interpreter to use in place of the installed environment.
        progress: called with (steps done, steps in all) of the current run, all populations together.
        kept: the worker, which stays for the next run.
    """

    backend: str
    rules: Rules
    options: Mapping[str, Any] = field(default_factory=dict)
    time_limit: float = 900.0
    log_folder: Path | None = None
    python: Path | None = None
    progress: Progress | None = None
    kept: KeptSession = field(default_factory=KeptSession)

    def availability(self) -> Availability:
        """Whether the environment is there and complete; reads its stamp, starts nothing."""
        try:
            _ = self._interpreter
        except UserError as error:
            found = error.diagnostics[0]
            return Availability(False, reason=found.what, fix=found.fix)
        return Availability(True, versions={} if self.python else environments.versions(self.backend))

    def self_test(self, meaning: str) -> list[Probe]:
        """Whether the installed package's neurons do what the worker takes them to do; ``meaning`` for what is exported."""
        return [worker_probe(self.backend, meaning, self.python)]

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """The graph's own faults, an encoder on the host (SNX297), and what the backend finds (SNX296)."""
        asked = (lambda: deployment.shapes, lambda: connections(deployment.graph))
        broken = list(dict.fromkeys(item for question in asked for item in diagnostics_of(question)))
        if broken:
            return broken
        found = []
        for incoming in deployment.connections.values():
            for connection in incoming:
                found += diagnostics_of(
                    lambda c=connection: least_delay(deployment.graph, c, deployment.contract.dt)  # type: ignore[misc]
                )
        if deployment.quantised and deployment.host_synapses:
            found.append(Diagnostic(
                "SNX297", "the host turns inputs into integer biases", where="contract.encoder",
                why=f"{self.backend} computes integers in float32 neurons, which have no host and no bias registers",
                fix="run the float deployment it came from, or run this one on reference or loihi",
            ))  # fmt: skip
        if deployment.quantised and not found:
            found += diagnostics_of(lambda: in_grid_units(deployment))
        return found or self.rules.findings(self._asked(deployment))

    def mapping(self, deployment: Deployment) -> dict[str, LayerMapping]:
        """By node: native, rewritten, emulated or unsupported, and why."""
        return self.rules.mapping(self._asked(deployment))

    def deviations(self, deployment: Deployment) -> dict[str, Deviation]:
        """By population: what the package's neuron does otherwise than the contract; empty where it does nothing else."""
        return self.rules.deviations(self._asked(deployment))

    def compile(self, deployment: Deployment) -> Program:
        """What the worker's cells are made from. Raises UserError with the findings of :meth:`check`."""
        found = self.check(deployment)
        if found:
            raise UserError.from_diagnostics(tuple(found))
        network = self._asked(deployment)
        provenance = {f"{self.backend} mapping": provenance_of(self.rules.mapping(network))}
        told = sentences(self.rules.deviations(network))
        if told:
            provenance[f"{self.backend} deviations"] = "; ".join(told)
        if deployment.quantised:
            provenance[f"{self.backend} state"] = ON_GRID
        neurons = tuple(_neuron(network, name, self.options) for name in network.layers)
        return Program(deployment, network, neurons, provenance)

    def run(self, program: Program, inputs: Array, record: frozenset[Record]) -> Trace:
        """Run a program: the worker makes its cells, and the graph is stepped here."""
        from snn_export.hardware_sims import torch_graph
        from snn_export.hardware_sims.torch_layers import layer_of

        deployment = program.deployment
        layers = {}
        for name, node in deployment.graph.nodes.items():
            source = next((source for source, target in deployment.graph.edges if target == name), None)
            if source is not None and not is_population(node) and not isinstance(node, nir.Output | nir.Delay):
                layers[name] = layer_of(name, node, deployment.shapes[source])
        with self.kept.session(self._worker, keep_log=self.log_folder is not None) as session:
            answer, _ = session.ask(*_make(program.neurons))
            samples = np.shape(inputs)[np.ndim(inputs) - len(deployment.input_shape) - 1]
            steps = deployment.contract.steps * len(program.neurons) * -(-samples // torch_graph.CHUNK)
            count = _Count(steps, self.progress)
            cells = {neuron.name: _RemoteCell(session, neuron.name, count) for neuron in program.neurons}
            provenance = {**answer.get("versions", {}), **program.provenance}
            walked = torch_graph.TorchProgram(program.given, deployment, cells, layers, provenance=provenance)
            return torch_graph.run(walked, self.backend, inputs, record)

    def _asked(self, deployment: Deployment) -> Deployment:
        return in_grid_units(deployment) if deployment.quantised else deployment

    @property
    def _interpreter(self) -> Path:
        return self.python or environments.interpreter(self.backend)

    def _worker(self) -> Worker:
        return Worker(
            backend=self.backend,
            python=self._interpreter,
            worker=environments.environment(self.backend).worker,
            log=new_log(self.log_folder or environments.log_folder(), self.backend),
            time_limit=self.time_limit,
        )


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
