"""The long comparison with Lava: it goes on after a kill, and its report says what differs. Without Lava."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def command() -> ModuleType:
    found = importlib.util.spec_from_file_location("lava_parity", ROOT / "benchmarks" / "lava_parity.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def line(seed: int, number: int, code: str, wrong: int = 0) -> dict[str, Any]:
    return {
        "seed": seed, "chunk": number, "code": code, "size": "wide", "networks": 12, "samples": 3, "steps": 8, "pauses": 5,
        "neuron_steps": 1000, "spikes": 10, "overflows": 2, "mismatched": {"spikes": wrong, "membrane": 0, "current": 0},
        "places": [f"n1.1 from (0, 0, {number}) on"] * bool(wrong), "operations": {"Dense": 4, "loop": number},
        "loihi": {"networks": 6, "neuron_steps": 500, "mismatched": 0}, "lava_seconds": 1.0, "seconds": 2.0,
        "versions": {"lava-nc": "0.10.0", "numpy": "1", "scipy": "1", "python": "3.11"},
    }  # fmt: skip


def test_a_run_that_was_killed_goes_on_where_it_was(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[int] = []

    def chunk(seed: int, number: int) -> dict[str, Any]:
        ran.append(number)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return line(seed, number, command.code())

    monkeypatch.setattr(command, "chunk", chunk)
    arguments = ["--neuron-steps", "4000", "--seed", "7", "--output", str(tmp_path / "docs" / "report.md")]
    with pytest.raises(KeyboardInterrupt):
        command.main(arguments)
    stored = tmp_path / "docs" / "report.jsonl"
    assert len(stored.read_text().splitlines()) == 2 and not (tmp_path / "docs" / "report.md").exists()
    with stored.open("a") as file:  # of another seed, by older code, and a line that the kill cut off
        file.write(json.dumps(line(8, 0, command.code())) + "\n" + json.dumps(line(7, 0, "older")) + '\n{"seed": 7, "chu')
    assert command.main(arguments) == 0
    assert ran == [0, 1, 2, 2, 3]
    assert [item["chunk"] for item in command.read(stored, 7)] == [0, 1, 2, 3]
    text = (tmp_path / "docs" / "report.md").read_text()
    assert "| neuron-steps compared | 4,000 |" in text and "| mismatched spikes | 0 |" in text and "| loop | 6 |" in text
    assert "Where they differ" not in text and "--neuron-steps 4000 --seed 7" in text
    assert "2,000 of 4,000 neuron-steps" in capsys.readouterr().err


def test_a_mismatch_is_named_and_fails(command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "chunk", lambda seed, number: line(seed, number, command.code(), wrong=3))
    assert command.main(["--neuron-steps", "2000", "--output", str(tmp_path / "report.md")]) == 1
    text = (tmp_path / "report.md").read_text()
    assert "| mismatched spikes | 6 |" in text and "- chunk 1: n1.1 from (0, 0, 1) on" in text
