"""Graphs that other frameworks wrote, read and run here: where every backend agrees, and where the writer itself differs.

``python benchmarks/foreign_graphs.py``

Each ``tests/fixtures/nir/NAME.nir`` was written by the framework in its name, and ``NAME.npz`` holds the spikes that framework
computed for the last layer. The file is read with the settings ``snn-export lint`` asks for, run on the reference and on Norse,
quantised, and run on loihi. Where the writer computed something its file does not say, that one thing is put back, and the
count is taken again.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray

import snn_export
from snn_export.export import nir_io
from snn_export.export.deployment import Deployment
from snn_export.export.inspection import inspect
from snn_export.export.provenance import AGREEMENT
from snn_export.models.spec import EncoderSpec
from snn_export.reporting.json_file import write_text

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "fixtures" / "nir"

Spikes = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Case:
    """One file. settings: what lint asks to have stated. cause: what the writer does that its file does not say.

    late: steps by which its last layer fires after the step that NIR means.
    """

    name: str
    settings: dict[str, Any]
    cause: str = ""
    restored: Callable[[Path, dict[str, Any]], Deployment] | None = None
    late: int = 0


@dataclass(frozen=True)
class Row:
    """Counts of one file. neurons: spike slots of all layers, of the last one for the writer's."""

    name: str
    writer: str
    nir_version: str
    dt: float
    dt_from: str
    reset: str
    reset_from: str
    spikes: int
    slots: int
    norse: int
    loihi: int
    loihi_against_float: int
    writer_spikes: int
    writer_slots: int
    against_writer: int
    cause: str
    restored: int | None


def read(source: Path | nir.NIRGraph, settings: dict[str, Any], steps: int) -> Deployment:
    """The float deployment; inputs have a time axis."""
    return snn_export.from_nir(source, steps=steps, encoder=EncoderSpec("events"), **settings)


def gain_restored(path: Path, settings: dict[str, Any]) -> Deployment:
    """Norse's LIFCell adds its input to the current whole: w_in = tau_syn / dt."""
    graph = nir_io.read_graph(path)
    for node in graph.nodes.values():
        if isinstance(node, nir.CubaLIF):
            node.w_in = node.tau_syn / settings["dt"]
    return read(graph, settings, steps_of(path))


def late_reset_restored(path: Path, settings: dict[str, Any]) -> Deployment:
    """An RSynaptic of snnTorch resets in the step after the spike, and clears the input of that step too."""
    deployment = read(path, settings, steps_of(path))
    neurons = {
        name: replace(spec, reset_delay=1, clears_input=True) if isinstance(deployment.graph.nodes[name], nir.CubaLIF) else spec
        for name, spec in deployment.contract.neurons.items()
    }
    return deployment.replace(contract=deployment.contract.model_copy(update={"neurons": neurons}))


def exponential_restored(path: Path, settings: dict[str, Any]) -> Deployment:
    """Sinabs keeps exp(-1 / tau), and 1 - exp(-1 / tau) of its input."""
    graph = nir_io.read_graph(path)
    for node in graph.nodes.values():
        if isinstance(node, nir.LIF):
            node.tau = 1 / (1 - np.exp(-1 / np.asarray(node.tau, np.float64)))
    return read(graph, {**settings, "round_decays": True}, steps_of(path))


def rockpool_restored(path: Path, settings: dict[str, Any]) -> Deployment:
    """Rockpool's step: i = a (i + x), v = b v + i, with a and b exponential."""
    graph = nir_io.read_graph(path)
    for node in graph.nodes.values():
        if isinstance(node, nir.CubaLIF):
            kept = np.exp(-1e-3 / np.asarray(node.tau_syn, np.float64))
            node.tau_syn = 1e-3 / (1 - kept)
            node.tau_mem = 1e-3 / (1 - np.exp(-1e-3 / np.asarray(node.tau_mem, np.float64)))
            node.r, node.w_in = node.tau_mem / 1e-3, kept * node.tau_syn / 1e-3
    return read(graph, {"dt": 1e-3, "reset": "subtract", "round_decays": True}, steps_of(path))


def spyx_restored(path: Path, settings: dict[str, Any]) -> Deployment:
    """Spyx takes its inputs whole, whatever r and w_in say, and its LIF subtracts one step late."""
    graph, dt = nir_io.read_graph(path), 1.0
    for node in graph.nodes.values():
        if isinstance(node, nir.CubaLIF):
            node.r, node.w_in = node.tau_mem / dt, node.tau_syn / dt
        elif isinstance(node, nir.LIF):
            node.r = node.tau / dt
    deployment = read(graph, {"dt": dt, "reset": "subtract"}, steps_of(path))
    neurons = {
        name: replace(spec, reset_delay=1) if isinstance(deployment.graph.nodes[name], nir.LIF) else spec
        for name, spec in deployment.contract.neurons.items()
    }
    return deployment.replace(contract=deployment.contract.model_copy(update={"neurons": neurons}))


CASES = (
    Case("snntorch_cnn", {"reset": "zero"}),
    Case(
        "snntorch_recurrent_cuba", {"reset": "zero"}, "RSynaptic resets one step late and clears that step's input",
        late_reset_restored,
    ),
    Case("norse_cnn", {"dt": 1e-6}),
    Case("norse_cuba", {"dt": 1e-6}, "LIFCell takes its input whole, the file says w_in = 1", gain_restored),
    Case("spikingjelly_cnn", {}),
    Case("spikingjelly_cuba", {}),
    Case(
        "rockpool_cuba", {}, "currents and membranes keep exp(-dt / tau) per step, and inputs are taken whole", rockpool_restored,
    ),
    Case(
        "sinabs_dense", {"dt": 1.0, "reset": "subtract"}, "a membrane keeps exp(-1 / tau) per step", exponential_restored,
    ),
    Case(
        "spyx_cuba", {}, "inputs are taken whole whatever r and w_in say, an LIF subtracts one step late, and every layer fires "
        "one step later than it crosses", spyx_restored, late=2,
    ),
)  # fmt: skip


def recorded(path: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Inputs (T, B, *shape) and the writer's own spikes of the last layer (T, B, *features)."""
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as held:
        return held["inputs"], held["spikes"]


def steps_of(path: Path) -> int:
    return len(recorded(path)[0])


def spikes(deployment: Deployment, inputs: NDArray[Any], backend: str) -> Spikes:
    """Of every layer, in order."""
    layers = snn_export.simulate(deployment, inputs, backend).layers
    found = {name: layer.spikes for name, layer in layers.items() if layer.spikes is not None}
    if set(found) != set(deployment.layers):
        raise RuntimeError(f"{backend} recorded {sorted(found)} of {sorted(deployment.layers)}")
    return found


def mismatches(one: Spikes, other: Spikes) -> int:
    return sum(int((one[name] != other[name]).sum()) for name in one)


def apart(found: NDArray[np.bool_], own: NDArray[np.bool_], late: int) -> int:
    """Slots in which a layer differs from the writer's, (T, B, *features) both, which fires ``late`` steps later."""
    return int((found[: len(own) - late] != own[late:]).sum()) + int(own[:late].sum())


def row(case: Case) -> Row:
    """Read, run everywhere, count."""
    path = FIXTURES / f"{case.name}.nir"
    inputs, own = recorded(path)
    seen = inspect(path, dt=case.settings.get("dt"), reset=case.settings.get("reset"))
    if not seen.readable:
        raise RuntimeError(f"{path.name}: {[str(item) for item in seen.findings]}")
    deployment = read(path, case.settings, len(inputs))
    last = deployment.contract.readout.node
    reference = spikes(deployment, inputs, "reference")
    integers = snn_export.quantize(deployment, inputs)
    loihi = spikes(integers, inputs, "loihi")
    restored = None
    if case.restored is not None:
        put_back = case.restored(path, case.settings)
        restored = apart(spikes(put_back, inputs, "reference")[last], own, case.late)
    if seen.dt is None or abs(seen.dt - deployment.contract.dt) > AGREEMENT * seen.dt:
        raise RuntimeError(f"{path.name}: lint and from_nir disagree about dt")
    return Row(
        case.name, seen.provenance.writer, seen.provenance.nir_version, seen.dt, seen.dt_from, str(seen.reset), seen.reset_from,
        sum(int(value.sum()) for value in reference.values()), sum(value.size for value in reference.values()),
        mismatches(reference, spikes(deployment, inputs, "norse")), mismatches(loihi, spikes(integers, inputs, "reference")),
        mismatches(loihi, reference), int(own.sum()), own.size, apart(reference[last], own, case.late), case.cause, restored,
    )  # fmt: skip


def report(rows: list[Row], command: str) -> str:
    """The document."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("nir", "norse", "torch", "numpy"))
    lines = [
        "# Graphs that other frameworks wrote",
        "",
        "Small networks written as NIR by the frameworks themselves (`tests/fixtures/nir`, with their origin), read with "
        "`snn_export.from_nir`, and run on three backends. Counts are spike slots (neurons x steps x samples) in which two runs "
        "differ, over all layers.",
        "",
        "- *norse*: the float graph on Norse, against the float64 reference.",
        "- *loihi*: the graph on Loihi 2's integer grid, against the reference on the same integers (which keeps what the chip "
        "truncates), and against the float graph (what quantisation changes).",
        "- *writer*: the spikes that the writing framework computed for the last layer, against the reference on its file. "
        "Where they differ, the one thing the file does not say is put back into the graph and the count is taken again. "
        "Neurons of sinabs and Rockpool may fire several times in a step; these networks are driven weakly, and the counts show "
        "that it changes nothing here.",
        "",
        f"Command: `{command}` ({versions}; Python {platform.python_version()})",
        "",
        "| file | written by | dt | reset | spikes of slots | norse | loihi | loihi against float | writer | put back |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for item in rows:
        back = "" if item.restored is None else f"{item.restored:,}"
        lines.append(
            f"| {item.name} | {item.writer}, nir {item.nir_version} | {item.dt:g} ({item.dt_from}) | "
            f"{item.reset} ({item.reset_from}) | {item.spikes:,} of {item.slots:,} | {item.norse:,} | {item.loihi:,} | "
            f"{item.loihi_against_float:,} | {item.against_writer:,} of {item.writer_slots:,} | {back} |"
        )
    lines += ["", "What the writers do that their files do not say:", ""]
    lines += [f"- `{item.name}`: {item.cause}." for item in rows if item.cause]
    return "\n".join([*lines, ""])


def main(command_line: list[str] | None = None) -> int:
    """Run, write both files; 1 where Norse differs from the reference anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "foreign-graphs.md")
    given = parser.parse_args(command_line)
    torch.set_num_threads(1)
    rows = [row(case) for case in CASES]
    text = report(rows, "python benchmarks/foreign_graphs.py")
    write_text(given.output, text)
    write_text(given.output.with_suffix(".json"), json.dumps([asdict(item) for item in rows], indent=2) + "\n")
    print(text)
    return 1 if any(item.norse for item in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
