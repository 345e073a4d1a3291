"""Checks of the conformance kit that the quantised PyTorch student cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

_RESET = "SNX203: it computes what the chip computes, which resets to zero or by subtraction, in the step of the spike"
_SAFE = "SNX313: it takes only networks that are proven safe from overflow, and this one is made to overflow"

EXPECTED_FAILURES: Mapping[str, str] = {
    "reset.none": _RESET,
    "reset.delayed_subtraction": _RESET,
    "reset.delayed_to_zero": _RESET,
    "reset.delayed_to_zero_clears_the_input": _RESET,
    "reset.subtraction_that_doubles_the_threshold": _RESET,
    "leak.currents_wrap": _SAFE,
    "leak.membranes_saturate": _SAFE,
}
