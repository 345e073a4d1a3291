"""The cost of a training step: all methods train one network, and the report holds what was measured. Tiny sizes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any

import pytest
import snntorch
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
THERE = ("rates", "bptt", "snntorch")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("training_cost")


@pytest.fixture
def methods(command: ModuleType) -> ModuleType:
    return sys.modules["training_cost_methods"]


def names(methods: ModuleType) -> list[str]:
    return [name for name, method in methods.METHODS.items() if method.installed]


def test_all_methods_give_the_same_logits(methods: ModuleType) -> None:
    found = methods.agreement(methods.Size(width=4, side=8, batch=2), 3)
    assert set(found["logits_apart"]) >= set(THERE)
    assert max(found["logits_apart"].values()) < 1e-12
    assert max(found["losses"].values()) - min(found["losses"].values()) < 1e-12
    assert all(0.02 < rate < 0.9 for rate in found["rates"].values())


def test_another_network_is_told_apart(
    command: ModuleType, methods: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(methods.PlainLoop, "_leaky", staticmethod(lambda: snntorch.Leaky(beta=0.6, reset_mechanism="zero")))
    found = methods.agreement(methods.Size(width=4, side=8, batch=2), 3)["logits_apart"]
    assert found["snntorch"] > 1e-5
    assert found["bptt"] < 1e-12
    monkeypatch.setattr(command, "measure", lambda size, steps, *settings: rows(command, steps, {"rates": 0.1}, {"rates": 400.0}))
    assert run(command, tmp_path, "8") == 1
    assert "not one network" in capsys.readouterr().err


def test_a_training_step_learns_in_every_method(methods: ModuleType) -> None:
    for name in names(methods):
        step = methods.training_step(name, methods.Size(width=4, side=8, batch=4), 2)
        losses = [step(), step()]
        assert all(0 < loss < 20 for loss in losses), name
        assert losses[0] != losses[1], name


def test_times_and_memory_are_measured(command: ModuleType, methods: ModuleType) -> None:
    size = methods.Size(width=4, side=8, batch=2)
    taken = command.times(size, 2, names(methods), repeats=1)
    assert set(taken) == set(names(methods))
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in taken.values())
    held = command.memory(size, 2, "rates")
    assert set(held) == {"base", "peak"}
    assert held["peak"] > 50
    assert command.reason_to_skip("snntorch", methods.Size(), 4096, limit=12.0).startswith("would need about")
    assert command.reason_to_skip("rates", methods.Size(), 32, limit=12.0) == ""


def test_a_process_of_its_own_answers(command: ModuleType, methods: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    size = methods.Size(width=4, side=8, batch=2)
    held = command.in_a_process(["memory", "2", "bptt"], size, threads=1)
    assert held["base"] is None or held["peak"] >= held["base"] > 0
    monkeypatch.setattr(command.subprocess, "run", lambda *given, **settings: CompletedProcess(given, -9, "", "killed"))
    assert command.in_a_process(["memory", "2", "bptt"], size, threads=1) is None
    lost = command.measure(size, 2, 1, 1, 12.0)
    assert {row["skipped"] for row in lost} <= {"failed", "not installed"}


@pytest.mark.slow
def test_peak_memory_hardly_grows_with_the_steps(command: ModuleType, methods: ModuleType) -> None:
    """Of whole processes, torch included, in the network of the published table at half its batch."""
    size = methods.Size(batch=16)
    peaks = {
        (name, steps): command.in_a_process(["memory", str(steps), name], size, threads=1)["peak"]
        for name in ("rates", "bptt")
        for steps in (4, 32)
    }
    assert peaks["rates", 32] / peaks["rates", 4] < 1.6 < peaks["bptt", 32] / peaks["bptt", 4]


def run(command: ModuleType, folder: Path, *steps: str) -> int:
    before = torch.get_num_threads()
    try:
        status: int = command.main(["--width", "4", "--side", "8", "--batch", "2", "--output", str(folder), "--steps", *steps])
    finally:
        torch.set_num_threads(before)
    return status


def rows(command: ModuleType, steps: int, seconds: dict[str, float], peak: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "method": name, "steps": steps, "skipped": "" if name in seconds else "not installed",
            "seconds": {"median": seconds[name], "minimum": seconds[name] / 2, "runs": 3} if name in seconds else None,
            "base": 300.0, "peak": peak.get(name),
        }
        for name in [*command.METHODS, command.LIMIT]
    ]  # fmt: skip


def test_the_report_says_ratios_and_what_was_left_out(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = {"rates": 500.0, "floats": 500.0, "bptt": 900.0, "snntorch": 1000.0}
    found = {
        8: rows(command, 8, {"convolutions": 0.09, "rates": 0.1, "floats": 0.15, "bptt": 0.3, "snntorch": 0.45}, peaks),
        32: rows(command, 32, {"rates": 0.3, "floats": 0.5, "bptt": 1.2, "snntorch": 2.4}, peaks),
        4: rows(command, 4, {"rates": 0.05, "floats": 0.08, "bptt": 0.1, "snntorch": 0.2}, {**peaks, "rates": 400.0}),
    }
    monkeypatch.setattr(command, "measure", lambda size, steps, *settings: found[steps])
    assert run(command, tmp_path, "32", "4", "8") == 0
    text = (tmp_path / "training-cost.md").read_text(encoding="utf-8")
    assert "| snnTorch's loop / rate-based, seconds at T = 8 | at least 4 | 4.50 |" in text
    assert "| the same, in float32 alone, as without matrix units | at least 4 | 3.00 |" in text
    assert "| the same, if nothing but a rate-based step's convolutions in float32 took time | | 5.00 |" in text
    assert "| snnTorch's loop / rate-based, seconds at T = 32 | at least 7 | 8.00 |" in text
    assert "| rate-based, peak memory at T = 32 / at T = 4 | at most 1.6 | 1.25 |" in text
    assert (
        "| 4 | 0.050 (0.025) | 0.080 (0.040) | 0.100 (0.050) | 0.200 (0.100) | not installed | not installed | 4.00 | 2.00 | 3 |"
        in text
    )
    assert str(tmp_path) not in text
    written = json.loads((tmp_path / "training-cost.json").read_text(encoding="utf-8"))
    assert [row["steps"] for row in written["rows"]] == [4] * 6 + [8] * 6 + [32] * 6
    assert (tmp_path / "training-cost.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"training-cost.{kind}" for kind in ("json", "md", "svg")]
