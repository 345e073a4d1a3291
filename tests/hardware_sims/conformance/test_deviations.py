"""The kit takes a mismatch for a declared deviation only where the declaration says all there is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation, deviating
from snn_export.hardware_sims.conformance.kit import CHECKS, Outcome, run_check
from snn_export.hardware_sims.reference.simulator import ReferenceSimulator
from snn_export.hardware_sims.simulator import Availability, Capabilities
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.models.diagnostics import Diagnostic

TOLD = "fires at its threshold"


class Early:
    """The reference with neurons that fire at their threshold, and with a fault of one's choice."""

    name = "early"

    def __init__(self, fault: str = "", declares: bool = True) -> None:
        self.fault, self.declares = fault, declares

    def capabilities(self) -> Capabilities:
        return Capabilities("float32", needs_integers=False, description="fires at its threshold")

    def availability(self) -> Availability:
        return Availability(True)

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        return []

    def deviations(self, deployment: Deployment) -> Mapping[str, Deviation]:
        return self._does(deployment) if self.declares else {}

    def _does(self, deployment: Deployment) -> dict[str, Deviation]:
        specs = deployment.contract.neurons
        return {name: Deviation(spec, (TOLD,), at_threshold=True) for name, spec in specs.items() if spec.spiking}

    def compile(self, deployment: Deployment) -> Deployment:
        return deviating(deployment, self._does(deployment))

    def run(self, program: Deployment, inputs: Any, record: Collection[Record]) -> Trace:
        trace = ReferenceSimulator().run(program, inputs, record)
        if not self.fault:
            return trace
        layers = dict(trace.layers)
        name = next(iter(layers))
        values = np.array(getattr(layers[name], self.fault))
        values.flat[-1] = ~values.flat[-1] if values.dtype == bool else values.flat[-1] + 1
        layers[name] = replace(layers[name], **{self.fault: values})
        return replace(trace, layers=layers)


def outcome(backend: Any, check: str = "fire.exactly_at_threshold") -> Outcome:
    return run_check(backend, CHECKS[check])


def test_a_mismatch_that_the_declaration_explains_is_a_declared_deviation() -> None:
    found = outcome(Early())
    assert (found.status, found.stage, found.deviation, found.exit_code) == ("declared deviation", "mismatch", TOLD, 0)
    assert "expected" in found.told and TOLD in found.told
    assert found.as_dict()["deviation"] == TOLD


def test_a_check_that_meets_no_threshold_just_passes() -> None:
    assert outcome(Early(), "fire.only_negative_weights").status == "passed"


def test_what_the_declaration_does_not_say_fails() -> None:
    assert outcome(Early(declares=False)).status == "failed"
    for fault in ("spikes", "counts", "membrane", "current"):
        assert outcome(Early(fault)).status == "failed", fault


def test_a_declaration_that_changes_nothing_excuses_nothing() -> None:
    assert outcome(Early("membrane"), "fire.only_negative_weights").status == "failed"


def test_an_answer_that_the_deviation_does_not_give_fails() -> None:
    class Misjudging(Early):
        def run(self, program: Deployment, inputs: Any, record: Collection[Record]) -> Trace:
            trace = super().run(program, inputs, record)
            return replace(trace, predictions=trace.predictions + 1)

    assert outcome(Early(), "contract.readout_of_spike_counts").status == "passed"
    assert outcome(Misjudging(), "contract.readout_of_spike_counts").status == "failed"
    assert outcome(Misjudging()).status == "failed"


def test_a_gap_in_a_trace_is_no_deviation_of_a_neuron() -> None:
    class Forgetful(Early):
        def run(self, program: Deployment, inputs: Any, record: Collection[Record]) -> Trace:
            trace = super().run(program, inputs, record)
            return replace(trace, layers={name: replace(layer, membrane=None) for name, layer in trace.layers.items()})

    assert outcome(Forgetful()).status == "failed"
    assert outcome(Forgetful(), "contract.probes_are_complete").status == "failed"
