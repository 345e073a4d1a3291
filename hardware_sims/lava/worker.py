"""Runs a network on real Lava (lava-nc 0.10.0, ``fixed_pt`` models) and records what every population did.

``python worker.py REQUEST TRACE``; or ``--self-test``, which runs two neurons and prints two lines of JSON: what it saw, and the
versions. A self-contained script for the Lava environment: NumPy, SciPy and lava-nc, nothing of this project.
``lava/simulator.py`` writes the request and reads the trace; what both hold is stated here.

Request folder
    ``request.json``: steps T, samples B, period P (steps from one sample's start to the next), input_shape, and two lists.
        populations: name, shape, du, dv, threshold, bias_exponent, latency L (steps from the input, at least 1),
            reset_interval (of Lava's LIFReset, counted from the first step of a sample), cleared_at (local steps before which
            u and v are set to 0), axons (whether ``axons_<p>`` exists), record (any of spikes, current, membrane)
        connections: source (index of a population, -1 for the input), target (index), kind ``dense``, ``sparse`` or ``conv``,
            weight_exponent, sign_mode, message_bits (0: spikes, else graded), input_shape, output_shape, delayed, cleared
            (whether what it carries is dropped before each sample); for conv also stride, padding, dilation (rows, columns)
            and groups
        probe: ``recorder`` (default) or ``monitor`` (Lava's own Monitor processes; slower, the check of the recorder)
    ``arrays.npz``
        ``input`` (1 or T, B, *input_shape) int32 levels
        ``bias_<p>`` (*shape) int16 mantissas of population p; ``biases_<p>`` (B, *shape) where every sample has its own
        ``axons_<p>`` int16 (neurons, k): weights of k sources that fire in every step (a bias that enters the current); the
            same k for all populations
        ``weight_<c>`` int16 of connection c: dense (out, in), sparse (entries,), conv in torch's layout
            (out, in/groups, kH, kW); sparse also ``row_<c>`` and ``column_<c>`` int32
        ``delay_<c>`` uint8 like the weight, where delayed: steps beyond the one that every synapse takes

Trace folder (written as ``TRACE.partial`` and renamed when complete)
    ``<p>.spikes.npy`` uint8, ``<p>.current.npy`` and ``<p>.membrane.npy`` int32: (B, T, *shape), local time, u and v after the
        step's reset; only what was asked for
    ``trace.json``: versions, the Lava model that ran per process with its tags, the path its convolution took, steps, pauses,
        seconds
    ``progress.bin`` (in the partial folder): two int64, steps done and steps in all

How the samples follow each other: they stream through one run, sample s from step s P on. Every synapse takes one step, so the
population with latency L works on it in the steps s P + L + 1 ... s P + L + T (Lava counts from 1), and LIFReset clears u and v
at the first of them. That also clears what a bias integrated before the first input arrived. What a population sends outside
its T steps arrives outside the T steps of its target, too, unless the connection delays it or closes a loop. Such a connection
is *cleared*: after step s P + L(source), just before its source starts on sample s, the run is paused and the connection's
buffer set to 0 (``Var.set``); where its target starts before its source, which happens in loops, it is cleared after each of the
steps between, too: nothing then reaches the target before the source has begun. P leaves room for what it still had to deliver.

How layouts meet: populations keep the order (C, H, W). Lava's Conv works on (W, H, C), so ports are transposed on the way in
and out, and the kernel, which Lava flips (a true convolution), is handed over flipped.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PROBES = {"spikes": np.uint8, "current": np.int32, "membrane": np.int32}
SELF_TEST_STEPS = 12


def import_lava() -> None:
    """Import lava on Python 3.11+, where a dataclass default must have a hash and one of lava's has none.

    While lava is imported its own dataclasses, and only those, get one.
    """
    plain = dataclasses.dataclass

    def hashable(cls: Any = None, /, **options: Any) -> Any:
        def decorate(target: Any) -> Any:
            if target.__module__.startswith("lava."):
                options.setdefault("unsafe_hash", not options.get("frozen", False))
            return plain(target, **options)

        return decorate if cls is None else decorate(cls)

    dataclasses.dataclass = hashable
    try:
        import lava.magma.core.run_configs
        import lava.proc.conv.process
        import lava.proc.dense.process
        import lava.proc.io.source
        import lava.proc.lif.process
        import lava.proc.monitor.process
        import lava.proc.sparse.process  # noqa: F401
    finally:
        dataclasses.dataclass = plain


class Recorder:
    """Arrays on disk that one population's Lava process fills, step by step; (B, T, *shape) each."""

    def __init__(self, folder: Path, index: int, request: dict[str, Any]) -> None:
        self.population = request["populations"][index]
        self.steps, self.samples, self.period = request["steps"], request["samples"], request["period"]
        self.paths = {what: folder / f"{index}.{what}.npy" for what in self.population["record"]}
        self.arrays: dict[str, Any] = {}
        self.progress = folder / "progress.bin"
        shape = (self.samples, self.steps, *self.population["shape"])
        for what, path in self.paths.items():
            np.lib.format.open_memmap(path, "w+", PROBES[what], shape).flush()

    def open(self) -> None:
        """Map the files; called in the process that writes them."""
        self.arrays = {what: np.lib.format.open_memmap(path, "r+") for what, path in self.paths.items()}
        self.done = np.memmap(self.progress, np.int64, "r+", shape=(2,))

    def write(self, lava_step: int, **state: Any) -> None:
        """Keep the state of one step; steps before the first input and after the last are nobody's."""
        sample, step = divmod(lava_step - 1 - self.population["latency"], self.period)
        if 0 <= sample < self.samples and step < self.steps:
            for what in self.arrays.keys() & state.keys():
                self.arrays[what][sample, step] = state[what]
        self.done[0] = max(self.done[0], lava_step)


def recording_model(chosen: Any) -> Any:
    """The model Lava selected, with its arithmetic untouched, that also writes down what it computed."""

    class RecordingModel(chosen):  # type: ignore[misc]
        def __init__(self, proc_params: Any) -> None:
            super().__init__(proc_params)
            self.recorder: Recorder = proc_params["recorder"]
            self.recorder.open()

        def spiking_activation(self) -> Any:
            self.fired = super().spiking_activation()
            return self.fired

        def run_spk(self) -> None:
            super().run_spk()
            self.recorder.write(int(self.time_step), spikes=self.fired, current=self.u, membrane=self.v)

    return RecordingModel


def compared_model(chosen: Any) -> Any:
    """The model Lava selected, with its arithmetic untouched, that notes whether it computes with the weights it was given.

    Lava's models clip and truncate weights in their first step. Reading them back with ``Var.get`` takes 25 microseconds each.
    """

    class ComparedModel(chosen):  # type: ignore[misc]
        def run_spk(self) -> None:
            super().run_spk()
            if int(self.time_step) == 1:
                index, expected, path = self.proc_params["compare"]
                different = (self.weight if hasattr(self, "weight") else self.weights) != expected
                np.memmap(path, np.uint8, "r+")[index] = not (different.nnz if hasattr(different, "nnz") else np.any(different))

    return ComparedModel


def run_configuration(selected: dict[str, str], record: bool) -> Any:
    """Loihi2SimCfg for ``fixed_pt`` models that refuses any other model and notes what was selected."""
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.lif.process import LIFReset
    from lava.proc.monitor.process import Monitor

    class FixedPoint(Loihi2SimCfg):  # type: ignore[misc]
        def select(self, process: Any, proc_models: Any) -> Any:
            chosen = super().select(process, proc_models)
            if isinstance(process, Monitor):  # computes nothing, and its only model has no tags
                return chosen
            if "fixed_pt" not in chosen.tags:
                raise RuntimeError(f"Lava selected {chosen.__name__} for {process.name}; its tags are {chosen.tags}")
            selected[process.name] = f"{chosen.__module__}.{chosen.__name__} [{', '.join(chosen.tags)}]"
            if isinstance(process, LIFReset):
                return recording_model(chosen) if record else chosen
            return compared_model(chosen) if process.proc_params.get("compare") is not None else chosen

    return FixedPoint(select_tag="fixed_pt")


def connect(connection: dict[str, Any], arrays: Any, index: int, source: Any, target: Any) -> tuple[Any, Any]:
    """Build one connection between two ports; returns its process and the weights it must compute with."""
    kind, weight = connection["kind"], arrays[f"weight_{index}"].astype(np.int32)
    if kind == "conv":
        process, expected = _conv(connection, weight, index)
        _reshaped(source, tuple(connection["input_shape"])).transpose((2, 1, 0)).connect(process.s_in)
        _reshaped(process.a_out.transpose((2, 1, 0)), target.shape).connect(target)
        return process, expected
    delay = arrays[f"delay_{index}"].astype(np.int64) if connection["delayed"] else None
    if kind == "sparse":
        shape = (int(np.prod(connection["output_shape"])), int(np.prod(connection["input_shape"])))
        weight = _sparse(weight, arrays, index, shape)
        delay = None if delay is None else _sparse(delay, arrays, index, shape)
    process = _matrix(connection, weight, delay, f"{kind}_{index}")
    _reshaped(source, process.s_in.shape).connect(process.s_in)
    _reshaped(process.a_out, target.shape).connect(target)
    return process, weight


def _sparse(values: Any, arrays: Any, index: int, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix((values, (arrays[f"row_{index}"], arrays[f"column_{index}"])), shape, values.dtype)


def _matrix(connection: dict[str, Any], weight: Any, delay: Any, name: str) -> Any:
    """Dense, Sparse, DelayDense or DelaySparse."""
    from lava.proc.dense.process import DelayDense, Dense
    from lava.proc.sparse.process import DelaySparse, Sparse
    from lava.utils.weightutils import SignMode

    options = {
        "weights": weight, "weight_exp": connection["weight_exponent"], "num_weight_bits": 8, "name": name,
        "sign_mode": SignMode[connection["sign_mode"].upper()], "num_message_bits": connection["message_bits"],
    }  # fmt: skip
    if delay is None:
        return Sparse(**options) if connection["kind"] == "sparse" else Dense(**options)
    return DelaySparse(delays=delay, **options) if connection["kind"] == "sparse" else DelayDense(delays=delay, **options)


def _conv(connection: dict[str, Any], weight: Any, index: int) -> tuple[Any, Any]:
    from lava.proc.conv.process import Conv

    kernel = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1))
    stride, padding, dilation = (tuple(connection[key][::-1]) for key in ("stride", "padding", "dilation"))
    process = Conv(
        weight=kernel, input_shape=tuple(connection["input_shape"][::-1]), stride=stride, padding=padding, dilation=dilation,
        groups=connection["groups"], num_message_bits=connection["message_bits"], name=f"conv_{index}",
    )  # fmt: skip
    return process, kernel


def _reshaped(port: Any, shape: tuple[int, ...]) -> Any:
    return port if tuple(port.shape) == tuple(shape) else port.reshape(tuple(shape))


def build_populations(request: dict[str, Any], arrays: Any, folder: Path) -> list[Any]:
    """One LIFReset per population, cleared at the first step of every sample."""
    from lava.proc.lif.process import LIFReset

    found = []
    for index, population in enumerate(request["populations"]):
        bias = arrays[f"biases_{index}"][0] if f"biases_{index}" in arrays else arrays[f"bias_{index}"]
        interval = population["reset_interval"]
        process = LIFReset(
            shape=tuple(population["shape"]), du=population["du"], dv=population["dv"], vth=population["threshold"],
            bias_mant=bias.astype(np.int32), bias_exp=population["bias_exponent"],
            reset_interval=interval, reset_offset=(population["latency"] + 1) % interval, name=f"lif_{index}",
        )  # fmt: skip
        process.proc_params["recorder"] = Recorder(folder, index, request)
        found.append(process)
    return found


def build_connections(request: dict[str, Any], arrays: Any, populations: list[Any], folder: Path) -> list[Any]:
    """Every connection's process, those of the always-firing sources last; writes the file that says which kept its weights."""
    from lava.proc.io.source import RingBuffer

    found = []
    source = RingBuffer(data=input_stream(request, arrays["input"]))  # Lava leaves out what nothing connects
    for index, item in enumerate(request["connections"]):
        before = source if item["source"] < 0 else populations[item["source"]]
        found.append(connect(item, arrays, index, before.s_out, populations[item["target"]].a_in))
    axons = {index: arrays[f"axons_{index}"] for index, item in enumerate(request["populations"]) if item["axons"]}
    always = RingBuffer(data=np.ones((max([1, *(weight.shape[1] for weight in axons.values())]), 1), np.int32))
    for index, weight in axons.items():
        plain = {"kind": "dense", "weight_exponent": 0, "sign_mode": "mixed", "message_bits": 0}
        process = _matrix(plain, weight.astype(np.int32), None, f"axons_{index}")
        always.s_out.connect(process.s_in)
        _reshaped(process.a_out, populations[index].a_in.shape).connect(populations[index].a_in)
        found.append((process, weight))
    flags = folder / "weights.bin"
    np.zeros(max(len(found), 1), np.uint8).tofile(flags)
    for index, (process, expected) in enumerate(found):
        process.proc_params["compare"] = (index, expected, flags)
    return [process for process, _ in found]


def input_stream(request: dict[str, Any], levels: Any) -> Any:
    """The levels (1 or T, B, *shape) of all samples one after the other, (*shape, steps), with zeros up to the next sample."""
    steps, samples, period, shape = (request[key] for key in ("steps", "samples", "period", "input_shape"))
    stream = np.zeros((*shape, samples, period), np.int32)
    stream[..., :steps] = np.moveaxis(np.broadcast_to(levels, (steps, samples, *shape)), (0, 1), (-1, -2))
    return stream.reshape(*shape, samples * period)


def pauses(request: dict[str, Any], sample_biases: list[int]) -> dict[int, list[tuple[str, int, int]]]:
    """What to do while the run is paused, by the number of steps done: (``clear``, connection, sample), (``reset`` or ``bias``,
    population, sample). ``sample_biases``: populations that have a bias per sample.

    Nothing is due before the first step, when all state is 0 and the biases are those of the first sample.
    """
    found: dict[int, list[tuple[str, int, int]]] = {}
    latency = {-1: 0} | {index: population["latency"] for index, population in enumerate(request["populations"])}
    for sample in range(request["samples"]):
        start = sample * request["period"]
        for index, connection in enumerate(request["connections"]):
            if connection["cleared"]:
                last = latency[connection["source"]]
                for step in range(min(last, latency[connection["target"]]), last + 1):
                    found.setdefault(start + step, []).append(("clear", index, sample))
        for index, population in enumerate(request["populations"]):
            for step in population["cleared_at"]:
                found.setdefault(start + latency[index] + step, []).append(("reset", index, sample))
        for index in sample_biases:
            if sample:
                found.setdefault(start + latency[index], []).append(("bias", index, sample))
    found.pop(0, None)
    return dict(sorted(found.items()))


def end_when_a_process_is_killed() -> None:
    """Lava runs each Process in an OS process and waits for ever for one that was killed: end at once instead."""

    def look(number: int, frame: Any) -> None:
        ended = None
        with suppress(ChildProcessError):  # Lava has reaped it already: it ended as it should
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None and ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            os.write(2, f"\nprocess {ended.si_pid} of Lava was killed by signal {ended.si_status}\n".encode())
            os._exit(1)

    signal.signal(signal.SIGCHLD, look)


def run(request: dict[str, Any], arrays: Any, folder: Path) -> dict[str, Any]:
    """Build, run, check that Lava left the weights alone; returns what goes into ``trace.json``."""
    started = time.perf_counter()
    total = request["period"] * (request["samples"] - 1) + request["steps"]
    total += max(population["latency"] for population in request["populations"])
    np.array([0, total], np.int64).tofile(folder / "progress.bin")
    populations = build_populations(request, arrays, folder)
    connections = build_connections(request, arrays, populations, folder)
    selected: dict[str, str] = {}
    monitors = attach_monitors(request, populations, total) if request.get("probe") == "monitor" else []
    configuration = run_configuration(selected, record=not monitors)
    biases = {index: arrays[f"biases_{index}"] for index in range(len(populations)) if f"biases_{index}" in arrays}
    plan = {step: actions for step, actions in pauses(request, list(biases)).items() if step < total}
    built = time.perf_counter()
    try:
        _run_with_pauses(populations, connections, biases, plan, total, configuration)
        ran = time.perf_counter()
        for write in monitors:
            write()
    finally:
        populations[0].stop()
    changed = np.flatnonzero(np.fromfile(folder / "weights.bin", np.uint8)[: len(connections)] == 0)
    if changed.size:
        raise RuntimeError(f"Lava changed the weights of {[connections[index].name for index in changed]}")
    return {
        "models": selected,
        "steps": total,
        "pauses": len(plan),
        "seconds": {"build": round(built - started, 3), "run": round(ran - built, 3)},
    }


def _run_with_pauses(
    populations: list[Any],
    connections: list[Any],
    biases: dict[int, Any],
    plan: dict[int, list[tuple[str, int, int]]],
    total: int,
    configuration: Any,
) -> None:
    """All steps; between them, what ``plan`` says is set to 0 or to the bias of the sample that begins."""
    from lava.magma.core.run_conditions import RunSteps

    done = 0
    for when in (*plan, total):
        populations[0].run(condition=RunSteps(num_steps=when - done), run_cfg=configuration)
        done = when
        for what, index, sample in plan.get(when, []):
            if what == "clear":
                _to_zero(connections[index].a_buff)
            elif what == "reset":
                _to_zero(populations[index].u)
                _to_zero(populations[index].v)
            else:
                populations[index].bias_mant.set(biases[index][sample].astype(np.int32))


def _to_zero(variable: Any) -> None:
    variable.set(np.zeros(variable.shape, np.int32))


def attach_monitors(request: dict[str, Any], populations: list[Any], total: int) -> list[Any]:
    """Lava's own probes in place of the recorder, one Monitor per variable; returns functions that write the arrays."""
    from lava.proc.monitor.process import Monitor

    writers = []
    for process in populations:
        recorder: Recorder = process.proc_params["recorder"]
        variables = {"spikes": process.s_out, "current": process.u, "membrane": process.v}
        for what in recorder.paths:
            monitor = Monitor()
            monitor.probe(variables[what], total)
            writers.append(_monitor_writer(monitor, variables[what].name, process.name, recorder, what))
    return writers


def _monitor_writer(monitor: Any, variable: str, process: str, recorder: Recorder, what: str) -> Any:
    def write() -> None:
        recorder.open()
        values = monitor.get_data()[process][variable]
        for step, value in enumerate(values, 1):
            recorder.write(step, **{what: value})

    return write


def describe() -> dict[str, Any]:
    """Versions and the code path of Lava's convolution, which depends on whether it found torch."""
    from lava.proc.conv import utils

    return {
        "versions": {name: version(name) for name in ("lava-nc", "numpy", "scipy")} | {"python": sys.version.split()[0]},
        "convolution": "torch float32" if utils.TORCH_IS_AVAILABLE else "scipy float64",
    }


def observed(folder: Path, models: dict[str, str], **asked: Any) -> str:
    """What the self-test saw, as a line of JSON: what was asked for and what was recorded. Who asked knows what is right."""
    recorded = {what: np.load(folder / f"0.{what}.npy")[0].tolist() for what in PROBES}
    return json.dumps({**asked, **recorded, "models": sorted({model.rpartition(".")[2] for model in models.values()})})


def self_test() -> None:
    """Two neurons behind one input, some steps: shows that Lava imports, compiles and runs here, in fixed point."""
    steps, drives, neuron = SELF_TEST_STEPS, [22, -22], {"du": 1365, "dv": 819, "threshold": 50}
    population = {
        "name": "n", "shape": [2], **neuron, "bias_exponent": 0, "latency": 1, "reset_interval": steps,
        "cleared_at": [], "axons": False, "record": list(PROBES),
    }  # fmt: skip
    connection = {
        "source": -1, "target": 0, "kind": "dense", "weight_exponent": 0, "sign_mode": "mixed", "message_bits": 0,
        "input_shape": [1], "output_shape": [2], "delayed": False, "cleared": False,
    }  # fmt: skip
    request = {
        "steps": steps, "samples": 1, "period": steps, "input_shape": [1], "populations": [population],
        "connections": [connection],
    }  # fmt: skip
    arrays = {
        "input": np.ones((steps, 1, 1), np.int32), "bias_0": np.zeros(2, np.int16),
        "weight_0": np.array(drives, np.int16)[:, None],
    }  # fmt: skip
    import_lava()
    with tempfile.TemporaryDirectory() as folder:
        models = run(request, arrays, Path(folder))["models"]
        print(observed(Path(folder), models, drives=drives, **neuron))
    print(json.dumps(describe()["versions"], sort_keys=True))


def main() -> None:
    """See the module's docstring."""
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return
    request_folder, trace_folder = Path(sys.argv[1]), Path(sys.argv[2])
    request = json.loads((request_folder / "request.json").read_text(encoding="utf-8"))
    partial = trace_folder.with_name(trace_folder.name + ".partial")
    partial.mkdir(parents=True)
    started = time.perf_counter()
    import_lava()
    imported = time.perf_counter() - started
    with np.load(request_folder / "arrays.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    end_when_a_process_is_killed()
    found = describe() | run(request, arrays, partial)
    found["seconds"]["import"] = round(imported, 3)
    (partial / "trace.json").write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")
    partial.replace(trace_folder)


if __name__ == "__main__":
    main()
