"""What the lava backend refuses, each with its code, all at once, and without Lava."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest

from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.hardware_sims import worker_trace
from snn_export.hardware_sims.lava.simulator import LavaSimulator
from snn_export.hardware_sims.simulator import BackendError, Simulator
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import NeuronSpec
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, random_deployment

DENSE = LayerPlan("layer", np.full((3, 4), 2))
CONV = LayerPlan("layer", np.full((2, 1, 3, 2), 2))


def dense(high: int = 1, **changes: object) -> Deployment:
    return deployment_from(Plan((4,), (replace(DENSE, **changes),), high=high))


def conv(shape: tuple[int, ...] = (1, 6, 5), high: int = 1, **changes: object) -> Deployment:
    return deployment_from(Plan(shape, (replace(CONV, **changes),), high=high))


def with_neuron(spec: NeuronSpec) -> Deployment:
    made = dense()
    return made.replace(contract=made.contract.model_copy(update={"neurons": {"layer": spec}}))


def with_population(**changes: int) -> Deployment:
    made = dense()
    return made.replace(populations={"layer": replace(made.populations["layer"], **changes)})


def with_pool() -> Deployment:
    made = conv()
    nodes = {**made.graph.nodes, "pool": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))}
    edges = [("input", "pool"), ("pool", "layer.weight"), ("layer.weight", "layer"), ("layer", "output")]
    nodes["layer"] = nir.LIF(*(np.ones((2, 1, 1)) for _ in range(5)))
    return made.replace(graph=nir.NIRGraph(nodes, edges, type_check=False))


def with_latency(steps: int) -> Deployment:
    made = dense()
    return made.replace(contract=made.contract.model_copy(update={"latency": {"layer": steps}}))


def without_memory(threshold: int, weight: int = 32) -> Deployment:
    """A Threshold whose membrane can reach 64 times its weight."""
    made = dense(weight=np.full((3, 4), weight), threshold=threshold, dv=4095)
    graph = replace_nodes(made.graph, {"layer": nir.Threshold(np.full(3, float(threshold)))})
    return made.replace(graph=graph, contract=made.contract.model_copy(update={"neurons": {"layer": NeuronSpec(4096)}}))


def test_a_neuron_without_memory_runs_where_its_register_forgets_all() -> None:
    assert LavaSimulator().check(without_memory(threshold=3, weight=4)) == []


def fast_loop() -> Deployment:
    """Two connections in a loop with one step of delay."""
    square = np.full((3, 3), 2)
    second, back = LayerPlan("second", square, "layer"), SynapsePlan(square, "second", before=2)
    slow = deployment_from(Plan((4,), (replace(DENSE, more=(back,)), second)))
    assert LavaSimulator().check(slow) == []
    edges = [*((a, b) for a, b in slow.graph.edges if "before" not in a + b), ("second", "layer.weight1")]
    nodes = {name: node for name, node in slow.graph.nodes.items() if "before" not in name}
    return slow.replace(graph=nir.NIRGraph(nodes, edges, type_check=False))


REFUSED = {
    "subtract": ("SNX203", lambda: with_neuron(NeuronSpec(0, reset="subtract"))),
    "late reset": ("SNX203", lambda: with_neuron(NeuronSpec(0, reset_delay=1))),
    "threshold": ("SNX221", lambda: with_population(threshold=1 << 17)),
    "du": ("SNX221", lambda: with_population(du=-1)),
    "dv": ("SNX221", lambda: with_population(dv=4096)),
    "bias exponent": ("SNX222", lambda: with_population(bias_exponent=8)),
    "bias mantissa": ("SNX222", lambda: dense(bias=np.array([0, 4096, 0]))),
    "odd weight": ("SNX223", lambda: dense(weight=np.array([[2, 3, -2, 2]]))),
    "large weight": ("SNX223", lambda: dense(weight=np.array([[2, 256, 2, 2]]))),
    "large inhibition": ("SNX223", lambda: dense(weight=np.array([[-2, -258, -2, -2]]))),
    "large exponent": ("SNX224", lambda: conv(weight_exponent=8)),
    "negative exponent": ("SNX224", lambda: dense(weight_exponent=-1)),
    "pool": ("SNX225", with_pool),
    "huge matrix": ("SNX226", lambda: conv((1, 1, 30_000), weight=np.full((2, 1, 1, 3000), 2), padding="same")),
    "no integers": ("SNX227", lambda: dense().replace(synapses={})),
    "conv sum": ("SNX228", lambda: conv(high=1 << 20)),
    "current": ("SNX228", lambda: dense(high=1 << 22)),
    "latency": ("SNX229", lambda: with_latency(2)),
    "delay": ("SNX230", lambda: dense(before=40, after=23)),
    "odd current": ("SNX231", lambda: dense(current_bias=np.array([0, 3, 0]))),
    "half a step of delay": ("SNX248", lambda: dense(before=0.5)),
    "fast loop": ("SNX207", fast_loop),
    "long memory": ("SNX328", lambda: without_memory(threshold=131)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_reason_has_its_code(case: str) -> None:
    code, make = REFUSED[case]
    simulator, deployment = LavaSimulator(), make()
    assert [found.code for found in simulator.check(deployment)] == [code]
    with pytest.raises(UserError) as caught:
        simulator.compile(deployment)
    assert caught.value.code == code and caught.value.exit_code == (3 if code < "SNX3" else 1)


def test_reasons_come_all_at_once() -> None:
    deployment = dense(weight=np.full((3, 4), 256), weight_exponent=9)
    deployment = deployment.replace(populations={"layer": replace(deployment.populations["layer"], du=5000, threshold=-1)})
    assert sorted(found.code for found in LavaSimulator().check(deployment)) == ["SNX221", "SNX221", "SNX223", "SNX224"]


def test_what_is_within_the_limits_passes() -> None:
    limits = dense(
        weight=np.array([[-256, 254, 0, 2]]), weight_exponent=7, bias=np.array([-4096]), bias_exponent=7, du=0, dv=4095
    )
    assert LavaSimulator().check(limits) == []
    assert LavaSimulator().check(random_deployment(np.random.default_rng(0))) == []
    assert isinstance(LavaSimulator(), Simulator)


def test_a_float_deployment_is_told_to_quantise() -> None:
    made = dense()
    floats = made.replace(contract=made.contract.model_copy(update={"quantisation": None}))
    assert [found.code for found in LavaSimulator().check(floats)] == ["SNX302"]


@pytest.mark.parametrize("written", [None, "not json", json.dumps({"models": {"lif": "PyLifModelFloat [floating_pt]"}})])
def test_a_trace_that_is_none_is_a_broken_backend(tmp_path: Path, written: str | None) -> None:
    if written is not None:
        (tmp_path / "trace.json").write_text(written, encoding="utf-8")
    with pytest.raises(BackendError) as caught:
        worker_trace.read_folder("lava", tmp_path, {}, tmp_path / "log.txt")
    assert caught.value.diagnostic.code == "SNX425" and caught.value.log == str(tmp_path / "log.txt")


def test_without_an_environment_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNN_EXPORT_ENVS", str(tmp_path))
    monkeypatch.delenv("SNN_EXPORT_LAVA_PYTHON", raising=False)
    simulator = LavaSimulator()
    with pytest.raises(UserError) as caught:
        simulator.run(simulator.compile(dense()), np.ones((1, 4)))
    assert caught.value.code == "SNX430" and caught.value.exit_code == 4
    assert caught.value.diagnostics[0].fix == "snn-export backends install lava"
