"""Runs a network on real Lava (lava-nc 0.10.0, ``fixed_pt`` models) and records what every population did.

``python worker.py REQUEST TRACE``; or ``--self-test``, which runs one neuron and prints the versions as JSON. A self-contained
script for the Lava environment: NumPy and lava-nc, nothing of this project. ``lava/simulator.py`` writes the request and reads
the trace; what both hold is stated here.

Request folder
    ``request.json``: steps T, samples B, input_shape, and two lists.
        populations: name, shape, du, dv, threshold, bias_exponent, latency (steps from the input), record (what to keep:
            any of spikes, current, membrane)
        connections: source (index of a population, -1 for the input), target (index), kind ``dense`` or ``conv``,
            weight_exponent, message_bits (0: spikes, else graded), input_shape, output_shape; for conv also stride,
            padding, dilation (rows, columns) and groups
        probe: ``recorder`` (default) or ``monitor`` (Lava's own Monitor processes; slower, the check of the recorder)
    ``arrays.npz``: ``input`` (1 or T, B, *input_shape) int32 levels; ``bias_<p>`` (*shape) int16 mantissas of population p;
        ``weight_<c>`` int16 of connection c, in torch's layout: (out, in), or (out, in/groups, kH, kW)

Trace folder (written as ``TRACE.partial`` and renamed when complete)
    ``<p>.spikes.npy`` uint8, ``<p>.current.npy`` and ``<p>.membrane.npy`` int32: (B, T, *shape), local time, u and v after the
        step's reset; only what was asked for
    ``trace.json``: versions, the Lava model that ran per process with its tags, the path its convolution took, seconds
    ``progress.bin`` (in the partial folder): two int64, steps done and steps in all

How the samples follow each other: they stream back to back through one run. Every synapse takes one step, so the population
with latency k works on sample s in the steps s T + k + 1 ... s T + k + T (Lava counts from 1) and LIFReset clears u and v at
the first of them. That also clears what a bias integrated before the first input arrived.

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
        import lava.proc.monitor.process  # noqa: F401
    finally:
        dataclasses.dataclass = plain


class Recorder:
    """Arrays on disk that one population's Lava process fills, step by step; (B, T, *shape) each."""

    def __init__(self, folder: Path, index: int, request: dict[str, Any]) -> None:
        self.population = request["populations"][index]
        self.steps, self.samples = request["steps"], request["samples"]
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
        sample, step = divmod(lava_step - 1 - self.population["latency"], self.steps)
        if 0 <= sample < self.samples:
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
            return recording_model(chosen) if record and isinstance(process, LIFReset) else chosen

    return FixedPoint(select_tag="fixed_pt")


def connect(connection: dict[str, Any], weight: Any, index: int, source: Any, target: Any) -> tuple[Any, Any]:
    """Build one Dense or Conv between two ports; returns the weight Var and the values it must still hold after the run."""
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import Dense
    from lava.utils.weightutils import SignMode

    shape, bits = tuple(connection["input_shape"]), connection["message_bits"]
    if connection["kind"] == "dense":
        dense = Dense(
            weights=weight.astype(np.int32), weight_exp=connection["weight_exponent"], num_weight_bits=8,
            sign_mode=SignMode.MIXED, num_message_bits=bits, name=f"dense_{index}",
        )  # fmt: skip
        _reshaped(source, dense.s_in.shape).connect(dense.s_in)
        _reshaped(dense.a_out, target.shape).connect(target)
        return dense.weights, weight
    kernel = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1)).astype(np.int32)
    stride, padding, dilation = (tuple(connection[key][::-1]) for key in ("stride", "padding", "dilation"))
    conv = Conv(
        weight=kernel, input_shape=shape[::-1], stride=stride, padding=padding, dilation=dilation,
        groups=connection["groups"], num_message_bits=bits, name=f"conv_{index}",
    )  # fmt: skip
    _reshaped(source, shape).transpose((2, 1, 0)).connect(conv.s_in)
    _reshaped(conv.a_out.transpose((2, 1, 0)), target.shape).connect(target)
    return conv.weight, kernel


def _reshaped(port: Any, shape: tuple[int, ...]) -> Any:
    return port if tuple(port.shape) == tuple(shape) else port.reshape(tuple(shape))


def build_populations(request: dict[str, Any], arrays: Any, folder: Path) -> list[Any]:
    """One LIFReset per population, cleared at the first step of every sample."""
    from lava.proc.lif.process import LIFReset

    found, steps = [], request["steps"]
    for index, population in enumerate(request["populations"]):
        process = LIFReset(
            shape=tuple(population["shape"]), du=population["du"], dv=population["dv"], vth=population["threshold"],
            bias_mant=arrays[f"bias_{index}"].astype(np.int32), bias_exp=population["bias_exponent"],
            reset_interval=steps, reset_offset=(population["latency"] + 1) % steps, name=f"lif_{index}",
        )  # fmt: skip
        process.proc_params["recorder"] = Recorder(folder, index, request)
        found.append(process)
    return found


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
    from lava.magma.core.run_conditions import RunSteps
    from lava.proc.io.source import RingBuffer

    started = time.perf_counter()
    steps, samples = request["steps"], request["samples"]
    total = steps * samples + max(population["latency"] for population in request["populations"])
    np.array([0, total], np.int64).tofile(folder / "progress.bin")
    levels = np.broadcast_to(arrays["input"], (steps, samples, *request["input_shape"]))
    stream = np.moveaxis(levels, (0, 1), (-1, -2)).reshape(*request["input_shape"], samples * steps).astype(np.int32)
    source = RingBuffer(data=stream)
    populations = build_populations(request, arrays, folder)
    weights = []
    for index, connection in enumerate(request["connections"]):
        before = source if connection["source"] < 0 else populations[connection["source"]]
        weights.append(
            connect(connection, arrays[f"weight_{index}"], index, before.s_out, populations[connection["target"]].a_in)
        )
    selected: dict[str, str] = {}
    monitors = attach_monitors(request, populations, total) if request.get("probe") == "monitor" else []
    configuration = run_configuration(selected, record=not monitors)
    built = time.perf_counter()
    try:
        source.run(condition=RunSteps(num_steps=total), run_cfg=configuration)
        ran = time.perf_counter()
        changed = [index for index, (variable, expected) in enumerate(weights) if not np.array_equal(variable.get(), expected)]
        for write in monitors:
            write()
    finally:
        source.stop()
    if changed:
        raise RuntimeError(f"Lava changed the weights of the connections {changed}")
    return {
        "models": selected,
        "steps": total,
        "seconds": {"build": round(built - started, 3), "run": round(ran - built, 3)},
    }


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


def self_test() -> None:
    """One input, one synapse, one neuron, one step: shows that Lava imports, compiles and runs here."""
    population = {
        "name": "n",
        "shape": [1],
        "du": 4095,
        "dv": 0,
        "threshold": 1,
        "bias_exponent": 0,
        "latency": 1,
        "record": ["spikes"],
    }
    connection = {"source": -1, "target": 0, "kind": "dense", "weight_exponent": 0, "message_bits": 0, "input_shape": [1]}
    request = {"steps": 1, "samples": 1, "input_shape": [1], "populations": [population], "connections": [connection]}
    arrays = {"input": np.ones((1, 1, 1), np.int32), "bias_0": np.zeros(1, np.int16), "weight_0": np.full((1, 1), 2, np.int16)}
    import_lava()
    with tempfile.TemporaryDirectory() as folder:
        run(request, arrays, Path(folder))
        if np.load(Path(folder) / "0.spikes.npy").sum() != 1:
            raise RuntimeError("a neuron driven above its threshold did not fire")
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
