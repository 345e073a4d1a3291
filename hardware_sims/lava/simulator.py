"""The lava backend: real lava-nc 0.10.0, ``fixed_pt`` models, in an environment of its own behind a worker process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims import environments, fixed_point, worker_trace
from snn_export.hardware_sims.availability import environment_availability
from snn_export.hardware_sims.lava.conformance import EXPECTED_FAILURES
from snn_export.hardware_sims.lava.expressible import findings
from snn_export.hardware_sims.lava.lowering import lower
from snn_export.hardware_sims.lava.schedule import period, resets
from snn_export.hardware_sims.self_test import Probe, worker_probe
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record
from snn_export.hardware_sims.worker_process import Progress, Worker, WorkerCall, new_log, run_worker
from snn_export.models.diagnostics import Diagnostic, UserError

Array = NDArray[Any]

AXON_WEIGHT = 254
"""What one always-firing source can add to a synaptic sum in a step."""


@dataclass(frozen=True, eq=False)
class Program:
    """What the worker is told about a network, without inputs; see ``lava/worker.py`` for the fields."""

    deployment: Deployment
    period: int
    populations: tuple[Mapping[str, Any], ...]
    connections: tuple[Mapping[str, Any], ...]
    arrays: Mapping[str, Array]


@final
class LavaSimulator:
    """Intel's Lava, the arbiter of what the chip would do.

    All samples stream through one run; LIFReset separates them, and pauses in which delayed and loop-closing connections are
    cleared (see ``lava/schedule.py``). Every population's spikes, u and v are recorded inside its own Lava process. Membranes and
    currents are int32 in membrane units (``unit`` gives their real value). Lava does not tell when it wraps or saturates, so
    ``overflows`` is None.

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
    expected_failures: ClassVar[Mapping[str, str]] = EXPECTED_FAILURES

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
        return environment_availability(self.name, self._python)

    def self_test(self) -> list[Probe]:
        """See :mod:`snn_export.hardware_sims.self_test`."""
        meaning = "runs integer networks on Intel's own Lava runtime, with the fixed-point models that compute as the chip does"
        return [worker_probe(self.name, meaning, self._python, fixed_point.judge)]

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """Every reason at once; see :func:`snn_export.hardware_sims.lava.expressible.findings`."""
        return findings(deployment)

    def compile(self, deployment: Deployment) -> Program:
        """The request without its inputs. Raises UserError with the findings of :meth:`check`."""
        found = self.check(deployment)
        if found:
            raise UserError.from_diagnostics(tuple(found))
        index = {name: number for number, name in enumerate(deployment.layers)}
        spacing, axons = period(deployment), _axons(deployment)
        lowered = [lower(deployment, wire, index) for name in index for wire in deployment.wires[name]]
        arrays = {f"axons_{index[name]}": weights for name, weights in axons.items()}
        arrays |= {f"bias_{number}": _mantissa(deployment, name, deployment.bias(name)) for name, number in index.items()}
        for number, connection in enumerate(lowered):
            arrays |= {f"{name}_{number}": array for name, array in connection.arrays.items()}
        populations = tuple(_population(deployment, name, spacing, name in axons) for name in index)
        return Program(deployment, spacing, populations, tuple(connection.facts for connection in lowered), arrays)

    def run(self, program: Program, inputs: Array, record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); see :class:`Simulator`.

        Raises:
            UserError: SNX430 where the environment is missing, and those of :func:`snn_export.export.encoding.signal`.
            BackendError: SNX420 to SNX426 where the worker breaks; the log's path is in it.
        """
        wanted, deployment, python = check_record(record), program.deployment, self._interpreter()
        levels = encoding.levels(deployment, inputs).astype(np.int32)
        biases = _sample_biases(deployment, inputs)
        names = worker_trace.kept(deployment, wanted)
        recorded = worker_trace.empty(deployment, names, levels.shape[1])
        size = self._samples_per_run or worker_trace.samples_at_once(deployment, names)
        facts: dict[str, Any] = {}
        for start in range(0, levels.shape[1], size):
            part = slice(start, min(levels.shape[1], start + size))
            given = {"input": levels[:, part]} | {name: bias[part] for name, bias in biases.items()}
            facts = self._run_once(python, program, given, names, {key: array[:, part] for key, array in recorded.items()})
        provenance = {
            **facts["versions"],
            "convolution": facts["convolution"],
            "models": ", ".join(sorted(set(facts["models"].values()))),
        }
        return worker_trace.trace_of(self.name, deployment, recorded, wanted, provenance)

    def _interpreter(self) -> Path:
        return self._python or environments.interpreter("lava")

    def _run_once(
        self,
        python: Path,
        program: Program,
        given: Mapping[str, Array],
        names: list[list[str]],
        into: Mapping[tuple[int, str], Array],
    ) -> dict[str, Any]:
        """One Lava run; fills the arrays of ``into`` and returns what the worker says about itself."""
        log = new_log(self._log_folder or environments.log_folder(), "lava")
        request = {
            "steps": program.deployment.contract.steps,
            "samples": given["input"].shape[1],
            "period": program.period,
            "input_shape": list(program.deployment.input_shape),
            "populations": [{**item, "record": what} for item, what in zip(program.populations, names, strict=True)],
            "connections": list(program.connections),
            "probe": "monitor" if self._monitors else "recorder",
        }
        with tempfile.TemporaryDirectory(prefix="snn-export-lava-") as root:
            folder, trace = Path(root) / "request", Path(root) / "trace"
            folder.mkdir()
            (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
            arrays: dict[str, Any] = {**given, **program.arrays}
            np.savez(folder / "arrays.npz", **arrays)
            script = environments.environment("lava").worker
            worker = Worker(backend="lava", python=python, script=script, log=log, time_limit=self._time_limit)
            run_worker(WorkerCall(worker=worker, request=folder, trace=trace), self._progress)
            facts = worker_trace.read_folder("lava", trace, into, log)
        if self._log_folder is None:
            log.unlink()
        return facts


def _population(deployment: Deployment, name: str, spacing: int, axons: bool) -> dict[str, Any]:
    integers, reset = deployment.populations[name], resets(deployment, name, spacing)
    return {
        "name": name, "shape": list(deployment.shapes[name]), "du": integers.du, "dv": integers.dv,
        "threshold": integers.threshold, "bias_exponent": integers.bias_exponent, "latency": deployment.contract.latency[name],
        "reset_interval": reset.interval, "cleared_at": list(reset.paused), "axons": axons,
    }  # fmt: skip


def _axons(deployment: Deployment) -> dict[str, Array]:
    """Weights (neurons, k) of k always-firing sources, by population that needs them: biases into its current.

    A population that nothing leads to, because a host computes its input, gets a weight of 0: Lava builds only what is connected.
    """
    biases = {name: deployment.current_bias(name).ravel() for name in deployment.layers}
    kept = {name: bias for name, bias in biases.items() if bias.any() or not deployment.wires[name]}
    most = max((int(np.abs(bias).max(initial=0)) for bias in kept.values()), default=0)
    count = max(1, -(-most // AXON_WEIGHT))
    share = np.arange(count) * AXON_WEIGHT
    return {
        name: (np.sign(bias)[:, None] * np.clip(np.abs(bias)[:, None] - share, 0, AXON_WEIGHT)).astype(np.int16)
        for name, bias in kept.items()
    }


def _mantissa(deployment: Deployment, population: str, bias: Array) -> Array:
    return (bias >> deployment.populations[population].bias_exponent).astype(np.int16)


def _sample_biases(deployment: Deployment, inputs: Array) -> dict[str, Array]:
    """Mantissas per sample, ``biases_<p>`` (B, *features), of populations whose input a host computes."""
    return {
        f"biases_{deployment.layers.index(name)}": _mantissa(deployment, name, deployment.bias(name) + bias)
        for name, bias in encoding.host_bias(deployment, inputs).items()
    }
