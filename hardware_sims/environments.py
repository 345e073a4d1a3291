"""Environments of isolated backends: made from a pinned requirements file, found again by its hash.

A backend whose dependencies clash with ours runs in a virtual environment of its own. It lies in
``$SNN_EXPORT_ENVS/<name>/<hash>``, by default below ``$XDG_CACHE_HOME/snn-export/envs``. The hash covers the requirements, how
they are installed and the Python version, so a changed file makes a new environment and never repairs an old one in place.

A virtual environment cannot be renamed, so it is made where it stays, and a stamp file is written last: without the stamp
nothing uses it and the next installation starts over. ``SNN_EXPORT_<NAME>_PYTHON`` names another interpreter and skips all this.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from snn_export.hardware_sims import shared_packages
from snn_export.models.diagnostics import Diagnostic, UserError

STAMP = "snn-export-environment.json"
LOCK_LIMIT = 1800.0
"""Seconds to wait for another installation of the same environment."""


@dataclass(frozen=True)
class Environment:
    """Recipe of one environment.

    Attributes:
        name: of the backend.
        folder: the backend's folder; holds ``requirements.txt`` and ``worker.py``.
        pip_arguments: added to ``pip install``.
        python: first (major, minor) that works and first that does not any more.
        shares: distributions that are linked from this environment, with what they require; see ``shared_packages.py``.
        megabytes: disk space it takes once it is installed.
        disk_bytes: free space asked for before the start.
        time_limit: seconds per step of the installation.
        licence: of the package, as it names it itself.
        restriction: what the licence asks of its user beyond the usual open source terms; installing then needs a consent.
    """

    name: str
    folder: Path
    pip_arguments: tuple[str, ...] = ()
    python: tuple[tuple[int, int], tuple[int, int]] = ((3, 11), (4, 0))
    shares: tuple[str, ...] = ()
    megabytes: int = 0
    disk_bytes: int = 1 << 30
    time_limit: float = 1800.0
    licence: str = ""
    restriction: str = ""

    @property
    def requirements(self) -> Path:
        """Pinned requirements."""
        return self.folder / "requirements.txt"

    @property
    def worker(self) -> Path:
        """The worker script. ``worker.py --self-test`` runs something small; its last line is a JSON object of versions."""
        return self.folder / "worker.py"

    @property
    def key(self) -> str:
        """Hash of everything that decides what is installed."""
        digest = hashlib.sha256(self.requirements.read_bytes())
        shared = shared_packages.identity(self.shares)
        digest.update("\0".join((*self.pip_arguments, *shared, f"{sys.version_info[0]}.{sys.version_info[1]}")).encode())
        return digest.hexdigest()[:12]

    @property
    def location(self) -> Path:
        """Folder of the virtual environment; it may not exist."""
        return environments_folder() / self.name / self.key

    @property
    def stamp(self) -> Path:
        """File that exists once the environment is complete."""
        return self.location / STAMP


# lava-nc 0.10.0 and lava-dl 0.6.0 declare Python < 3.11 and run on later ones; NumPy < 2 has no wheels from 3.13 on.
_LAVA_PIP = ("--no-deps", "--ignore-requires-python", "--only-binary", ":all:")

_PIP = ("--no-deps", "--only-binary", ":all:")
_PYTHON = ((3, 11), (3, 13))
"""For which the pinned packages have wheels."""

BUILT_IN: Mapping[str, Environment] = {
    "lava": Environment(
        "lava",
        Path(__file__).parent / "lava",
        pip_arguments=_LAVA_PIP,
        python=((3, 11), (3, 13)),
        megabytes=280,
        licence="BSD-3-Clause and LGPL-2.1-or-later",
    ),
    "netx": Environment(
        "netx",
        Path(__file__).parent / "netx",
        pip_arguments=_LAVA_PIP,
        python=((3, 11), (3, 13)),
        megabytes=450,
        licence="BSD-3-Clause and LGPL-2.1-or-later",
    ),
    "nengo_loihi": Environment(
        "nengo_loihi",
        Path(__file__).parent / "nengo_loihi",
        pip_arguments=_PIP,
        python=_PYTHON,
        megabytes=260,
        licence="Apache-2.0 (nengo-loihi); free for non-commercial use (nengo)",
        restriction="nengo is free for non-commercial use only; Applied Brain Research sells licences for any other",
    ),
    "sinabs": Environment(
        "sinabs",
        Path(__file__).parent / "sinabs",
        pip_arguments=_PIP,
        python=_PYTHON,
        shares=("torch",),
        megabytes=120,
        licence="Apache-2.0",
    ),
    "spikingjelly": Environment(
        "spikingjelly",
        Path(__file__).parent / "spikingjelly",
        pip_arguments=_PIP,
        python=_PYTHON,
        shares=("torch",),
        megabytes=130,
        licence="Apache-2.0",
    ),
    "spyx": Environment("spyx", Path(__file__).parent / "spyx", pip_arguments=_PIP, python=_PYTHON, megabytes=520, licence="MIT"),
    "rockpool": Environment(
        "rockpool",
        Path(__file__).parent / "rockpool",
        pip_arguments=(*_PIP, "--no-binary", "rockpool"),  # published as source only
        python=_PYTHON,
        shares=("torch",),
        megabytes=280,
        licence="AGPL-3.0-or-later",
        restriction="AGPL: what is built on it and offered to others, also as a service, has to come with its source",
    ),
}


@dataclass(frozen=True)
class Installed:
    """Result of :func:`install`. ``fresh`` is False where everything was there already; ``seconds`` it took."""

    interpreter: Path
    fresh: bool
    seconds: float
    versions: Mapping[str, str]


Runner = Callable[[Sequence[str], Path, float], str]
"""Runs a command with its log file and time limit; returns its standard output. Raises CalledProcessError, TimeoutExpired."""


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/snn-export``, or ``~/.cache/snn-export``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "snn-export"


def environments_folder() -> Path:
    """``$SNN_EXPORT_ENVS``, or ``envs`` in the cache folder."""
    chosen = os.environ.get("SNN_EXPORT_ENVS", "")
    return Path(chosen).absolute() if chosen else cache_folder() / "envs"


def log_folder() -> Path:
    """Where logs of failed workers are kept."""
    return cache_folder() / "logs"


def environment(name: str) -> Environment:
    """Recipe by backend name. Raises SNX416 for a backend without an environment of its own."""
    if name not in BUILT_IN:
        raise UserError(
            "SNX416",
            f"{name!r} has no environment to install",
            where="backends install",
            why=f"only these run in one of their own: {', '.join(BUILT_IN)}",
            fix="`snn-export backends list` shows what each backend needs",
        )
    return BUILT_IN[name]


def override_variable(name: str) -> str:
    """Environment variable that names another interpreter for a backend; a dash becomes an underscore, as shells need it."""
    return f"SNN_EXPORT_{name.upper().replace('-', '_')}_PYTHON"


def interpreter(name: str) -> Path:
    """Python that runs a backend's worker; quick, starts nothing.

    Raises:
        UserError: SNX417 where the override names no program, SNX430 where the environment is not installed.
    """
    variable = override_variable(name)
    if chosen := os.environ.get(variable, ""):
        if not os.access(chosen, os.X_OK) or Path(chosen).is_dir():
            raise UserError(
                "SNX417",
                f"{variable} = {chosen} is not a program",
                where=variable,
                why="it must name the Python interpreter of the backend's environment",
                fix=f"correct it, or unset it: unset {variable}",
            )
        return Path(chosen)
    found = environment(name)
    if _read_stamp(found) is None:
        raise UserError(
            "SNX430",
            f"the {name} environment is not installed" + (f" (it takes {found.megabytes} MB)" if found.megabytes else ""),
            where=str(found.location),
            why="the backend runs in an environment of its own",
            fix=f"snn-export backends install {name}",
        )
    return _python_of(found)


def versions(name: str) -> dict[str, str]:
    """Versions noted when the environment was installed; empty under an override, or where it is not installed."""
    if os.environ.get(override_variable(name)):
        return {}
    return dict(_read_stamp(environment(name)) or {})


def consent_finding(name: str) -> Diagnostic | None:
    """What a user has to accept before a backend is installed; None where its licence asks nothing unusual."""
    recipe = environment(name)
    if not recipe.restriction:
        return None
    return Diagnostic(
        "SNX427", f"{name} is under {recipe.licence}", where="backends install", why=recipe.restriction,
        fix=f"read the licence; where it allows what you do: snn-export backends install {name} --accept-licence {name}",
    )  # fmt: skip


def install(
    name: str,
    progress: Callable[[str], None],
    log_path: Path | None = None,
    run: Runner | None = None,
    *,
    force: bool = False,
    licence_accepted: bool = False,
) -> Installed:
    """Make a backend's environment unless it is there. Safe to call twice, and from two processes at once.

    Args:
        name: of the backend.
        progress: called with one line per step.
        log_path: pip's output; by default beside the environment.
        run: replaces the command runner, for tests.
        force: make it anew even where it is complete, to repair a damaged one.
        licence_accepted: the user has accepted the licence; asked for where :func:`consent_finding` finds something.

    Raises:
        UserError: SNX410 to SNX419; each names the log where there is one. SNX427 for a licence that was not accepted.
    """
    started, recipe, runner = time.monotonic(), environment(name), run or run_logged
    if os.environ.get(override_variable(name)):
        progress(f"{override_variable(name)} is set: nothing to install")
        return Installed(interpreter(name), False, 0.0, {})
    log = log_path or recipe.location.with_suffix(".log")
    with _locked(recipe, progress):
        known = None if force else _read_stamp(recipe)
        if known is not None:
            progress(f"the {name} environment is complete: nothing to do")
            return Installed(_python_of(recipe), False, time.monotonic() - started, known)
        # What is there was accepted when it was made, and is only made anew.
        asked = None if licence_accepted or _read_stamp(recipe) is not None else consent_finding(name)
        if asked is not None:
            raise UserError.from_diagnostics((asked,))
        _check_python(recipe)
        _check_disk(recipe)
        found = _make(recipe, progress, log, runner)
    return Installed(_python_of(recipe), True, time.monotonic() - started, found)


def _make(recipe: Environment, progress: Callable[[str], None], log: Path, run: Runner) -> dict[str, str]:
    """Virtual environment, packages, proof, stamp."""
    shutil.rmtree(recipe.location, ignore_errors=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    python = [str(_python_of(recipe)), "-I"]
    progress(f"making a virtual environment in {recipe.location}")
    command = [sys.executable, "-I", "-m", "venv", str(recipe.location)]
    no_venv = ("SNX413", "the virtual environment cannot be made", "install Python's venv module (package python3-venv)")
    _step(recipe, run, command, log, no_venv)
    progress(f"installing {', '.join(_requirement_lines(recipe))}")
    command = [*python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    no_packages = ("SNX414", "pip could not install the packages", "check the network and the package index, then try again")
    _step(recipe, run, [*command, *recipe.pip_arguments, "-r", str(recipe.requirements)], log, no_packages)
    if recipe.shares:
        packages = recipe.location / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        progress(f"linking {', '.join(shared_packages.link(recipe.shares, packages))} of this environment")
    progress("checking that it runs")
    no_proof = ("SNX415", "what was installed does not run", f"read {log}, then try again")
    output = _step(recipe, run, [*python, str(recipe.worker), "--self-test"], log, no_proof)
    try:
        found = {str(key): str(value) for key, value in json.loads(output.strip().splitlines()[-1]).items()}
    except (ValueError, IndexError, AttributeError) as error:
        code, what, fix = no_proof
        raise _failed(recipe, code, what, f"its self-test printed {output[-200:]!r}", fix) from error
    temporary = recipe.stamp.with_suffix(".partial")
    temporary.write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")
    temporary.replace(recipe.stamp)
    return found


def run_logged(command: Sequence[str], log: Path, time_limit: float) -> str:
    """Run a command; its errors, and its output, go to the log; returns its output. The default :data:`Runner`."""
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        done = subprocess.run(
            list(command),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            timeout=time_limit,
        )
        file.write(done.stdout)
    done.check_returncode()
    return done.stdout


def _step(recipe: Environment, run: Runner, command: Sequence[str], log: Path, failure: tuple[str, str, str]) -> str:
    """One command; ``failure`` is the code, what and fix of its error."""
    code, what, fix = failure
    try:
        return run(command, log, recipe.time_limit)
    except subprocess.TimeoutExpired as error:
        raise _failed(recipe, "SNX418", f"{what} within {recipe.time_limit:g} seconds", f"it hangs; log: {log}", fix) from error
    except (subprocess.CalledProcessError, OSError) as error:
        raise _failed(recipe, code, what, f"{error}; log: {log}", fix) from error


def _check_python(recipe: Environment) -> None:
    first, beyond = recipe.python
    if not first <= sys.version_info[:2] < beyond:
        raise _failed(
            recipe,
            "SNX410",
            f"Python {sys.version_info[0]}.{sys.version_info[1]} cannot run it",
            f"its packages exist for Python {first[0]}.{first[1]} up to, not including, {beyond[0]}.{beyond[1]}",
            f"run snn-export with such a Python, or point {override_variable(recipe.name)} at an environment made by hand",
        )


def _check_disk(recipe: Environment) -> None:
    free = shutil.disk_usage(recipe.location.parent).free
    if free < recipe.disk_bytes:
        raise _failed(
            recipe,
            "SNX411",
            f"{free >> 20} MiB are free and {recipe.disk_bytes >> 20} MiB are needed",
            f"it goes to {recipe.location.parent}",
            "free some space, or set SNN_EXPORT_ENVS to a folder on another disk",
        )


@contextmanager
def _locked(recipe: Environment, progress: Callable[[str], None]) -> Iterator[None]:
    """One installation at a time; the kernel drops the lock when its holder dies."""
    path = recipe.location.parent / "install.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise _failed(
            recipe,
            "SNX419",
            f"{path.parent} cannot be written: {error.strerror}",
            "environments are kept there",
            "set SNN_EXPORT_ENVS to a folder of your own",
        ) from error
    with file:
        deadline, told = time.monotonic() + LOCK_LIMIT, False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise _failed(recipe, "SNX412", "another installation does not end", f"it holds {path}", "end it") from error
            if not told:
                progress("another installation is running: waiting for it")
                told = True
            time.sleep(0.2)
        yield


def _read_stamp(recipe: Environment) -> dict[str, str] | None:
    """Versions in the stamp; None where the environment is missing or half-made."""
    try:
        found = json.loads(recipe.stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(found, dict) and _python_of(recipe).exists()
    return {str(key): str(value) for key, value in found.items()} if complete else None


def _python_of(recipe: Environment) -> Path:
    return recipe.location / "bin" / "python"


def _requirement_lines(recipe: Environment) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in recipe.requirements.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _failed(recipe: Environment, code: str, what: str, why: str, fix: str) -> UserError:
    return UserError(code, f"installing {recipe.name}: {what}", where=str(recipe.location), why=why, fix=fix)
