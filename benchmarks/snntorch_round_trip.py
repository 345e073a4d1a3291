"""snnTorch -> NIR file -> snnTorch, by our own path and by snnTorch's own functions; every neuron, every reset.

``python benchmarks/snntorch_round_trip.py``

One hidden population behind a dense layer, driven hard enough that membranes pass twice their threshold and neurons fire in
consecutive steps. Ours: ``deployment_from_snntorch``, a ``.nir`` file, the ``snntorch`` backend, against the module that was
written and against the float64 interpreter. snnTorch's: ``export_to_nir`` and ``import_from_nir`` as their documentation shows
them (``init_hidden=True``), with one number per neuron in place of a scalar where nir's shape check asks for it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import sys
import tempfile
import warnings
from collections import OrderedDict
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import snntorch
import torch
from numpy.typing import NDArray
from snntorch.export_nir import export_to_nir
from snntorch.import_nir import import_from_nir
from torch import nn

from snn_export.export import interpreter, nir_io
from snn_export.export.snntorch_reader import deployment_from_snntorch
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims.snntorch.simulator import SnnTorchSimulator
from snn_export.hardware_sims.student.simulator import StudentSimulator
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.spec import EncoderSpec
from snn_export.reporting.json_file import write_text

ROOT = Path(__file__).parents[1]
NEURONS = {"Leaky": snntorch.Leaky, "Synaptic": snntorch.Synaptic, "RLeaky": snntorch.RLeaky, "RSynaptic": snntorch.RSynaptic}
RESETS = ("zero", "subtract", "none")
INPUTS, FEATURES, STEPS, SAMPLES = 16, 32, 25, 64
BETA, ALPHA, THRESHOLD, NEVER_RESET_THRESHOLD = 1 - 700 / 4096, 1 - 2001 / 4096, 1.0, 3.0

Spikes = NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """One neuron with one reset. theirs: spikes of the module snnTorch made, None where it raised ``error``."""

    neuron: str
    reset: str
    delayed: bool
    spikes: int
    ours_against_module: int
    ours_against_reference: int
    ties: int
    theirs: int | None
    theirs_against_module: int | None
    error: str


def network(kind: str, reset: str, delayed: bool, *, hidden: bool, seed: int) -> nn.Sequential:
    """A dense layer and the neuron. hidden: as snnTorch's own functions want it."""
    torch.manual_seed(seed)
    loop = {"linear_features": FEATURES} if kind.startswith("R") else {}
    decays = {"beta": BETA, **({"alpha": ALPHA} if "Synaptic" in kind else {})}
    numbers: dict[str, Any] = {**decays, "threshold": NEVER_RESET_THRESHOLD if reset == "none" else THRESHOLD}
    if hidden and not loop:
        numbers = {name: torch.full((FEATURES,), value) for name, value in numbers.items()}
    layers = OrderedDict(fc=nn.Linear(INPUTS, FEATURES))
    layers["n"] = NEURONS[kind](**numbers, **loop, reset_mechanism=reset, reset_delay=delayed, init_hidden=hidden)
    return nn.Sequential(layers).eval()


def row(kind: str, reset: str, delayed: bool, seed: int) -> Row:
    """Both round trips of one neuron."""
    inputs = np.random.default_rng(seed).uniform(-2, 4, (STEPS, SAMPLES, INPUTS)).astype(np.float32)
    written = network(kind, reset, delayed, hidden=False, seed=seed)
    layers = nn.Sequential(OrderedDict([*written.named_children(), ("out", nn.Linear(FEATURES, 2)), ("readout", Integrator())]))
    made = deployment_from_snntorch(layers, (INPUTS,), STEPS, encoder=EncoderSpec("events"))
    with tempfile.TemporaryDirectory() as folder:
        deployment = nir_io.read(nir_io.write(made, Path(folder) / "net.nir"))
    student, backend = StudentSimulator(layers), SnnTorchSimulator()
    module = student.run(student.compile(made), inputs).layers["n"].spikes
    trace = backend.run(backend.compile(deployment), inputs, ("spikes", "membrane"))
    ours, reference = trace.layers["n"].spikes, interpreter.run(deployment, inputs)["n"].spikes
    if module is None or ours is None:
        raise RuntimeError("spikes were asked for and not recorded")
    ties = int(explain(deployment, inputs, trace.layers, FLOAT32_ROUNDOFF)["n"].tied.sum())
    theirs, error = by_snntorch(kind, reset, delayed, inputs, seed)
    return Row(
        kind, reset, delayed, int(module.sum()), int((ours != module).sum()), int((ours != reference).sum()), ties,
        None if theirs is None else int(theirs.sum()), None if theirs is None else int((theirs != module).sum()), error,
    )  # fmt: skip


def by_snntorch(kind: str, reset: str, delayed: bool, inputs: NDArray[np.float32], seed: int) -> tuple[Spikes | None, str]:
    """Spikes (T, B, features) of what snnTorch itself makes of the module, or the error it ends with."""
    original = network(kind, reset, delayed, hidden=True, seed=seed)
    stage = "export_to_nir"
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            graph = export_to_nir(original, torch.zeros(1, INPUTS), ignore_dims=[0])
            stage = "import_from_nir"
            module = import_from_nir(graph)
            stage = "the imported module"
            state, spikes = None, []
            with torch.inference_mode():
                for step in torch.from_numpy(inputs):
                    fired, state = module(step, state)
                    spikes.append(fired.numpy() > 0)
        except Exception as error:  # whatever it raises is what a user sees
            return None, f"{stage}: {type(error).__name__}: {str(error).splitlines()[0]}"
    return np.stack(spikes), ""


def report(rows: list[Row], command: str) -> str:
    """The document."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("snntorch", "nir", "nirtorch", "torch", "numpy"))
    lines = [
        "# snnTorch to NIR and back",
        "",
        f"Every neuron of snnTorch with every reset, written as NIR and rebuilt as snnTorch modules: {FEATURES} neurons behind "
        f"{INPUTS} inputs, {STEPS} steps, {SAMPLES} samples, inputs that drive membranes above twice the threshold. Mismatched "
        "spikes are counted over all neurons, steps and samples.",
        "",
        "- *ours*: `deployment_from_snntorch`, a `.nir` file, the `snntorch` backend; against the module that was written, and "
        "against the float64 interpreter.",
        "- *snnTorch's own*: `export_to_nir` and `import_from_nir`. NIR has no field for a reset: every neuron comes back with "
        "`reset_mechanism=\"zero\", reset_delay=False`, and a recurrent one as a graph of a neuron and its weights.",
        "- *delayed*: `reset_delay=True`, snnTorch's default. `RSynaptic` resets one step late whatever it is told.",
        "",
        f"Command: `{command}` ({versions}; Python {platform.python_version()})",
        "",
        "| neuron | reset | delayed | spikes | ours: mismatched | against reference | snnTorch's own: spikes | mismatched |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    errors: list[str] = []
    for item in rows:
        if item.theirs is not None:
            theirs, wrong = f"{item.theirs:,}", f"{item.theirs_against_module:,}"
        else:
            errors += [item.error] if item.error not in errors else []
            theirs, wrong = "raises", f"({errors.index(item.error) + 1})"
        lines.append(
            f"| {item.neuron} | {item.reset} | {'yes' if item.delayed else 'no'} | {item.spikes:,} | "
            f"{item.ours_against_module:,} | {item.ours_against_reference:,} | {theirs} | {wrong} |"
        )
    lines += ["", *(f"({number}) `{error}`" for number, error in enumerate(errors, 1))]
    ties = sum(item.ties for item in rows)
    flipped = f"{ties} samples hold a spike that float32 flipped at its threshold, a TIE" if ties else "float32 flipped no spike"
    lines += ["", f"Where ours and the reference differ, `export/ties.py` is asked why: {flipped}.", ""]
    return "\n".join(lines)


def main(command_line: list[str] | None = None) -> int:
    """Run, write both files; 1 where our own path mismatches anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "snntorch-round-trip.md")
    given = parser.parse_args(command_line)
    torch.set_num_threads(1)
    rows = [row(kind, reset, delayed, given.seed) for kind in NEURONS for reset in RESETS for delayed in (False, True)]
    write_text(given.output, report(rows, f"python benchmarks/snntorch_round_trip.py --seed {given.seed}"))
    document = {"seed": given.seed, "rows": [asdict(item) for item in rows]}
    write_text(given.output.with_suffix(".json"), json.dumps(document, indent=2) + "\n")
    wrong = sum(item.ours_against_module + item.ours_against_reference for item in rows)
    print(f"{given.output}: {len(rows)} round trips, {wrong} mismatches by our own path", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
