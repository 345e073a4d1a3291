"""An isolated environment sees what it was given, the version it has itself first, and nothing else of ours."""

from __future__ import annotations

import importlib.metadata as metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from snn_export.hardware_sims import environments, shared_packages
from snn_export.hardware_sims.environments import Environment


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a distribution of one package in a folder that stands for our site-packages."""
    folder = tmp_path / "ours"
    folder.mkdir()

    monkeypatch.setattr(shared_packages, "distributions", lambda name: metadata.distributions(name=name, path=[str(folder)]))

    def make(name: str, version: str, *requires: str) -> None:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"version = {version!r}")
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        lines = [f"Requires-Dist: {item}" for item in requires]
        (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, ""]))
        (info / "RECORD").write_text(f"{name}/__init__.py,,\n{info.name}/METADATA,,\n../../bin/{name},,\n")

    return make


def test_what_is_required_comes_along_and_what_is_there_stays(ours: Callable[..., None], tmp_path: Path) -> None:
    ours("big", "2.0", "part>=1", "other ; extra == 'more'", "absent; platform_system == 'Nowhere'")
    ours("part", "1.5", "deep")
    ours("deep", "3.0", "big")
    ours("other", "1.0")
    theirs = tmp_path / "theirs"
    (theirs / "deep").mkdir(parents=True)
    (theirs / "deep" / "__init__.py").write_text("version = 'theirs'")
    assert shared_packages.link(["big"], theirs) == ["big 2.0", "part 1.5"]
    script = "import sys; sys.path[:0] = [sys.argv[1]]; import big, part, deep; print(big.version, part.version, deep.version)"
    done = subprocess.run([sys.executable, "-I", "-c", script, str(theirs)], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["2.0", "1.5", "theirs"]
    assert sorted(path.name for path in theirs.iterdir()) == ["big", "big-2.0.dist-info", "deep", "part", "part-1.5.dist-info"]


def test_another_torch_makes_another_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = environments.environment("sinabs")
    before = recipe.key
    monkeypatch.setattr(shared_packages, "identity", lambda names: [f"{name} 99" for name in names])
    assert recipe.key != before
    lava = environments.environment("lava")
    assert isinstance(lava, Environment) and lava.shares == ()
