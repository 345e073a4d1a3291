"""Can this machine do the work? Each check looks at one thing and says what its result means.

A check never raises: what goes wrong in it is its finding.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final, Literal

from snn_export.config import Loaded
from snn_export.exit_codes import EXIT_OK
from snn_export.models.diagnostics import EXIT_BACKEND, EXIT_USAGE, UserError

State = Literal["ok", "warning", "broken"]

IMPORTED: Final = {"torch": "torch", "snntorch": "snntorch", "nir": "nir", "numba": "numba", "scikit-learn": "sklearn"}
"""Packages that are imported, not only looked up: those with compiled parts or odd dependencies of their own."""

OUTPUT_BYTES: Final = 200 << 20
SELF_TEST_LIMIT: Final = 120.0
"""Seconds for a backend's self-test; a cold one takes a few."""


@dataclass(frozen=True)
class Finding:
    """Result of one check. ``meaning`` says what it is for, ``fix`` what to do where it is not ok."""

    name: str
    state: State
    detail: str
    meaning: str
    fix: str = ""
    broken_exit_code: int = EXIT_BACKEND

    @property
    def exit_code(self) -> int:
        """Exit code this finding causes."""
        return self.broken_exit_code if self.state == "broken" else EXIT_OK

    def as_dict(self) -> dict[str, object]:
        """Plain dictionary, for JSON."""
        content = asdict(self) | {"exit_code": self.exit_code}
        del content["broken_exit_code"]
        return content


Check = Callable[[], Finding]


def findings(loaded: Loaded) -> Iterator[Finding]:
    """Run all checks for these settings, one after the other; each result comes as soon as it is known."""
    output = loaded.folder / loaded.config.project.output
    lava = loaded.config.verify.backends.get("lava")
    checks: tuple[tuple[str, Check], ...] = (
        ("python", python),
        ("packages", packages),
        ("snntorch reset", snntorch_reset),
        ("nir integers", nir_integers),
        ("numba", numba_compiles),
        ("lava", lambda: lava_runs(required=lava is not None and lava.required)),
        ("output", lambda: output_writable(output)),
        ("disk", lambda: disk_space(output)),
    )
    for name, check in checks:
        try:
            yield check()
        except Exception as error:  # a check that cannot even run has found something
            yield Finding(
                name, "broken", f"{type(error).__name__}: {error}", "the check itself could not run",
                "reinstall: pip install --force-reinstall snn-export",
            )  # fmt: skip


def python() -> Finding:
    """The interpreter and the processor cores it may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    detail = f"{platform.python_implementation()} {platform.python_version()}, {cores} cores"
    return Finding("python", "ok", detail, "runs everything but the backends with an environment of their own")


def packages() -> Finding:
    """Every dependency is there, not older than declared, and the delicate ones import."""
    wrong, shown = [], []
    for name, least in _declared():
        try:
            found = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if _numbers(found) < _numbers(least):
            wrong.append(f"{name} {found} is older than {least}")
        if name in IMPORTED:
            shown.append(f"{name} {found}")
            try:
                import_module(IMPORTED[name])
            except Exception as error:  # a broken extension module may raise anything
                wrong.append(f"{name} {found} cannot be imported: {error}")
    return Finding(
        "packages", "broken" if wrong else "ok", "; ".join(wrong) or ", ".join(shown), "what the toolchain computes with",
        "pip install --upgrade snn-export" if wrong else "",
    )  # fmt: skip


def _declared() -> Iterator[tuple[str, str]]:
    """Name and least version of every dependency that is not an extra."""
    for line in requires("snn-export") or ():
        found = re.match(r"([A-Za-z0-9._-]+)\s*>=\s*([0-9.]+)", line)
        if found is not None and ";" not in line:
            yield found[1], found[2]


def _numbers(text: str) -> tuple[int, ...]:
    """Leading numbers of a version, for comparison: ``2.13.0+cpu`` is (2, 13, 0)."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def snntorch_reset() -> Finding:
    """The installed snnTorch resets as the contract says."""
    from snn_export.models.snntorch_contract import first_difference

    difference = first_difference()
    return Finding(
        "snntorch reset", "broken" if difference else "ok", difference or "200 random steps, equal bit for bit",
        "what is exported: a reset to zero in the step of the spike",
        "install a tested version: pip install snntorch==1.0.0" if difference else "",
    )  # fmt: skip


def nir_integers() -> Finding:
    """Integers in a NIR file's metadata come back with their type and value."""
    import nir
    import numpy as np

    sent = np.array([[-256, 254], [0, -2]], np.int16)
    graph = nir.NIRGraph(
        {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}, [("input", "output")],
        metadata={"snn_export": {"integer": sent}},
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="snn-export-") as folder:
        path = Path(folder) / "check.nir"
        nir.write(path, graph)
        got = np.asarray(nir.read(path).metadata["snn_export"]["integer"])
    same = got.dtype == sent.dtype and np.array_equal(got, sent)
    detail = "written and read back equal" if same else f"{got.dtype} {got.tolist()} came back"
    return Finding(
        "nir integers", "ok" if same else "broken", detail, "the chip's integers travel in the metadata of the .nir file",
        "" if same else "install a tested version: pip install nir==1.0.8",
    )  # fmt: skip


def numba_compiles() -> Finding:
    """Numba compiles and runs a function."""
    import numba

    from snn_export.models import arithmetic

    compiled = numba.njit(arithmetic.wrap_current)
    values = (0, arithmetic.CURRENT_MAX, arithmetic.CURRENT_MAX + 1, -arithmetic.CURRENT_MAX)
    wrong = [value for value in values if compiled(value) != arithmetic.wrap_current(value)]
    return Finding(
        "numba", "broken" if wrong else "ok", f"wrong for {wrong}" if wrong else "compiles and computes right",
        "makes the loihi simulator fast", "reinstall numba: pip install --force-reinstall numba" if wrong else "",
    )  # fmt: skip


def lava_runs(*, required: bool) -> Finding:
    """The Lava environment is there and a neuron fires in it."""
    from snn_export.hardware_sims import environments

    meaning = "runs the network on Intel's own Lava runtime" + ("" if required else "; not required by these settings")
    bad: State = "broken" if required else "warning"
    try:
        interpreter = environments.interpreter("lava")
    except UserError as error:
        found = error.diagnostics[0]
        return Finding("lava", bad, found.what, meaning, found.fix)
    command = [str(interpreter), "-I", str(environments.environment("lava").worker), "--self-test"]
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=SELF_TEST_LIMIT, stdin=subprocess.DEVNULL
        )
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "").strip().splitlines()[-1:] or [f"ended with status {error.returncode}"]
        return Finding("lava", bad, f"does not run: {reason[0]}", meaning, "snn-export backends install lava --force")
    except subprocess.TimeoutExpired:
        return Finding(
            "lava", bad, f"no answer within {SELF_TEST_LIMIT:g} seconds", meaning, "snn-export backends install lava --force"
        )
    versions = json.loads(done.stdout.strip().splitlines()[-1])
    return Finding("lava", "ok", "a neuron fired; " + ", ".join(f"{name} {versions[name]}" for name in sorted(versions)), meaning)


def output_writable(output: Path) -> Finding:
    """The output folder, or the nearest folder above it that exists, takes a file."""
    folder = _nearest(output)
    meaning = f"results go to {output}"
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(
            "output", "broken", f"{folder} cannot be written: {error.strerror}", meaning,
            "set project.output to a folder of your own", EXIT_USAGE,
        )  # fmt: skip
    return Finding("output", "ok", f"{folder.resolve()} can be written", meaning)


def disk_space(output: Path) -> Finding:
    """Room for the results and, where it is not installed yet, for the Lava environment."""
    from snn_export.hardware_sims import environments

    lava = environments.environment("lava")
    places = [(_nearest(output), OUTPUT_BYTES, "results")]
    if not lava.stamp.exists() and not os.environ.get(environments.override_variable("lava")):
        places.append((_nearest(lava.location), lava.disk_bytes, "the lava environment"))
    free = [(shutil.disk_usage(folder).free, needed, what) for folder, needed, what in places]
    short = [f"{have >> 20} MiB free for {what}, {needed >> 20} MiB advised" for have, needed, what in free if have < needed]
    return Finding(
        "disk", "warning" if short else "ok", "; ".join(short) or f"{free[0][0] >> 20} MiB free",
        "checkpoints, traces and reports are kept", "free some space" if short else "",
    )  # fmt: skip


def _nearest(path: Path) -> Path:
    """``path``, or the closest folder above it that exists."""
    absolute = path.absolute()
    return next((folder for folder in (absolute, *absolute.parents) if folder.is_dir()), Path("/"))
