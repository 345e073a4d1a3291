"""Fixtures of the whole suite, and the guard that keeps our folder names out of the import path."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

for _name in ("models", "export", "hardware_sims", "toolchain"):
    if importlib.util.find_spec(_name) is not None:
        raise RuntimeError(
            f"'{_name}' can be imported beside snn_export.{_name}: run pytest with PYTHONSAFEPATH=1, or through make test"
        )


def snn_export(*arguments: str | Path, cwd: Path, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command; stdout, stderr and exit code as a shell would see them."""
    return subprocess.run(
        [sys.executable, "-m", "snn_export", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def heed_interrupts() -> None:
    """For a child process: shells start background jobs with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class FinishedRun:
    """A run of the whole line on the digits with short training; read-only, copy it to change it."""

    root: Path
    folder: Path
    completed: subprocess.CompletedProcess[str]

    def report(self) -> dict[str, object]:
        """report.json."""
        return dict(json.loads((self.folder / "report" / "report.json").read_text(encoding="utf-8")))

    def copy(self, to: Path) -> Path:
        """Copy config and output into ``to``; returns ``to``."""
        shutil.copytree(self.root, to, dirs_exist_ok=True)
        return to


CONFIG = """\
[project]
name = "digits"
seed = 0
output = "out"

[training]
teacher_epochs = 6
student_epochs = 10

[verify.backends.lava]
required = {required}
samples = 64
"""


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """One run on the digits; with real Lava where its environment is."""
    from snn_export.hardware_sims.registry import simulator

    root = tmp_path_factory.mktemp("run")
    there = simulator("lava").availability().ok
    (root / "snn-export.toml").write_text(CONFIG.format(required=str(there).lower()), encoding="utf-8")
    return FinishedRun(root, root / "out", snn_export("run", cwd=root))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread: results are equal bit for bit for one number of threads, and small networks gain nothing from more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
