"""Checks of the conformance kit that Lava cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

_RESET = "SNX203: Lava's LIF resets to zero in the step of the spike; it has no process for another reset"

EXPECTED_FAILURES: Mapping[str, str] = {
    "reset.by_subtraction": _RESET,
    "reset.by_subtraction_takes_one_threshold": _RESET,
    "reset.by_subtraction_with_leak": _RESET,
    "reset.none": _RESET,
    "reset.delayed_subtraction": _RESET,
    "reset.delayed_to_zero": _RESET,
    "reset.delayed_to_zero_clears_the_input": _RESET,
    "reset.subtraction_that_doubles_the_threshold": _RESET,
}
