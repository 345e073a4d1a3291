"""Checks of the conformance kit that integer Loihi cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

_RESET = "SNX203: Loihi's neurons reset to zero or, as microcode of Loihi 2, by subtraction, in the step of the spike"

EXPECTED_FAILURES: Mapping[str, str] = {
    "reset.none": _RESET,
    "reset.delayed_subtraction": _RESET,
    "reset.delayed_to_zero": _RESET,
    "reset.delayed_to_zero_clears_the_input": _RESET,
    "reset.subtraction_that_doubles_the_threshold": _RESET,
}
