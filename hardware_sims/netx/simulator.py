"""The netx backend: lava-dl 0.6.0 loads a ``.net`` file and real lava-nc 0.10.0 runs it, in an environment of its own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding, netx_io
from snn_export.export.deployment import Deployment
from snn_export.export.netx_layers import BIAS_EXPONENT, NetFile, write_file
from snn_export.export.netx_rules import Link, axon_columns, chain, host_integers, matrices
from snn_export.hardware_sims import environments, fixed_point, worker_trace
from snn_export.hardware_sims.availability import environment_availability
from snn_export.hardware_sims.netx.conformance import EXPECTED_FAILURES
from snn_export.hardware_sims.netx.expressible import findings
from snn_export.hardware_sims.self_test import Probe, worker_probe
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record
from snn_export.hardware_sims.worker_process import Progress, Worker, WorkerCall, new_log, run_worker
from snn_export.models.diagnostics import Diagnostic, UserError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Program:
    """The file that netx loads, and what the worker is told beside it; see ``netx/worker.py`` for the fields."""

    deployment: Deployment
    net: NetFile
    request: Mapping[str, Any]
    arrays: Mapping[str, Array]


@final
class NetxSimulator:
    """lava-dl's own loader on Intel's Lava: the file that is exported is the file that runs.

    The deployment is written as ``.net``, ``lava.lib.dl.netx.hdf5.Network`` reads it back, and Lava's ``fixed_pt`` models run it.
    The worker checks that the weights Lava computed with are those of the deployment. Samples follow each other in one run, and
    are separated by netx's reset where that is enough (see ``netx/worker.py``). Membranes and currents are int32 in membrane
    units. Lava does not tell when it wraps or saturates, so ``overflows`` is None.

    Deviation from the canonical neuron: every synapse takes one step; it is removed here (``latency``).

    Args:
        time_limit: seconds per run, after which its worker is killed.
        log_folder: where the worker's logs are kept, also of good runs; by default only those of failed runs are kept, in the
            cache folder.
        python: interpreter to use in place of the installed environment.
        samples_per_run: split the batch into runs of at most this many samples; by default by memory.
        separation: "reset" or "clear"; by default the one the network needs.
        progress: called with (steps done, steps in all) of the current run.
    """

    name = "netx"
    expected_failures: ClassVar[Mapping[str, str]] = EXPECTED_FAILURES

    def __init__(
        self,
        *,
        time_limit: float = 900.0,
        log_folder: Path | None = None,
        python: Path | None = None,
        samples_per_run: int | None = None,
        separation: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._time_limit, self._python, self._samples_per_run = time_limit, python, samples_per_run
        self._log_folder, self._separation, self._progress = log_folder, separation, progress

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities(
            "loihi_integer",
            needs_integers=True,
            description="real lava-dl 0.6.0 netx on lava-nc 0.10.0, fixed_pt models",
            isolated=True,
        )

    def availability(self) -> Availability:
        """Whether the environment is there and complete; reads its stamp, starts nothing."""
        return environment_availability(self.name, self._python)

    def self_test(self) -> list[Probe]:
        """See :mod:`snn_export.hardware_sims.self_test`."""
        meaning = "runs .net files in lava-dl's netx, on the fixed-point models of Lava"
        return [worker_probe(self.name, meaning, self._python, fixed_point.judge)]

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """Every reason at once; see :func:`snn_export.hardware_sims.netx.expressible.findings`."""
        return findings(deployment)

    def compile(self, deployment: Deployment) -> Program:
        """The file and the request without its inputs. Raises UserError with the findings of :meth:`check`."""
        found = self.check(deployment)
        if found:
            raise UserError.from_diagnostics(tuple(found))
        net, links, encoder = netx_io.net_file(deployment), chain(deployment), deployment.contract.encoder
        hosted = links[0].wire is None
        arrays: dict[str, Array] = {}
        for index in range(len(links)):
            parts = matrices(deployment, links, index)
            arrays |= {
                f"{name}_{index}": part.astype(np.int32) for name, part in zip(("weight", "recurrent"), parts, strict=False)
            }
        always = 0 if hosted else axon_columns(deployment, links[0]).shape[1]
        request = {
            "steps": deployment.contract.steps,
            "message_bits": 0 if hosted or encoder.binary else encoder.bits,
            "separation": self._separation or _separation(deployment, links),
            "reset_interval": deployment.contract.neurons[links[0].population].reset_interval,
            "input_shape": [deployment.input_shape[0] + always] if always else list(deployment.input_shape),
        }
        return Program(deployment, net, request, arrays)

    def run(self, program: Program, inputs: Array, record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); see :class:`Simulator`.

        Raises:
            UserError: SNX430 where the environment is missing, and those of :func:`snn_export.export.encoding.signal`.
            BackendError: SNX420 to SNX426 where the worker breaks; the log's path is in it.
        """
        wanted, deployment, python = check_record(record), program.deployment, self._interpreter()
        levels = _with_always_on(program, encoding.levels(deployment, inputs).astype(np.int32))
        host = _host_mantissas(deployment, inputs)
        names = worker_trace.kept(deployment, wanted)
        recorded = worker_trace.empty(deployment, names, levels.shape[1])
        size = self._samples_per_run or worker_trace.samples_at_once(deployment, names)
        facts: dict[str, Any] = {}
        for start in range(0, levels.shape[1], size):
            part = slice(start, min(levels.shape[1], start + size))
            given = {"input": levels[:, part]} | ({} if host is None else {"host": host[part]})
            facts = self._run_once(python, program, given, names, {key: array[:, part] for key, array in recorded.items()})
        provenance = {
            **facts["versions"],
            "separation": str(program.request["separation"]),
            "slayer": facts["slayer"],
            "models": ", ".join(sorted(set(facts["models"].values()))),
        }
        return worker_trace.trace_of(self.name, deployment, recorded, wanted, provenance)

    def _interpreter(self) -> Path:
        return self._python or environments.interpreter("netx")

    def _run_once(
        self,
        python: Path,
        program: Program,
        given: Mapping[str, Array],
        names: list[list[str]],
        into: Mapping[tuple[int, str], Array],
    ) -> dict[str, Any]:
        """One run; fills the arrays of ``into`` and returns what the worker says about itself."""
        log = new_log(self._log_folder or environments.log_folder(), "netx")
        first = 0 if "host" in given else 1
        populations = [
            {"shape": list(program.deployment.shapes[name]), "latency": first + index, "record": names[index]}
            for index, name in enumerate(program.deployment.layers)
        ]
        with tempfile.TemporaryDirectory(prefix="snn-export-netx-") as name:
            folder, trace = Path(name) / "request", Path(name) / "trace"
            folder.mkdir()
            request = {**program.request, "samples": given["input"].shape[1], "populations": populations}
            (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
            arrays: dict[str, Any] = {**given, **program.arrays}
            np.savez(folder / "arrays.npz", **arrays)
            write_file(program.net, folder / "network.net")
            script = environments.environment("netx").worker
            worker = Worker(backend="netx", python=python, script=script, log=log, time_limit=self._time_limit)
            run_worker(WorkerCall(worker=worker, request=folder, trace=trace), self._progress)
            facts = worker_trace.read_folder("netx", trace, into, log)
        if self._log_folder is None:
            log.unlink()
        return facts


def _separation(deployment: Deployment, links: tuple[Link, ...]) -> str:
    """How samples follow each other: by netx's own reset, unless something else than neurons remembers the sample before."""
    wires = [wire for link in links for wire in link.weights]
    delayed = any(wire.most + deployment.latency_gap(wire) > 0 for wire in wires if not wire.recurrent)
    interval = deployment.contract.neurons[links[0].population].reset_interval
    uneven = interval > 0 and deployment.contract.steps % interval != 0
    return "clear" if delayed or uneven or links[0].wire is None or any(link.loop for link in links) else "reset"


def _with_always_on(program: Program, levels: Array) -> Array:
    """Levels (S, B, *shape) with the inputs behind them that are one in every step."""
    more = program.request["input_shape"][0] - levels.shape[2]
    return np.concatenate((levels, np.ones((*levels.shape[:2], more), np.int32)), axis=2) if more else levels


def _host_mantissas(deployment: Deployment, inputs: Array) -> Array | None:
    """What the host adds to the bias mantissas of an input layer, (B, *shape); None where the input are spikes.

    The file itself holds one weight and one bias, and a program that drives netx computes weight x + bias from them.
    """
    population = chain(deployment)[0].population
    if not deployment.host_synapses or host_integers(deployment, population) is None:
        return None
    return (encoding.host_bias(deployment, inputs)[population] >> BIAS_EXPONENT).astype(np.int32)
