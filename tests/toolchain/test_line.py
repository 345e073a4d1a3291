"""The whole line as a user runs it: the real command, real training, real Lava where it is installed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import FinishedRun, heed_interrupts, snn_export
from tests.lava_environment import require_lava

NO_LAVA = ("--set", "verify.backends.lava.required=false")


def test_run_passes_and_says_where_the_report_is(finished_run: FinishedRun) -> None:
    done = finished_run.completed
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("PASS")
    page = re.search(r"^report: (.*report\.html)$", done.stdout, re.MULTILINE)
    assert page is not None
    assert (finished_run.root / page[1]).is_file()
    assert "Traceback" not in done.stderr


def test_ladder_is_whole(finished_run: FinishedRun) -> None:
    ladder: Any = finished_run.report()["ladder"]
    names = [rung["name"] for rung in ladder]
    assert names == ["teacher", "student", "folded", "quantised", "loihi", "lava"]
    by_name = {rung["name"]: rung for rung in ladder}
    assert by_name["folded"]["verdict"] in ("EXACT", "TIE")
    assert all(by_name[name]["samples"] == 360 for name in names[:5])
    assert by_name["student"]["accuracy"] > 90


@pytest.mark.lava
def test_integer_simulator_equals_real_lava(finished_run: FinishedRun) -> None:
    require_lava()
    comparisons: Any = finished_run.report()["comparisons"]
    found = next(c for c in comparisons if (c["reference"], c["target"]) == ("loihi", "lava"))
    assert found["verdict"] == "EXACT"
    assert found["samples"] >= 64
    assert [layer["layer"] for layer in found["layers"]] == ["lif1", "lif2", "readout"]
    for layer in found["layers"]:
        assert layer["mismatched_spikes"] == layer["mismatched_membranes"] == layer["mismatched_currents"] == 0
        assert (
            layer["positions"]
            == layer["membranes_compared"]
            == layer["currents_compared"]
            == 8 * found["samples"] * layer["neurons"]
        )
    assert sum(layer["reference_spikes"] for layer in found["layers"]) > 1000, "nothing was exercised"


def test_second_run_does_no_work(finished_run: FinishedRun, tmp_path: Path) -> None:
    root = finished_run.copy(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (root / "out").rglob("*") if path.is_file()}
    again = snn_export("run", cwd=root)
    assert again.returncode == 0, again.stderr
    assert "nothing to do: every step is up to date" in again.stderr
    after = {path: path.stat().st_mtime_ns for path in (root / "out").rglob("*") if path.is_file()}
    assert before == after


def test_only_what_changed_runs_again(finished_run: FinishedRun, tmp_path: Path) -> None:
    root = finished_run.copy(tmp_path)
    plan = snn_export("run", "--dry-run", "--set", "quantize.weight_bits=6", cwd=root).stdout
    states = {line.split()[0]: line.split()[1] for line in plan.splitlines()}
    assert states == {"teacher": "up", "student": "up", "export": "up", "quantize": "run", "verify": "run", "report": "run"}


def test_changed_output_is_noticed(finished_run: FinishedRun, tmp_path: Path) -> None:
    root = finished_run.copy(tmp_path)
    with (root / "out" / "quantize" / "net.nir").open("ab") as stream:
        stream.write(b"x")
    plan = snn_export("run", "--dry-run", cwd=root).stdout
    assert re.search(r"quantize +run +its files were changed", plan)


def test_same_inputs_same_bytes_and_no_paths(finished_run: FinishedRun, tmp_path: Path) -> None:
    first = (finished_run.folder / "report" / "report.json").read_bytes()
    page = (finished_run.folder / "report" / "report.html").read_bytes()
    root = finished_run.copy(tmp_path)
    again = snn_export("run", "--from", "quantize", cwd=root)
    assert again.returncode == 0, again.stderr
    assert (root / "out" / "report" / "report.json").read_bytes() == first
    assert (root / "out" / "report" / "report.html").read_bytes() == page
    for text in (first, page):
        assert str(finished_run.root).encode() not in text
        assert b"/tmp/" not in text
        assert b"/home/" not in text


def test_interrupted_training_goes_on(tmp_path: Path) -> None:
    """Ctrl-C in the student's training ends with 130; the next run starts after the last finished epoch."""
    arguments = [sys.executable, "-m", "snn_export", "run", "--until", "student"]
    arguments += ["--set", "training.teacher_epochs=1", "--set", "training.student_epochs=6"]
    running = subprocess.Popen(
        arguments,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=heed_interrupts,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if "student: epoch 2/6" in line:
            running.send_signal(signal.SIGINT)
            break
    _, rest = running.communicate(timeout=60)
    assert running.returncode == 130, rest
    assert "Traceback" not in rest
    again = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert "teacher   up to date" in again.stderr
    assert "student: epoch 1/6" not in again.stderr
    assert "student: epoch 6/6" in again.stderr


def own_arrays(path: Path, **changes: Any) -> None:
    """A user's own data: 12x12 two-channel images in three classes, told apart by where they are bright."""
    rng = np.random.default_rng(5)
    arrays: dict[str, Any] = {}
    for part, count in (("train", 150), ("test", 30)):
        y = np.arange(count) % 3
        x = rng.normal(0.0, 0.2, (count, 2, 12, 12)).astype(np.float32)
        for row, label in enumerate(y):
            x[row, :, 4 * label : 4 * label + 4] += 1.0
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x, y
    np.savez(path, **{**arrays, **changes})


def test_own_arrays_from_an_npz_file(tmp_path: Path) -> None:
    """Signed float inputs, another shape, another number of classes; the path is relative to the config file."""
    own_arrays(tmp_path / "mine.npz")
    assert snn_export("init", "--data", "npz:mine.npz", cwd=tmp_path).returncode == 0
    quick = ("--set", "training.teacher_epochs=2", "--set", "training.student_epochs=4", "--set", "model.student_width=4")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = snn_export(
        "run", "--config", tmp_path / "snn-export.toml", *quick, *NO_LAVA, cwd=elsewhere, SNN_EXPORT_ENVS=str(tmp_path / "no")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "snn-export-out" / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["samples"] == 30
    assert report["ladder"][1]["accuracy"] > 80
    skipped = [item for item in report["coverage"] if item["status"] == "SKIPPED" and "lava" in item["what"]]
    assert skipped, "an absent optional backend must stand in the coverage"
    gate = next(gate for gate in report["gates"] if gate["name"] == "lava equals loihi bit for bit")
    assert gate["skipped"], "a check that was not made must not read as passed"


def test_zero_test_samples_exit_5(tmp_path: Path) -> None:
    own_arrays(tmp_path / "mine.npz", x_test=np.zeros((0, 2, 12, 12), np.float32), y_test=np.zeros(0, np.int64))
    done = snn_export("run", "--set", "data.source=npz:mine.npz", cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    assert "SNX501" in done.stderr


def test_required_lava_is_absent(finished_run: FinishedRun, tmp_path: Path) -> None:
    """Exit 4 with the command that mends it; an optional one is skipped and listed."""
    root = finished_run.copy(tmp_path)
    nowhere, few = {"SNN_EXPORT_ENVS": str(tmp_path / "none")}, ("--set", "verify.samples=24")
    done = snn_export("verify", *few, "--set", "verify.backends.lava.required=true", cwd=root, **nowhere)
    assert done.returncode == 4, done.stderr
    assert "snn-export backends install lava" in re.sub(r"\s+", " ", done.stdout)
    done = snn_export("verify", *few, *NO_LAVA, cwd=root, **nowhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" in done.stdout


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x89HDF\r\n\x1a\n" + bytes(100)], ids=["empty", "text", "damaged"])
def test_corrupt_network_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.nir").write_bytes(content)
    done = snn_export("verify", "bad.nir", cwd=tmp_path)
    assert done.returncode == 2
    assert "SNX101" in done.stderr
    assert "Traceback" not in done.stderr


def test_truncated_network_file(finished_run: FinishedRun, tmp_path: Path) -> None:
    whole = (finished_run.folder / "quantize" / "net.nir").read_bytes()
    (tmp_path / "cut.nir").write_bytes(whole[: len(whole) // 2])
    done = snn_export("verify", "cut.nir", cwd=tmp_path)
    assert done.returncode == 2
    assert "SNX101" in done.stderr


def test_network_whose_student_is_another_file(finished_run: FinishedRun, tmp_path: Path) -> None:
    root = finished_run.copy(tmp_path)
    with (root / "out" / "student" / "student.safetensors").open("ab") as stream:
        stream.write(b" ")
    done = snn_export("verify", "out/quantize/net.nir", *NO_LAVA, cwd=root)
    assert done.returncode == 2
    assert "SNX119" in done.stderr


def test_network_without_its_earlier_forms(finished_run: FinishedRun, tmp_path: Path) -> None:
    """Verified as far as it goes; what is not there stands in the coverage as NOT_COMPARED."""
    (tmp_path / "net.nir").write_bytes((finished_run.folder / "quantize" / "net.nir").read_bytes())
    done = snn_export("verify", "net.nir", "--format", "json", *NO_LAVA, cwd=tmp_path, SNN_EXPORT_ENVS=str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [item["status"] for item in report["coverage"]].count("NOT_COMPARED") == 2
    assert [rung["name"] for rung in report["ladder"]] == ["quantised", "loihi", "lava"]


def test_export_quantize_and_energy_commands(finished_run: FinishedRun, tmp_path: Path) -> None:
    root = finished_run.copy(tmp_path / "run")
    done = snn_export("export", "--float", "shared/float.nir", cwd=root)
    assert done.returncode == 0, done.stderr
    assert (root / "shared" / "float.contract.json").is_file()
    done = snn_export("quantize", "shared/float.nir", "-o", "shared/small.nir", "--set", "quantize.weight_bits=4", cwd=root)
    assert done.returncode == 0, done.stderr
    done = snn_export("verify", "shared/small.nir", "--format", "json", *NO_LAVA, "--set", "gates.spike_mismatch=100",
                      "--set", "gates.accuracy_drop=100", cwd=root, SNN_EXPORT_ENVS=str(tmp_path / "none"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [rung["name"] for rung in report["ladder"]] == ["student", "folded", "quantised", "loihi", "lava"]
    assert max(layer["weight_max"] for layer in report["quantisation"]) <= 224, "4-bit weights end at 224"
    done = snn_export("energy", "--format", "json", cwd=root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == finished_run.report()["energy"]


def test_unknown_key_and_unknown_step(tmp_path: Path) -> None:
    (tmp_path / "snn-export.toml").write_text("[model]\nsteps = 4\nstpes = 8\n", encoding="utf-8")
    done = snn_export("run", cwd=tmp_path)
    assert done.returncode == 2
    assert "snn-export.toml:3" in done.stderr
    assert "steps" in done.stderr
    (tmp_path / "snn-export.toml").unlink()
    done = snn_export("run", "--until", "quantise", cwd=tmp_path)
    assert done.returncode == 2
    assert "quantize" in done.stderr


def test_two_runs_in_one_folder(finished_run: FinishedRun, tmp_path: Path) -> None:
    import fcntl

    root = finished_run.copy(tmp_path)
    with (root / "out" / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = snn_export("run", cwd=root)
    assert done.returncode == 2
    assert "SNX008" in done.stderr


@pytest.mark.lava
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_broken_lava_worker_is_an_error(signal_number: int, finished_run: FinishedRun, tmp_path: Path) -> None:
    """A worker that dies or hangs ends as ERROR with its log, within the time limit, exit 4, and leaves no process."""
    require_lava()
    root = finished_run.copy(tmp_path)
    limit = 12
    arguments = [sys.executable, "-m", "snn_export", "verify", "--set", f"verify.backends.lava.time_limit={limit}"]
    arguments += ["--set", "verify.backends.lava.samples=0", "--set", "verify.backends.lava.required=true"]
    running = subprocess.Popen(
        arguments,
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), **_same_environments()},
    )
    worker = _wait_for_worker(running.pid)
    os.kill(worker, signal_number)
    started = time.monotonic()
    output, errors = running.communicate(timeout=limit + 60)
    assert time.monotonic() - started < limit + 40
    assert running.returncode == 4, output + errors
    report = json.loads((root / "out" / "report" / "report.json").read_text(encoding="utf-8"))
    found = next(c for c in report["comparisons"] if c["target"] == "lava" and c["reference"] == "loihi")
    assert found["verdict"] == "ERROR"
    assert re.search(r"SNX42\d", found["message"])
    logs = list((tmp_path / "cache").rglob("*.log"))
    assert logs, "the worker's log was not kept"
    assert logs[0].name in re.sub(r"\s+", "", output + errors)
    assert not Path(f"/proc/{worker}").exists() or _is_zombie(worker)
    assert snn_export("run", "--dry-run", cwd=root).stdout.count("a backend failed the last time") == 1


def _same_environments() -> dict[str, str]:
    """The cache folder moves for the log's sake; the environments must not."""
    from snn_export.hardware_sims import environments

    return {"SNN_EXPORT_ENVS": str(environments.environments_folder())}


def _wait_for_worker(parent: int, timeout: float = 120) -> int:
    """Process id of the Lava worker below ``parent``, once it runs."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        listing = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines()[1:]:
            pid, above, command = line.split(maxsplit=2)
            if int(above) == parent and "worker_bootstrap" in command:
                time.sleep(1.0)  # into the run itself
                return int(pid)
        time.sleep(0.1)
    raise AssertionError("no Lava worker appeared")


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] == "Z"
