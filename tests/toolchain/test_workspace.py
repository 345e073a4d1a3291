"""What a changed setting leaves of the work that was done before it."""

from __future__ import annotations

import json
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
    workspace.commit("student", key, "done", 1.0, reusable=True, keeps=keep)


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


def waiting(*keys: str) -> set[str]:
    return {"student.partial", *(f"student.partial.{key * 12}" for key in keys)}


def test_what_holds_no_training_is_cleared_and_those_set_aside_last_wait(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    begin(workspace, "0" * 64, checkpoint=False)
    for key in "abcd":
        begin(workspace, key * 64)
    assert MOST_SET_ASIDE == 3
    assert names(workspace) == waiting("a", "b", "c")
    workspace.partial("student", "a" * 64)  # come back to, and left again before its next epoch
    assert names(workspace) == waiting("b", "c", "d")
    begin(workspace, "e" * 64)
    assert names(workspace) == waiting("a", "c", "d")


def test_what_somebody_else_put_there_is_left_alone(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "out")
    precious = tmp_path / "precious"
    precious.mkdir()
    begin(workspace, "a" * 64)
    for name in ("student.partial.mine", "student.partial.", *(f"student.partial.copy{number}" for number in range(4))):
        (workspace.root / name).mkdir()
    (workspace.root / "student.partial.bak.tar.gz").write_bytes(b"")
    there = names(workspace)
    for key in ("/../../precious", "x/y", "A" * 64, "a" * 63):
        (workspace.root / "student.partial" / "key").write_text(key, encoding="utf-8")
        begin(workspace, "b" * 64)
    (workspace.root / "student.partial" / "key").write_bytes(b"\xff\xfe")
    for key in "cdef":
        begin(workspace, key * 64)
    assert there <= names(workspace)
    assert precious.is_dir()


def test_a_stop_between_two_renames_loses_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    student, old, previous = (tmp_path / name for name in ("student", "student.old", "student.previous"))
    finish(workspace, "a" * 64, keep=True)
    begin(workspace, "b" * 64)
    student.replace(old)  # a stop in commit, after its first rename
    finish(workspace, "b" * 64, keep=True)
    assert names(workspace) == {"student", "student.previous"}
    assert workspace.up_to_date("student.previous", "a" * 64)
    student.replace(old)  # a stop in take_back, after its first rename
    workspace.take_back("student")
    assert workspace.up_to_date("student", "a" * 64)
    assert workspace.up_to_date("student.previous", "b" * 64)
    student.replace(old)  # after its second one
    previous.replace(student)
    finish(workspace, "b" * 64, keep=True)
    assert workspace.up_to_date("student.previous", "a" * 64)


def test_a_result_without_a_record_is_kept_and_a_link_in_its_place_is_replaced(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    finish(workspace, "a" * 64, keep=True)
    (workspace.folder("student") / "step.json").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "student.previous").symlink_to(tmp_path / "elsewhere")
    assert workspace.replaces("student", "b" * 64)
    finish(workspace, "b" * 64, keep=True)
    assert (workspace.folder("student.previous") / "student.safetensors").read_text(encoding="utf-8") == "a" * 64
    assert list((tmp_path / "elsewhere").iterdir()) == []


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
    back = snn_export(*short, cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    assert "taken back from student.previous" in " ".join(back.stderr.split())
    assert "epoch" not in back.stderr
    assert (tmp_path / "out" / "student" / "student.safetensors").read_bytes() == taught
