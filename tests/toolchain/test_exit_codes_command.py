"""Every exit code of the documented table, by the real command in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from snn_export.exit_codes import PRECEDENCE
from snn_export.export import nir_io
from tests.conftest import heed_interrupts, snn_export
from tests.networks import dense_net, quantised, read

WITHOUT_LAVA = ("--set", "verify.backends.lava.required=false")


@dataclass(frozen=True)
class Ending:
    """A command line, what it must end with, and words that it must tell.

    environment: variables whose values are relative to the folder it runs in.
    """

    code: int
    arguments: tuple[str, ...]
    words: str
    environment: dict[str, str] = field(default_factory=dict)


ENDINGS = {
    "every gate passed": Ending(0, ("verify", "net.nir", "--set", "data.source=npz:data.npz", *WITHOUT_LAVA), "PASS"),
    "a gate failed": Ending(1, ("verify", "net.nir", "--set", "data.source=npz:loud.npz", *WITHOUT_LAVA), "declared range"),
    "a setting that is unknown": Ending(2, ("verify", "net.nir", "--set", "verify.smaples=4"), "verify.smaples"),
    "a file that cannot be read": Ending(2, ("verify", "absent.nir"), "absent.nir"),
    "a network that the chip cannot express": Ending(3, ("check", "subtract.nir", "--target", "loihi1"), "SNX203"),
    "a required backend that is absent": Ending(
        4, ("verify", "net.nir", "--set", "data.source=npz:data.npz", "--set", "verify.backends.lava.required=true"),
        "snn-export backends install lava",
    ),
    "no sample": Ending(5, ("verify", "net.nir", "--set", "data.source=npz:none.npz", *WITHOUT_LAVA), "SNX501"),
    "a bug": Ending(70, ("targets",), "traceback", {"PYTHONPATH": "broken", "TMPDIR": "."}),
    "an interrupt": Ending(
        130, ("run", "--until", "teacher", "--set", "training.teacher_epochs=1000"), "what was finished is kept"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small networks, data for them, and a package that breaks what imports it."""
    path = tmp_path_factory.mktemp("endings")
    floats = read(dense_net(), (4,))
    nir_io.write(quantised(floats), path / "net.nir")
    nir_io.write(read(dense_net(reset="subtract"), (4,)), path / "subtract.nir")
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0, 1, (40, 4)).astype(np.float32), np.arange(40) % 3
    for name, tested in (("data", 1.0 * x[:12]), ("loud", 5.0 * x[:12]), ("none", x[:0])):
        np.savez(path / f"{name}.npz", x_train=x, y_train=y, x_test=tested.astype(np.float32), y_test=y[: len(tested)])
    (path / "broken" / "rich").mkdir(parents=True)
    (path / "broken" / "rich" / "__init__.py").write_text(
        "raise RuntimeError('a package of another version')\n", encoding="utf-8"
    )
    return path


def test_every_code_of_the_table_has_an_ending() -> None:
    assert {ending.code for ending in ENDINGS.values()} == set(PRECEDENCE) == {0, 1, 2, 3, 4, 5, 70, 130}


@pytest.mark.parametrize("name", [name for name, ending in ENDINGS.items() if ending.code != 130])
def test_it_ends_with_the_code(name: str, folder: Path) -> None:
    ending = ENDINGS[name]
    surroundings = {key: str(folder / value) for key, value in ending.environment.items()}
    done = snn_export(*ending.arguments, cwd=folder, **surroundings, SNN_EXPORT_ENVS=str(folder / "environments"))
    assert done.returncode == ending.code, done.stdout + done.stderr
    assert ending.words in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stdout + done.stderr
    assert len(list(folder.glob("snn-export-crash-*.txt"))) == (ending.code == 70)
    for crash in folder.glob("snn-export-crash-*.txt"):
        crash.unlink()


def test_an_interrupted_run_ends_with_130(folder: Path) -> None:
    ending = ENDINGS["an interrupt"]
    with subprocess.Popen(
        [sys.executable, "-m", "snn_export", *ending.arguments], cwd=folder, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        begun = process.stderr.readline()
        assert "teacher" in begun
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == ending.code, told
    assert ending.words in told
    assert "Traceback" not in told
