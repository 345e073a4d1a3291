"""The line on the digits with fine-tuning: what PyTorch trained, our simulator and real Lava agree on every test sample."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snn_export.commands.telling import ConsoleTeller
from snn_export.config import load_config
from snn_export.pipeline.files import REPORT_FILE
from snn_export.pipeline.steps import Context
from snn_export.pipeline.verification import verify
from snn_export.pipeline.workspace import Workspace
from tests.conftest import FinishedRun, heed_interrupts, snn_export
from tests.lava_environment import require_lava

FINE_TUNED = (
    "--set", "quantize.fine_tune_epochs=5", "--set", "quantize.fine_tune_learning_rate=0.005", "--set", "quantize.weight_bits=5",
)  # fmt: skip
"""Few bits, so that training has something to mend on every processor: from 8 bits no epoch may be better."""
FEW = ("--set", "verify.samples=24", "--set", "verify.backends.lava.required=false")
ALL_SAMPLES = ("--set", "verify.backends.lava.samples=0")


@pytest.fixture(scope="module")
def fine_tuned(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    root = finished_run.copy(tmp_path_factory.mktemp("fine"))
    return FinishedRun(root, root / "out", snn_export("run", *FINE_TUNED, *ALL_SAMPLES, cwd=root))


def comparison(run: FinishedRun, reference: str, target: str) -> Any:
    found: Any = run.report()["comparisons"]
    return next(c for c in found if (c["reference"], c["target"]) == (reference, target))


def assert_exact_everywhere(found: Any) -> None:
    assert found["verdict"] == "EXACT"
    assert found["samples"] == 360
    assert [layer["layer"] for layer in found["layers"]] == ["lif1", "lif2", "readout"]
    for layer in found["layers"]:
        assert layer["mismatched_spikes"] == layer["mismatched_membranes"] == layer["mismatched_currents"] == 0
        assert layer["positions"] == layer["membranes_compared"] == layer["currents_compared"] == 8 * 360 * layer["neurons"]
    assert sum(layer["reference_spikes"] for layer in found["layers"]) > 10_000


def test_what_was_trained_is_what_the_simulator_runs(fine_tuned: FinishedRun) -> None:
    assert fine_tuned.completed.returncode == 0, fine_tuned.completed.stdout + fine_tuned.completed.stderr
    assert_exact_everywhere(comparison(fine_tuned, "loihi", "quantised_student"))


@pytest.mark.lava
def test_and_what_real_lava_runs(fine_tuned: FinishedRun) -> None:
    require_lava()
    assert_exact_everywhere(comparison(fine_tuned, "loihi", "lava"))


def test_five_bits_cost_a_few_samples(fine_tuned: FinishedRun) -> None:
    ladder: Any = fine_tuned.report()["ladder"]
    correct = {rung["name"]: rung["correct"] for rung in ladder}
    assert correct["loihi"] == correct["quantised_student"] >= correct["student"] - 4


def test_the_report_says_how_it_was_trained(fine_tuned: FinishedRun) -> None:
    training: Any = fine_tuned.report()["training"]
    assert [(part["model"], part["epochs"]) for part in training][-1] == ("quantised student", 5)
    words = re.search(r"fine-tuned: ([\d.]+) to ([\d.]+) %", fine_tuned.completed.stderr)
    assert words
    assert float(words[2]) > float(words[1])


def test_weights_really_moved(fine_tuned: FinishedRun) -> None:
    """Otherwise the comparison would show nothing about training."""
    from snn_export import load

    after, before = (load(fine_tuned.folder / "quantize" / name) for name in ("net.nir", "searched.nir"))
    assert after.fingerprint != before.fingerprint
    assert after.contract.lineage.passes == (*before.contract.lineage.passes, "fine_tune")


def test_file_beside_its_forms_is_verified_with_them(fine_tuned: FinishedRun) -> None:
    done = snn_export("verify", "out/quantize/net.nir", *FEW, "--format", "json", cwd=fine_tuned.root)
    assert done.returncode == 0, done.stdout + done.stderr
    found = next(c for c in json.loads(done.stdout)["comparisons"] if c["target"] == "quantised_student")
    assert (found["verdict"], found["samples"]) == ("EXACT", 24)


def test_another_start_beside_the_student_is_noticed(fine_tuned: FinishedRun, tmp_path: Path) -> None:
    root = fine_tuned.copy(tmp_path)
    for suffix in (".nir", ".contract.json"):
        stranger = root / "out" / "quantize" / f"net{suffix}"
        stranger.with_name(f"searched{suffix}").write_bytes(stranger.read_bytes())
    done = snn_export("verify", "out/quantize/net.nir", "--set", "verify.samples=8", cwd=root)
    assert done.returncode == 2
    assert "SNX119" in done.stderr


def test_interrupted_fine_tuning_goes_on(finished_run: FinishedRun, fine_tuned: FinishedRun, tmp_path: Path) -> None:
    """Ctrl-C ends with 130; the next run takes the search over and starts after the last finished epoch."""
    root = finished_run.copy(tmp_path)
    arguments = ["run", "--until", "quantize", *FINE_TUNED]
    running = subprocess.Popen(
        [sys.executable, "-m", "snn_export", *arguments],
        cwd=root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    assert running.stderr is not None
    for line in running.stderr:
        if "fine-tuning: epoch 2/5" in line:
            running.send_signal(signal.SIGINT)
            break
    _, rest = running.communicate(timeout=120)
    assert running.returncode == 130, rest
    assert (root / "out" / "quantize.partial" / "searched.nir").is_file()
    again = snn_export(*arguments, cwd=root)
    assert again.returncode == 0, again.stderr
    assert "continuing after epoch 2" in again.stderr
    assert "epoch 2/5" not in again.stderr
    from snn_export import load

    one, other = (load(folder / "quantize" / "net.nir") for folder in (root / "out", fine_tuned.folder))
    assert one.fingerprint == other.fingerprint


def test_file_is_fine_tuned_by_the_command(finished_run: FinishedRun, tmp_path: Path) -> None:
    root = finished_run.copy(tmp_path)
    arguments = ("quantize", "out/export/float.nir", "-o", "tuned.nir", "--fine-tune", "1", "--format", "json")
    done = snn_export(*arguments, cwd=root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"] == "tuned.nir"
    from snn_export import load

    lineage = load(root / "tuned.nir").contract.lineage
    assert lineage.passes[-1] == "fine_tune"
    assert not list(root.glob(".tuned*"))
    files = {role: lineage.files[role].path for role in ("searched", "quantised_student")}
    assert files == {"searched": "tuned.searched.nir", "quantised_student": "tuned.quantised_student.safetensors"}
    done = snn_export("verify", "tuned.nir", *FEW, "--format", "json", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    found = next(c for c in json.loads(done.stdout)["comparisons"] if c["target"] == "quantised_student")
    assert (found["verdict"], found["samples"]) == ("EXACT", 24)


@pytest.mark.parametrize("gone", ["quantised_student.safetensors", "searched.nir"])
def test_a_student_that_is_gone_is_listed_as_not_compared(fine_tuned: FinishedRun, gone: str, tmp_path: Path) -> None:
    """By the command on a file, and by the step of a run (which a whole run would precede with making the files again)."""
    root = fine_tuned.copy(tmp_path)
    (root / "out" / "quantize" / gone).unlink()
    done = snn_export("verify", "out/quantize/net.nir", *FEW, "--format", "json", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    few = {"verify.samples": "24", "verify.backends.lava.samples": "8", "verify.backends.lava.required": "false"}
    config = load_config(root / "snn-export.toml", few).config
    with ConsoleTeller() as teller:
        verify(Context(config, Workspace(root / "out"), tmp_path, teller, root))
    for report in (json.loads(done.stdout), json.loads((tmp_path / REPORT_FILE).read_text(encoding="utf-8"))):
        assert not any(c["target"] == "quantised_student" for c in report["comparisons"])
        found = {item["what"]: (item["status"], item["why"]) for item in report["coverage"]}
        assert found["the quantised_student form of the network"] == ("NOT_COMPARED", f"{gone} is not there")
