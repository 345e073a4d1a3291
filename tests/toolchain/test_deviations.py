"""A backend that does otherwise than the contract: measured, and proven to do nothing else."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import nir
import numpy as np
import pytest
from numpy.random import default_rng

import snn_export
from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation, deviating
from snn_export.hardware_sims import registry
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.hardware_sims.reference.simulator import ReferenceSimulator
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.models.diagnostics import Diagnostic
from snn_export.models.spec import NeuronSpec
from snn_export.reporting import html
from tests.torch_graphs import graph_of


class Early:
    """Fires at its threshold, says so, and does nothing else otherwise."""

    name = "early"
    really_several = False

    def capabilities(self) -> Capabilities:
        return Capabilities("float64", needs_integers=False, description="fires at its threshold")

    def availability(self) -> Availability:
        return Availability(True)

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        return []

    def mapping(self, deployment: Deployment) -> Mapping[str, LayerMapping]:
        return {name: LayerMapping("native", "a <neuron> of its own") for name in deployment.layers}

    def deviations(self, deployment: Deployment) -> Mapping[str, Deviation]:
        specs = deployment.contract.neurons
        return {
            name: Deviation(spec, ("fires at its threshold",), at_threshold=True) for name, spec in specs.items() if spec.spiking
        }

    def compile(self, deployment: Deployment) -> Deployment:
        declared = self.deviations(deployment)
        if self.really_several:
            declared = {name: Deviation(d.spec, d.told, at_threshold=True, several_spikes=True) for name, d in declared.items()}
        return deviating(deployment, declared)

    def run(self, program: Deployment, inputs: Any, record: Collection[Record]) -> Trace:
        return replace(ReferenceSimulator().run(program, inputs, record), backend=self.name)


class Liar(Early):
    """Declares one deviation and has two."""

    really_several = True


@pytest.fixture(autouse=True)
def backends(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("backends_of_this_test")
    module.Early, module.Liar = Early, Liar  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    known = {name: f"{module.__name__}:{name.title()}" for name in ("early", "liar")}
    monkeypatch.setattr(registry, "BUILT_IN", {**registry.BUILT_IN, **known})


def network() -> Deployment:
    """Whole numbers in front of integrating neurons: they meet their thresholds exactly, and pass them twice over."""
    one = np.ones(4)
    weight = default_rng(3).integers(-1, 3, (4, 4)).astype(np.float64)
    nodes = {
        "input": nir.Input({"input": np.array([4])}), "fc": nir.Linear(weight), "if1": nir.IF(1e3 * one, 2 * one, 0 * one),
        "output": nir.Output({"output": np.array([4])}),
    }  # fmt: skip
    edges = [("input", "fc"), ("fc", "if1"), ("if1", "output")]
    return graph_of(nodes, edges, {"if1": NeuronSpec(0, reset="subtract")}, steps=12)


def verified(target: str) -> Any:
    inputs = default_rng(0).integers(0, 3, (12, 20, 4)).astype(np.float64)
    return snn_export.verify(network(), inputs, reference="reference", targets=[target], spike_mismatch=1.0)


def test_what_a_deviation_changes_is_measured_and_that_it_is_all_is_proven() -> None:
    report = verified("early")
    measured, proof = report.comparisons
    assert (measured.reference, measured.target, measured.verdict) == ("reference", "early", "DRIFT")
    assert measured.layers[0].mismatched_spikes > 0
    assert "early declares: fires at its threshold (if1)" in measured.message
    assert (proof.reference, proof.target, proof.verdict) == ("early_model", "early", "EXACT")
    assert proof.layers[0].mismatched_spikes == 0
    gates = {gate.name: gate for gate in report.gates}
    assert gates["early equals early_model up to rounding"].passed
    assert not gates["early stays near reference"].passed and report.exit_code == 1
    [carried] = report.carried
    assert (carried.rung, carried.model, carried.deviations) == ("early", "early_model", ("fires at its threshold (if1)",))
    assert [(node.node, node.kind) for node in carried.nodes] == [("if1", "native")]
    page = html.render(report)
    assert 'id="carried"' in page and "a &lt;neuron&gt; of its own" in page and "does otherwise than the contract" in page


def test_a_declaration_that_leaves_something_out_fails() -> None:
    report = verified("liar")
    gates = {gate.name: gate for gate in report.gates}
    assert not gates["liar equals liar_model up to rounding"].passed
    assert report.exit_code == 1
