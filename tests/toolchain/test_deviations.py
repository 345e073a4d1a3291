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
from snn_export.models.spec import NeuronSpec, Reset
from snn_export.reporting import html
from tests.networks import dense_net, quantised, read
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

    name = "liar"
    really_several = True


class Miscounting(Early):
    """Declares that it sends several spikes in a step, sends three times as many; after a reset to zero no membrane shows it."""

    name = "miscounting"

    def deviations(self, deployment: Deployment) -> Mapping[str, Deviation]:
        specs = deployment.contract.neurons
        return {name: Deviation(spec, ("sends several",), several_spikes=True) for name, spec in specs.items() if spec.spiking}

    def run(self, program: Deployment, inputs: Any, record: Collection[Record]) -> Trace:
        trace = super().run(program, inputs, record)
        layers = {
            name: replace(layer, several=3 * layer.several, counts=3 * layer.counts) if layer.several is not None else layer
            for name, layer in trace.layers.items()
        }
        return replace(trace, layers=layers)


class Impostor(Early):
    """Signs its traces with the name of the arbiter."""

    name = "impostor"

    def run(self, program: Deployment, inputs: Any, record: Collection[Record]) -> Trace:
        return replace(super().run(program, inputs, record), backend="reference")


class Broken(Early):
    """Breaks where it is asked what it does otherwise."""

    name = "broken"

    def deviations(self, deployment: Deployment) -> Mapping[str, Deviation]:
        raise RuntimeError("no idea")

    def compile(self, deployment: Deployment) -> Deployment:
        return deviating(deployment, super().deviations(deployment))


@pytest.fixture(autouse=True)
def backends(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("backends_of_this_test")
    kinds = (Early, Liar, Miscounting, Impostor, Broken)
    vars(module).update({kind.__name__: kind for kind in kinds})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    known = {kind.name: f"{module.__name__}:{kind.__name__}" for kind in kinds}
    monkeypatch.setattr(registry, "BUILT_IN", {**registry.BUILT_IN, **known})


def network(reset: Reset = "subtract") -> Deployment:
    """Whole numbers in front of integrating neurons: they meet their thresholds exactly, and pass them twice over."""
    one = np.ones(4)
    weight = default_rng(3).integers(-1, 3, (4, 4)).astype(np.float64)
    nodes = {
        "input": nir.Input({"input": np.array([4])}), "fc": nir.Linear(weight), "if1": nir.IF(1e3 * one, 2 * one, 0 * one),
        "output": nir.Output({"output": np.array([4])}),
    }  # fmt: skip
    edges = [("input", "fc"), ("fc", "if1"), ("if1", "output")]
    return graph_of(nodes, edges, {"if1": NeuronSpec(0, reset=reset)}, steps=12)


def verified(target: str, reset: Reset = "subtract") -> Any:
    inputs = default_rng(0).integers(0, 3, (12, 20, 4)).astype(np.float64)
    return snn_export.verify(network(reset), inputs, reference="reference", targets=[target], spike_mismatch=1.0)


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


def test_counts_of_spikes_are_compared_and_not_only_that_there_were_some() -> None:
    report = verified("miscounting", "zero")
    proof = next(item for item in report.comparisons if item.reference == "miscounting_model")
    assert proof.verdict == "DRIFT" and proof.layers[0].mismatched_spikes > 0 and proof.layers[0].count_error_sum > 0
    assert report.exit_code == 1


def test_a_trace_signed_with_another_name_is_judged_by_nobody_and_refused() -> None:
    report = verified("impostor")
    assert report.exit_code == 4
    assert any("says that 'reference' made it" in cause for cause in report.causes)


def test_a_backend_that_cannot_say_what_it_does_otherwise_is_held_to_the_network() -> None:
    report = verified("broken")
    assert [(item.reference, item.target) for item in report.comparisons] == [("reference", "broken")]
    assert report.comparisons[0].verdict == "TIE", "a membrane at its threshold is one that rounding may take to either side"


def test_a_float_backend_on_integers_is_proven_in_the_units_of_their_grid() -> None:
    deployment = quantised(read(dense_net(reset="zero"), (4,)))
    inputs = default_rng(2).uniform(0, 1, (40, 4))
    reports = {
        name: snn_export.verify(deployment, inputs, reference="reference", targets=[name], spike_mismatch=100.0)
        for name in ("early", "liar")
    }
    proofs = {name: next(item for item in report.comparisons if "_model" in item.reference) for name, report in reports.items()}
    assert proofs["early"].verdict == "EXACT" and sum(layer.reference_spikes for layer in proofs["early"].layers) > 0
    assert proofs["liar"].verdict == "DRIFT", "20 % of tolerance is no proof"
