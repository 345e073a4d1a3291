"""The example package: installed as its README says, it is a backend like any other; a broken one is told, not skipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "backend_package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it, made by pip from a copy: a build leaves files in the source folder."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    done = subprocess.run([*pip, str(target), str(source)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


def snn_export(site: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snn_export", *arguments]
    surroundings = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=cwd, env=surroundings)


def backends(site: Path, cwd: Path) -> dict[str, dict[str, object]]:
    done = snn_export(site, "backends", "list", "--format", "json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return {item["name"]: item for item in json.loads(done.stdout)}


def test_the_example_is_a_backend_like_any_other(installed: Path, tmp_path: Path) -> None:
    assert backends(installed, tmp_path)["tiny"]["state"] == "available"
    done = snn_export(installed, "conformance", "tiny", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["backends"]
    assert (found["backend"], found["passed"]) == ("tiny", True)


def test_its_own_test_is_all_it_takes(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "test_tiny_backend.py")]
    surroundings = {**os.environ, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path, env=surroundings)
    assert done.returncode == 0, done.stdout


def test_one_that_cannot_be_imported_is_listed_with_its_error_and_fails_what_requires_it(installed: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in installed.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            (broken / file.relative_to(installed)).parent.mkdir(parents=True, exist_ok=True)
            (broken / file.relative_to(installed)).write_bytes(file.read_bytes())
    (broken / "tiny_backend.py").write_text("raise RuntimeError('the driver is not here')", encoding="utf-8")
    listed = backends(broken, tmp_path)["tiny"]
    assert listed["state"] == "broken"
    assert "the driver is not here" in str(listed)
    done = snn_export(broken, "conformance", "tiny", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "the driver is not here" in done.stdout + done.stderr
