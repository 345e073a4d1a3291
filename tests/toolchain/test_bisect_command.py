"""``snn-export bisect`` as a user calls it, with a backend that another package brings, and the folder it leaves behind."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from snn_export import cli, library
from snn_export.export import nir_io
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims import registry
from snn_export.hardware_sims.lava.simulator import LavaSimulator, Program
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.models.diagnostics import Diagnostic
from snn_export.verification.bisection.facade import bisect
from tests import faulty_backend
from tests.bisect_networks import ODD_ONE, conv_plan, dense_plan, with_the_odd_one
from tests.builders import deployment_from, random_inputs
from tests.lava_environment import require_lava
from tests.networks import dense_net, quantised, read, recurrent_net, uniform, with_real_parameters

ENTRY_POINTS = "[snn_export.simulators]\n" + "".join(
    f"faulty_{fault} = faulty_backend:{fault}\n" for fault in (*faulty_backend.FAULTS, "floats")
)
METADATA = "Metadata-Version: 2.1\nName: faulty-backend\nVersion: 0.1.0\n"


def package(folder: Path, read_as: int) -> Path:
    """A folder with the package in it, as pip leaves one; it reads the odd weight as ``read_as``."""
    info = folder / "faulty_backend-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA, encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    shutil.copy(faulty_backend.__file__, folder / "faulty_backend.py")
    (folder / "fault.json").write_text(json.dumps([ODD_ONE, read_as]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(tmp_path_factory.mktemp("site") / "wrong", 130)


def python(*arguments: str | Path, site: Path | None, cwd: Path) -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    surroundings.pop("PYTHONPATH", None)
    if site is not None:
        surroundings["PYTHONPATH"] = str(site)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=cwd, env=surroundings)


@dataclass(frozen=True)
class Room:
    """A current folder, in a process that has the package."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def bisect(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of the command."""
        code = cli.main(["bisect", *arguments])
        return (code, *self.capsys.readouterr())

    def reproduce(self, folder: str = "out", *arguments: str) -> tuple[int | str | None, str]:
        """Exit code and output of a folder's script."""
        script = str(self.folder / folder / "reproduce.py")
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.setattr(sys, "argv", [script, *arguments])
            runpy.run_path(script, run_name="__main__")
        return ended.value.code, self.capsys.readouterr().out


@pytest.fixture
def room(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Room]:
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    yield Room(tmp_path, capsys)
    sys.modules.pop("faulty_backend", None)


def saved(folder: Path, kind: str = "dense", layer: str = "lif3") -> Path:
    """``net.nir`` and ``inputs.npz`` of a five-layer network with one odd weight."""
    plan = (dense_plan if kind == "dense" else conv_plan)(np.random.default_rng(3))
    deployment, inputs = with_the_odd_one(plan, layer, np.random.default_rng(5))
    np.savez(folder / "inputs.npz", inputs=inputs)
    return nir_io.write(deployment, folder / "net.nir")


@pytest.mark.parametrize(("kind", "layer"), [("dense", "lif3"), ("conv", "conv2")])
def test_one_weight_in_five_layers_ends_small_and_its_folder_shows_it_alone(
    kind: str, layer: str, site: Path, tmp_path: Path
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    saved(home, kind, layer)
    started = time.monotonic()
    command = ("net.nir", "--target", "faulty_weight", "--inputs", "inputs.npz", "--format", "json")
    done = python("-m", "snn_export", "bisect", *command, site=site, cwd=home)
    assert time.monotonic() - started < 120
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["before"]["layers"] == 5
    assert found["after"]["layers"] <= 1
    assert found["after"]["steps"] <= 4
    assert found["after"]["neurons"] <= 8
    assert found["minimal"]
    assert found["runs"] == 2 * found["tests"]
    assert (found["first_in_whole_network"]["layer"], found["first"]["layer"]) == (layer, layer)
    for phase in ("samples", "layers", "steps", "neurons", "inputs", "the rest"):
        assert phase in done.stderr

    folder = home / found["folder"]
    assert folder.name == "repro-net-loihi-faulty_weight"
    assert {file.name for file in folder.iterdir()} == {
        "README.md", "reproduce.py", "repro.json", "network.nir", "network.contract.json", "inputs.npz", "expected.npz",
        "got.npz",
    }  # fmt: skip
    shutil.move(folder, elsewhere)
    shutil.rmtree(home)
    shown = python(elsewhere / "reproduce.py", site=site, cwd=tmp_path)
    assert shown.returncode == 1, shown.stdout + shown.stderr
    assert f"layer {layer}, sample 0, neuron {found['first']['neuron']}" in shown.stdout
    assert "loihi does what the equations say" in shown.stdout
    assert "faulty_weight does not do what the equations say" in shown.stdout
    assert f"{found['first']['expected']:.0f}" in shown.stdout
    assert f"{found['first']['got']:.0f}" in shown.stdout


def test_the_script_ends_with_0_once_the_backend_is_mended_and_with_4_where_it_is_not_there(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(room.folder)
    assert room.bisect("net.nir", "--target", "faulty_weight", "-o", "out")[0] == 1
    assert room.reproduce()[0] == 1
    monkeypatch.setattr(sys.modules["faulty_backend"], "READ_AS", ODD_ONE)
    code, shown = room.reproduce()
    assert code == 0, shown
    assert "agree" in shown
    monkeypatch.setattr(registry, "locations", lambda: dict(registry.BUILT_IN))
    code, shown = room.reproduce()
    assert code == 4
    assert "no backend is called 'faulty_weight'" in shown
    assert "<- here" in shown, "the recorded runs are shown all the same"


HIDDEN = """
import runpy, sys
sys.modules["snn_export"] = None
sys.modules["nir"] = None
sys.argv = [{script!r}, "--by-hand"]
runpy.run_path({script!r}, run_name="__main__")
"""


def test_the_equations_need_numpy_alone(room: Room) -> None:
    saved(room.folder)
    assert room.bisect("net.nir", "--target", "faulty_decay", "-o", "out")[0] == 1
    done = python("-c", HIDDEN.format(script=str(room.folder / "out" / "reproduce.py")), site=None, cwd=room.folder)
    assert done.returncode == 1, done.stderr
    assert "loihi does what the equations say" in done.stdout
    assert "faulty_decay does not do what the equations say" in done.stdout


@pytest.mark.parametrize("fault", ["subtract", "late", "at_threshold", "stride", "padding"])
def test_the_equations_give_what_the_reference_gave(fault: str, room: Room) -> None:
    saved(room.folder, "conv", "conv2")
    assert room.bisect("net.nir", "--target", f"faulty_{fault}", "-o", "out")[0] == 1
    code, shown = room.reproduce("out", "--by-hand")
    assert code == 1, shown
    assert "loihi does what the equations say" in shown
    assert f"faulty_{fault} does not do what the equations say" in shown


def test_the_readme_says_what_where_and_with_which_versions(room: Room) -> None:
    saved(room.folder)
    _, out, _ = room.bisect("net.nir", "--target", "faulty_weight", "--inputs", "inputs.npz")
    text = (room.folder / "repro-net-loihi-faulty_weight" / "README.md").read_text(encoding="utf-8")
    for part in ("# loihi and faulty_weight part", "layer `lif3`", "| layers | 5 | 1 |", "| neurons | 210 | 1 |", "numba",
                 "faulty-backend 0.1.0", "python reproduce.py", "inputs of inputs.npz"):  # fmt: skip
        assert part in text, part
    for part in ("part (", "minimal", "reproduce.py shows it", "layers", "whole network   lif3"):
        assert part in out, part


def test_float_backends_have_a_folder_too(room: Room) -> None:
    rng = np.random.default_rng(0)
    nir_io.write(library.prepared(read(dense_net(1), (4,), 12), uniform(rng, 8, 4)), room.folder / "net.nir")
    code, _, err = room.bisect("net.nir", "--reference", "reference", "--target", "faulty_floats", "-o", "out")
    assert code == 1, err
    for arguments in ((), ("--recorded",)):
        code, shown = room.reproduce("out", *arguments)
        assert code == 1, shown
        assert "layer readout" in shown
    code, out, err = room.bisect("net.nir", "--reference", "reference", "--target", "snntorch")
    assert code == 0, err
    assert "reference and snntorch agree: 32 samples" in out


def test_inputs_come_from_the_settings_where_there_are_any(room: Room) -> None:
    saved(room.folder)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, (60, 40)).astype(np.float32), np.arange(60) % 10
    np.savez(room.folder / "data.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    settings = '[data]\nsource = "npz:data.npz"\n[verify]\nsamples = 7\n'
    (room.folder / "snn-export.toml").write_text(settings, encoding="utf-8")
    for more, samples in (((), 7), (("--samples", "3"), 3), (("--inputs", "inputs.npz", "--samples", "2"), 2)):
        code, out, err = room.bisect("net.nir", "--target", "faulty_none", "--format", "json", *more)
        assert code == 0, err
        assert json.loads(out)["compared"]["samples"] == samples
        assert ("inputs of inputs.npz" if "--inputs" in more else "test samples of npz:data.npz") in err


def test_a_time_limit_keeps_the_best_so_far_and_says_so(room: Room) -> None:
    saved(room.folder)
    code, out, err = room.bisect("net.nir", "--target", "faulty_weight", "-o", "out", "--time-limit", "0.001")
    assert code == 1, err
    assert "stopped early by the time limit" in out
    assert "stopped by its time limit" in (room.folder / "out" / "README.md").read_text(encoding="utf-8")
    assert room.reproduce()[0] == 1


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_somebody_else_is_not_touched(room: Room) -> None:
    saved(room.folder)
    theirs = room.folder / "theirs"
    theirs.mkdir()
    (theirs / "network.nir").write_text("mine", encoding="utf-8")
    code, _, err = room.bisect("net.nir", "--target", "faulty_weight", "-o", "theirs")
    assert code == 2
    assert "SNX027" in err
    assert [file.name for file in theirs.iterdir()] == ["network.nir"]
    assert (theirs / "network.nir").read_text(encoding="utf-8") == "mine"


def test_a_folder_of_ours_is_written_again_and_notes_in_it_stay(room: Room) -> None:
    saved(room.folder)
    for fault in ("weight", "decay"):
        assert room.bisect("net.nir", "--target", f"faulty_{fault}", "-o", "out")[0] == 1
        (room.folder / "out" / "notes.txt").write_text("issue 12", encoding="utf-8")
    assert "faulty_decay" in (room.folder / "out" / "reproduce.py").read_text(encoding="utf-8")
    assert (room.folder / "out" / "notes.txt").read_text(encoding="utf-8") == "issue 12"
    assert not [file for file in (room.folder / "out").iterdir() if file.name.endswith(".tmp")]


# --- exit codes ------------------------------------------------------------------------------------------------------


def test_exit_codes(room: Room) -> None:
    saved(room.folder)
    rng = np.random.default_rng(0)
    nir_io.write(quantised(library.prepared(read(recurrent_net(), (7,)), uniform(rng, 8, 7))), room.folder / "loop.nir")
    nir_io.write(read(dense_net(), (4,)), room.folder / "float.nir")
    (room.folder / "bad.npz").write_bytes(b"no archive")
    np.savez(room.folder / "two.npz", a=np.ones(3), b=np.ones(3))
    for code, what, arguments in (
        (0, "", ("net.nir", "--target", "faulty_none")),
        (2, "SNX101", ("absent.nir",)),
        (2, "SNX110", ("net.nir", "--target", "faulty_none", "--inputs", "bad.npz")),
        (2, "SNX111", ("net.nir", "--target", "faulty_none", "--inputs", "two.npz")),
        (2, "SNX007", ("net.nir", "--target", "loihi")),
        (3, "SNX204", ("loop.nir", "--target", "faulty_weight")),
        (3, "SNX302", ("float.nir", "--target", "faulty_weight")),
        (4, "SNX404", ("net.nir", "--target", "faulty_breaks")),
        (4, "SNX405", ("net.nir", "--target", "faulty_raises")),
        (4, "did you mean 'lava'", ("net.nir", "--target", "lavva")),
        (5, "SNX510", ("net.nir", "--target", "reference")),
    ):
        found, _, err = room.bisect(*arguments)
        assert found == code, (arguments, err)
        assert what in err
    assert not [entry for entry in room.folder.iterdir() if entry.name.startswith("repro")]


# --- real Lava -------------------------------------------------------------------------------------------------------


@dataclass
class FaultyLava:
    """Real Lava, given a program in which the odd weight has another value."""

    name: str = "lava"
    real: LavaSimulator = field(default_factory=lambda: LavaSimulator(time_limit=120))

    def capabilities(self) -> Capabilities:
        return self.real.capabilities()

    def availability(self) -> Availability:
        return self.real.availability()

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        return self.real.check(deployment)

    def compile(self, deployment: Deployment) -> Program:
        program = self.real.compile(deployment)
        return replace(program, arrays={name: self._wrong(name, array) for name, array in program.arrays.items()})

    def run(self, program: Program, inputs: NDArray[Any], record: Collection[Record]) -> Trace:
        return self.real.run(program, inputs, record)

    @staticmethod
    def _wrong(name: str, array: NDArray[Any]) -> NDArray[Any]:
        return np.where(array == ODD_ONE, 130, array).astype(array.dtype) if name.startswith("weight") else array


def faulty_lava(**_: Any) -> FaultyLava:
    return FaultyLava()


@pytest.mark.lava
@pytest.mark.slow
def test_a_fault_in_real_lava(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    require_lava()
    monkeypatch.setitem(registry.BUILT_IN, "lava", f"{__name__}:faulty_lava")  # type: ignore[arg-type]
    saved(tmp_path)
    arguments = [str(tmp_path / "net.nir"), "--inputs", str(tmp_path / "inputs.npz"), "-o", str(tmp_path / "out")]
    code = cli.main(["bisect", *arguments, "--format", "json"])
    found: Mapping[str, Any] = json.loads(capsys.readouterr().out)
    assert code == 1
    assert (found["after"]["layers"], found["after"]["neurons"], found["after"]["steps"]) == (1, 1, 1)
    assert found["minimal"]
    assert found["runs"] <= 40
    mended = python(tmp_path / "out" / "reproduce.py", site=None, cwd=tmp_path)
    assert mended.returncode == 0, "Lava itself does not have the fault: " + mended.stdout + mended.stderr


@pytest.mark.lava
@pytest.mark.slow
def test_real_lava_agrees(tmp_path: Path) -> None:
    require_lava()
    deployment = with_real_parameters(deployment_from(conv_plan(np.random.default_rng(3))))
    found = bisect(deployment, random_inputs(np.random.default_rng(0), deployment, 3), output=tmp_path / "out")
    assert not found.diverged
    assert found.folder is None
    assert not (tmp_path / "out").exists()


def test_the_library_function_gives_the_case_and_writes_the_folder(room: Room) -> None:
    deployment, inputs = with_the_odd_one(dense_plan(np.random.default_rng(3)), "lif3", np.random.default_rng(5))
    found = bisect(deployment, inputs, target="faulty_weight", output=room.folder / "out")
    assert found.diverged
    assert found.case is not None
    assert found.folder == room.folder / "out"
    assert nir_io.read(found.folder / "network.nir").fingerprint == found.case.deployment.fingerprint
    with np.load(found.folder / "inputs.npz") as arrays:
        np.testing.assert_array_equal(arrays["inputs"], found.case.inputs)
