"""Every kind of fault is caught, and found in the layer and in the run that it was put into.

Here one place per fault and network; ``benchmarks/mutations.py`` goes through all of them and writes ``docs/mutations.md``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_export.verification import compare, isolated, ladder
from snn_export.verification import gates as gating
from snn_export.verification.compare import ComparisonTally
from snn_export.verification.layer_tally import LayerTally
from tests.benchmark_modules import benchmark
from tests.mutation.backends import Faulty, Interpreted, verified
from tests.mutation.equivalence import identical, proof
from tests.mutation.kinds import FAULTS, real
from tests.mutation.networks import NETWORKS, network
from tests.mutation.suite import ALIKE, Outcome, first_effective, outcome

TABLE = Path(__file__).parents[2] / "docs" / "mutations.json"


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_fault_nothing_is_found(name: str) -> None:
    """The wrappers and the equations in NumPy add no fault of their own; every layer fires, so agreement says something."""
    where = network(name)
    backends = [Faulty(real(where))] + ([Faulty(Interpreted())] if where.integer else [])
    for backend in backends:
        report = verified(where, backend)
        (found,) = report.comparisons
        assert found.verdict in ("EXACT", "TIE") and found.first_faulty_isolated is None and found.faulty_side is None
        assert all(layer.lag is None or not layer.lag.best for layer in found.layers)
        failed = [gate.name for gate in report.gates if not gate.passed]
        assert failed == (["overflows in loihi"] if name == "overflowing" else [])
        for layer in found.layers:
            spiking = where.deployment.contract.neurons[layer.layer].spiking
            assert layer.reference_spikes > 0 if spiking else layer.membranes_compared > 0


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught_and_found(name: str) -> None:
    """In every network it can be put into, once; in one of them in the reference too."""
    fault, seen = FAULTS[name], list[Outcome]()
    for where_name in NETWORKS:
        place = first_effective(fault, where_name)
        if place is None:
            continue
        seen.append(place[-1])
        if len(seen) == 1:
            seen.append(outcome(fault, *place[:-1], "reference"))
    wrong = [item for item in seen if not (item.caught and item.named) or item.lag_found is False]
    assert not wrong, wrong
    assert seen, f"{name}: no network has a place for it"


def test_there_are_enough_kinds_of_fault_and_networks() -> None:
    assert len(FAULTS) >= 25
    assert len(NETWORKS) >= 4


EQUIVALENT = [
    ("decay - 1", "dense", "readout"),
    ("decay + 1", "recurrent", "lif3"),
    ("decay - 1", "recurrent", "lif3"),
    ("current decay + 1", "digits", "lif1"),
    ("current decay - 1", "recurrent", "lif3"),
    ("threshold + 1", "residual", "lif4"),
    ("threshold - 1", "dense", "readout"),
    (">= for >", "digits", "readout"),
    ("delayed reset", "residual", "readout"),
    ("rounding down", "residual", "lif4"),
    ("state not cleared", "recurrent", "lif3"),
    ("saturation for wrap", "digits", "lif1"),
    ("wrap for saturation", "dense", "lif2"),
    ("transposed kernel", "tiny", "readout"),
    ("threshold - 1", "tiny", "lif2"),
]


@pytest.mark.parametrize(("name", "where_name", "layer"), EQUIVALENT)
def test_what_changes_nothing_is_proven(name: str, where_name: str, layer: str) -> None:
    """The proof's claim holds on the inputs at hand, compared without the verifier; and the verifier says so too."""
    where = network(where_name)
    injected = FAULTS[name].into(where, layer)
    assert injected is not None and isinstance(injected.backend, Faulty)
    assert proof(name, where, layer, injected)
    program = injected.backend.compile(where.deployment)
    assert identical(where.sound, injected.backend.run(program, where.inputs, ("spikes", "membrane", "current")))
    assert verified(where, injected.backend).comparisons[0].verdict == "EXACT"


@pytest.mark.parametrize(
    ("name", "where_name", "layer"),
    [("threshold - 1", "dense", "lif1"), ("rounding down", "dense", "lif1"), ("saturation for wrap", "overflowing", "lif1"),
     ("decay - 1", "dense", "lif1"), ("current decay - 1", "dense", "lif2"), ("threshold + 1", "dense", "lif1"),
     ("state not cleared", "dense", "lif1"), ("weight bit", "tiny", "lif1")],
)  # fmt: skip
def test_a_proof_excuses_no_fault(name: str, where_name: str, layer: str) -> None:
    where = network(where_name)
    injected = FAULTS[name].into(where, layer)
    assert injected is not None
    assert proof(name, where, layer, injected) is None


def test_a_loop_does_not_hide_which_layer_is_recorded_wrongly() -> None:
    """lif1 comes first and hears lif2, whose record is shifted: lif1 looks wrong by itself, and is right."""
    where = network("recurrent")
    injected = FAULTS["declared latency too short"].into(where, "lif2")
    assert injected is not None
    found = verified(where, injected.backend).comparisons[0]
    by_name = {layer.layer: layer for layer in found.layers}
    assert by_name["lif1"].verdict == "EXACT"
    assert by_name["lif1"].isolated is not None and by_name["lif1"].isolated.mismatched_spikes
    assert found.first_faulty_isolated == "lif2"


# --- faults in the verifier itself -------------------------------------------------------------------------------------


def _counts_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(compare, "_differs", lambda tally: bool(tally.count_error_sum))


def _no_membranes(patch: pytest.MonkeyPatch) -> None:
    def add(self: LayerTally, expected: Any, found: Any, offset: int) -> Any:
        self.membranes += expected.membrane.size
        self.integer_membranes += expected.membrane.size
        return np.zeros(expected.counts.shape[0], bool)

    patch.setattr(LayerTally, "_add_membranes", add)


def _no_currents(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(compare, "_differs", lambda tally: bool(tally.mismatched or tally.first_membrane))


def _missing_passes(patch: pytest.MonkeyPatch) -> None:
    real_one = compare._not_compared
    patch.setattr(compare, "_not_compared", lambda name: real_one(name).model_copy(update={"verdict": "EXACT"}))


def _without_membranes_passes(patch: pytest.MonkeyPatch) -> None:
    real_one = ComparisonTally._verdict

    def verdict(self: ComparisonTally, *arguments: Any) -> str:
        found = real_one(self, *arguments)
        return "EXACT" if found == "NOT_COMPARED" else found

    patch.setattr(ComparisonTally, "_verdict", verdict)


def _samples(cut: Callable[[int], int]) -> Callable[[pytest.MonkeyPatch], None]:
    def change(patch: pytest.MonkeyPatch) -> None:
        real_one = ComparisonTally.add

        def add(self: ComparisonTally, inputs: Any, reference: Any, got: Any, labels: Any = None) -> None:
            count = cut(len(reference.predictions))
            real_one(self, inputs[:count], ladder._head(reference, count), ladder._head(got, count), labels)

        patch.setattr(ComparisonTally, "add", add)

    return change


def _readout_only(patch: pytest.MonkeyPatch) -> None:
    real_one = ComparisonTally.add

    def add(self: ComparisonTally, inputs: Any, reference: Any, got: Any, labels: Any = None) -> None:
        last = self.deployment.contract.readout.node
        cut = [replace(trace, layers={last: trace.layers[last]}) for trace in (reference, got)]
        real_one(self, inputs, cut[0], cut[1], labels)

    patch.setattr(ComparisonTally, "add", add)


def _latency_on_trust(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(compare, "believed_lag", lambda mismatched, declared: None)


def _blames_the_target(patch: pytest.MonkeyPatch) -> None:
    real_one = ComparisonTally.at_fault

    def at_fault(self: ComparisonTally, tolerance: Any) -> Any:
        return real_one(self, tolerance)[0], "target"

    patch.setattr(ComparisonTally, "at_fault", at_fault)


def _believes_what_is_said(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ComparisonTally, "_compare_claims", lambda *arguments: None)


def _first_of_a_loop(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ComparisonTally, "_first", lambda self, found: found[0])


def _drives_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(isolated, "drive", lambda form, inputs, trace, samples, offset: [{} for _ in samples])


def _generous_rounding(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(compare, "FLOAT32_ROUNDOFF", 1e-2)


def _always_zero(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gating, "exit_code", lambda gates: 0)


@pytest.mark.parametrize(
    ("break_it", "name", "where_name", "side"),
    [
        (_counts_only, "membranes of the step before", "dense", "target"),
        (_no_membranes, "noise on a membrane", "dense", "target"),
        (_no_currents, "noise on a current", "dense", "target"),
        (_missing_passes, "layer left out", "dense", "target"),
        (_without_membranes_passes, "membranes left out", "dense", "target"),
        (_samples(lambda count: count - 1), "noise on a membrane", "dense", "target"),
        (_readout_only, "noise on a membrane", "recurrent", "target"),
        (_latency_on_trust, "declared latency too short", "dense", "target"),
        (_blames_the_target, "weight bit", "dense", "reference"),
        (_believes_what_is_said, "overflows not counted", "overflowing", "target"),
        (_believes_what_is_said, "another readout rule", "dense", "target"),
        (_first_of_a_loop, "last neuron dropped", "recurrent", "target"),
        (_drives_nothing, "weight bit", "dense", "target"),
        (_generous_rounding, "noise on a membrane", "float digits", "target"),
        (_always_zero, "weight bit", "dense", "target"),
    ],
)
def test_a_broken_verifier_is_noticed(
    break_it: Callable[[pytest.MonkeyPatch], None], name: str, where_name: str, side: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least this fault is no longer caught, or no longer found."""
    fault, where = FAULTS[name], network(where_name)
    layer = {"recurrent": "lif2"}.get(where_name) or next(name for name in where.deployment.layers if fault.into(where, name))
    injected = fault.into(where, layer)
    assert injected is not None
    before = outcome(fault, where, layer, injected, side)
    assert before.caught and before.named and before.lag_found is not False
    with monkeypatch.context() as patch:
        break_it(patch)
        after = outcome(fault, where, layer, injected, side)
    assert not (after.caught and after.named) or after.lag_found is False


def test_the_table_is_of_these_faults_and_has_no_gap() -> None:
    """docs/mutations.json: every fault, every one caught or proven to change nothing, and at least 95 % named."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert {row["fault"] for row in table["outcomes"]} == set(FAULTS)
    assert {row["network"] for row in table["outcomes"]} == set(NETWORKS)
    caught = [row for row in table["outcomes"] if row["caught"]]
    assert all(row["caught"] or row["proof"] for row in table["outcomes"])
    assert sum(row["named"] for row in caught) >= 0.95 * len(caught)


def test_the_page_says_what_the_table_says() -> None:
    """docs/mutations.md is made from docs/mutations.json and from the faults' own words."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    module = benchmark("mutations")
    assert module.summary(table["outcomes"]) == table["totals"]
    assert TABLE.with_suffix(".md").read_text(encoding="utf-8") == module.document(table["outcomes"])


def test_agreement_is_spelled_out() -> None:
    """What counts as not caught here is everything that lets a comparison pass."""
    assert set(ALIKE) == {"EXACT", "TIE", "WITHIN"}
