"""A baseline that is compared with something easier: what is not asked any more, or asked for less, did get worse."""

from __future__ import annotations

import pytest

from snn_export.reporting.difference_gates import judge
from snn_export.reporting.report import Report
from tests.report_examples import diverging_report, example_report
from tests.toolchain.test_reporting_difference import changed, layer, outcome

SETTINGS = """\
[gates]
spike_mismatch = 20.0
accuracy_drop = 1.0
overflows = 0
exact = [["loihi", "lava"]]
student_accuracy = 90.0
[gates.targets.lava]
agree = "exact"
accuracy = 90.0
[gates.layers.lif2]
dead = 5.0
rate_min = 0.01
[verify.backends.lava]
required = true
samples = 0
"""


def with_settings(text: str) -> Report:
    return changed(example_report(), settings=text)


def found(old: str, new: str, *, base: str = SETTINGS) -> tuple[int, str]:
    assert old in base
    result = judge(with_settings(base), with_settings(base.replace(old, new)))
    (gate,) = (gate for gate in result.gates if gate.name == "coverage")
    return result.exit_code, gate.detail


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("spike_mismatch = 20.0", "spike_mismatch = 99.0", "gates.spike_mismatch asks for less: 20.0 before, 99.0 now"),
        ("accuracy_drop = 1.0", "accuracy_drop = 100.0", "gates.accuracy_drop asks for less"),
        ("accuracy_drop = 1.0", "accuracy_drop = 1.0\naccuracy_significance = 0.01", "gates.accuracy_significance asks for less"),
        ("overflows = 0", "overflows = 1000000", "gates.overflows asks for less"),
        ('[["loihi", "lava"]]', "[]", "gates.exact asks for less"),
        ("student_accuracy = 90.0", "student_accuracy = 10.0", "gates.student_accuracy asks for less"),
        ("student_accuracy = 90.0\n", "", "gates.student_accuracy asks for less: 90.0 before, nothing now"),
        ('agree = "exact"', 'agree = "within"', "gates.targets.lava.agree asks for less"),
        ("\naccuracy = 90.0", "\naccuracy = 89.0", "gates.targets.lava.accuracy asks for less"),
        ("dead = 5.0", "dead = 100.0", "gates.layers.lif2.dead asks for less"),
        ("rate_min = 0.01", "rate_min = 0.0", "gates.layers.lif2.rate_min asks for less"),
        ("dead = 5.0", "dead = 5.0\nspike_mismatch = 90.0", "gates.layers.lif2.spike_mismatch asks for less: 20.0 before"),
        ("\naccuracy = 90.0", "\naccuracy = 90.0\nspike_mismatch = 90.0", "gates.targets.lava.spike_mismatch asks for less"),
        ("required = true", "required = false", "verify.backends.lava.required asks for less"),
    ],
)  # fmt: skip
def test_a_demand_that_asks_for_less_does_not_pass(old: str, new: str, told: str) -> None:
    code, detail = found(old, new)
    assert (code, told in detail) == (5, True), detail


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("spike_mismatch = 20.0", "spike_mismatch = 5.0"),
        ("student_accuracy = 90.0", "student_accuracy = 95.0"),
        ('[["loihi", "lava"]]', '[["loihi", "lava"], ["loihi", "netx"]]'),
        ("dead = 5.0", "dead = 5.0\nspike_mismatch = 20.0"),
        ("dead = 5.0", "dead = 5.0\nsaturated = 1.0"),
        ("required = true", "required = true\ntime_limit = 3.0"),
        ("[gates.layers.lif2]\ndead = 5.0\nrate_min = 0.01\n", "[gates.layers.lif2]\nrate_min = 0.01\ndead = 5.0\n"),
        (SETTINGS, ""),
        (SETTINGS, "not [ toml"),
        (SETTINGS, f"a = {'[' * 50_000}"),
    ],
)
def test_a_demand_that_asks_for_as_much_passes(old: str, new: str) -> None:
    assert found(old, new) == (0, "")


def test_a_significance_that_is_gone_asks_for_more() -> None:
    base = SETTINGS.replace("overflows", "accuracy_significance = 0.05\noverflows")
    assert found("accuracy_significance = 0.05\n", "", base=base)[0] == 0
    assert found("accuracy_significance = 0.05", "accuracy_significance = 0.001", base=base)[0] == 5


def test_a_gate_that_is_gone_does_not_pass() -> None:
    report = example_report()
    for gate in report.gates:
        result = judge(report, changed(report, gates=tuple(item for item in report.gates if item is not gate)))
        assert outcome(result) == ((5, ["coverage"]) if gate.passed and not gate.skipped else (0, [])), gate.name


def test_a_drift_that_grew_is_worse() -> None:
    """Both fail, with one verdict: that is no "nothing got worse"."""
    report = diverging_report()
    (target, name), *_ = [(c.target, part.layer) for c in report.comparisons for part in c.layers if part.verdict == "DRIFT"]
    before, after = (layer(report, target, name, tolerance_that_would_pass=share) for share in (0.01, 0.8))
    assert outcome(judge(before, after)) == (1, ["verdicts"])
    assert outcome(judge(after, before)) == (0, [])
