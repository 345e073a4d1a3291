"""Statistics at their edges, and sentences that the numbers do not support."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import pytest

from snn_export.reporting.report import Effect
from snn_export.verification import attribution_words
from snn_export.verification.attribution_words import Together
from snn_export.verification.statistics import mcnemar_p, wilson_interval


def test_mcnemar_of_tens_of_thousands_takes_no_time() -> None:
    start = time.process_time()
    assert mcnemar_p(12_000, 12_001) == 1.0
    assert 0.0 < mcnemar_p(12_000, 12_600) < 1e-3
    assert mcnemar_p(0, 20_000) == 0.0
    assert time.process_time() - start < 10.0  # it took minutes


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 7), (3, 11), (40, 41), (200, 200)])
def test_mcnemar_is_the_sum_of_its_binomials(b: int, c: int) -> None:
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
    assert mcnemar_p(b, c) == min(1.0, float(Fraction(2 * tail, 2 ** (b + c))))


@pytest.mark.parametrize("samples", [1, 3, 7, 1_000, 20_000, 10**9])
def test_an_interval_holds_its_own_proportion(samples: int) -> None:
    assert wilson_interval(0, samples)[0] == 0.0
    assert wilson_interval(samples, samples)[1] == 100.0
    for correct in {0, 1, samples // 2, samples}:
        low, high = wilson_interval(correct, samples)
        assert 0.0 <= low <= 100.0 * correct / samples <= high <= 100.0


def test_no_share_below_nothing_disappears() -> None:
    """Where the network changes more without every one of its effects, none of them removes a negative share."""
    effects = [
        Effect(name=name, told="", forward=0, backward=0, interaction=0, without=120, removed=share, explains_first=False)
        for name, share in (("weight rounding", -0.2), ("decay rounding", -0.5))
    ]
    told = attribution_words.sentence(effects, 100, None, None, Together(("weight rounding",), -0.2))
    assert "-20 % disappear" not in told
    assert "without weight rounding alone, 0 % disappear" in told
    assert "weight rounding (20 % more change without it)" in told
