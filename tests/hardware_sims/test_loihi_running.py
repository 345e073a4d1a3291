"""How the simulator runs: threads, chunks, what it records, memory, and kernels that are compiled once."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit

from snn_export.export import interpreter
from snn_export.hardware_sims.loihi import engine, kernel_cache
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec, ReadoutSpec
from tests.builders import LayerPlan, Plan, deployment_from, even, random_inputs
from tests.networks import conv_deployment

ROOT = Path(__file__).parents[2]


def dense_chain(rng: np.random.Generator, steps: int, **options: Any) -> Any:
    layers = (
        LayerPlan("a", even(rng, (70, 90), 60), threshold=100, dv=500),
        LayerPlan("b", even(rng, (33, 70), 60), "a", threshold=100, dv=500, du=900),
        LayerPlan("c", even(rng, (5, 33), 60), "b", threshold=1000, dv=100),
    )
    return deployment_from(Plan((90,), layers, steps=steps, events=True, **options))


@pytest.mark.parametrize("dense_above", [0.0, 1.1])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32, np.float64, np.int16])
def test_by_event_and_as_a_product_is_the_same(dense_above: float, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "DENSE_ABOVE", dense_above)
    monkeypatch.setattr(engine, "DENSE_ROWS", 0)
    rng = np.random.default_rng(0)
    deployment = dense_chain(rng, 20)
    inputs = (rng.random((20, 3, 90)) < 0.2).astype(dtype)
    trace = LoihiSimulator().run(LoihiSimulator().compile(deployment), inputs, ("spikes", "membrane"))
    for name, activity in interpreter.run(deployment, inputs, "int64").items():
        assert activity.spikes.any()
        np.testing.assert_array_equal(trace.layers[name].spikes, activity.spikes)
        np.testing.assert_array_equal(trace.layers[name].membrane, activity.membrane)


@pytest.mark.parametrize("rule", ["membrane_last", "membrane_mean", "membrane_max", "spike_count"])
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 26])
def test_readout_rules_do_not_depend_on_chunks_or_threads(rule: Any, chunk_bytes: int) -> None:
    rng = np.random.default_rng(5)
    deployment = conv_deployment(rng, steps=6)
    deployment = deployment.replace(contract=deployment.contract.model_copy(update={"readout": ReadoutSpec("conv2", rule)}))
    inputs = random_inputs(rng, deployment, 5)
    activity = interpreter.run(deployment, inputs, "int64")["conv2"]
    expected = {
        "membrane_last": activity.membrane[-1], "membrane_mean": activity.membrane.mean(axis=0),
        "membrane_max": activity.membrane.max(axis=0), "spike_count": activity.spikes.sum(axis=0),
    }[rule]  # fmt: skip
    for threads in (1, 3):
        simulator = LoihiSimulator(chunk_bytes, threads=threads)
        trace = simulator.run(simulator.compile(deployment), inputs, ())
        np.testing.assert_array_equal(trace.readout, expected.reshape(5, -1))
        np.testing.assert_array_equal(trace.predictions, expected.reshape(5, -1).argmax(axis=1))


def test_only_named_layers_are_recorded() -> None:
    rng = np.random.default_rng(6)
    deployment = conv_deployment(rng, steps=5)
    inputs = random_inputs(rng, deployment, 4)
    whole = LoihiSimulator().run(LoihiSimulator().compile(deployment), inputs)
    simulator = LoihiSimulator(layers=("conv2",))
    trace = simulator.run(simulator.compile(deployment), inputs)
    assert list(trace.layers) == ["conv2"]
    np.testing.assert_array_equal(trace.layers["conv2"].spikes, whole.layers["conv2"].spikes)
    np.testing.assert_array_equal(trace.predictions, whole.predictions)
    with pytest.raises(UserError) as caught:
        LoihiSimulator(layers=("nowhere",)).run(simulator.compile(deployment), inputs)
    assert caught.value.code == "SNX326"


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_counts_every_sample_step_once(threads: int) -> None:
    rng = np.random.default_rng(7)
    deployment = conv_deployment(rng, steps=9)
    seen: list[tuple[int, int]] = []
    simulator = LoihiSimulator(1, threads=threads, progress=lambda done, total: seen.append((done, total)))
    simulator.run(simulator.compile(deployment), random_inputs(rng, deployment, 5), ())
    assert [done for done, _ in seen] == list(range(1, 46))
    assert {total for _, total in seen} == {45}


def test_an_error_in_one_thread_ends_the_run() -> None:
    rng = np.random.default_rng(8)
    deployment = dense_chain(rng, 6)
    inputs = np.zeros((6, 8, 90))
    inputs[3, 7, 0] = np.nan
    with pytest.raises(UserError) as caught:
        LoihiSimulator(1, threads=2).run(LoihiSimulator().compile(deployment), inputs)
    assert caught.value.code == "SNX004"


def test_options_that_cannot_be() -> None:
    for options, code in (({"threads": 0}, "SNX325"), ({"device": "nowhere"}, "SNX329")):
        with pytest.raises(UserError) as caught:
            LoihiSimulator(**options)
        assert caught.value.code == code


def test_loops_and_delays_are_refused_on_other_devices() -> None:
    layer = LayerPlan("a", np.full((3, 4), 2), before=2)
    with pytest.raises(UserError) as caught:
        LoihiSimulator(device="cpu:0").compile(deployment_from(Plan((4,), (layer,), events=True)))
    assert caught.value.code == "SNX331"


def test_input_that_the_host_turns_into_biases() -> None:
    rng = np.random.default_rng(9)
    layers = (
        LayerPlan("a", even(rng, (12, 6), 60), threshold=60, dv=700, bias_exponent=6),
        LayerPlan("b", even(rng, (4, 12), 60), "a", threshold=20, dv=100),
    )
    encoder = EncoderSpec("bias", gain=1.0, low=-8, high=8)
    deployment = deployment_from(Plan((6,), layers, steps=11, encoder=encoder))
    inputs = rng.uniform(-1, 1, (7, 6))
    expected = interpreter.run(deployment, inputs, "int64")
    for options in ({}, {"chunk_bytes": 1}, {"device": "cpu:0"}):
        simulator = LoihiSimulator(**options)  # type: ignore[arg-type]
        trace = simulator.run(simulator.compile(deployment), inputs, ("spikes", "membrane", "current"))
        for name, activity in expected.items():
            assert activity.spikes.any()
            np.testing.assert_array_equal(trace.layers[name].spikes, activity.spikes)
            np.testing.assert_array_equal(trace.layers[name].membrane, activity.membrane)
            np.testing.assert_array_equal(trace.layers[name].current, activity.current)


def test_rules_find_everything_at_once() -> None:
    rng = np.random.default_rng(1)
    layers = (
        LayerPlan("a", np.full((3, 4), 256), before=80),
        LayerPlan("b", np.full((2, 3), 2), "a", current_bias=np.array([3, 2])),
        LayerPlan("c", even(rng, (2, 2)), "b", dv=4095, threshold=10),
    )
    deployment = deployment_from(Plan((4,), layers))
    neurons = deployment.contract.neurons
    neurons = {**neurons, "b": replace(neurons["b"], reset_delay=1), "c": replace(neurons["c"], dv=4096)}
    broken = deployment.replace(contract=deployment.contract.model_copy(update={"neurons": neurons}))
    found = sorted((d.code, d.where) for d in LoihiSimulator().check(broken))
    assert found == [
        ("SNX203", "b"), ("SNX304", "a.weight"), ("SNX304", "b.weight"), ("SNX327", "a.weight"), ("SNX328", "c"),
    ]  # fmt: skip


def test_subtraction_is_for_loihi_2_only() -> None:
    deployment = deployment_from(Plan((4,), (LayerPlan("a", np.full((3, 4), 2), threshold=5),), events=True, steps=5))
    contract = deployment.contract
    neurons = {"a": replace(contract.neurons["a"], reset="subtract")}
    second = deployment.replace(contract=contract.model_copy(update={"neurons": neurons}))
    assert LoihiSimulator().check(second) == []
    grid = contract.quantisation.model_copy(update={"target": "loihi1"})
    first = second.replace(contract=second.contract.model_copy(update={"quantisation": grid}))
    assert [d.code for d in LoihiSimulator().check(first)] == ["SNX203"]


MEMORY = """
import sys
import numpy as np
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.hardware_sims.test_loihi_running import dense_chain
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
rng = np.random.default_rng(0)
def run(steps):
    deployment = dense_chain(rng, steps)
    inputs = np.broadcast_to(rng.random((1, 8, 90)) < 0.2, (steps, 8, 90))
    simulator = LoihiSimulator(1 << 20, threads=2, layers=("c",))
    return simulator.run(simulator.compile(deployment), inputs, ())
def peak():
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
run(2000); before = peak(); run(200_000); print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from Linux's /proc")
def test_memory_does_not_grow_with_the_steps() -> None:
    """100 times the steps: 144 MB of bytes more would pass through; what stays must be a few MiB at most."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY.format(root=str(ROOT))], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8 * 1024


CACHED = """
import sys, time
sys.path.insert(0, {root!r})
import numpy as np
from tests.hardware_sims.test_loihi_running import dense_chain
from snn_export.hardware_sims.loihi import kernels
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
deployment = dense_chain(np.random.default_rng(0), 4)
simulator = LoihiSimulator()
trace = simulator.run(simulator.compile(deployment), np.ones((4, 2, 90)))
stats = kernels.advance.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), int(trace.layers["a"].counts.sum()))
"""


SMALLEST = """
import numpy as np
from snn_export.hardware_sims.loihi import kernels
out = np.empty(4, np.uint8)
kernels.levels_as_bytes(np.array([0.2, 0.6, 1.0, -3.0]), 1.0, 0, 1, out)
stats = kernels.levels_as_bytes.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), int(out.sum()))
"""


def started(cache: Path, script: str) -> tuple[int, int, int]:
    """Kernels found, kernels compiled and what they computed, in a new process."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    hits, misses, result = map(int, done.stdout.split())
    return hits, misses, result


def test_kernels_are_compiled_once(tmp_path: Path) -> None:
    first, second = (started(tmp_path, CACHED.format(root=str(ROOT))) for _ in range(2))
    assert first[:2] == (0, 1)
    assert second[:2] == (1, 0)
    assert first[2] == second[2] > 0


def test_kernels_that_may_be_wrong_are_compiled_anew(tmp_path: Path) -> None:
    """A file that was cut off, and a folder that others can write to; with the smallest kernel, for time's sake."""
    assert started(tmp_path, SMALLEST) == (0, 1, 2)
    assert started(tmp_path, SMALLEST) == (1, 0, 2)
    folder = tmp_path / "snn-export" / "kernels" / kernel_cache.key()
    assert folder.stat().st_mode & 0o777 == 0o700
    for file in folder.glob("*.nbc"):
        file.write_bytes(file.read_bytes()[:100])
    assert started(tmp_path, SMALLEST) == (0, 1, 2)
    folder.chmod(0o777)  # anyone could have put code there
    assert started(tmp_path, SMALLEST)[::2] == (0, 2)


def test_folders_of_the_cache_are_ours_alone_under_any_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A umask of 002, the default of many systems, must not make a parent that the group can write to: it would be refused."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kernel_cache.folder.cache_clear()
    before = os.umask(0o002)
    try:
        found = kernel_cache.folder()
    finally:
        os.umask(before)
        kernel_cache.folder.cache_clear()
    kernels = tmp_path / "cache" / "snn-export" / "kernels"
    assert found == kernels / kernel_cache.key()
    assert {path.stat().st_mode & 0o777 for path in (kernels.parents[1], kernels.parent, kernels, found)} == {0o700}


def test_a_numba_with_other_internals_costs_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snn_export.hardware_sims.loihi.numba_cache", None)
    monkeypatch.setattr(kernel_cache, "folder", lambda: ROOT)
    kernel = njit(lambda x: x + 1)
    before = kernel._cache
    assert kernel_cache.remembered(kernel) is kernel
    assert kernel._cache is before
    assert kernel(1) == 2


def test_the_cache_is_keyed_by_the_equations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = kernel_cache.key()
    changed = tmp_path / "arithmetic.py"
    changed.write_bytes(Path(kernel_cache.arithmetic.__file__).read_bytes() + b"\n")
    kernel_cache.key.cache_clear()
    monkeypatch.setattr(kernel_cache.arithmetic, "__file__", str(changed))
    try:
        assert kernel_cache.key() != before
    finally:
        kernel_cache.key.cache_clear()
