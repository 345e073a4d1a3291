"""Statistics a verdict needs."""

from __future__ import annotations

import math

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
    return 100.0 * max(0.0, centre - half), 100.0 * min(1.0, centre + half)
