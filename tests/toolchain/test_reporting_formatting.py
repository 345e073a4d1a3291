from __future__ import annotations

import pytest

from snn_export.reporting import formatting
from snn_export.reporting.formatting import text_of, value_at
from snn_export.reporting.report import Divergence
from tests.report_examples import example_report, failing_report


def plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u2212", "-")


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1000, "1 000"), (2_949_120, "2 949 120"), (-254, "-254"), (-131_071, "-131 071")]
)
def test_counts_are_grouped_in_threes(value: int, text: str) -> None:
    assert plain(formatting.count(value)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0 %"), (100.0, "100.0 %"), (99.99, "> 99.9 %"), (0.01, "< 0.1 %"), (98.0556, "98.1 %"), (99.94, "99.9 %")],
)
def test_only_a_true_hundred_percent_is_written_as_one(value: float, text: str) -> None:
    assert plain(formatting.percent(value)) == text


@pytest.mark.parametrize("mismatched", [1, 2, 3, 7, 449, 1204, 99_999, 2_949_119])
def test_the_printed_tolerance_is_never_below_the_measured_one(mismatched: int) -> None:
    positions = 2_949_120
    printed = plain(formatting.tolerance(mismatched / positions)).removesuffix(" %")
    assert float(printed) / 100 >= mismatched / positions
    assert float(printed) / 100 <= 1.01 * mismatched / positions


def test_no_mismatch_needs_no_tolerance() -> None:
    assert plain(formatting.tolerance(0.0)) == "0 %"


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (12_340.0, 6_100.0, 18_400.0, "12.3 nJ (6.10 to 18.4)"),
        (999.96, None, None, "1.00 nJ"),
        (4.6, 4.6, 4.6, "4.60 pJ"),
        (4_954_954.1, 4_398_000.0, 6_200_000.0, "4.95 µJ (4.40 to 6.20)"),
        (None, None, None, "no figure"),
        (0.0, None, None, "0 pJ"),
    ],
)
def test_energies_choose_their_unit_and_keep_their_range(
    value: float | None, low: float | None, high: float | None, text: str
) -> None:
    assert plain(formatting.energy_range(value, low, high)) == text


@pytest.mark.parametrize(("value", "text"), [(0.0, "0.000"), (0.0001, "< 0.001"), (0.1174, "0.117")])
def test_a_rate_above_zero_is_never_written_as_zero(value: float, text: str) -> None:
    assert plain(formatting.rate(value)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.1920929e-07, "1.192e-7"), (0.4375, "0.4375"), (1.0, "1"), (0.58, "0.58"), (123.456, "123.5")]
)
def test_real_numbers(value: float, text: str) -> None:
    assert plain(formatting.real(value)) == text


def test_two_membranes_that_differ_are_written_differently() -> None:
    expected, got = formatting.distinct_pair(0.123456789, 0.123456788)
    assert expected != got
    assert formatting.distinct_pair(1.0, 2.0) == ("1", "2")


def test_a_divergence_names_the_place_and_the_axes_of_an_image() -> None:
    spike = Divergence(sample=3, step=2, neuron=17, position=(1, 0, 1), kind="spike", expected=1.0, got=0.0)
    assert formatting.divergence(spike) == "sample 3, step 2, neuron 17 (channel 1, row 0, column 1): spike expected, none came"
    membrane = Divergence(sample=0, step=7, neuron=4, position=(4,), kind="membrane", expected=0.5, got=-0.25)
    assert plain(formatting.divergence(membrane)) == "sample 0, step 7, neuron 4: membrane 0.5000 expected, -0.2500 came"


def test_ascii_text_keeps_its_numbers() -> None:
    assert formatting.to_ascii("2\u202f949\u202f120 at 98.1\u202f% → 4.95\u202fµJ") == "2,949,120 at 98.1 % -> 4.95 uJ"
    assert formatting.to_ascii("schön").isascii()


def test_a_path_decides_the_kind_of_number() -> None:
    report = example_report()
    assert plain(text_of(report, "ladder.4.accuracy")) == "97.8 %"
    assert plain(text_of(report, "ladder.4.interval")) == "95.7 to 98.9 %"
    assert plain(text_of(report, "comparisons.0.layers.0.positions")) == "2 949 120"
    assert plain(text_of(report, "comparisons.0.layers.1.tolerance_that_would_pass")) == "0.000136 %"
    assert plain(text_of(report, "energy.total")) == "4.95 µJ (4.40 to 6.20)"
    assert text_of(report, "energy.figures.3.value") == "no figure"
    assert text_of(report, "comparisons.0.layers.0.overflows") == formatting.ABSENT


@pytest.mark.parametrize("path", ["ladder.99.accuracy", "ladder.0.acuracy", "nothing", "ladder.accuracy"])
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(KeyError):
        value_at(failing_report(), path)


def test_ends_of_a_range_that_run_out_of_its_unit_have_their_own() -> None:
    space = formatting.NARROW_SPACE
    told = {
        (446.0, 446.0, 29_119.0): f"446{space}pJ (446{space}pJ to 29.1{space}nJ)",
        (652e3, 87.1e3, 4.346e6): f"652{space}nJ (87.1{space}nJ to 4.35{space}µJ)",
        (12.3e3, 6.1e3, 18.4e3): f"12.3{space}nJ (6.10 to 18.4)",
        (2e3, 0.0, 999e3): f"2.00{space}nJ (0 to 999)",
        (2e3, 0.0, 999.9e3): f"2.00{space}nJ (0{space}pJ to 1.00{space}µJ)",
        (2e6, 1e3, 3e6): f"2.00{space}µJ (0.00100 to 3.00)",
        (2e6, 10.0, 3e6): f"2.00{space}µJ (10.0{space}pJ to 3.00{space}µJ)",
    }
    assert {ends: formatting.energy_range(*ends) for ends in told} == told
    assert formatting.time_range(843e3, 745e3, 1.176e6) == f"843{space}µs (745{space}µs to 1.18{space}ms)"
    assert formatting.time_range(999.99, 1.0, 2e3) == f"1.00{space}µs (0.00100 to 2.00)"
