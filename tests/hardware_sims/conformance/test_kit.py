from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from snn_export.export import netx_rules
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.conformance import kit
from snn_export.hardware_sims.conformance.kit import CHECKS, Outcome, run_check, run_kit, selected
from snn_export.hardware_sims.conformance.networks import dense, float_deployment, network, on_integers
from snn_export.hardware_sims.registry import BrokenSimulator
from snn_export.hardware_sims.simulator import BackendError, Capabilities
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.spec import EncoderSpec
from tests.hardware_sims.conformance.mutants import MUTANTS, Mutant, each

ONE = CHECKS["fire.exactly_at_threshold"]
FINDING = Diagnostic("SNX203", "cannot reset so", "n", "because", "change it")
BROKE = Diagnostic("SNX420", "the worker crashed", "worker", "because", "read the log")


@pytest.mark.parametrize("integers", [False, True], ids=["floats", "integers"])
def test_the_interpreter_itself_passes_every_check(integers: bool) -> None:
    found = run_kit(Mutant(integers=integers))
    beyond = ("reset.delayed", "reset.none", "reset.subtraction_that", "graph.floats_are_refused") if integers else ()
    assert [item.check for item in found.problems()] == [name for name in CHECKS if name.startswith(beyond)], found.summary()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_is_noticed_by_the_checks_that_are_there_for_it(name: str) -> None:
    mutant, guilty = MUTANTS[name]
    for check in guilty:
        outcome = run_check(mutant, CHECKS[check])
        assert (outcome.stage, outcome.status) == ("mismatch", "failed"), f"{check}: {outcome.stage} {outcome.detail}"
        assert outcome.detail and outcome.exit_code == 1


def test_every_check_says_what_it_proves_and_compares_something() -> None:
    assert len(CHECKS) >= 40
    assert {name.partition(".")[0] for name in CHECKS} == {"fire", "reset", "leak", "latency", "shapes", "graph", "contract"}
    for check in CHECKS.values():
        assert check.proves.endswith((".", ")")) and 20 < len(check.proves) < 130, check.name
    silent = replace(Mutant(), trace=each(lambda *_: {"membrane": None, "current": None}))
    assert [o.check for o in run_kit(silent).outcomes if o.stage == "nothing exercised"] == NEEDS_MEMBRANES


NEEDS_MEMBRANES = [
    *("fire.silence_stays_silent", "fire.only_negative_weights", "leak.long_silence", "leak.long_silence_below_zero"),
    *("leak.two_time_constants", "leak.input_weight_of_a_cubalif", "contract.state_is_cleared_between_runs"),
]


class Scripted:
    """The interpreter, until one of its answers is replaced."""

    name = "scripted"

    def __init__(self, **answers: Callable[..., Any]) -> None:
        self._inner, self._answers = Mutant(), answers

    def __getattr__(self, name: str) -> Any:
        return self._answers.get(name) or getattr(self._inner, name)


def raising(error: Exception) -> Callable[..., Any]:
    def raise_it(*_: Any) -> Any:
        raise error

    return raise_it


def other_trace(change: Callable[[Trace], Any]) -> Callable[..., Any]:
    def run(program: Deployment, inputs: Any, record: Collection[Record]) -> Any:
        return change(Mutant().run(program, inputs, record))

    return run


@pytest.mark.parametrize(
    ("answers", "stage", "code", "exit_code"),
    [
        ({"check": lambda _: [FINDING]}, "refused", "SNX203", 1),
        ({"compile": raising(UserError.from_diagnostics((FINDING,)))}, "refused", "SNX203", 1),
        ({"check": raising(ZeroDivisionError("oh"))}, "compile failed", None, 1),
        ({"compile": raising(ZeroDivisionError("oh"))}, "compile failed", None, 1),
        ({"compile": raising(BackendError(BROKE))}, "compile failed", "SNX420", 4),
        ({"run": raising(RuntimeError("oh"))}, "run failed", None, 1),
        ({"run": raising(UserError.from_diagnostics((FINDING,)))}, "run failed", "SNX203", 1),
        ({"run": raising(BackendError(BROKE))}, "run failed", "SNX420", 4),
        ({"run": lambda *_: None}, "mismatch", None, 1),
        ({"run": other_trace(lambda t: replace(t, layers={}))}, "mismatch", None, 1),
        ({"run": other_trace(each(lambda _, layer: {"spikes": layer.spikes[:1]}))}, "mismatch", None, 1),
        ({"run": other_trace(each(lambda *_: {"spikes": None}))}, "mismatch", None, 1),
    ],
)
def test_an_outcome_names_the_stage(answers: dict[str, Any], stage: str, code: str | None, exit_code: int) -> None:
    outcome = run_check(Scripted(**answers), ONE)
    assert (outcome.stage, outcome.code, outcome.status, outcome.exit_code) == (stage, code, "failed", exit_code)
    assert outcome.as_dict()["stage"] == stage


CAREFUL = ("no_samples", "inputs_of_another_shape", "inputs_that_are_no_numbers", "probes_hold_what_was_asked_for")


@pytest.mark.parametrize("name", CAREFUL)
def test_a_backend_that_runs_anything_is_noticed(name: str) -> None:
    def run(program: Deployment, inputs: Any, record: Any) -> Trace:
        steps = (program.contract.steps, 1, *program.input_shape)
        return Mutant().run(program, np.ones(steps), ("spikes", "membrane"))

    outcome = run_check(Scripted(run=run), CHECKS[f"contract.{name}"])
    assert outcome.stage == "mismatch", outcome.detail
    refusing = Scripted(run=raising(UserError.from_diagnostics((FINDING,))))
    assert run_check(refusing, CHECKS[f"contract.{name}"]).code in ("SNX203", None)
    assert run_check(refusing, CHECKS[f"contract.{name}"]).status == "failed"


def test_a_refusal_must_be_one_of_check_and_of_compile() -> None:
    check = CHECKS["graph.unknown_nodes_are_refused"]
    assert run_check(Mutant(), check).stage == "passed"
    for answers in ({"check": lambda _: []}, {"check": lambda _: [FINDING], "compile": lambda d: d}):
        assert run_check(Scripted(**answers), check).stage == "mismatch"
    assert run_check(Scripted(compile=raising(KeyError("Rectifier"))), check).stage == "compile failed"


def test_a_mismatch_names_the_place() -> None:
    outcome = run_check(MUTANTS["fires at the threshold"][0], ONE)
    assert outcome.detail == "spikes of 'n': 1 of 4 values differ, first at step 0, sample 0, neuron 0: expected 0, got 1"


def test_expected_failures_are_strict() -> None:
    refusing = Scripted(check=lambda _: [FINDING])
    assert run_check(refusing, ONE, "no such neuron").status == "expected failure"
    assert run_check(refusing, ONE, "SNX203: no such neuron").status == "expected failure"
    other = run_check(refusing, ONE, "SNX201: no such neuron")
    assert other.status == "failed" and "SNX201: no such neuron" in other.told
    assert run_check(Scripted(run=raising(RuntimeError("oh"))), ONE, "SNX203: no such neuron").status == "failed"
    passing = run_check(Mutant(), ONE, "no such neuron")
    assert passing.status == "failed" and passing.exit_code == 1 and "take it off the list" in passing.told
    assert run_check(Mutant(), CHECKS["leak.currents_wrap"], "no such register").status == "failed"


def test_a_simulator_states_its_expected_failures_itself() -> None:
    mutant, guilty = MUTANTS["ignores w_in"]
    stated = replace(mutant, expected_failures=dict.fromkeys(guilty, "it never reads w_in"))
    assert run_kit(stated, selected(guilty)).problems() == []
    assert run_kit(stated, selected(guilty), expected_failures={}).problems() != []
    assert not run_kit(stated, selected(guilty)).passed, "an expected failure alone shows nothing"
    assert run_kit(stated, selected((*guilty, "fire"))).passed


@pytest.mark.parametrize(
    "wrong", [{"fire.unheard_of": "why"}, {"fire.to_zero": ""}, {"fire.graded_input": 3}, ["fire.graded_input"]]
)
def test_a_wrong_list_of_expected_failures_is_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match="SNX504"):
        run_kit(replace(Mutant(), expected_failures=wrong), [ONE])


def test_a_backend_that_cannot_run_is_no_success() -> None:
    with pytest.raises(UserError, match="SNX440") as caught:
        run_kit(BrokenSimulator("mine", BROKE))
    assert caught.value.exit_code == 4


def test_nothing_compared_is_no_success() -> None:
    found = run_kit(Mutant(), selected(("leak.currents_wrap",)))
    assert not found.passed and found.exit_codes == {5}
    silent = Scripted(run=other_trace(each(lambda *_: {"membrane": None})))
    found = run_kit(silent, selected(("fire.only_negative_weights",)))
    assert [o.status for o in found.outcomes] == ["nothing exercised"] and found.exit_codes == {5} and not found.passed


def test_checks_are_selected_by_name_topic_and_pattern() -> None:
    assert selected() == tuple(CHECKS.values())
    assert [check.name for check in selected(("fire.exactly_at_threshold",))] == ["fire.exactly_at_threshold"]
    assert {check.topic for check in selected(("reset", "leak"))} == {"reset", "leak"}
    assert len(selected(("shapes.conv_*",))) > 5
    with pytest.raises(UserError, match="SNX503"):
        selected(("fire", "reset.to_one"))


def test_a_backend_of_integers_gets_integers_and_one_of_floats_floats() -> None:
    seen: list[bool] = []

    def compile_(deployment: Deployment) -> Deployment:
        seen.append(deployment.quantised)
        return deployment

    run_check(Scripted(compile=compile_), ONE)
    run_check(Scripted(compile=compile_, capabilities=lambda: Capabilities("other", True, "")), ONE)
    assert seen == [False, True]


def test_the_networks_of_the_kit_are_not_rounded() -> None:
    """On the grid their real parameters are what they were; what is not on the grid is a mistake of the kit."""
    assert on_integers(float_deployment(network(1, dense("n", 0.5)))).populations["n"].threshold == 64
    with pytest.raises(ValueError, match="not on the grid"):
        on_integers(float_deployment(network(1, dense("n", 1 / 3))))


def test_an_input_as_bias_can_be_a_netx_file() -> None:
    net = network(3, dense("n", 0.5 * np.eye(2)), input_shape=(2,), encoder=EncoderSpec("bias"))
    assert netx_rules.findings(on_integers(float_deployment(net))) == []


def test_progress_is_told_before_each_check() -> None:
    told: list[tuple[str, int, int]] = []
    run_kit(Mutant(), selected(("fire.graded_input", "reset.to_zero")), on_check=lambda *args: told.append(args))
    assert told == [("fire.graded_input", 1, 2), ("reset.to_zero", 2, 2)]


def test_outcomes_are_plain_data() -> None:
    found = run_kit(Mutant(), [ONE])
    assert json.loads(json.dumps(found.as_dict()))["outcomes"][0] == Outcome(ONE.name, "passed").as_dict()
    assert kit.Conformance("x", {}, ()).passed is False


def test_the_kit_imports_neither_torch_nor_a_backend() -> None:
    code = (
        "import sys, snn_export.hardware_sims.conformance.kit\n"
        "print([n for n in sys.modules if n.split('.')[0] in ('torch', 'snntorch', 'numba', 'onnx', 'norse')"
        " or n.startswith('snn_export.hardware_sims.') and n.split('.')[2] not in ('conformance', 'simulator', 'trace')])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
