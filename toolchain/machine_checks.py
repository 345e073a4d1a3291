"""Can this machine do the work? Each check looks at one thing and says what its result means.

A check never raises: what goes wrong in it is its finding.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from snn_export.config import Loaded
from snn_export.exit_codes import EXIT_OK
from snn_export.models.diagnostics import EXIT_BACKEND, EXIT_USAGE

if TYPE_CHECKING:
    from snn_export.config_schema import BackendConfig
    from snn_export.hardware_sims.simulator import Simulator

State = Literal["ok", "warning", "broken"]

IMPORTED: Final = {"torch": "torch", "snntorch": "snntorch", "nir": "nir", "numba": "numba", "scikit-learn": "sklearn"}
"""Packages that are imported, not only looked up: those with compiled parts or odd dependencies of their own."""

OUTPUT_BYTES: Final = 200 << 20
ISOLATED_AT_ONCE: Final = 4
"""Isolated backends that test themselves side by side."""


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
    before: tuple[tuple[str, Check], ...] = (
        ("python", python),
        ("packages", packages),
        ("snntorch reset", snntorch_reset),
        ("nir integers", nir_integers),
        ("numba", numba_compiles),
    )
    after: tuple[tuple[str, Check], ...] = (("output", lambda: output_writable(output)), ("disk", lambda: disk_space(output)))
    yield from map(_found, before)
    try:
        yield from backend_findings(loaded.config.verify.backends)
    except Exception as error:
        yield _could_not_run("backends", error)
    yield from map(_found, after)


def _found(named: tuple[str, Check]) -> Finding:
    name, check = named
    try:
        return check()
    except Exception as error:  # a check that cannot even run has found something
        return _could_not_run(name, error)


def _could_not_run(name: str, error: Exception) -> Finding:
    return Finding(
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


def backend_findings(settings: Mapping[str, BackendConfig]) -> Iterator[Finding]:
    """What the backends find when they test the versions they run on, and which of those in ``settings`` cannot run here.

    Isolated ones test themselves in processes of their own, meanwhile.
    """
    from snn_export.hardware_sims.registry import locations
    from snn_export.hardware_sims.self_test import probes

    backends = [_backend(name, settings.get(name)) for name in sorted({*locations(), *settings})]
    with ThreadPoolExecutor(ISOLATED_AT_ONCE) as pool:
        started = {
            backend.name: pool.submit(probes, backend.simulator)
            for backend in backends
            if backend.isolated and not backend.reason
        }
        for backend in backends:
            if backend.reason:
                if backend.chosen or backend.broken:
                    yield Finding(backend.name, backend.bad, backend.reason, backend.description + backend.note, backend.fix)
                continue
            found = started[backend.name].result() if backend.name in started else probes(backend.simulator)
            if backend.chosen and not found:
                yield Finding(backend.name, "ok", "can run here", backend.description)
            for probe in found:
                title = f"{backend.name}: {probe.topic}" if probe.topic else backend.name
                state: State = "ok" if probe.as_expected else backend.bad
                note = "" if probe.as_expected else backend.note
                yield Finding(title, state, probe.seen, probe.meaning + note, probe.fix)


@dataclass(frozen=True)
class _Backend:
    """A registered backend; ``reason`` and ``fix`` where it cannot run here, ``broken`` where it could not even be asked."""

    name: str
    simulator: Simulator | None
    chosen: bool
    required: bool
    description: str
    isolated: bool = False
    reason: str = ""
    fix: str = ""
    broken: bool = False

    @property
    def bad(self) -> State:
        """What it is when it is not as its code takes it to be."""
        return "broken" if self.required else "warning"

    @property
    def note(self) -> str:
        """Added to a finding that is not ok."""
        return "" if self.required else "; not required by these settings"


def _backend(name: str, settings: BackendConfig | None) -> _Backend:
    from snn_export.hardware_sims.registry import BrokenSimulator, simulator_or_broken

    chosen, required = settings is not None, settings is not None and settings.required
    try:
        simulator = simulator_or_broken(name)
        can, there = simulator.capabilities(), simulator.availability()
    except Exception as error:  # what a plug-in raises is its finding
        reason, fix = f"{type(error).__name__}: {error}", "repair or uninstall the package that registers it"
        return _Backend(name, None, chosen, required, "a registered backend", reason=reason, fix=fix, broken=True)
    reason = "" if there.ok else there.reason or "it cannot run here"
    broken = isinstance(simulator, BrokenSimulator)
    return _Backend(name, simulator, chosen, required, can.description, can.isolated, reason, there.fix, broken)


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
