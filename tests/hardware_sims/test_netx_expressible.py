"""What the netx backend says before anything runs; its environment is not needed."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np
import pytest

from snn_export.hardware_sims import environments
from snn_export.hardware_sims.netx.simulator import NetxSimulator
from snn_export.hardware_sims.registry import simulator
from snn_export.models.diagnostics import UserError
from tests.builders import LayerPlan, Plan, deployment_from, even
from tests.netx_networks import WISHES, as_deployment, random_net

ENVIRONMENT = environments.environment("netx")


@pytest.mark.parametrize("wish", WISHES)
def test_what_netx_can_run_has_no_findings(wish: str, tmp_path: Path) -> None:
    assert NetxSimulator().check(as_deployment(random_net(np.random.default_rng(8), WISHES[wish]), tmp_path)) == []


def test_a_float_network_is_told_to_quantise(tmp_path: Path) -> None:
    deployment = as_deployment(random_net(np.random.default_rng(0), WISHES["dense"]), tmp_path)
    floats = deployment.replace(contract=deployment.contract.model_copy(update={"quantisation": None}))
    assert [finding.code for finding in NetxSimulator().check(floats)] == ["SNX302"]


def test_sums_beyond_lavas_registers_are_refused_at_once() -> None:
    weight = even(np.random.default_rng(0), (3, 400))
    layers = (LayerPlan("a", np.abs(weight), du=0, dv=9), LayerPlan("b", np.full((2, 3), 254), "a", dv=9))
    deployment = deployment_from(Plan((400,), layers, steps=900, low=0, high=4000))
    with pytest.raises(UserError) as caught:
        NetxSimulator().compile(deployment)
    assert [(finding.code, finding.where) for finding in caught.value.diagnostics] == [("SNX258", "a")]


def test_a_convolution_whose_sum_wraps_is_refused() -> None:
    layer = LayerPlan("a", np.full((2, 2, 3, 3), 254), dv=9)
    deployment = deployment_from(Plan((2, 5, 5), (layer,), steps=2, low=0, high=4000))
    assert "SNX258" in [finding.code for finding in NetxSimulator().check(deployment)]


def test_a_delayed_layer_too_large_for_lava_is_refused(tmp_path: Path) -> None:
    layer = LayerPlan("a", np.pad([[2, -2]], ((0, 2999), (0, 2998))), dv=9, threshold=5)
    deployment = deployment_from(Plan((3000,), (layer,), steps=2))
    nodes = {**deployment.graph.nodes, "wait": nir.Delay(np.full(3000, 2e-3))}
    edges = [("input", "a.weight"), ("a.weight", "wait"), ("wait", "a"), ("a", "output")]
    delayed = deployment.replace(graph=nir.NIRGraph(nodes, edges, type_check=False))
    assert [finding.code for finding in NetxSimulator().check(deployment)] == []
    assert [finding.code for finding in NetxSimulator().check(delayed)] == ["SNX258"]


def test_it_is_registered_and_says_what_installing_costs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNN_EXPORT_ENVS", str(tmp_path))
    monkeypatch.delenv("SNN_EXPORT_NETX_PYTHON", raising=False)
    found = simulator("netx").availability()
    assert not found.ok and found.fix == "snn-export backends install netx"
    assert "450 MB" in found.reason


def test_every_requirement_is_pinned_and_torch_is_none_of_them() -> None:
    lines = [line for line in ENVIRONMENT.requirements.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all("==" in line for line in lines)
    names = {line.partition("==")[0] for line in lines}
    assert {"lava-nc", "lava-dl", "h5py"} <= names and not names & {"torch", "torchvision", "opencv-python"}
    assert "--no-deps" in ENVIRONMENT.pip_arguments


def test_the_worker_imports_nothing_of_this_project() -> None:
    assert "snn_export" not in ENVIRONMENT.worker.read_text(encoding="utf-8")
