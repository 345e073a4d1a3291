from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import snntorch

from snn_export.hardware_sims import fixed_point, self_test
from snn_export.hardware_sims.lava.simulator import LavaSimulator
from snn_export.hardware_sims.netx.simulator import NetxSimulator
from snn_export.hardware_sims.norse import probe as norse_probe
from snn_export.hardware_sims.norse.simulator import NorseSimulator
from snn_export.hardware_sims.onnxruntime import probe as onnx_probe
from snn_export.hardware_sims.onnxruntime.simulator import OnnxRuntimeSimulator
from snn_export.hardware_sims.self_test import Probe, probes, worker_probe
from snn_export.hardware_sims.snntorch.simulator import SnnTorchSimulator
from snn_export.hardware_sims.torch_graph import Fired


def by_topic(simulator: object) -> dict[str, Probe]:
    return {probe.topic: probe for probe in probes(simulator)}


@pytest.mark.parametrize(("backend", "topics"), [(SnnTorchSimulator, 4), (NorseSimulator, 2), (OnnxRuntimeSimulator, 2)])
def test_the_installed_versions_are_as_the_code_takes_them(backend: type, topics: int) -> None:
    found = probes(backend())
    assert len({probe.topic for probe in found}) == topics
    assert [probe.seen for probe in found if not probe.as_expected] == []
    assert all(probe.meaning and not probe.fix for probe in found)


@pytest.mark.parametrize(
    ("neuron", "changes", "topics"),
    [
        ("Leaky", {"reset_delay": False}, {"late reset"}),
        ("Leaky", {"reset_delay": True}, {"reset in the step of the spike", "subtraction in the step of the spike"}),
        (
            "Synaptic", {"reset_mechanism": "none"},
            {"reset in the step of the spike", "late reset", "subtraction in the step of the spike"},
        ),
        ("RSynaptic", {"threshold": 1.5}, {"late reset", "RSynaptic"}),
    ],
)  # fmt: skip
def test_an_snntorch_that_resets_otherwise_is_seen(
    neuron: str, changes: dict[str, Any], topics: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = getattr(snntorch, neuron)
    monkeypatch.setattr(snntorch, neuron, lambda **settings: whole(**{**settings, **changes}))
    wrong = {topic: probe for topic, probe in by_topic(SnnTorchSimulator()).items() if not probe.as_expected}
    assert set(wrong) == topics
    assert all(neuron in probe.seen and "pip install snntorch" in probe.fix for probe in wrong.values())


def test_a_same_step_subtraction_that_is_mended_upstream_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mended(snntorch.Leaky):  # type: ignore[misc]
        """Compares what was integrated, and subtracts once."""

        def forward(self, x: Any, mem: Any) -> Any:
            mem = self.beta * mem + x
            return (mem > self.threshold).float(), mem - (mem > self.threshold) * self.threshold

    monkeypatch.setattr(snntorch, "Leaky", Mended)
    found = by_topic(SnnTorchSimulator())["subtraction in the step of the spike"]
    assert not found.as_expected
    assert 'Leaky(reset_mechanism="subtract", reset_delay=False): spikes differ' in found.seen


class Changed:
    """A cell of Norse that hears something else than it is told."""

    def __init__(self, cell: Any, change: Callable[[Any], Any]) -> None:
        self._cell, self._change = cell, change

    def begin(self, shape: Any) -> None:
        self._cell.begin(shape)

    def step(self, drive: Any) -> Fired:
        fired: Fired = self._cell.step(self._change(drive))
        return fired


def norse_whose(monkeypatch: pytest.MonkeyPatch, change: Callable[[nir.NIRNode, Any], Any]) -> dict[str, Probe]:
    whole = norse_probe.native_cell
    monkeypatch.setattr(
        norse_probe, "native_cell",
        lambda node, *rest: Changed(whole(node, *rest), lambda drive: change(node, drive)),
    )  # fmt: skip
    return by_topic(NorseSimulator())


def test_a_norse_that_reads_r_changes_nothing_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = norse_whose(monkeypatch, lambda node, x: x * float(node.r[0]) if isinstance(node, nir.LIF) else x)
    assert all(probe.as_expected for probe in found.values())
    assert found["r of a LIF"].seen.startswith("read")


def test_a_norse_that_makes_something_else_of_r_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = norse_whose(monkeypatch, lambda node, x: x / float(node.r[0]) if isinstance(node, nir.LIF) else x)
    assert (found["neurons"].as_expected, found["r of a LIF"].as_expected) == (True, False)
    assert "norse==" in found["r of a LIF"].fix


@pytest.mark.parametrize("kind", [nir.LIF, nir.IF, nir.CubaLIF])
def test_a_norse_neuron_that_hears_more_than_it_is_told_is_seen(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    found = norse_whose(monkeypatch, lambda node, x: x * 1.001 if isinstance(node, kind) else x)
    assert not found["neurons"].as_expected
    assert f"{kind.__name__} resetting by" in found["neurons"].seen


def test_a_norse_that_fires_at_its_threshold_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = norse_whose(monkeypatch, lambda _, x: x + 1e-6)  # only the comparison at the threshold can tell
    assert "fires at its threshold" in found["neurons"].seen


class Late:
    """onnxruntime whose spikes come one step late on integers or on floats."""

    def __init__(self, integers: bool) -> None:
        self._inner, self._integers = OnnxRuntimeSimulator(), integers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run(self, program: Any, inputs: Any, record: Any) -> Any:
        trace = self._inner.run(program, inputs, record)
        if program.deployment.quantised == self._integers:
            for layer in trace.layers.values():
                layer.spikes[:] = np.roll(layer.spikes, 1, axis=0)
        return trace


@pytest.mark.parametrize("integers", [True, False])
def test_an_onnxruntime_that_computes_otherwise_is_seen(integers: bool) -> None:
    found = {probe.topic: probe for probe in onnx_probe.findings(Late(integers))}
    assert (found["integers"].as_expected, found["floats"].as_expected) == (not integers, integers)
    wrong = found["integers" if integers else "floats"]
    assert "fire.exactly_at_threshold: mismatch" in wrong.seen
    assert "pip install onnxruntime" in wrong.fix


def test_every_check_that_onnxruntime_is_asked_exists() -> None:
    assert set(onnx_probe.INTEGERS) <= set(onnx_probe.CHECKS)


def test_a_backend_without_a_self_test_finds_nothing_and_a_broken_one_is_a_finding() -> None:
    class Raises:
        def self_test(self) -> list[Probe]:
            raise ModuleNotFoundError("no module named sdk")

    class Other:
        def self_test(self) -> list[Any]:
            return ["fine"]

    assert probes(object()) == ()
    for simulator, seen in ((Raises(), "no module named sdk"), (Other(), "something else than Probes")):
        (found,) = probes(simulator)
        assert not found.as_expected
        assert seen in found.seen and found.fix


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_what_a_worker_saw_is_judged_and_told_with_its_versions(tmp_path: Path) -> None:
    said = ['noise {', '{"u": 3}', '[1]', '{"b": "2", "a": "1"}']  # fmt: skip
    python = script(tmp_path, "\n".join(f"echo '{line}'" for line in said))

    def judge(seen: dict[str, Any]) -> tuple[bool, str]:
        return seen.get("u") == 3, f"saw {seen}"

    assert worker_probe("lava", "meaning", python, judge) == Probe("", True, "saw {'u': 3}; a 1, b 2", "meaning")
    assert worker_probe("lava", "", python).seen.startswith("its self-test passed; a 1")
    silent = worker_probe("lava", "", script(tmp_path, "echo '{}'"), judge)
    assert not silent.as_expected
    assert "install lava" in silent.fix


def test_a_worker_that_fails_or_hangs_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = worker_probe("netx", "meaning", script(tmp_path, "echo more >&2; echo 'Error: model' >&2; exit 3"))
    assert (found.as_expected, found.seen) == (False, "does not run: Error: model")
    assert found.fix == "snn-export backends install netx --force"
    monkeypatch.setattr(self_test, "TIME_LIMIT", 0.2)
    assert "no answer within 0.2" in worker_probe("netx", "meaning", script(tmp_path, "exec sleep 5")).seen
    (found,) = probes(LavaSimulator(python=script(tmp_path, "echo nothing that is JSON")))
    assert not found.as_expected


def ran(step: Callable[[float, float, int], tuple[float, float]], drives: tuple[int, ...] = (22, -22)) -> dict[str, Any]:
    """What a worker says of neurons that integrate by ``step``, as its line of JSON comes back."""
    found: dict[str, Any] = {"drives": list(drives), "du": 1365, "dv": 819, "threshold": 50, "models": ["PyLif"]}
    found |= {"spikes": [], "current": [], "membrane": []}
    u, v = [0.0] * len(drives), [0.0] * len(drives)
    for _ in range(12):
        u, v = map(list, zip(*(step(*now) for now in zip(u, v, drives, strict=True)), strict=True))
        fired = [one > 50 << 6 for one in v]
        v = [0.0 if spike else one for one, spike in zip(v, fired, strict=True)]
        for name, values in (("spikes", fired), ("current", u), ("membrane", v)):
            found[name].append([int(one) for one in values])
    return found


def on_the_chip(u: float, v: float, drive: int) -> tuple[float, float]:
    u = int(u * 2730 / 4096) + (drive << 6)
    return u, int(v * 3277 / 4096) + u


def in_floats(u: float, v: float, drive: int) -> tuple[float, float]:
    u = u * 2730 / 4096 + (drive << 6)
    return u, v * 3277 / 4096 + u


def test_a_float_model_is_told_from_the_fixed_point_one() -> None:
    right = ran(on_the_chip)
    assert any(map(any, right["spikes"]))
    assert fixed_point.judge(right) == (True, "spikes, u and v are those of the chip's arithmetic, PyLif")
    assert fixed_point.judge(ran(in_floats))[1].startswith("Lava does not compute in fixed point: membrane of step 2")
    for name in ("spikes", "current", "membrane"):
        wrong = ran(on_the_chip)
        wrong[name][-1][1] += 1
        assert fixed_point.judge(wrong)[1].startswith(f"Lava does not compute in fixed point: {name} of step 11")
    assert fixed_point.judge({**right, "spikes": []})[0] is False
    assert fixed_point.judge({})[1].startswith("its self-test does not tell current")


@pytest.mark.parametrize("backend", [LavaSimulator, NetxSimulator])
def test_the_installed_lava_runs_its_fixed_point_model(backend: type) -> None:
    simulator = backend()
    if not simulator.availability().ok:
        pytest.skip(f"the {simulator.name} environment is not installed")
    (found,) = probes(simulator)
    assert found.as_expected, found.seen
    assert "[bit_accurate_loihi, fixed_pt]" in found.seen and "lava-nc 0.10.0" in found.seen


def test_every_finding_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    for backend in (SnnTorchSimulator, NorseSimulator, OnnxRuntimeSimulator):
        for probe in probes(backend()):
            assert f"`{backend.name}: {probe.topic}`" in page
