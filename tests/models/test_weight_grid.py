"""The integers of a synapse: every number of bits, with a sign and without."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snn_export.models.diagnostics import UserError
from snn_export.models.weight_grid import Signs, signs_of, weight_grid

SIGNS: tuple[Signs, ...] = ("mixed", "excitatory", "inhibitory")


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("signs", SIGNS)
def test_a_grid_is_what_lava_leaves_of_its_range(signs: Signs, bits: int) -> None:
    """Lava clips to the range of the signs and then cuts 8 - bits (mixed: 9 - bits) low bits off."""
    low, high = {"mixed": (-256, 255), "excitatory": (0, 255), "inhibitory": (-255, 0)}[signs]
    cut = 8 - bits + (signs == "mixed")
    kept = {(value >> cut) << cut for value in range(low, high + 1)} - ({-256} if signs == "inhibitory" else set())
    grid = weight_grid(bits, signs)
    assert set(range(grid.low, grid.high + 1, grid.step)) == kept
    assert len(kept) == 1 << bits


def test_one_bit_with_both_signs_is_minus_256_or_nothing() -> None:
    assert weight_grid(1, "mixed").nearest(np.array([-300.0, -129, -127, 0, 5, 400])).tolist() == [-256, -256, 0, 0, 0, 0]


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_other_numbers_of_bits_are_refused(bits: int) -> None:
    with pytest.raises(UserError) as caught:
        weight_grid(bits, "mixed")
    assert caught.value.code == "SNX307"


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.integers(1, 8), st.sampled_from(SIGNS))
def test_rounding_takes_the_nearest_integer_of_the_grid(values: list[float], bits: int, signs: Signs) -> None:
    grid = weight_grid(bits, signs)
    all_of_them = np.arange(grid.low, grid.high + 1, grid.step)
    best = np.abs(np.array(values)[:, None] - all_of_them).min(axis=1)
    np.testing.assert_allclose(np.abs(grid.nearest(np.array(values)) - np.array(values)), best, atol=1e-9)


@given(st.lists(st.floats(-10, 10).filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=20), st.integers(2, 8))
def test_largest_factor_fills_the_range_and_not_more(values: list[float], bits: int) -> None:
    array = np.array(values)
    grid = weight_grid(bits, signs_of(array))
    scaled = array * grid.largest_factor(array)
    assert grid.low - 1e-6 <= scaled.min()
    assert scaled.max() <= grid.high + 1e-6
    assert np.isclose(scaled.min(), grid.low) or np.isclose(scaled.max(), grid.high)


@pytest.mark.parametrize(
    ("weights", "signs"),
    [([1, 2], "excitatory"), ([0, 2], "excitatory"), ([-1, 0], "inhibitory"), ([-1, 1], "mixed"), ([0, 0], "mixed")],
)
def test_signs_of_weights(weights: list[int], signs: Signs) -> None:
    assert signs_of(np.array(weights)) == signs
