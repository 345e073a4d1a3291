"""The lava backend: real lava-nc 0.10.0, ``fixed_pt`` models, in an environment of its own behind a worker process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.export.graph import Connection, conv_padding, pair
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.lava.expressible import findings, weight_node
from snn_export.hardware_sims.simulator import Availability, BackendError, Capabilities
from snn_export.hardware_sims.trace import LayerTrace, Record, Trace, check_record, layer_trace, read_out
from snn_export.hardware_sims.worker_process import Progress, WorkerCall, new_log, run_worker
from snn_export.models.diagnostics import Diagnostic, UserError

Array = NDArray[Any]

BYTES_PER_RUN = 512 << 20
"""Recorded and streamed bytes of one Lava run; more samples are split over several runs."""

_SPIKES: tuple[Record, ...] = ("spikes",)
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "spikes": np.dtype(np.uint8),
    "current": np.dtype(np.int32),
    "membrane": np.dtype(np.int32),
}


@dataclass(frozen=True, eq=False)
class Program:
    """What the worker is told about a network, without inputs; see ``lava/worker.py`` for the fields."""

    deployment: Deployment
    populations: tuple[Mapping[str, Any], ...]
    connections: tuple[Mapping[str, Any], ...]
    arrays: Mapping[str, Array]


@final
class LavaSimulator:
    """Intel's Lava, the arbiter of what the chip would do.

    All samples stream back to back through one run; LIFReset separates them. Every population's spikes, u and v are recorded
    inside its own Lava process. Membranes and currents are int32 in membrane units (``unit`` gives their real value).
    Lava does not tell when it wraps or saturates, so ``overflows`` is None.

    Deviation from the canonical neuron: every synapse takes one step; it is removed here (``latency``).

    Args:
        time_limit: seconds per Lava run, after which its worker is killed.
        log_folder: where the worker's logs are kept, also of good runs; by default only those of failed runs are kept, in the
            cache folder.
        python: interpreter to use in place of the installed environment.
        samples_per_run: split the batch into runs of at most this many samples; by default by memory.
        monitors: probe with Lava's own Monitor processes in place of the recorder: slower, same numbers.
        progress: called with (steps done, steps in all) of the current run.
    """

    name = "lava"

    def __init__(
        self,
        *,
        time_limit: float = 900.0,
        log_folder: Path | None = None,
        python: Path | None = None,
        samples_per_run: int | None = None,
        monitors: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._time_limit, self._python, self._samples_per_run = time_limit, python, samples_per_run
        self._log_folder, self._monitors, self._progress = log_folder, monitors, progress

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities(
            "loihi_integer", needs_integers=True, description="real lava-nc 0.10.0, fixed_pt models", isolated=True
        )

    def availability(self) -> Availability:
        """Whether the environment is there and complete; reads its stamp, starts nothing."""
        try:
            self._interpreter()
        except UserError as error:
            found = error.diagnostics[0]
            return Availability(False, reason=found.what, fix=found.fix)
        return Availability(True, versions={} if self._python else environments.versions("lava"))

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """Every reason at once; see :func:`snn_export.hardware_sims.lava.expressible.findings`."""
        return findings(deployment)

    def compile(self, deployment: Deployment) -> Program:
        """The request without its inputs. Raises UserError with the findings of :meth:`check`."""
        found = self.check(deployment)
        if found:
            raise UserError.from_diagnostics(tuple(found))
        contract, layers = deployment.contract, deployment.layers
        arrays: dict[str, Array] = {}
        populations: list[dict[str, Any]] = []
        connections: list[dict[str, Any]] = []
        for index, name in enumerate(layers):
            integers, shape = deployment.populations[name], deployment.shapes[name]
            arrays[f"bias_{index}"] = (deployment.bias(name) >> integers.bias_exponent).astype(np.int16)
            populations.append({
                "name": name, "shape": list(shape), "du": integers.du, "dv": integers.dv, "threshold": integers.threshold,
                "bias_exponent": integers.bias_exponent, "latency": contract.latency[name],
            })  # fmt: skip
            for connection in deployment.connections[name]:
                described, weight = _connection(deployment, connection)
                arrays[f"weight_{len(connections)}"] = weight
                connections.append(described)
        return Program(deployment, tuple(populations), tuple(connections), arrays)

    def run(self, program: Program, inputs: Array, record: Collection[Record] = _SPIKES) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); see :class:`Simulator`.

        Raises:
            UserError: SNX430 where the environment is missing, and those of :func:`snn_export.export.encoding.signal`.
            BackendError: SNX420 to SNX426 where the worker breaks; the log's path is in it.
        """
        wanted = check_record(record)
        python = self._interpreter()
        levels = encoding.levels(program.deployment, inputs).astype(np.int32)
        kept = self._kept(program, wanted)
        batch, steps = levels.shape[1], program.deployment.contract.steps
        recorded = {
            (index, what): np.empty((steps, batch, *population["shape"]), _DTYPES[what])
            for index, population in enumerate(program.populations)
            for what in kept[index]
        }
        size = self._chunk(program, kept)
        facts: dict[str, Any] = {}
        for start in range(0, batch, size):
            part = slice(start, min(batch, start + size))
            facts = self._run_once(
                python, program, levels[:, part], kept, {key: array[:, part] for key, array in recorded.items()}
            )
        return self._trace(program, recorded, wanted, facts)

    def _interpreter(self) -> Path:
        return self._python or environments.interpreter("lava")

    def _kept(self, program: Program, wanted: frozenset[Record]) -> list[list[str]]:
        """What to record per population: what was asked for, spikes for the counts, and what the readout rule ranks."""
        readout = program.deployment.contract.readout
        return [
            sorted({*wanted, "spikes"} | ({"membrane"} if population["name"] == readout.node else set()))
            for population in program.populations
        ]

    def _chunk(self, program: Program, kept: list[list[str]]) -> int:
        if self._samples_per_run is not None:
            return self._samples_per_run
        per_step = 4 * int(np.prod(program.deployment.input_shape))
        for population, names in zip(program.populations, kept, strict=True):
            per_step += int(np.prod(population["shape"])) * sum(_DTYPES[what].itemsize for what in names)
        return max(1, BYTES_PER_RUN // (per_step * program.deployment.contract.steps))

    def _run_once(
        self, python: Path, program: Program, levels: Array, kept: list[list[str]], into: Mapping[tuple[int, str], Array]
    ) -> dict[str, Any]:
        """One Lava run; fills the arrays of ``into`` and returns what the worker says about itself."""
        log = new_log(self._log_folder or environments.log_folder(), "lava")
        request = {
            "steps": program.deployment.contract.steps,
            "samples": levels.shape[1],
            "input_shape": list(program.deployment.input_shape),
            "populations": [{**item, "record": names} for item, names in zip(program.populations, kept, strict=True)],
            "connections": list(program.connections),
            "probe": "monitor" if self._monitors else "recorder",
        }
        with tempfile.TemporaryDirectory(prefix="snn-export-lava-") as name:
            folder, trace = Path(name) / "request", Path(name) / "trace"
            folder.mkdir()
            (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
            arrays: dict[str, Any] = {"input": levels, **program.arrays}
            np.savez(folder / "arrays.npz", **arrays)
            worker = environments.environment("lava").worker
            run_worker(WorkerCall("lava", python, worker, folder, trace, log, self._time_limit), self._progress)
            facts = _read(trace, into, log)
        if self._log_folder is None:
            log.unlink()
        return facts

    def _trace(
        self, program: Program, recorded: Mapping[tuple[int, str], Array], wanted: frozenset[Record], facts: Mapping[str, Any]
    ) -> Trace:
        contract, layers, last = program.deployment.contract, dict[str, LayerTrace](), 0
        for index, population in enumerate(program.populations):
            name = population["name"]
            last = index if name == contract.readout.node else last
            layers[name] = layer_trace(
                recorded[index, "spikes"].view(bool),
                recorded.get((index, "membrane")),
                recorded.get((index, "current")),
                wanted,
                unit=program.deployment.populations[name].unit,
                overflows=None,
                latency=contract.latency[name],
            )
        readout, predictions, ties = read_out(contract.readout, recorded[last, "spikes"].view(bool), recorded[last, "membrane"])
        provenance = {
            **facts["versions"],
            "convolution": facts["convolution"],
            "models": ", ".join(sorted(set(facts["models"].values()))),
        }
        return Trace(self.name, layers, readout, predictions, ties, provenance)


def _connection(deployment: Deployment, connection: Connection) -> tuple[dict[str, Any], Array]:
    """One Dense or Conv per source: two sources that share a weight node would otherwise count once when both spike."""
    name = weight_node(deployment, connection)
    if name is None:
        raise UserError.from_diagnostics(tuple(findings(deployment)))
    synapse, node, encoder = deployment.synapses[name], deployment.graph.nodes[name], deployment.contract.encoder
    before = connection.path[: connection.path.index(name)]
    from_input = connection.source not in deployment.layers
    graded = from_input and not (encoder.low >= 0 and encoder.high <= 1)
    described: dict[str, Any] = {
        "source": -1 if from_input else deployment.layers.index(connection.source),
        "target": deployment.layers.index(connection.target),
        "kind": "conv" if isinstance(node, nir.Conv2d) else "dense",
        "weight_exponent": synapse.weight_exponent,
        "message_bits": encoder.bits if graded else 0,
        "input_shape": list(deployment.shapes[before[-1] if before else connection.source]),
        "output_shape": list(deployment.shapes[name]),
    }
    if isinstance(node, nir.Conv2d):
        (top, _), (left, _) = conv_padding(node)
        described |= {"stride": list(pair(node.stride)), "dilation": list(pair(node.dilation))}
        described |= {"padding": [top, left], "groups": int(node.groups)}
    return described, synapse.weight.astype(np.int16)


def _read(trace: Path, into: Mapping[tuple[int, str], Array], log: Path) -> dict[str, Any]:
    """Read a finished trace folder into (T, B, *shape) arrays. Raises BackendError SNX425 where it is not one."""
    try:
        facts: dict[str, Any] = json.loads((trace / "trace.json").read_text(encoding="utf-8"))
        for (index, what), array in into.items():
            found = np.load(trace / f"{index}.{what}.npy", mmap_mode="r", allow_pickle=False)
            if found.dtype != array.dtype or found.shape != (array.shape[1], array.shape[0], *array.shape[2:]):
                raise ValueError(f"{index}.{what}.npy holds {found.dtype} {found.shape}")
            array[...] = np.moveaxis(found, 0, 1)
        if not all("fixed_pt" in model for model in facts["models"].values()):
            raise ValueError("a model that is not fixed_pt ran")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(
            Diagnostic(
                "SNX425",
                f"the trace of the lava worker cannot be read: {error}",
                "lava",
                "the worker wrote something else than promised",
                f"read {log}; `snn-export backends install lava --force` makes the environment anew",
            ),
            str(log),
        ) from error
    return facts
