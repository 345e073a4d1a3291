"""The table of round trips: our own path loses nothing, snnTorch's loses every reset but one, and what raises is said."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmark_modules import benchmark

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def command() -> ModuleType:
    return benchmark("snntorch_round_trip")


@pytest.mark.parametrize(("reset", "kept"), [("zero", True), ("subtract", False), ("none", False)])
def test_the_reset_survives_our_path_alone(command: ModuleType, reset: str, kept: bool) -> None:
    found = command.row("Leaky", reset, False, 1)
    assert found.spikes > 1000
    assert (found.ours_against_module, found.ours_against_reference) == (0, 0)
    assert (found.theirs_against_module == 0) == kept


def test_what_raises_is_named(command: ModuleType) -> None:
    found = command.row("RSynaptic", "zero", False, 1)
    assert (found.ours_against_module, found.theirs) == (0, None)
    text = command.report([found, found], "command")
    assert text.count("| raises | (1) |") == 2
    assert "(1) `export_to_nir: ValueError" in text
    assert "(2)" not in text


def test_a_mismatch_of_our_own_fails(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = command.Row("Leaky", "zero", False, 10, 0, 1, 1, 9, 1, "")
    monkeypatch.setattr(command, "row", lambda *_: wrong)
    output = tmp_path / "docs" / "table.md"
    assert command.main(["--output", str(output)]) == 1
    assert "24 samples hold a spike that float32 flipped" in output.read_text()
    assert len(json.loads(output.with_suffix(".json").read_text())["rows"]) == 24
    assert "24 mismatches by our own path" in capsys.readouterr().err
