"""What a changed setting leaves of the work that was done before it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from snn_export.pipeline.workspace import MOST_SET_ASIDE, Workspace
from tests.conftest import snn_export

SMALL = ("--set=model.student_width=4", "--set=model.teacher_width=4", "--set=model.steps=2", "--set=training.teacher_epochs=1")


def begin(workspace: Workspace, key: str, *, checkpoint: bool = True) -> Path:
    folder = workspace.partial("student", key)
    if checkpoint:
        (folder / "training.safetensors").write_text(key, encoding="utf-8")
    return folder


def finish(workspace: Workspace, key: str, *, keep: bool) -> None:
    folder = workspace.partial("student", key)
    (folder / "student.safetensors").write_text(key, encoding="utf-8")
    workspace.commit("student", key, "done", 1.0, reusable=True, keep=keep)


def names(workspace: Workspace) -> set[str]:
    return {path.name for path in workspace.root.iterdir()}


def test_an_interrupted_training_waits_until_its_settings_come_back(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    begin(workspace, "a" * 64)
    begin(workspace, "b" * 64)
    assert names(workspace) == {"student.partial", "student.partial.aaaaaaaaaaaa"}
    folder = workspace.partial("student", "a" * 64)
    assert (folder / "training.safetensors").read_text(encoding="utf-8") == "a" * 64
    assert names(workspace) == {"student.partial", "student.partial.bbbbbbbbbbbb"}
    finish(workspace, "a" * 64, keep=True)
    assert names(workspace) == {"student", "student.partial.bbbbbbbbbbbb"}


def test_the_same_beginning_of_a_key_is_not_the_same_key(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    begin(workspace, "a" * 64)
    begin(workspace, "b" * 64)
    folder = workspace.partial("student", "a" * 12 + "c" * 52)
    assert [path.name for path in folder.iterdir()] == ["key"]


def test_what_holds_no_training_is_cleared_and_only_the_newest_wait(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    begin(workspace, "0" * 64, checkpoint=False)
    for number in range(1, MOST_SET_ASIDE + 3):
        begin(workspace, str(number) * 64)
        os.utime(workspace.root / "student.partial", (number, number))
    waiting = {f"student.partial.{str(number) * 12}" for number in range(2, MOST_SET_ASIDE + 2)}
    assert names(workspace) == {"student.partial", *waiting}


def test_what_is_replaced_is_kept_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for key in ("a" * 64, "b" * 64, "c" * 64):
        finish(workspace, key, keep=workspace.replaces("student", key))
    assert names(workspace) == {"student", "student.previous"}
    kept = workspace.folder("student.previous")
    assert (kept / "student.safetensors").read_text(encoding="utf-8") == "b" * 64
    assert json.loads((kept / "step.json").read_text(encoding="utf-8"))["key"] == "b" * 64
    assert not workspace.replaces("student", "c" * 64)
    finish(workspace, "c" * 64, keep=workspace.replaces("student", "c" * 64))
    assert (kept / "student.safetensors").read_text(encoding="utf-8") == "b" * 64


def test_another_recipe_in_between_costs_neither_the_epochs_nor_the_student_of_the_first(tmp_path: Path) -> None:
    long = ("train", "--recipe", "no_teacher", "--set=training.student_epochs=60", *SMALL, "-o", "out")
    short = ("train", "--recipe", "plain_kd", "--set=training.student_epochs=1", *SMALL, "-o", "out")
    with subprocess.Popen([sys.executable, "-m", "snn_export", *long], cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "out" / "student.partial" / "training.safetensors").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    between = snn_export(*short, cwd=tmp_path)
    assert between.returncode == 0, between.stderr
    taught = (tmp_path / "out" / "student" / "student.safetensors").read_bytes()
    again = snn_export(*long, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "continuing after epoch" in again.stderr
    assert "kept in student.previous" in again.stderr.replace("\n", " ")
    assert (tmp_path / "out" / "student.previous" / "student.safetensors").read_bytes() == taught
