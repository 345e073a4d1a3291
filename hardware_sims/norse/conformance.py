"""Checks of the conformance kit that Norse's neurons cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

_RESET = "SNX435: Norse resets in the step of the spike, to zero or by one subtraction"

EXPECTED_FAILURES: Mapping[str, str] = {
    "reset.delayed_subtraction": _RESET,
    "reset.delayed_to_zero": _RESET,
    "reset.delayed_to_zero_clears_the_input": _RESET,
    "reset.subtraction_that_doubles_the_threshold": _RESET,
}
