"""The nengo_loihi backend: nengo-loihi 1.1.0's Loihi emulator, in an environment of its own behind a worker process."""

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
from snn_export.hardware_sims import environments, worker_trace
from snn_export.hardware_sims.availability import environment_availability
from snn_export.hardware_sims.mapping import LayerMapping, provenance_of
from snn_export.hardware_sims.nengo_loihi import expressible
from snn_export.hardware_sims.nengo_loihi.conformance import EXPECTED_FAILURES
from snn_export.hardware_sims.nengo_loihi.lowering import lower
from snn_export.hardware_sims.nengo_loihi.probe import judge
from snn_export.hardware_sims.nengo_loihi.registers import NARROW, SUM_MAX
from snn_export.hardware_sims.self_test import Probe, worker_probe
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import SPIKES_ONLY, Record, Trace, check_record
from snn_export.hardware_sims.worker_process import Progress, Worker, WorkerCall, new_log, run_worker
from snn_export.models.diagnostics import Diagnostic, UserError

Array = NDArray[Any]
Narrow = dict[str, dict[str, list[int]]]
"""By population and register: how often it was left, and the first sample and step."""

WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True, eq=False)
class Program:
    """What the worker is told about a network, without inputs; see ``nengo_loihi/worker.py`` for the fields."""

    deployment: Deployment
    request: Mapping[str, Any]
    arrays: Mapping[str, Array]


@final
class NengoLoihiSimulator:
    """nengo-loihi's emulator: an independent statement of Loihi's arithmetic, beside ``loihi`` and Lava.

    Its blocks are given the chip's integers; how spikes travel, add up, decay, overflow, saturate and fire is its own. Samples
    run one after the other, each from zeroed state. Membranes and currents are int32 in membrane units (``unit`` gives their
    real value). It does not tell where it saturates, so ``overflows`` is None.

    Three of its registers are narrower than Lava's (``registers.py``). A run in which one of them is left is refused with SNX268,
    so one that returns agrees with Lava in every bit.

    Args:
        time_limit: seconds per run, after which its worker is killed.
        log_folder: where the worker's logs are kept, also of good runs; by default only those of failed runs are kept, in the
            cache folder.
        python: interpreter to use in place of the installed environment.
        wrap: let the narrower registers wrap, and return what comes of it. The trace's provenance says how often that happened in
            which layer, and the arithmetic is no longer that of Lava.
        progress: called with (steps done, steps in all) of the current run.
    """

    name = "nengo_loihi"
    expected_failures: ClassVar[Mapping[str, str]] = EXPECTED_FAILURES

    def __init__(
        self,
        *,
        time_limit: float = 900.0,
        log_folder: Path | None = None,
        python: Path | None = None,
        wrap: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._time_limit, self._log_folder, self._python = time_limit, log_folder, python
        self._wrap, self._progress = wrap, progress

    def capabilities(self) -> Capabilities:
        """See :class:`Simulator`."""
        return Capabilities(
            "other" if self._wrap else "loihi_integer",
            needs_integers=True,
            description="nengo-loihi 1.1.0's Loihi emulator, given the chip's integers",
            isolated=True,
        )

    def availability(self) -> Availability:
        """Whether the environment is there and complete; reads its stamp, starts nothing."""
        return environment_availability(self.name, self._python)

    def self_test(self) -> list[Probe]:
        """See :mod:`snn_export.hardware_sims.self_test`."""
        meaning = "runs integer networks on nengo-loihi's emulator, bit for bit as the chip's arithmetic has it, or refuses"
        return [worker_probe(self.name, meaning, self._python, judge)]

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """Every reason at once; see :mod:`snn_export.hardware_sims.nengo_loihi.expressible`."""
        return expressible.findings(deployment)

    def mapping(self, deployment: Deployment) -> dict[str, LayerMapping]:
        """By node: native, rewritten, emulated or unsupported, and why."""
        return expressible.mapping(deployment)

    def compile(self, deployment: Deployment) -> Program:
        """The request without its inputs. Raises UserError with the findings of :meth:`check`."""
        found = self.check(deployment)
        if found:
            raise UserError.from_diagnostics(tuple(found))
        lowered, arrays = lower(deployment), dict[str, Array]()
        for index, name in enumerate(deployment.layers):
            arrays[f"bias_{index}"] = deployment.bias(name).ravel().astype(np.int32)
            current = deployment.current_bias(name).ravel()
            if current.any():
                arrays[f"always_on_{index}"] = current.astype(np.int32)
        request = {
            "steps": deployment.contract.steps,
            "populations": [
                _population(deployment, name, f"always_on_{index}" in arrays) for index, name in enumerate(deployment.layers)
            ],
            "relays": lowered.relays, "inputs": lowered.inputs, "synapses": lowered.synapses,
        }  # fmt: skip
        return Program(deployment, request, {**lowered.arrays, **arrays})

    def run(self, program: Program, inputs: Array, record: Collection[Record] = SPIKES_ONLY) -> Trace:
        """Run on (T, B, *shape) or (B, *shape); see :class:`Simulator`.

        Raises:
            UserError: SNX268 where a register of the emulator is left in which it differs from Lava, SNX430 where the environment
                is missing, and those of :func:`snn_export.export.encoding.signal`.
            BackendError: SNX420 to SNX426 where the worker breaks; the log's path is in it.
        """
        wanted, deployment, python = check_record(record), program.deployment, self._interpreter()
        levels = encoding.levels(deployment, inputs).astype(np.int32)
        given = {"levels": levels.reshape(*levels.shape[:2], -1)} | _sample_biases(deployment, inputs)
        names = worker_trace.kept(deployment, wanted)
        recorded = worker_trace.empty(deployment, names, levels.shape[1])
        facts: dict[str, Any] = {"narrow": {}}
        narrow: Narrow = {}
        size = worker_trace.samples_at_once(deployment, names)
        for start in range(0, levels.shape[1], size):
            part = slice(start, min(levels.shape[1], start + size))
            cut = {name: array[part] if name != "levels" else array[:, part] for name, array in given.items()}
            facts = self._run_once(python, program, cut, names, {key: array[:, part] for key, array in recorded.items()})
            _add(narrow, facts["narrow"], start)
        if narrow and not self._wrap:
            raise UserError.from_diagnostics(tuple(_left(name, found) for name, found in narrow.items()))
        provenance = {
            **facts["versions"],
            "models": ", ".join(sorted(set(facts["models"].values()))),
            "nengo_loihi mapping": provenance_of(self.mapping(deployment)),
            "narrow registers left": _told(narrow) or "none",
        }
        return worker_trace.trace_of(self.name, deployment, recorded, wanted, provenance)

    def _interpreter(self) -> Path:
        return self._python or environments.interpreter(self.name)

    def _run_once(
        self,
        python: Path,
        program: Program,
        given: Mapping[str, Array],
        names: list[list[str]],
        into: Mapping[tuple[int, str], Array],
    ) -> dict[str, Any]:
        """One run of the worker; fills the arrays of ``into`` and returns what the worker says about itself."""
        log = new_log(self._log_folder or environments.log_folder(), self.name)
        populations = [{**item, "record": what} for item, what in zip(program.request["populations"], names, strict=True)]
        request = {**program.request, "samples": given["levels"].shape[1], "populations": populations}
        with tempfile.TemporaryDirectory(prefix="snn-export-nengo-loihi-") as root:
            folder, trace = Path(root) / "request", Path(root) / "trace"
            folder.mkdir()
            (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
            arrays: dict[str, Any] = {**program.arrays, **given}
            np.savez(folder / "arrays.npz", **arrays)
            worker = Worker(backend=self.name, python=python, script=WORKER, log=log, time_limit=self._time_limit)
            run_worker(WorkerCall(worker=worker, request=folder, trace=trace), self._progress)
            facts = worker_trace.read_folder(self.name, trace, into, log, model="int32")
        if self._log_folder is None:
            log.unlink()
        return facts


def _population(deployment: Deployment, name: str, always_on: bool) -> dict[str, Any]:
    integers, spec = deployment.populations[name], deployment.contract.neurons[name]
    return {
        "name": name, "size": int(np.prod(deployment.shapes[name])), "shape": list(deployment.shapes[name]),
        "du": integers.du, "dv": integers.dv, "threshold": integers.threshold, "latency": deployment.contract.latency[name],
        "cleared_at": [step for step in range(1, deployment.contract.steps) if spec.resets_at(step)], "always_on": always_on,
    }  # fmt: skip


def _sample_biases(deployment: Deployment, inputs: Array) -> dict[str, Array]:
    """``bias_<p>`` (B, size) of populations whose input a host computes."""
    return {
        f"bias_{deployment.layers.index(name)}": (deployment.bias(name) + bias).reshape(len(bias), -1).astype(np.int32)
        for name, bias in encoding.host_bias(deployment, inputs).items()
    }


def _add(total: Narrow, more: Narrow, first_sample: int) -> None:
    """Add what a part of the batch left, its samples counted from ``first_sample``."""
    for population, registers in more.items():
        for register, (count, sample, step) in registers.items():
            found = total.setdefault(population, {}).setdefault(register, [0, first_sample + sample, step])
            found[0] += count


def _left(population: str, registers: Mapping[str, list[int]]) -> Diagnostic:
    """SNX268 of one population."""
    places = "; ".join(
        f"{NARROW[register]}: {count} times, first in sample {sample}, step {step}"
        for register, (count, sample, step) in registers.items()
    )
    return Diagnostic(
        "SNX268", f"{population} leaves a register of the emulator that is wider in Lava", where=population, why=places,
        fix=f"quantise {population} with a smaller scale or fewer input bits, so that synaptic sums stay within {SUM_MAX}; "
        "or pass wrap=True to see what the emulator makes of it",
    )  # fmt: skip


def _told(narrow: Narrow) -> str:
    """How often which register was left, in one line."""
    return "; ".join(
        f"{population}: {register} {count}"
        for population, registers in narrow.items()
        for register, (count, *_) in registers.items()
    )
