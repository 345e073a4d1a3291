"""The folder for a bug report: network, input, both runs, and a script that shows in which number they part.

The marker ``repro.json`` is written last. A folder with anything in it and without that marker is never written to.
"""

from __future__ import annotations

import json
import os
import pprint
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from snn_export.export import nir_io
from snn_export.export.graph import input_node
from snn_export.hardware_sims.trace import Trace
from snn_export.models.diagnostics import UserError
from snn_export.verification.bisection.by_hand import numbers
from snn_export.verification.bisection.finding import SCHEMA, Bisection
from snn_export.verification.bisection.judging import RECORDS, Difference
from snn_export.verification.bisection.trial import Finding

TEMPLATES: Final = Path(__file__).with_name("templates")
NETWORK: Final = "network.nir"
SCRIPT: Final = "reproduce.py"
MARKER: Final = "repro.json"
_ARRAYS: Final = (("spikes", "sent"), ("membrane", "membrane"), ("current", "current"))


@dataclass(frozen=True)
class Origin:
    """Where a divergence was found, for the folder's README: the network's file, what its inputs were, and the command."""

    network: str = ""
    inputs: str = ""
    command: str = ""


def check_folder(folder: Path) -> None:
    """A folder that may be written to: new, empty, or one of ours.

    Raises:
        UserError: SNX027 for any other.
    """
    if not folder.exists() or (folder.is_dir() and (not any(folder.iterdir()) or _ours(folder))):
        return
    raise UserError(
        "SNX027", f"{folder} exists and is no repro folder", where=str(folder),
        why="files in it that have nothing to do with this would be mixed with the new ones, or lost",
        fix="name a new folder with -o DIR, or remove this one",
    )  # fmt: skip


def _ours(folder: Path) -> bool:
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("schema") == SCHEMA


def write_repro(found: Bisection, folder: Path, origin: Origin | None = None) -> Bisection:
    """Write the folder of a bisection that found a divergence; every file appears complete or not at all.

    Returns:
        The bisection with its folder.

    Raises:
        UserError: SNX027 for a folder that is not ours, SNX123 where it cannot be written.
        ValueError: for a bisection that found nothing.
    """
    if found.finding is None:
        raise ValueError("there is no divergence to write down")
    check_folder(folder)
    finding, case = found.finding, found.finding.case
    written = replace(found, folder=folder)
    facts = _facts(written, finding, origin or Origin())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).unlink(missing_ok=True)
        nir_io.write(case.deployment, folder / NETWORK)
        _write_arrays(folder / "inputs.npz", {"inputs": case.inputs})
        _write_arrays(folder / "expected.npz", _arrays(finding.reference))
        _write_arrays(folder / "got.npz", _arrays(finding.target))
        _write(folder / SCRIPT, _rendered(f"{SCRIPT}.j2", facts))
        _write(folder / "README.md", _rendered("README.md.j2", facts))
        _write(folder / MARKER, json.dumps(written.as_dict(), indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise UserError(
            "SNX123", f"cannot write {folder}", where=str(folder), why=error.strerror or str(error),
            fix="choose a folder you may write to",
        ) from error  # fmt: skip
    return written


def _facts(found: Bisection, finding: Finding, origin: Origin) -> dict[str, Any]:
    """What the templates ask for."""
    network, first = finding.case.deployment, finding.first
    how = found.how
    encoder = network.contract.encoder
    populations = numbers(network) if how == "bits" else None
    return {
        "reference": found.reference,
        "target": found.target,
        "options": {name: {key: some[key] for key in some if key != "time_limit"} for name, some in found.options.items()},
        "layers": list(network.layers),
        "populations": populations,
        "gain": encoder.gain or 1.0,
        "low": encoder.low,
        "high": encoder.high,
        "steps": network.contract.steps,
        "input_name": input_node(network.graph),
        "record": RECORDS[how],
        "how": how,
        "first": first,
        "samples": finding.case.size.samples,
        "width": _width(finding, first),
        "number": "g" if how == "rounding" else "d",
        "declared": [f"{name} declares: {told}" for name, some in found.declared.items() for told in some],
        "sizes": sizes(found),
        "minimal": found.minimal,
        "tests": found.counts.tests,
        "runs": found.counts.runs,
        "seconds": f"{found.seconds:.1f}",
        "versions": _versions(found),
        "origin": origin.network,
        "inputs_from": origin.inputs,
        "command": origin.command,
    }


def sizes(found: Bisection) -> list[tuple[str, int, int]]:
    """(what, before, after) of each size that is not zero on both sides."""
    before, after = found.before.as_dict(), (found.after or found.before).as_dict()
    names = {"features": "input features", "inputs": "input values other than zero", "weights": "weights other than zero"}
    return [(names.get(key, key), before[key], after[key]) for key in before if before[key] or after[key]]


def _width(finding: Finding, first: Difference) -> int:
    """Columns that hold the values of one neuron."""
    layers = [trace.layers[first.layer] for trace in (finding.reference, finding.target)]
    shown = [value for layer in layers for value in (layer.membrane, layer.current) if value is not None]
    digits = [len(str(int(np.abs(value).max(initial=0)))) if value.dtype.kind in "iu" else 12 for value in shown]
    return max(24, 2 * (max(digits, default=1) + 3) + 8)


def _versions(found: Bisection) -> str:
    """Of this program, Python, and what the backends run on."""
    try:
        ours = version("snn-export")
    except PackageNotFoundError:
        ours = "not installed"
    some = [f"snn-export {ours}", f"Python {sys.version.split()[0]}", f"numpy {np.__version__}"]
    for backend, packages in found.versions.items():
        told = ", ".join(f"{name} {value}" for name, value in packages.items())
        some.append(f"{backend}: {told}" if told else backend)
    return "; ".join(some)


def _arrays(trace: Trace) -> dict[str, NDArray[Any]]:
    """A run as arrays by ``layer/what``."""
    return {
        f"{name}/{key}": np.asarray(value)
        for name, layer in trace.layers.items()
        for key, attribute in _ARRAYS
        if (value := getattr(layer, attribute)) is not None
    }


def _rendered(template: str, facts: Mapping[str, Any]) -> str:
    environment = Environment(  # noqa: S701 - a Python script and Markdown, not HTML
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["literal"] = _literal
    return environment.get_template(template).render(**facts)


def _literal(value: Any) -> str:
    """A Python literal, over several lines where it is long."""
    return pprint.pformat(value, width=120, sort_dicts=False)


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    def store(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)

    _appear(path, store)


def _write(path: Path, text: str) -> None:
    _appear(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _appear(path: Path, store: Callable[[Path], object]) -> None:
    """Write under another name in the same folder, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        store(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
