"""Backends are found by name; a misspelt one gets a suggestion, a broken plug-in is an error and not a gap."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from snn_export.hardware_sims import registry
from snn_export.hardware_sims.simulator import BackendError, Simulator
from snn_export.models.diagnostics import EXIT_BACKEND, UserError


def plug_in(monkeypatch: pytest.MonkeyPatch, folder: Path, source: str, name: str = "third", attribute: str = "Third") -> None:
    """Register a module with this source under an entry point."""
    module = f"plugin_{folder.name}"
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    point = EntryPoint(name, f"{module}:{attribute}", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == registry.GROUP else [])


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_built_in_backends_fulfil_the_protocol(name: str) -> None:
    backend = registry.simulator(name)
    assert isinstance(backend, Simulator)
    assert backend.name == name
    assert backend.capabilities().description
    assert isinstance(backend.availability().ok, bool)


@pytest.mark.parametrize(("name", "close"), [("lohi", "loihi"), ("referense", "reference"), ("Lava", "lava")])
def test_misspelt_name_gets_a_suggestion(name: str, close: str) -> None:
    with pytest.raises(UserError) as caught:
        registry.simulator(name)
    assert caught.value.code == "SNX401"
    assert f"did you mean '{close}'" in caught.value.diagnostics[0].fix


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserError) as caught:
        registry.simulator("zzz")
    assert "did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in registry.BUILT_IN)


def test_plug_in_is_found_and_made_with_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path, "class Third:\n    def __init__(self, size=0):\n        self.size = size\n")
    assert registry.simulator("third", size=3).size == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "source",
    [
        "import package_that_does_not_exist", "raise RuntimeError('no licence')", "raise OSError('libcuda.so not found')",
        "this is no python", "value = 1 / 0", "x = 1  # the class is missing",
    ],
)  # fmt: skip
def test_plug_in_that_cannot_be_imported_is_a_backend_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str) -> None:
    plug_in(monkeypatch, tmp_path, source)
    assert "third" in registry.locations()
    with pytest.raises(BackendError) as caught:
        registry.simulator("third")
    assert caught.value.diagnostic.code == "SNX402"
    assert caught.value.diagnostic.exit_code == EXIT_BACKEND
    assert "third" in caught.value.diagnostic.what
    assert caught.value.__cause__ is not None


def test_plug_in_cannot_take_a_built_in_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path, "raise RuntimeError", name="loihi")
    assert registry.locations()["loihi"] == registry.BUILT_IN["loihi"]


def test_listing_backends_imports_none_of_them() -> None:
    code = (
        "import sys; from snn_export.hardware_sims import registry; registry.locations();"
        "print([m for m in sys.modules if m in ('torch', 'snntorch', 'numba') or m.endswith('.simulator') and 'loihi' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
