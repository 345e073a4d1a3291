"""Runs a network on nengo-loihi's Loihi emulator (nengo-loihi 1.1.0) and records what every population did.

``python worker.py REQUEST TRACE``; or ``--self-test``, which runs four neurons and prints two lines of JSON: what it saw, and the
versions. A self-contained script for the nengo_loihi environment: NumPy and nengo-loihi, nothing of this project.
``nengo_loihi/simulator.py`` writes the request and reads the trace; what both hold is stated here.

Request folder
    ``request.json``: steps T, samples B, and four lists.
        populations: name, size, shape, du, dv, threshold (mantissa, << 6), latency L (steps from the input, at least 1),
            cleared_at (local steps before which u and v are set to 0), always_on (whether ``always_on_<p>`` exists), record
            (any of spikes, current, membrane)
        relays: source (["population", p], or ["relay", r] of an earlier one), size; each fires one step after its source
        inputs: bit, sign, delay; one fires for every feature whose level has the sign and, in its absolute value, the bit,
            ``delay`` steps late
        synapses: source (["population", p], ["relay", r] or ["input", i]), target (a population), matrix m, exponent, sign
    ``arrays.npz``
        ``levels`` (1 or T, B, features) int32
        ``bias_<p>`` int32 (size,), or (B, size) where every sample has its own: membrane units, already shifted
        ``always_on_<p>`` int32 (size,): added to the synaptic sum in every step, by one source that always fires
        ``start_<m>``, ``target_<m>``, ``weight_<m>`` int32: a matrix by source neuron; synapses of neuron j stand at
            start[j] .. start[j + 1]. The emulator holds sign * weight << (6 + exponent)

Trace folder (written as ``TRACE.partial`` and renamed when complete)
    ``<p>.spikes.npy`` uint8, ``<p>.current.npy`` and ``<p>.membrane.npy`` int32: (B, T, *shape), local time, u and v after the
        step's reset; only what was asked for
    ``trace.json``: versions, the emulator's state class per population with its dtype, steps, seconds, and ``narrow``: by
        population and register (sum, biased, edge, see :class:`Watch`) how often a neuron left it in its T steps, and the first
        sample and step
    ``progress.bin`` (in the partial folder): two int64, steps done and steps in all

What is bypassed, and what is not: blocks are given the chip's integers, so nengo-loihi's discretisation of floats never runs.
Everything after it is the emulator's own: how spikes travel, add up, decay, overflow, saturate, fire and reset.

How the samples follow each other: one after the other, from zeroed state. The emulator's synapses take one step and so do its
inputs, so a population with latency L works in the steps L + 1 ... L + T (counted from 1). Its bias is switched on at the first
of them: until then it hears nothing, and stays at zero.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PROBES = {"spikes": np.uint8, "current": np.int32, "membrane": np.int32}
STATE_SHIFT = 6
STATE_MAX = (1 << 23) - 1
SUM_REACH, STATE_REACH = 1 << 21, 1 << 23
RELAY_WEIGHT, RELAY_THRESHOLD, FULL_DECAY = 254, 1, 4095
SEED = 0
"""Of the emulator's noise, which stays off."""


class Network:
    """A request as blocks, axons and inputs of nengo-loihi, and the emulator that runs them."""

    def __init__(self, request: dict[str, Any], arrays: Any) -> None:
        from nengo_loihi.builder import Model
        from nengo_loihi.emulator import EmulatorInterface
        from nengo_loihi.inputs import SpikeInput

        populations, features = request["populations"], arrays["levels"].shape[-1]
        self.blocks = {("population", index): _population(item) for index, item in enumerate(populations)}
        self.blocks |= {("relay", index): _relay(item["size"], index) for index, item in enumerate(request["relays"])}
        self.inputs = [SpikeInput(features, label=f"input {index}") for index in range(len(request["inputs"]))]
        self.always_on = {i: SpikeInput(1, label=f"always on {i}") for i, item in enumerate(populations) if item["always_on"]}
        self._connect_all(request, arrays)
        model = Model()
        for block in self.blocks.values():
            model.add_block(block)
        for source in (*self.inputs, *self.always_on.values()):
            model.add_input(source)
        with np.errstate(invalid="ignore"):  # it fills integer arrays with NaN before it fills them with numbers
            self.emulator = EmulatorInterface(model, seed=SEED)
        self.state = self.emulator.compartment
        self.state.error = lambda message: None  # it warns of overflows without saying where: Watch does
        found = self.emulator.block_info.slices
        self.slices = [found[self.blocks["population", index]] for index in range(len(populations))]

    def _connect_all(self, request: dict[str, Any], arrays: Any) -> None:
        for index, item in enumerate(request["relays"]):
            one = np.arange(item["size"] + 1)
            weights = np.full(item["size"], RELAY_WEIGHT << STATE_SHIFT)
            _connect(self.blocks[tuple(item["source"])], self.blocks["relay", index], one, one[:-1], weights)
        for item in request["synapses"]:
            kind, index = item["source"]
            source = self.inputs[index] if kind == "input" else self.blocks[kind, index]
            start, target, weights = (arrays[f"{name}_{item['matrix']}"] for name in ("start", "target", "weight"))
            shifted = item["sign"] * (weights.astype(np.int64) << (STATE_SHIFT + item["exponent"]))
            _connect(source, self.blocks["population", item["target"]], start, target, shifted)
        for index, source in self.always_on.items():
            weights = arrays[f"always_on_{index}"].astype(np.int64) << STATE_SHIFT
            every = np.arange(len(weights))
            _connect(source, self.blocks["population", index], np.array([0, len(weights)]), every, weights)

    def clear(self) -> None:
        """Everything that remembers is as it was before the first step."""
        for name in ("input", "current", "voltage", "spiked", "spike_count", "ref_count", "bias"):
            getattr(self.state, name)[...] = 0
        self.emulator.t = 0
        for source in (*self.inputs, *self.always_on.values()):
            source.spikes.clear()


def _population(item: dict[str, Any]) -> Any:
    """A block with the chip's integers in place of floats. Its bias is the emulator's, see :func:`run`."""
    from nengo_loihi.block import LoihiBlock

    block, size = LoihiBlock(item["size"], label=item["name"]), item["size"]
    compartment = block.compartment
    compartment.decay_u = np.full(size, item["du"], np.int32)
    compartment.decay_v = np.full(size, item["dv"], np.int32)
    compartment.vth = np.full(size, item["threshold"] << STATE_SHIFT, np.int32)
    compartment.bias = np.zeros(size, np.int32)
    compartment.scale_u = compartment.scale_v = False
    compartment.refract_delay[:] = 1  # the smallest the chip has: a neuron may fire in every step
    compartment.vmin, compartment.vmax = -STATE_MAX, STATE_MAX
    return block


def _relay(size: int, index: int) -> Any:
    """Neurons that fire for every spike they hear, and remember nothing: a step of delay."""
    neuron = {"du": FULL_DECAY, "dv": FULL_DECAY, "threshold": RELAY_THRESHOLD}
    return _population({"name": f"relay {index}", "size": size, **neuron})


def _connect(source: Any, target: Any, start: Any, indices: Any, weights: Any) -> None:
    """Give a block or an input an axon per neuron, and the target the synapses they lead to."""
    from nengo_loihi.block import Axon, Synapse

    count = len(start) - 1
    synapse, weights, indices = Synapse(count), weights.astype(np.int32), indices.astype(np.int32)
    parts = [slice(int(start[axon]), int(start[axon + 1])) for axon in range(count)]
    synapse.weights = [weights[None, part] for part in parts]
    synapse.indices = [indices[None, part] for part in parts]
    target.add_synapse(synapse)
    axon = Axon(count)
    axon.target = synapse
    source.add_axon(axon)


class Watch:
    """Notes where a register of the emulator is narrower than Lava's: there, and nowhere else, the two compute differently.

    sum     synaptic sums (q0) wrap at 22 bits, [-2^21, 2^21); Lava's do not
    biased  u + bias wraps at 24 bits before it is added to v; Lava adds both to v, which saturates
    edge    u wraps into [-2^23, 2^23), Lava's into (-2^23, 2^23]: the one value at the edge has two signs
    """

    def __init__(self, network: Network) -> None:
        self.state, self.slices, self.update = network.state, network.slices, network.state.update
        self.state.update = self.watched
        self.left: dict[str, Any] = {}
        self.found: dict[int, dict[str, list[int]]] = {}

    def watched(self, rng: Any) -> None:
        """The emulator's own update of all compartments, with a look at it before and behind."""
        sums = self.state.input[0].copy()
        self.update(rng)
        biased = self.state.current + self.state.bias
        self.left = {
            "sum": (sums < -SUM_REACH) | (sums >= SUM_REACH),
            "biased": (biased < -STATE_REACH) | (biased >= STATE_REACH),
            "edge": self.state.current == -STATE_REACH,
        }

    def note(self, index: int, sample: int, step: int) -> None:
        """Count for one population what left a register in the emulator's last step."""
        for name, where in self.left.items():
            count = int(np.count_nonzero(where[self.slices[index]]))
            if count:
                self.found.setdefault(index, {}).setdefault(name, [0, sample, step])[0] += count


def load_inputs(network: Network, request: dict[str, Any], arrays: Any, sample: int) -> None:
    """Give the inputs the spikes of one sample; what is sent in step t arrives in step t + 1."""
    steps, levels = request["steps"], arrays["levels"][:, sample]
    for source, item in zip(network.inputs, request["inputs"], strict=True):
        sent = (levels * item["sign"] > 0) & ((np.abs(levels) >> item["bit"]) & 1 == 1)
        for step in range(steps):
            fired = np.flatnonzero(sent[min(step, len(sent) - 1)])
            if fired.size:
                source.add_spikes(step + 1 + item["delay"], fired)
    for index, source in network.always_on.items():
        latency = request["populations"][index]["latency"]
        for step in range(steps):
            source.add_spikes(step + latency, [0])


def record_step(network: Network, request: dict[str, Any], stored: dict[tuple[int, str], Any], watch: Watch, sample: int) -> None:
    """Write down the step the emulator has just made, for the populations that are in one of their T steps."""
    states = {"spikes": network.state.spiked, "current": network.state.current, "membrane": network.state.voltage}
    for index, item in enumerate(request["populations"]):
        step = network.emulator.t - 1 - item["latency"]
        if 0 <= step < request["steps"]:
            watch.note(index, sample, step)
            for what in item["record"]:
                stored[index, what][sample, step] = states[what][network.slices[index]].reshape(item["shape"])


def prepare_step(network: Network, request: dict[str, Any], arrays: Any, sample: int) -> None:
    """Before a step: biases of populations whose first step it is, and periodic resets."""
    for index, item in enumerate(request["populations"]):
        step, part = network.emulator.t - item["latency"], network.slices[index]
        if step == 0:
            bias = arrays[f"bias_{index}"]
            network.state.bias[part] = bias[sample] if bias.ndim == 2 else bias
        if step in item["cleared_at"]:
            network.state.current[part] = 0
            network.state.voltage[part] = 0


def run(request: dict[str, Any], arrays: Any, folder: Path) -> dict[str, Any]:
    """Build and run; returns what goes into ``trace.json``."""
    started = time.perf_counter()
    populations, samples, steps = request["populations"], request["samples"], request["steps"]
    each = steps + max(item["latency"] for item in populations)
    done = np.memmap(folder / "progress.bin", np.int64, "w+", shape=(2,))
    done[:] = 0, samples * each
    stored = {
        (index, what): np.lib.format.open_memmap(
            folder / f"{index}.{what}.npy", "w+", PROBES[what], (samples, steps, *item["shape"])
        )
        for index, item in enumerate(populations)
        for what in item["record"]
    }
    network = Network(request, arrays)
    watch = Watch(network)
    built = time.perf_counter()
    for sample in range(samples):
        network.clear()
        load_inputs(network, request, arrays, sample)
        for _ in range(each):
            prepare_step(network, request, arrays, sample)
            network.emulator.step()
            record_step(network, request, stored, watch, sample)
            done[0] += 1
    for array in stored.values():
        array.flush()
    kind = type(network.state)
    model = f"{kind.__module__}.{kind.__name__} [{network.state.dtype}]"
    return {
        "models": {item["name"]: model for item in populations},
        "narrow": {populations[index]["name"]: found for index, found in watch.found.items()},
        "steps": samples * each,
        "seconds": {"build": round(built - started, 3), "run": round(time.perf_counter() - built, 3)},
    }


def describe() -> dict[str, Any]:
    """Versions."""
    packages = ("nengo-loihi", "nengo", "numpy", "scipy")
    return {"versions": {name: version(name) for name in packages} | {"python": sys.version.split()[0]}}


SELF_TEST_LEVELS = (28672, 24583, 24589, 28691, 24602, 0, 0, 0)
"""Under du = 0 their sum reaches 2^23 exactly, in the fifth step."""
SELF_TEST_NEURONS = (
    {"name": "plain", "drive": 22, "du": 1365, "dv": 819, "threshold": 50, "bias": 0},
    {"name": "edge", "drive": 1, "du": 0, "dv": 4095, "threshold": 131071, "bias": 0},
    {"name": "biased", "drive": 1, "du": 1, "dv": 4095, "threshold": 131071, "bias": 4095 << 7},
    {"name": "sum", "drive": 2, "du": 4095, "dv": 0, "threshold": 131071, "bias": 0},
)


def self_test() -> None:
    """Four neurons behind one input: the plain arithmetic, and each of the three narrower registers."""
    levels = np.array(SELF_TEST_LEVELS, np.int32)
    bits = int(levels.max()).bit_length()
    populations = [
        {**neuron, "size": 1, "shape": [1], "latency": 1, "cleared_at": [], "always_on": False, "record": list(PROBES)}
        for neuron in SELF_TEST_NEURONS
    ]
    request = {
        "steps": len(levels), "samples": 1, "populations": populations, "relays": [],
        "inputs": [{"bit": bit, "sign": 1, "delay": 0} for bit in range(bits)],
        "synapses": [
            {"source": ["input", bit], "target": index, "matrix": index, "exponent": bit, "sign": 1}
            for index in range(1, len(populations)) for bit in range(bits)
        ],
    }  # fmt: skip
    arrays: dict[str, Any] = {"levels": levels[:, None, None]}
    for index, neuron in enumerate(SELF_TEST_NEURONS):
        arrays |= {
            f"bias_{index}": np.array([neuron["bias"]], np.int32),
            f"weight_{index}": np.array([neuron["drive"]], np.int32),
        }
        arrays |= {f"start_{index}": np.array([0, 1], np.int32), f"target_{index}": np.zeros(1, np.int32)}
    populations[0]["always_on"], arrays["always_on_0"] = True, arrays["weight_0"]  # the same drive in every step
    with tempfile.TemporaryDirectory() as name:
        found = run(request, arrays, Path(name))
        seen = {
            item["name"]: {what: np.load(Path(name) / f"{index}.{what}.npy")[0, :, 0].tolist() for what in PROBES}
            for index, item in enumerate(populations)
        }
    print(json.dumps({"neurons": SELF_TEST_NEURONS, "levels": SELF_TEST_LEVELS, "seen": seen, "narrow": found["narrow"],
                      "models": sorted(set(found["models"].values()))}))  # fmt: skip
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
    with np.load(request_folder / "arrays.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    found = describe() | run(request, arrays, partial)
    (partial / "trace.json").write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")
    partial.replace(trace_folder)


if __name__ == "__main__":
    main()
