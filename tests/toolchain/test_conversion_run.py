"""Conversions and composed recipes by the command: what is told is what came out, and what cannot end well is told first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from snn_export.data.digits import load_digits
from snn_export.training.checkpoint import load_model
from snn_export.training.evaluate import accuracy
from snn_export.training.terms.registry import TERMS
from tests.conftest import snn_export

SMALL = [
    f"--set={setting}"
    for setting in (
        "training.teacher_epochs=1", "training.student_epochs=2", "model.student_width=4", "model.teacher_width=4",
        "model.steps=2",
    )
]  # fmt: skip


@pytest.mark.slow
def test_the_accuracy_of_a_converted_student_is_its_own_and_not_that_of_its_source(tmp_path: Path) -> None:
    done = snn_export("train", "--recipe", "max_norm", *SMALL, "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    student = load_model(tmp_path / "out" / "student" / "student.safetensors")
    right = 100 * accuracy(student, load_digits(0).validation)
    told = json.loads((tmp_path / "out" / "student" / "training.json").read_text(encoding="utf-8"))["validation_accuracy"]
    assert told == pytest.approx(right, abs=0.01)
    assert f"spiking at T = 2 {right:.1f} %" in done.stderr
    source = float(done.stderr.split("source ")[-1].split(" %")[0])
    assert source > right + 10, "at two steps a balanced network is far below its source"
    assert "max_norm" in done.stderr
    assert "2 epochs, batch" in done.stderr
    assert np.isfinite(right)


def test_a_run_that_no_chip_can_end_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    done = snn_export("run", "--set=training.recipe=qcfs", *SMALL, "-o", "out", cwd=tmp_path)
    assert (done.returncode, "SNX350" in done.stderr) == (3, True), done.stderr
    assert "calibration" in done.stderr
    assert not list((tmp_path / "out").glob("*/*.safetensors"))


def test_the_loss_terms_are_listed_and_the_line_that_is_shown_works(tmp_path: Path) -> None:
    done = snn_export("recipes", "composed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in TERMS)
    wrong = snn_export("train", "--recipe", "composed", "--set", "training.terms=cross_entropy", cwd=tmp_path)
    fix = wrong.stderr.split("fix:   ")[1].splitlines()[0]
    line = fix.split("--set '")[1].rstrip("'")
    shown = snn_export("config", "show", "--set", "training.recipe=composed", "--set", line, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "attention_transfer weight=0.5" in shown.stdout


def test_a_weight_below_zero_is_refused(tmp_path: Path) -> None:
    terms = 'training.terms=["cross_entropy", "knowledge_distillation weight=-1"]'
    done = snn_export("train", "--recipe", "composed", "--set", terms, cwd=tmp_path)
    assert (done.returncode, "SNX344" in done.stderr) == (2, True), done.stderr
    assert "not below 0" in done.stderr
