"""The action's scripts with inputs that nobody should give: none may make the job pass or write an output of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.test_action import Job

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="the action's steps are scripts of bash")
WRITES = 'case "$1" in report) exit 0;; esac\nmkdir -p "$OUTPUT/report"; echo new > "$OUTPUT/report/report.json"'


def job(tmp_path: Path, program: str = WRITES, **inputs: str) -> Job:
    """A job whose program is a script that says what it was called with."""
    folder = tmp_path / "repository"
    folder.mkdir()
    made = Job(folder, inputs)
    (made.files / "bin").mkdir()
    file = made.files / "bin" / "snn-export"
    file.write_text(f'#!/bin/bash\nprintf "called: %s\\n" "$*"\n{program}\n', encoding="utf-8")
    file.chmod(0o755)
    return made


@pytest.mark.parametrize("baseline", ["out/report/report.json", "./out/report/report.json", "out/../out/report/report.json"])
@pytest.mark.parametrize("there", [True, False])
def test_a_report_is_not_compared_with_itself(tmp_path: Path, baseline: str, there: bool) -> None:
    """The verification writes over a baseline that lies where its report goes: whatever got worse, nothing would change."""
    made = job(tmp_path, output="out", baseline=baseline)
    if there:
        (made.folder / "out" / "report").mkdir(parents=True)
        (made.folder / "out" / "report" / "report.json").write_text("old", encoding="utf-8")
    elif ".." in baseline:
        pytest.skip("a path through a folder that is not there names no file")
    made.run("Verify", "Compare with the baseline")
    assert made.code == 2
    assert "compared with itself" in made.annotations()[0][2]
    assert "called:" not in made.log


def test_a_passed_verification_without_a_report_has_no_baseline_to_pass(tmp_path: Path) -> None:
    made = job(tmp_path, "exit 0", output="out", baseline="base.json").run("Verify", "Compare with the baseline")
    assert made.code == 5
    assert "no report to compare" in made.annotations()[0][2]


def test_a_failed_verification_without_a_report_fails_by_itself(tmp_path: Path) -> None:
    made = job(tmp_path, "exit 2", output="out", baseline="base.json").run("Verify", "Compare with the baseline")
    assert made.code == 2
    assert "report diff" not in made.log


@pytest.mark.parametrize("name", ["output", "network"])
def test_an_input_of_two_lines_writes_no_output_of_its_own(tmp_path: Path, name: str) -> None:
    made = job(tmp_path, command="verify", **{"output": "out", name: "a\nexit-code=0\nreport=/etc/passwd"}).run("Verify")
    assert made.code == 2
    assert made.outputs["verify"] == {}
    assert "called:" not in made.log


@pytest.mark.parametrize(
    "text", ["$(touch pwned)", "`touch pwned`", "; touch pwned", "'a b' \"$HOME\" *", "--set x='$(touch pwned)'"]
)
def test_nothing_in_the_arguments_is_carried_out(tmp_path: Path, text: str) -> None:
    made = job(tmp_path, "true", output="out", arguments=text, network=text, config=text).run("Verify")
    assert not (made.folder / "pwned").exists()
    assert made.code == 0
