"""The records of discrete-time semantics refuse what no chip holds, and put inputs on the grid they declare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec, NeuronSpec


@pytest.mark.parametrize("field", ["dv", "du"])
@pytest.mark.parametrize("value", [-1, 4097])
def test_decay_outside_12_bits_is_refused(field: str, value: int) -> None:
    with pytest.raises(UserError, match=f"{field} = {value}") as caught:
        NeuronSpec(**{"dv": 1, field: value})
    assert caught.value.code == "SNX301"


def test_decays_become_the_factors_they_stand_for() -> None:
    assert (NeuronSpec(0).beta, NeuronSpec(4095).beta, NeuronSpec(1024).beta) == (1.0, 1 / 4096, 0.75)
    assert (NeuronSpec(0).alpha, NeuronSpec(0, du=0).alpha, NeuronSpec(0, du=1023).alpha) == (0.0, 4095 / 4096, 0.75)


def test_negative_reset_delay_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        NeuronSpec(1, reset_delay=-1)
    assert caught.value.code == "SNX109"


@pytest.mark.parametrize(
    "values",
    [
        {"clears_input": True}, {"clears_input": True, "reset": "subtract", "reset_delay": 1}, {"double_to_refire": True},
        {"double_to_refire": True, "reset": "subtract", "reset_delay": 1},
    ],
)  # fmt: skip
def test_variants_of_a_reset_belong_to_that_reset(values: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        NeuronSpec(1, **values)
    assert caught.value.code == "SNX109"


def test_a_subtraction_like_snntorchs_is_no_microcode() -> None:
    spec = NeuronSpec(1, reset="subtract", double_to_refire=True)
    finding = spec.reset_finding("n")
    assert not spec.microcode
    assert finding is not None
    assert (finding.code, finding.where) == ("SNX203", "n")
    assert "Lif(" in finding.fix


@pytest.mark.parametrize(
    "values",
    [{"gain": 0.0}, {"gain": -1.0}, {"gain": float("nan")}, {"gain": float("inf")}, {"gain": 1.0, "low": 2, "high": 1}],
)
def test_encoder_without_a_usable_grid_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(UserError) as caught:
        EncoderSpec("direct", **values)  # type: ignore[arg-type]
    assert caught.value.code == "SNX109"


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(0, 1, 1), (0, 15, 4), (0, 16, 5), (0, 255, 8), (-1, 1, 2), (-15, 3, 5), (-3, 15, 5)]
)
def test_message_bits(low: int, high: int, bits: int) -> None:
    assert EncoderSpec("direct", 1.0, low, high).bits == bits


def test_levels_round_half_to_even_and_clip() -> None:
    encoder = EncoderSpec("direct", 2.0, -3, 4)
    given_ = np.array([0.25, 0.75, 1.25, -0.25, -0.75, 9.0, -9.0, 0.2])
    assert encoder.levels(given_).tolist() == [0, 2, 2, 0, -2, 4, -3, 0]
    assert encoder.levels(given_).dtype == np.int64
    assert encoder.values(given_).tolist() == [0, 1.0, 1.0, 0, -1.0, 2.0, -1.5, 0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.integers(0, 8), st.integers(-200, 0), st.integers(0, 200))
def test_values_on_the_grid_stay_where_they_are(inputs: list[float], exponent: int, low: int, high: int) -> None:
    encoder = EncoderSpec("direct", 2.0**exponent, low, high)
    snapped = encoder.values(np.array(inputs))
    np.testing.assert_array_equal(encoder.values(snapped), snapped)
    assert encoder.levels(snapped).min() >= low
    assert encoder.levels(snapped).max() <= high


def test_float_encoder_passes_values_and_has_no_levels() -> None:
    encoder = EncoderSpec()
    assert encoder.values(np.array([0.3])).tolist() == [0.3]
    assert encoder.bits == 0
    with pytest.raises(UserError) as caught:
        encoder.levels(np.array([0.3]))
    assert caught.value.code == "SNX302"
