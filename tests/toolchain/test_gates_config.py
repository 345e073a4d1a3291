"""Gates from the settings: which one holds, that each can fail and pass, and what a command with several causes ends with."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from snn_export.config_schema import GatesConfig, LayerGates, TargetGates
from snn_export.exit_codes import PRECEDENCE, worst_exit_code
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.registry import simulator
from snn_export.models.diagnostics import Diagnostic
from snn_export.reporting.report import Activity, Comparison, Divergence, Gate, LayerComparison, Verdict
from snn_export.verification.compare import ComparisonTally, Kind, Tolerance
from snn_export.verification.criteria import ACTIVITY, Criteria, Demand, LayerLimit, TargetLimit
from snn_export.verification.gates import evaluate, exit_code
from snn_export.verification.ladder import LadderResult, Link, Rung, RungResult
from snn_export.verification.layer_gates import firing
from snn_export.verification.statistics import mcnemar_p
from tests.conftest import FinishedRun, snn_export
from tests.networks import dense_net, read

LAYERS = ("lif1", "lif2", "readout")


# --- precedence --------------------------------------------------------------------------------------------------------


def criteria(text: str = "", **changes: Any) -> Criteria:
    """Criteria of the rungs of ``ladder`` from the TOML of ``[gates]``."""
    gates = GatesConfig.model_validate(tomllib.loads(text))
    made = Criteria(
        baseline="student", tolerance=Tolerance(gates.spike_mismatch, gates.decision_mismatch), targets=gates.targets,
        layers=gates.layers, backends={"student": "student", "folded": "reference", "loihi": "loihi", "lava": "lava"},
        significance=gates.accuracy_significance, table="gates",
    )  # fmt: skip
    return replace(made, **changes)


@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=4)))
def test_spikes_layer_of_target_before_layer_before_target_before_global(present: tuple[bool, bool, bool, bool]) -> None:
    tables = (
        ("[targets.lava.layers.lif1]\nspike_mismatch = 1", 1.0, "gates.targets.lava.layers.lif1.spike_mismatch"),
        ("[layers.lif1]\nspike_mismatch = 2", 2.0, "gates.layers.lif1.spike_mismatch"),
        ("[targets.lava]\nspike_mismatch = 3", 3.0, "gates.targets.lava.spike_mismatch"),
        ("spike_mismatch = 4", 4.0, "gates.spike_mismatch"),
    )
    chosen = [table for table, there in zip(tables, present, strict=True) if there]
    found = criteria("\n".join(text for text, _, _ in reversed(chosen)))
    expected = chosen[0][1:] if chosen else (20.0, "gates.spike_mismatch")
    assert found.spikes("lava", "lif1") == Demand(*expected)
    assert found.tolerance_for("lava").spikes_for("lif1") == expected[0]
    rest = 3.0 if present[2] else 4.0 if present[3] else 20.0
    assert found.tolerance_for("lava").spikes_for("lif2") == rest, "another layer takes what its target or all have"
    elsewhere = 2.0 if present[1] else 4.0 if present[3] else 20.0
    assert found.tolerance_for("loihi").spikes_for("lif1") == elsewhere, "another target takes what the layer or all have"


@pytest.mark.parametrize("limit", get_args(TargetLimit))
def test_a_rungs_own_name_wins_over_its_backends(limit: TargetLimit) -> None:
    both = criteria(f"[targets.reference]\n{limit} = {3 if limit != 'accuracy_significance' else 0.3}")
    assert both.of_target("folded", limit) == Demand(
        3 if limit != "accuracy_significance" else 0.3, f"gates.targets.reference.{limit}"
    )
    own = criteria(
        f"[targets.reference]\n{limit} = {3 if limit != 'accuracy_significance' else 0.3}\n"
        f"[targets.folded]\n{limit} = {1 if limit != 'accuracy_significance' else 0.1}"
    )
    assert own.of_target("folded", limit) == Demand(
        1 if limit != "accuracy_significance" else 0.1, f"gates.targets.folded.{limit}"
    )
    assert own.of_target("lava", limit) is None


@pytest.mark.parametrize("limit", get_args(LayerLimit))
def test_limits_of_layers_fall_back_one_by_one(limit: LayerLimit) -> None:
    found = criteria(f"[layers.lif1]\n{limit} = 2\n[targets.lava.layers.lif1]\ndead = 7\nspike_mismatch = 7")
    expected = Demand(7.0, f"gates.targets.lava.layers.lif1.{limit}") if limit in ("dead", "spike_mismatch") else None
    assert found.of_layer("lava", "lif1", limit) == (expected or Demand(2.0, f"gates.layers.lif1.{limit}"))
    assert found.of_layer("loihi", "lif1", limit) == Demand(2.0, f"gates.layers.lif1.{limit}")
    assert found.of_layer("lava", "lif2", limit) is None


def test_decisions_and_significance_take_the_targets_before_all() -> None:
    found = criteria("decision_mismatch = 7\naccuracy_significance = 0.2\n[targets.lava]\ndecision_mismatch = 1\n")
    assert found.decisions("lava") == Demand(1.0, "gates.targets.lava.decision_mismatch")
    assert found.decisions("loihi") == Demand(7.0, "gates.decision_mismatch")
    assert found.significance_of("lava") == Demand(0.2, "gates.accuracy_significance")
    assert criteria().significance_of("lava") is None
    assert found.tolerance_for("lava").decisions == 1.0


def test_what_a_caller_states_names_no_setting() -> None:
    found = Criteria(tolerance=Tolerance(9.0, 4.0, {"lif1": 1.0}))
    assert found.spikes("lava", "lif1") == Demand(1.0, "")
    assert found.spikes("lava", "lif2") == Demand(9.0, "")
    assert found.tolerance_for("lava") == found.tolerance


# --- every gate seen to fail and to pass -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> Deployment:
    return read(dense_net(), (4,))


def layer(name: str, **measured: Any) -> LayerComparison:
    spiking = name != "readout"
    defaults: dict[str, Any] = {
        "layer": name, "verdict": "WITHIN", "neurons": 10, "positions": 1000, "reference_spikes": 50 * spiking,
        "got_spikes": 50 * spiking, "mismatched_spikes": 0, "count_error_sum": 0, "count_error_max": 0,
        "neurons_with_count_error": 0, "first_divergence": None, "membranes_compared": 1000, "mismatched_membranes": None,
        "membrane_difference_max": 0.5, "overflows": 0, "latency": 0, "tolerance_that_would_pass": 0.0,
    }  # fmt: skip
    return LayerComparison.model_validate(defaults | measured)


def comparison(
    reference: str, target: str, verdict: Verdict = "WITHIN", lif1: dict[str, Any] | None = None, **changes: Any
) -> Comparison:
    layers = (layer("lif1", **(lif1 or {})), layer("lif2"), layer("readout"))
    defaults: dict[str, Any] = {
        "reference": reference, "target": target, "required": True, "verdict": verdict, "samples": 100, "layers": layers,
        "first_faulty_layer": None, "decisions_equal": 100,
    }  # fmt: skip
    if verdict in ("SKIPPED", "UNAVAILABLE", "ERROR"):
        defaults["layers"] = ()
    return Comparison.model_validate(defaults | changes)


def ladder(network: Deployment, comparisons: tuple[Comparison, ...], kinds: Mapping[str, Kind], **results: Any) -> LadderResult:
    """student, folded, loihi and lava, each of 100 samples and 95 right; ``results`` changes one."""
    made = []
    for name, backend in (("student", "student"), ("folded", "reference"), ("loihi", "loihi"), ("lava", "lava")):
        rung = Rung(name, backend, network, simulator("reference"), "", required=True)
        made.append(replace(RungResult(rung, samples=100, correct=95), **results.get(name, {})))
    links = [
        (Link(c.reference, c.target, kinds.get(c.target, "approximate")), ComparisonTally("approximate", network))
        for c in comparisons
    ]
    return LadderResult(made, links, 100, labelled=True)


ABSENT = Diagnostic("SNX404", "lava is not available", where="lava", why="no environment", fix="install it")


def run(
    network: Deployment,
    text: str,
    *comparisons: Comparison,
    kinds: Mapping[str, Kind] | None = None,
    changes: Mapping[str, Any] | None = None,
    **results: Any,
) -> tuple[Gate, ...]:
    found = comparisons or (comparison("student", "loihi"),)
    return evaluate(criteria(text, **(changes or {})), ladder(network, found, kinds or {}, **results), found)


def one(gates: tuple[Gate, ...], setting: str) -> Gate:
    (gate,) = [gate for gate in gates if setting in gate.setting.split(", ")]
    return gate


CLOSE = {"tolerance_that_would_pass": 0.05, "mismatched_spikes": 5}
"""Five per cent of the spikes of a layer."""
CASES: dict[str, tuple[str, str, str, tuple[Comparison, ...], dict[str, Any]]] = {
    # what is demanded: setting, a limit that passes, one that fails, comparisons, results
    "least accuracy": ("gates.targets.lava.accuracy", "95", "95.1", (), {}),
    "drop of accuracy": (
        "gates.targets.lava.accuracy_drop", "3", "2.9", (), {"lava": {"correct": 92}},
    ),
    "overflows": ("gates.targets.lava.overflows", "2", "1", (), {"lava": {"overflows": 2}}),
    "spikes of a target": ("gates.targets.lava.spike_mismatch", "5", "4.9", (comparison("loihi", "lava", lif1=CLOSE),), {}),
    "decisions of a target": (
        "gates.targets.lava.decision_mismatch", "3", "2.9", (comparison("loihi", "lava", decisions_equal=97),), {},
    ),
    "agreement of a target": (
        "gates.targets.lava.agree", '"within"', '"exact"', (comparison("loihi", "lava", lif1=CLOSE),), {},
    ),
    "spikes of a layer": ("gates.layers.lif1.spike_mismatch", "5", "4.9", (comparison("loihi", "lava", lif1=CLOSE),), {}),
    "membranes of a layer": ("gates.layers.lif1.membrane_difference", "0.5", "0.49", (), {}),
    "spikes of a layer in a target": (
        "gates.targets.lava.layers.lif1.spike_mismatch", "5", "4.9", (comparison("loihi", "lava", lif1=CLOSE),), {},
    ),
    "membranes of a layer in a target": (
        "gates.targets.lava.layers.lif1.membrane_difference", "0.5", "0.49", (comparison("loihi", "lava"),), {},
    ),
    "spikes of all": ("gates.spike_mismatch", "5", "4.9", (comparison("loihi", "lava", lif1=CLOSE),), {}),
    "decisions of all": ("gates.decision_mismatch", "3", "2.9", (comparison("loihi", "lava", decisions_equal=97),), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_gate_passes_at_its_limit_and_fails_with_1_beyond_it(name: str, network: Deployment) -> None:
    setting, passing, failing, comparisons, results = CASES[name]
    table, _, key = setting.removeprefix("gates.").rpartition(".")
    header = f"[{table}]\n" if table else ""
    for limit, passes in ((passing, True), (failing, False)):
        gates = run(network, f"{header}{key} = {limit}", *comparisons, **results)
        gate = one(gates, setting)
        assert gate.passed == passes, gate
        assert gate.exit_code == 1
        assert gate.required
        assert gate.measured
        failed = [other for other in gates if not other.passed]
        assert failed == ([] if passes else [gate]), "nothing else fails"
        assert exit_code(gates) == (0 if passes else 1)


def activity(**changes: Any) -> Activity:
    defaults = {"layer": "lif1", "rate": 0.25, "dead": 1, "saturated": 2, "neurons": 20, "rate_histogram": ()}
    return Activity.model_validate(defaults | changes)


@pytest.mark.parametrize("table", ["layers.lif1", "targets.loihi.layers.lif1", "targets.lava.layers.lif1"])
@pytest.mark.parametrize(
    ("limit", "passing", "failing"),
    [("dead", 5, 4.9), ("saturated", 10, 9.9), ("rate_min", 0.25, 0.26), ("rate_max", 0.25, 0.24)],
)
def test_gates_on_firing(network: Deployment, table: str, limit: str, passing: float, failing: float) -> None:
    rungs = ladder(network, (), {})
    watched = {"loihi": (activity(),), "lava": (activity(),)}
    for value, passes in ((passing, True), (failing, False)):
        (gate,) = firing(criteria(f"[{table}]\n{limit} = {value}"), rungs, watched)
        assert (gate.passed, gate.exit_code, gate.setting) == (passes, 1, f"gates.{table}.{limit}")
        assert ("lava" in gate.name) == ("lava" in table)
    (unseen,) = firing(criteria(f"[{table}]\n{limit} = {passing}"), rungs, {"loihi": ()})
    assert (unseen.passed, unseen.exit_code) == (False, 5), "nobody counted: not measured"
    (absent,) = firing(
        criteria(f"[{table}]\n{limit} = {passing}"),
        ladder(network, (), {}, lava={"status": "SKIPPED", "findings": (ABSENT,)}),
        {"loihi": (activity(),)},
    )
    assert absent.skipped == ("lava" in table)


def test_a_targets_firing_replaces_the_layers_in_the_rung_all_are_held_against(network: Deployment) -> None:
    text = "[layers.lif1]\ndead = 0\nrate_min = 0.5\n[targets.loihi.layers.lif1]\ndead = 50"
    gates = firing(criteria(text), ladder(network, (), {}), {"loihi": (activity(),)})
    assert {gate.setting: gate.passed for gate in gates} == {
        "gates.layers.lif1.rate_min": False,
        "gates.targets.loihi.layers.lif1.dead": True,
    }


def test_whose_firing_has_to_be_counted() -> None:
    text = (
        "[layers.lif1]\ndead = 0\n[targets.lava.layers.lif1]\nrate_min = 0\n[targets.reference.layers.lif1]\nspike_mismatch = 0"
    )
    assert list(criteria(text).watched()) == ["lava"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[targets.lavs]\naccuracy = 1", "there is no rung or backend called lavs; did you mean lava? this run has student"),
        ("[layers.lif3]\ndead = 1", "there is no layer called lif3; did you mean lif"),
        ("[layers.lif3]", "there is no layer called lif3"),
        ("[targets.lava.layers.fc]\ndead = 1", "there is no layer called fc; this run has lif1, lif2, readout"),
        ("[targets.reference.layers.lif9]\nspike_mismatch = 1", "there is no layer called lif9"),
        ("[targets.teacher]\naccuracy = 1", "gates.teacher_accuracy"),
    ],
)
def test_a_name_that_the_run_does_not_have_is_not_ignored(network: Deployment, text: str, told: str) -> None:
    gates = run(network, text)
    (failed,) = [gate for gate in gates if not gate.passed]
    assert (failed.exit_code, exit_code(gates)) == (5, 5)
    assert told in failed.detail
    assert failed.setting == f"gates.{text.partition(']')[0][1:]}"


def test_a_layer_that_a_caller_names_must_be_there_too(network: Deployment) -> None:
    gates = run(network, "", changes={"tolerance": Tolerance(20.0, 5.0, {"lif7": 1.0})})
    assert [gate.exit_code for gate in gates if not gate.passed] == [5]


SILENT = {"reference_spikes": 0, "got_spikes": 0}
UNMEASURED: dict[str, tuple[str, tuple[Comparison, ...], dict[str, Any]]] = {
    "no labels that count": ("[targets.lava]\naccuracy = 1", (), {"lava": {"samples": 0}}),
    "no baseline": ("[targets.lava]\naccuracy_drop = 1", (), {"student": {"samples": 0}}),
    "the baseline itself": ("[targets.student]\naccuracy_drop = 1", (), {}),
    "other samples": ("[targets.lava]\naccuracy_drop = 1", (), {"lava": {"samples": 50, "correct": 50}}),
    "no pairs for a test": ("[targets.lava]\naccuracy_drop = 1\naccuracy_significance = 0.05", (), {}),
    "overflows nobody counts": ("[targets.lava]\noverflows = 1", (), {"lava": {"overflows": None}}),
    "compared with nothing": ('[targets.student]\nagree = "within"', (), {}),
    "bits of other numbers": ('[targets.lava]\nagree = "exact"', (comparison("loihi", "lava"),), {}),
    "a readout's spikes": ("[layers.readout]\nspike_mismatch = 1", (), {}),
    "a silent layer": ("[layers.lif1]\nspike_mismatch = 1", (comparison("loihi", "lava", lif1=SILENT),), {}),
    "membranes unseen": (
        "[layers.lif1]\nmembrane_difference = 1", (comparison("loihi", "lava", lif1={"membrane_difference_max": None}),), {},
    ),
    "no comparison of the target": ("[targets.lava.layers.lif1]\nspike_mismatch = 1", (), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNMEASURED)
def test_a_gate_that_could_not_be_measured_fails_with_5(name: str, network: Deployment) -> None:
    text, comparisons, results = UNMEASURED[name]
    gates = run(network, text, *comparisons, **results)
    (failed,) = [gate for gate in gates if not gate.passed]
    assert (failed.exit_code, failed.skipped, exit_code(gates)) == (5, False, 5)
    assert failed.setting.startswith("gates.")
    assert failed.detail


DEMANDS = (
    "accuracy = 1", "accuracy_drop = 1", "overflows = 1", 'agree = "exact"', "spike_mismatch = 1", "decision_mismatch = 1",
    "layers.lif1.spike_mismatch = 1", "layers.lif1.membrane_difference = 1",
)  # fmt: skip


@pytest.mark.parametrize(("status", "code"), [("SKIPPED", 0), ("UNAVAILABLE", 4), ("ERROR", 3)])
@pytest.mark.parametrize("demand", DEMANDS)
def test_an_absent_target_skips_its_gates_only_where_it_is_optional(
    network: Deployment, demand: str, status: Verdict, code: int
) -> None:
    finding = replace(ABSENT, code="SNX203") if status == "ERROR" else ABSENT
    lava = {"status": status, "findings": (finding,), "samples": 0, "correct": 0}
    kinds: dict[str, Kind] = {"lava": "exact"}
    pair = comparison("loihi", "lava", status, message="it is not there")
    gates = run(network, f"[targets.lava]\n{demand}", comparison("student", "loihi"), pair, kinds=kinds, lava=lava)
    about = [gate for gate in gates if "targets.lava" in gate.setting]
    assert about
    assert {(gate.skipped, gate.exit_code) for gate in about} == {(status == "SKIPPED", code)}
    assert exit_code(gates) == code


@pytest.mark.parametrize(
    ("kind", "verdict", "level", "passes"),
    [
        ("exact", "EXACT", "exact", True), ("exact", "EXACT", "rounding", True), ("exact", "DRIFT", "within", False),
        ("float", "EXACT", "exact", True), ("float", "TIE", "exact", False), ("float", "TIE", "rounding", True),
        ("float", "TIE", "within", True), ("float", "DRIFT", "within", False), ("approximate", "WITHIN", "within", True),
        ("approximate", "DRIFT", "within", False),
    ],
)  # fmt: skip
def test_agreement_is_made_stricter_never_weaker(
    network: Deployment, kind: Kind, verdict: Verdict, level: str, passes: bool
) -> None:
    lif1 = {"verdict": verdict, "tolerance_that_would_pass": 0.0 if verdict in ("EXACT", "WITHIN") else 0.5}
    pair = comparison("loihi", "lava", verdict, lif1=lif1)
    gates = run(network, f'[targets.lava]\nagree = "{level}"', pair, kinds={"lava": kind})
    assert (exit_code(gates) == 0) == passes
    assert exit_code(gates) == (0 if passes else 1)
    owed = {"exact": "bit for bit", "float": "bit for bit" if level == "exact" else "up to rounding"}.get(kind, "the tolerance")
    assert [gate.name for gate in gates if gate.name.startswith("lava equals")] == [
        f"lava equals loihi {'within ' if kind == 'approximate' else ''}{owed}"
    ]


def test_a_backends_name_demands_of_each_of_its_rungs(network: Deployment) -> None:
    pairs = (comparison("student", "loihi", lif1=CLOSE), comparison("loihi", "lava"))
    chip = {"backends": {"student": "student", "loihi": "chip", "lava": "chip"}}
    gates = run(network, "[targets.chip.layers.lif1]\nspike_mismatch = 1", *pairs, changes=chip)
    measured = {gate.name: gate.passed for gate in gates if gate.setting == "gates.targets.chip.layers.lif1.spike_mismatch"}
    assert measured == {"spikes of lif1 in loihi": False, "spikes of lif1 in lava": True}


def test_agreement_is_that_with_the_rung_next_to_it_not_with_the_first() -> None:
    network = read(dense_net(), (4,))
    pairs = (comparison("loihi", "lava", "EXACT"), comparison("student", "lava", "WITHIN", lif1=CLOSE))
    found = ladder(network, pairs, {})
    found.links[0] = (Link("loihi", "lava", "exact"), found.links[0][1])
    gates = evaluate(criteria('[targets.lava]\nagree = "exact"'), found, pairs)
    assert exit_code(gates) == 0
    assert one(gates, "gates.targets.lava.agree").name == "lava equals loihi bit for bit"


def test_a_layers_own_limit_takes_it_out_of_the_targets(network: Deployment) -> None:
    pair = comparison("loihi", "lava", lif1=CLOSE)
    gates = run(network, "spike_mismatch = 1\n[layers.lif1]\nspike_mismatch = 6", pair)
    assert exit_code(gates) == 0
    assert one(gates, "gates.spike_mismatch").measured.startswith("0")
    gates = run(
        network, "spike_mismatch = 10\n[layers.lif1]\nspike_mismatch = 1\n[targets.lava.layers.lif1]\nspike_mismatch = 6", pair
    )
    missing = [gate.setting for gate in gates if not gate.passed]
    assert missing == ["gates.layers.lif1.spike_mismatch"], "nothing is left for it to hold: not measured"
    assert exit_code(gates) == 5


def test_decisions_count_where_the_readout_spikes_too(network: Deployment) -> None:
    """The layers' verdicts see spikes alone then; the gate has to look at the decisions itself."""
    gates = run(network, "", comparison("loihi", "lava", decisions_equal=90))
    assert exit_code(gates) == 1


def test_the_worst_comparison_is_told_with_its_first_divergence(network: Deployment) -> None:
    first = Divergence(sample=3, step=2, neuron=1, position=(1,), kind="spike", expected=1.0, got=0.0)
    worse = {"tolerance_that_would_pass": 0.5, "first_divergence": first, "verdict": "DRIFT"}
    pairs = (comparison("student", "loihi", lif1=CLOSE), comparison("loihi", "lava", "DRIFT", lif1=worse))
    gate = one(run(network, "[layers.lif1]\nspike_mismatch = 1", *pairs), "gates.layers.lif1.spike_mismatch")
    assert gate.measured.replace("\u202f", " ") == "50.0 % in lava against loihi"
    assert gate.detail == "first: sample 3, step 2, neuron 1: spike expected, none came"


def paired(lost: int, gained: int, samples: int = 100) -> Comparison:
    return comparison(
        "student", "lava", only_reference_right=lost, only_target_right=gained, mcnemar_p=mcnemar_p(lost, gained),
        samples=samples, decisions_equal=samples,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "gained", "alpha", "passes"),
    [(5, 0, None, False), (5, 0, 0.05, True), (6, 0, 0.05, False), (6, 4, 0.05, True), (1, 0, None, True), (0, 6, 0.05, True)],
)
def test_a_loss_within_chance_passes_only_where_that_is_asked_for(
    network: Deployment, lost: int, gained: int, alpha: float | None, passes: bool
) -> None:
    text = "[targets.lava]\naccuracy_drop = 1" + (f"\naccuracy_significance = {alpha}" if alpha else "")
    gates = run(network, text, paired(lost, gained), lava={"correct": 95 - lost + gained})
    gate = one(gates, "gates.targets.lava.accuracy_drop")
    assert (gate.passed, gate.exit_code) == (passes, 1)
    assert ("p = " in gate.measured) == (alpha is not None)


def test_samples_that_could_never_show_a_loss_are_too_few(network: Deployment) -> None:
    text = "[targets.lava]\naccuracy_drop = 1\naccuracy_significance = 0.05"
    for samples, code in ((5, 5), (6, 1)):
        gates = run(network, text, paired(samples, 0, samples), lava={"samples": samples, "correct": 0})
        assert exit_code(gates) == code, f"2^(1-{samples}) against 0.05"


def test_a_target_with_fewer_samples_is_measured_on_those_it_shares(network: Deployment) -> None:
    lava = {"samples": 50, "correct": 40}
    gates = run(network, "[targets.lava]\naccuracy_drop = 4", paired(3, 1, 50), lava=lava)
    gate = one(gates, "gates.targets.lava.accuracy_drop")
    assert (gate.passed, gate.measured.partition(" (")[0]) == (True, "4.00 points lost")
    gates = run(network, "[targets.lava]\naccuracy_drop = 3.9", paired(3, 1, 50), lava=lava)
    assert exit_code(gates) == 1


# --- the exit code -----------------------------------------------------------------------------------------------------

CAUSES = (70, 130, 2, 4, 3, 5, 1)


@pytest.mark.parametrize("size", range(len(CAUSES) + 1))
def test_the_worst_of_any_causes_wins(size: int) -> None:
    assert (*CAUSES, 0) == PRECEDENCE
    for causes in itertools.combinations(CAUSES, size):
        gates = tuple(Gate(name="g", required="", measured="", passed=False, exit_code=code) for code in reversed(causes))
        good = Gate(name="g", required="", measured="", passed=True, exit_code=1)
        expected = causes[0] if causes else 0
        assert exit_code((*gates, good)) == expected
        assert worst_exit_code([0, *reversed(causes), *causes]) == expected


def test_every_limit_has_a_case_above() -> None:
    """A limit that is added to the settings is seen to fail and to pass, or this fails."""
    seen = {CASES[name][0].rpartition(".")[2] for name in CASES}
    assert set(get_args(TargetLimit)) | {"agree", "layers"} == TargetGates.model_fields.keys()
    assert set(get_args(LayerLimit)) == LayerGates.model_fields.keys()
    assert set(get_args(TargetLimit)) - {"accuracy_significance"} <= seen
    assert set(get_args(LayerLimit)) - set(ACTIVITY) <= seen


# --- the real command --------------------------------------------------------------------------------------------------


def test_verify_applies_them_and_says_where_they_came_from(finished_run: FinishedRun, tmp_path: Path) -> None:
    root = finished_run.copy(tmp_path)
    config = root / "snn-export.toml"
    asked = """
[verify]
samples = 64
[gates.targets.loihi]
accuracy = 1
accuracy_drop = 100
[gates.targets.reference]
decision_mismatch = 100
[gates.layers.lif1]
spike_mismatch = 100
rate_min = 0.0001
[gates.targets.quantised.layers.lif1]
dead = 100
"""
    before = config.read_text(encoding="utf-8")
    config.write_text(before + asked, encoding="utf-8")
    done = snn_export("verify", cwd=root)
    report = json.loads((root / "out" / "report" / "report.json").read_text(encoding="utf-8"))
    settings = {gate["setting"]: gate["passed"] for gate in report["gates"] if gate["setting"]}
    assert done.returncode == 0, done.stdout + done.stderr
    for setting in ("targets.loihi.accuracy", "layers.lif1.spike_mismatch", "targets.quantised.layers.lif1.dead"):
        assert settings[f"gates.{setting}"] is True
    config.write_text(before + asked.replace("layers.lif1]\nspike", "layers.lif9]\nspike"), encoding="utf-8")
    done = snn_export("verify", cwd=root)
    assert done.returncode == 5
    (cause,) = json.loads((root / "out" / "report" / "report.json").read_text(encoding="utf-8"))["causes"]
    assert "there is no layer called lif9; did you mean lif" in cause
