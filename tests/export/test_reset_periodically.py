"""Periodic reset: what comes behind a reset no longer depends on what came before it."""

from __future__ import annotations

import numpy as np
import pytest

from snn_export.export import interpreter
from snn_export.export.passes.reset_periodically import ResetPeriodically
from snn_export.models.diagnostics import UserError
from tests.builders import LayerPlan, Plan, deployment_from


def test_every_interval_starts_from_zero() -> None:
    rng = np.random.default_rng(0)
    layer = LayerPlan("n", 2 * rng.integers(-100, 100, (5, 4)), threshold=300, dv=300, du=900)
    deployment = ResetPeriodically(4, {"n": 1})(deployment_from(Plan((4,), (layer,), 9, 0, 1, events=True)))
    first = rng.integers(0, 2, (9, 2, 4)).astype(float)
    second = first.copy()
    second[:5] = rng.integers(0, 2, (5, 2, 4))
    one, other = (interpreter.run(deployment, x, "int64")["n"] for x in (first, second))
    assert not np.array_equal(one.membrane[4], other.membrane[4])
    assert np.array_equal(one.membrane[5:], other.membrane[5:])  # reset before step 5, and again before step 9
    alone = interpreter.run(deployment_from(Plan((4,), (layer,), 4, 0, 1, events=True)), first[5:], "int64")["n"]
    assert np.array_equal(alone.membrane, one.membrane[5:])


@pytest.mark.parametrize(("interval", "offsets"), [(0, {}), (3, {"m": 0}), (3, {"n": 3})])
def test_a_reset_that_makes_no_sense_is_refused(interval: int, offsets: dict[str, int]) -> None:
    deployment = deployment_from(Plan((4,), (LayerPlan("n", np.ones((2, 4)) * 2),), 5))
    with pytest.raises(UserError) as caught:
        ResetPeriodically(interval, offsets)(deployment)
    assert caught.value.code == "SNX109"
