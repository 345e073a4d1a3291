"""A check tells everything at once, and a network it passes can be quantised."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
from torch import nn

import snn_export
from snn_export.explanations import lookup
from snn_export.export import chains
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.populations import with_constants
from snn_export.export.readiness import findings
from snn_export.models.delay import Delay
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.spec import EncoderSpec, NeuronSpec
from tests.networks import delayed_net, dense_net, leaky, named, quantised, read, recurrent_net, residual_net, uniform


class Unheard(nir.NIRNode):
    """A node type that nothing here knows."""

    def __init__(self) -> None:
        self.metadata = {}


def with_nodes(deployment: Deployment, **nodes: Any) -> Deployment:
    return deployment.replace(graph=replace_nodes(deployment.graph, nodes))


def with_specs(deployment: Deployment, **neurons: NeuronSpec) -> Deployment:
    contract = deployment.contract
    return deployment.replace(contract=contract.model_copy(update={"neurons": {**contract.neurons, **neurons}}))


def codes(deployment: Deployment, target: Any = "loihi2") -> list[tuple[str, str]]:
    return sorted((item.code, item.where) for item in findings(deployment, target))


def broken(monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A network with ten things wrong with it."""
    layers = named(
        fc0=nn.Linear(6, 72), lif0=leaky(500, 0.3), odd=nn.Identity(), fc1=nn.Linear(72, 6), lif1=leaky(600, 0.4),
        wait=Delay(2), fc2=nn.Linear(6, 72), lif2=leaky(700, 0.5), fc3=nn.Linear(72, 6), lif3=leaky(300, 0.5),
        fc4=nn.Linear(6, 4), out=leaky(200, 0.5),
    )  # fmt: skip
    monkeypatch.setattr(chains, "MATRIX_LIMIT", 400)
    before = read(layers, (6,), steps=4)
    graph, node = before.graph, before.graph.nodes
    loop = nir.NIRGraph(
        {**node, "odd": Unheard(), "back": nir.Linear(np.ones((72, 6))), "chain": nir.Linear(np.ones((6, 6)))},
        [
            *(edge for edge in graph.edges if edge not in (("fc1", "lif1"), ("lif0", "fc1"))), ("lif0", "odd"),
            ("odd", "fc1"), ("fc1", "chain"), ("chain", "lif1"), ("lif3", "back"), ("back", "lif2"),
        ], type_check=False,
    )  # fmt: skip
    found = before.replace(graph=loop)
    found = with_nodes(
        found, wait=nir.Delay(np.full(6, 1.5e-3)),
        lif0=with_constants(node["lif0"], v_leak=np.full(72, 0.1)), lif3=with_constants(node["lif3"], tau=node["lif3"].tau * 1.1),
        out=with_constants(node["out"], v_threshold=np.array([0.5, 0.5, 0.6, 0.5])),
    )  # fmt: skip
    return with_specs(found, lif1=NeuronSpec(600, reset_delay=1), lif2=NeuronSpec(700, reset="subtract"))


def test_eight_and_more_unsupported_constructs_are_told_in_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(broken(monkeypatch), "loihi1")
    assert sorted((item.code, item.where) for item in found) == [
        ("SNX107", "lif3"), ("SNX201", "odd"), ("SNX203", "lif1"), ("SNX203", "lif2"), ("SNX207", found_loop(found)),
        ("SNX247", "contract.encoder"), ("SNX248", "wait"), ("SNX260", "chain"), ("SNX261", "out"), ("SNX262", "lif0"),
    ]  # fmt: skip
    assert len({item.code for item in found}) >= 8
    for item in found:
        assert item.fix
        assert item.why
        assert lookup.page(item.code).startswith(f"# {item.code} ")


def found_loop(found: Any) -> str:
    return next(item.where for item in found if item.code == "SNX207")


def test_a_reset_by_subtraction_needs_a_programmable_neuron() -> None:
    deployment = read(dense_net(reset="subtract"), (4,))
    for target in ("loihi2", "loihi"):
        assert codes(deployment, target) == []
    for target in ("loihi1", "lava", "netx"):
        assert ("SNX203", "lif1") in codes(deployment, target)


@pytest.mark.parametrize(("kind", "wrong"), [("direct", True), ("bias", False), ("rate", False), ("events", False)])
def test_graded_input_and_loihi_1(kind: Any, wrong: bool) -> None:
    deployment = read(dense_net(), (4,), encoder=EncoderSpec(kind))
    assert bool(codes(deployment, "loihi1")) == wrong
    assert codes(deployment, "loihi2") == []


def test_a_wait_beyond_what_a_synapse_holds() -> None:
    layers = named(fc=nn.Linear(3, 4), lif=leaky(), d1=Delay(40), d2=Delay(23), fc2=nn.Linear(4, 2), readout=Integrator())
    assert codes(read(layers, (3,))) == [("SNX230", "lif -> readout")]


def test_resistances_of_one_convolution_that_differ() -> None:
    deployment = read(residual_net(), (2, 8, 6))
    node = deployment.graph.nodes["lif1"]
    uneven = node.r * np.linspace(1, 2, node.r.size).reshape(node.r.shape)
    assert codes(with_nodes(deployment, lif1=with_constants(node, r=uneven))) == [("SNX242", "lif1")]


@pytest.mark.parametrize(
    ("net", "shape"), [(dense_net, (4,)), (residual_net, (2, 8, 6)), (recurrent_net, (7,)), (delayed_net, (6,))]
)
@pytest.mark.parametrize("target", ["loihi2", "lava", "netx"])
def test_a_network_that_passes_has_no_findings_and_can_be_prepared(net: Any, shape: tuple[int, ...], target: Any) -> None:
    deployment = read(net(), shape)
    assert snn_export.check(deployment, target) == []
    if target == "loihi2":
        inputs = uniform(np.random.default_rng(0), 8, *shape, high=2.0)
        assert snn_export.check(prepared(deployment, inputs), target) == []


def prepared(deployment: Deployment, inputs: Any) -> Deployment:
    from snn_export import library

    ready = library.prepared(deployment, inputs)
    assert library.prepared(ready, inputs) is ready
    return ready


def test_integers_are_checked_by_the_rules_of_the_target() -> None:
    deployment = quantised(read(dense_net(), (4,)))
    for target in ("loihi2", "loihi", "lava"):
        assert snn_export.check(deployment, target) == []
    assert [item.code for item in snn_export.check(deployment, "loihi1")] == ["SNX247"]
    synapse = deployment.synapses["fc2"]
    off = deployment.replace(synapses={**deployment.synapses, "fc2": type(synapse)(synapse.weight * 9, 0, synapse.bias_mantissa)})
    for target in ("loihi2", "lava"):
        assert "fc2" in {item.where for item in snn_export.check(off, target)}


def test_an_unknown_target_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="loihi2") as caught:
        snn_export.check(read(dense_net(), (4,)), "lohi2")  # type: ignore[arg-type]
    assert caught.value.code == "SNX216"
