"""Loads a lava-dl ``.net`` file with the real ``lava.lib.dl.netx.hdf5.Network`` (lava-dl 0.6.0), runs it on Lava's ``fixed_pt``
models (lava-nc 0.10.0) and records what every layer did.

``python worker.py REQUEST TRACE``; or ``--self-test``, which runs two neurons and prints two lines of JSON: what it saw, and the
versions. A self-contained script for the netx environment: NumPy, h5py, lava-nc and lava-dl, nothing of this project.
``netx/simulator.py`` writes the request and reads the trace; what both hold is stated here.

Request folder
    ``network.net``: the file.
    ``request.json``: steps T, samples B, message_bits (0: the input are spikes, else graded), separation (below),
        reset_interval (0: none), input_shape, and populations: shape (features,) or (channels, rows, columns) of
        its first neurons, which are recorded, latency (steps from the input, 0 for an input layer with neurons), record (any
        of spikes, current, membrane)
    ``arrays.npz``: ``input`` (1 or T, B, *input_shape) int32 levels; ``host`` (B, *shape) int32, what a host adds to the bias
        mantissas of the first population, only where that is an input layer with neurons; ``weight_<p>`` and ``recurrent_<p>``
        in torch's layout: what the file means, checked against what Lava computes with

Trace folder (written as ``TRACE.partial`` and renamed when complete)
    ``<p>.spikes.npy`` uint8, ``<p>.current.npy`` and ``<p>.membrane.npy`` int32: (B, T, *shape), local time, u and v after the
        step's reset; only what was asked for
    ``trace.json``: versions, the Lava model that ran per process with its tags, the layer table netx prints, seconds
    ``progress.bin`` (in the partial folder): two int64, steps done and steps in all

How the samples follow each other, by ``separation``
    ``reset``: back to back, separated by netx itself: ``Network(reset_interval=..., reset_offset=1)`` makes LIFReset neurons
        that clear u and v at the first step of every sample, layer by layer. Exact where nothing else remembers.
    ``clear``: where delays or recurrence keep spikes in flight, or the host sets biases. Samples start a fixed number of steps
        apart, and at each start every synapse's buffer and every neuron's u and v are set to zero; a neuron's bias is zero until
        its first input can arrive. That is what a host does between samples on a chip, written here from inside the processes,
        because Lava's own Var.set moves one number at a time. What a step computes is Lava's, untouched, in both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import signal
import sys
import tempfile
import time
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PROBES = {"spikes": np.uint8, "current": np.int32, "membrane": np.int32}
SELF_TEST_STEPS = 12
LIBRARY = "lava.lib.dl"
HAS_TORCH = importlib.util.find_spec("torch") is not None


def import_netx() -> Any:
    """``lava.lib.dl.netx.hdf5``, imported on Python 3.11+ and without the training half of lava-dl where torch is missing.

    A dataclass default must have a hash since Python 3.11, and one of lava's has none: while lava is imported its own
    dataclasses, and only those, get one. netx imports a helper for resonate-and-fire neurons from slayer, and slayer imports
    torch, OpenCV and torchvision; a module of input adapters names torch.tensor. Empty modules stand in for what is not there,
    and a network that needs one of them ends in an error. No module that runs here calls into any of them.
    """
    plain = dataclasses.dataclass

    def hashable(cls: Any = None, /, **options: Any) -> Any:
        def decorate(target: Any) -> Any:
            if target.__module__.startswith("lava."):
                options.setdefault("unsafe_hash", not options.get("frozen", False))
            return plain(target, **options)

        return decorate if cls is None else decorate(cls)

    if not HAS_TORCH:
        _stand_in("torch", tensor=None)
        _stand_in(f"{LIBRARY}.slayer")
        _stand_in(f"{LIBRARY}.slayer.neuron")
        _stand_in(f"{LIBRARY}.slayer.neuron.rf", neuron_params=None)
    else:
        _stand_in(f"{LIBRARY}.slayer.object_detection")
    dataclasses.dataclass = hashable
    try:
        import lava.lib.dl.netx.hdf5
        import lava.magma.core.run_configs
        import lava.proc.io.source
    finally:
        dataclasses.dataclass = plain
        if not HAS_TORCH:
            sys.modules.pop("torch", None)  # SciPy asks sys.modules whether torch is there
    return lava.lib.dl.netx.hdf5


def _stand_in(name: str, **attributes: Any) -> None:
    """An empty package in place of one that is not needed, with the names that are looked up while netx is imported."""
    module = types.ModuleType(name)
    module.__path__ = []
    module.__dict__.update(attributes)
    sys.modules[name] = module


class Clock:
    """Which local step of which sample a process with this latency is in."""

    def __init__(self, request: dict[str, Any], latency: int) -> None:
        self.steps, self.samples, self.latency = request["steps"], request["samples"], latency
        self.period: int = request["period"]
        self.clears = request["separation"] == "clear"

    def at(self, lava_step: int) -> tuple[int, int]:
        """(sample, local step) of a Lava step, which counts from 1; local steps below 0 and from T on are nobody's."""
        if not self.clears:  # samples overlap: several may be passing through a network that is deeper than they are long
            return divmod(lava_step - 1 - self.latency, self.period)
        sample, step = divmod(lava_step - 1, self.period)
        return sample, step - self.latency


class Recorder:
    """Arrays on disk that one population's Lava process fills, step by step; (B, T, *shape) each."""

    def __init__(self, folder: Path, index: int, request: dict[str, Any], host: Any) -> None:
        self.shape = request["populations"][index]["shape"]
        self.size = int(np.prod(self.shape))
        self.clock, self.host = Clock(request, request["populations"][index]["latency"]), host
        self.paths = {what: folder / f"{index}.{what}.npy" for what in request["populations"][index]["record"]}
        self.progress = folder / "progress.bin"
        for what, path in self.paths.items():
            shape = (request["samples"], request["steps"], *self.shape)
            np.lib.format.open_memmap(path, "w+", PROBES[what], shape).flush()

    def open(self) -> None:
        """Map the files; called in the process that writes them."""
        self.arrays = {what: np.lib.format.open_memmap(path, "r+") for what, path in self.paths.items()}
        self.done = np.memmap(self.progress, np.int64, "r+", shape=(2,))

    def write(self, lava_step: int, **state: Any) -> None:
        """Keep the state of one step. Lava's maps are (columns, rows, channels)."""
        sample, step = self.clock.at(lava_step)
        if 0 <= sample < self.clock.samples and 0 <= step < self.clock.steps:
            for what in self.arrays.keys() & state.keys():
                self.arrays[what][sample, step] = state[what].T.reshape(-1)[: self.size].reshape(self.shape)
        self.done[0] = max(self.done[0], lava_step)


def neuron_model(chosen: Any) -> Any:
    """The neuron model Lava selected, its arithmetic untouched, that writes down what it computed and starts samples afresh."""

    class NeuronModel(chosen):  # type: ignore[misc]
        def __init__(self, proc_params: Any) -> None:
            super().__init__(proc_params)
            self.recorder: Recorder = proc_params["recorder"]
            self.recorder.open()
            self.bias: Any = None

        def spiking_activation(self) -> Any:
            self.fired = super().spiking_activation()
            return self.fired

        def run_spk(self) -> None:
            if self.recorder.clock.clears:
                self.start_afresh()
            super().run_spk()
            self.recorder.write(int(self.time_step), spikes=self.fired, current=self.u, membrane=self.v)

        def start_afresh(self) -> None:
            if self.bias is None:
                self.bias = self.bias_mant.copy()
            sample, step = self.recorder.clock.at(int(self.time_step))
            if step <= 0:
                self.u[:] = 0
                self.v[:] = 0
                self.bias_mant[:] = 0
            if step == 0:
                self.bias_mant[:] = self.bias
                if self.recorder.host is not None:
                    self.bias_mant[:] += self.recorder.host[min(sample, len(self.recorder.host) - 1)]

    return NeuronModel


def synapse_model(chosen: Any) -> Any:
    """The synapse model Lava selected, its arithmetic untouched, that forgets spikes in flight when a sample starts."""

    class SynapseModel(chosen):  # type: ignore[misc]
        def run_spk(self) -> None:
            if (int(self.time_step) - 1) % self.proc_params["period"] == 0:
                for name in ("a_buff", "a_buf"):
                    if getattr(self, name, None) is not None:
                        setattr(self, name, np.zeros_like(getattr(self, name)))
            super().run_spk()

    return SynapseModel


def run_configuration(selected: dict[str, str]) -> Any:
    """Loihi2SimCfg for ``fixed_pt`` models that refuses any other model and notes what was selected."""
    from lava.magma.core.run_configs import Loihi2SimCfg

    class FixedPoint(Loihi2SimCfg):  # type: ignore[misc]
        def select(self, process: Any, proc_models: Any) -> Any:
            chosen = super().select(process, proc_models)
            if "fixed_pt" not in chosen.tags:
                raise RuntimeError(f"Lava selected {chosen.__name__} for {process.name}; its tags are {chosen.tags}")
            selected[process.name] = f"{chosen.__module__}.{chosen.__name__} [{', '.join(chosen.tags)}]"
            if process.proc_params.get("recorder") is not None:
                return neuron_model(chosen)
            return chosen if process.proc_params.get("period") is None else synapse_model(chosen)

    return FixedPoint(select_tag="fixed_pt")


def load(hdf5: Any, path: Path, request: dict[str, Any]) -> Any:
    """Netx's own network of the file."""
    clears = request["separation"] == "clear"
    interval = request["reset_interval"] or (None if clears else request["steps"])
    first = request["populations"][0]["latency"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        network = hdf5.Network(
            str(path), input_message_bits=request["message_bits"], reset_interval=interval, reset_offset=first if interval else 0
        )
    if said.getvalue().strip():
        raise RuntimeError(f"netx says: {' '.join(said.getvalue().split())}")
    if len(network) != len(request["populations"]):
        raise RuntimeError(f"netx made {len(network)} layers, {len(request['populations'])} were asked for")
    return network


def check_weights(network: Any, arrays: Any) -> None:
    """What Lava computed with, once it has clipped and truncated, is what the file means."""
    for index, layer in enumerate(network.layers):
        parts = {"weight": getattr(layer, "synapse", None), "recurrent": getattr(layer, "synapse_rec", None)}
        for what, synapse in parts.items():
            expected = arrays.get(f"{what}_{index}")
            if (synapse is None) != (expected is None):
                raise RuntimeError(f"layer {index}: netx and the request disagree about {what}")
            if synapse is None:
                continue
            if hasattr(synapse, "weight"):  # Conv
                held = np.asarray(synapse.weight.get())[:, ::-1, ::-1].transpose(0, 3, 2, 1)
            else:
                shift = -int(synapse.proc_params.get("weight_exp", 0) or 0)
                held = np.asarray(synapse.weights.get()).astype(np.int64) >> shift
            if not np.array_equal(held, expected):
                raise RuntimeError(f"layer {index}: Lava's {what} is not the file's")


def end_when_a_process_is_killed() -> None:
    """Lava runs each Process in an OS process and waits for ever for one that was killed: end at once instead."""

    def look(number: int, frame: Any) -> None:
        ended = None
        with contextlib.suppress(ChildProcessError):  # Lava has reaped it already: it ended as it should
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None and ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            os.write(2, f"\nprocess {ended.si_pid} of Lava was killed by signal {ended.si_status}\n".encode())
            os._exit(1)

    signal.signal(signal.SIGCHLD, look)


def stream(request: dict[str, Any], levels: Any, shape: tuple[int, ...]) -> Any:
    """All samples behind each other, (*shape, steps in all) in Lava's order of axes; nothing between them."""
    steps, period, samples = request["steps"], request["period"], request["samples"]
    levels = np.broadcast_to(levels, (steps, samples, *request["input_shape"]))
    padded = np.zeros((samples, period, *request["input_shape"]), np.int32)
    padded[:, :steps] = np.moveaxis(levels, 0, 1)
    flat = padded.reshape(samples * period, *request["input_shape"])
    return flat.reshape(len(flat), *shape).T if len(shape) < 3 else flat.T


def run(hdf5: Any, request: dict[str, Any], arrays: Any, net: Path, folder: Path) -> dict[str, Any]:
    """Load, run, check that Lava left the weights alone; returns what goes into ``trace.json``."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.proc.io.source import RingBuffer

    started = time.perf_counter()
    clears, last = request["separation"] == "clear", max(item["latency"] for item in request["populations"])
    interval = request["reset_interval"] or 1
    request["period"] = -(-(request["steps"] + last) // interval) * interval if clears else request["steps"]
    total = request["period"] * request["samples"] + (0 if clears else last)
    np.array([0, total], np.int64).tofile(folder / "progress.bin")
    network = load(hdf5, net, request)
    for index, layer in enumerate(network.layers):
        host = arrays["host"] if index == 0 and "host" in arrays else None
        turned = None if host is None else np.stack([sample.T for sample in host])
        layer.neuron.proc_params["recorder"] = Recorder(folder, index, request, turned)
        for name in ("synapse", "synapse_rec"):
            if clears and hasattr(layer, name):
                getattr(layer, name).proc_params["period"] = request["period"]
    source = network
    if hasattr(network.in_layer, "synapse"):
        source = RingBuffer(data=stream(request, arrays["input"], tuple(network.inp.shape)))
        source.s_out.connect(network.inp)
    selected: dict[str, str] = {}
    configuration = run_configuration(selected)
    built = time.perf_counter()
    try:
        source.run(condition=RunSteps(num_steps=total), run_cfg=configuration)
        ran = time.perf_counter()
        check_weights(network, arrays)
    finally:
        source.stop()
    return {
        "models": selected,
        "steps": total,
        "table": str(network),
        "seconds": {"build": round(built - started, 3), "run": round(ran - built, 3)},
    }


def describe() -> dict[str, Any]:
    """Versions, and whether lava-dl's training half is there or was stood in for."""
    packages = ("lava-nc", "lava-dl", "numpy", "scipy", "h5py")
    return {
        "versions": {name: version(name) for name in packages} | {"python": sys.version.split()[0]},
        "slayer": "imported" if HAS_TORCH else "stood in for",
    }


def observed(folder: Path, models: dict[str, str], **asked: Any) -> str:
    """What the self-test saw, as a line of JSON: what was asked for and what was recorded. Who asked knows what is right."""
    recorded = {what: np.load(folder / f"0.{what}.npy")[0].tolist() for what in PROBES}
    return json.dumps({**asked, **recorded, "models": sorted({model.rpartition(".")[2] for model in models.values()})})


def self_test() -> None:
    """Two neurons behind one input, from a file, some steps: shows that netx imports, loads and runs here, in fixed point."""
    import h5py

    steps, drives, neuron = SELF_TEST_STEPS, [22, -22], {"du": 1365, "dv": 819, "threshold": 50}
    request = {
        "steps": steps, "samples": 1, "message_bits": 0, "separation": "reset", "reset_interval": 0, "input_shape": [1],
        "populations": [{"shape": [2], "latency": 1, "record": list(PROBES)}],
    }  # fmt: skip
    weight = np.array(drives, np.int32)[:, None]
    arrays = {"input": np.ones((steps, 1, 1), np.int32), "weight_0": weight}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "network.net"
        with h5py.File(path, "w") as file:
            layer = file.create_group("layer/0")
            layer["type"], layer["shape"], layer["weight"] = b"dense", [2], weight.astype(np.float64)
            values = {"iDecay": neuron["du"] + 1, "vDecay": neuron["dv"], "vThMant": neuron["threshold"]}
            for key, value in ({"type": b"CUBA"} | values).items():
                layer[f"neuron/{key}"] = value
        models = run(import_netx(), request, arrays, path, Path(name))["models"]
        print(observed(Path(name), models, drives=drives, **neuron))
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
    hdf5 = import_netx()
    imported = time.perf_counter() - started
    with np.load(request_folder / "arrays.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    end_when_a_process_is_killed()
    found = describe() | run(hdf5, request, arrays, request_folder / "network.net", partial)
    found["seconds"]["import"] = round(imported, 3)
    (partial / "trace.json").write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")
    partial.replace(trace_folder)


if __name__ == "__main__":
    main()
