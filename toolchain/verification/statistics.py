"""Statistics a verdict needs."""

from __future__ import annotations

import math
from fractions import Fraction

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson_interval(correct: int, samples: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion, in percent.

        centre = (p + z^2/2n) / (1 + z^2/n)      half = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)

    Unlike the normal approximation it stays inside 0..100 and is not empty at p = 1.
    Source: E. B. Wilson, JASA 22 (1927) 209.

    Raises:
        ValueError: for no samples.
    """
    if samples < 1:
        raise ValueError("a proportion needs at least one sample")
    p, n, z2 = correct / samples, samples, Z_95**2
    scale = 1.0 + z2 / n
    centre = (p + z2 / (2 * n)) / scale
    half = Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / scale
    low, high = (0.0 if not correct else centre - half), (1.0 if correct == samples else centre + half)
    return 100.0 * max(0.0, low), 100.0 * min(1.0, high)


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test for two classifiers on the same samples.

    Of the n = b + c samples that only one of the two gets right, each is as likely to be the first's as the second's if both
    are equally accurate, so the smaller count follows Binomial(n, 1/2)::

        p = min(1, 2 sum_{k <= min(b, c)} C(n, k) / 2^n)

    Source: Q. McNemar, Psychometrika 12 (1947) 153, in its exact form.

    Args:
        only_first: samples that only the first gets right.
        only_second: samples that only the second gets right.
    """
    total = only_first + only_second
    tail, term = 0, 1
    for k in range(min(only_first, only_second) + 1):  # each binomial from the one before: tens of thousands take no time
        tail += term
        term = term * (total - k) // (k + 1)
    return min(1.0, float(Fraction(2 * tail, 2**total)))
