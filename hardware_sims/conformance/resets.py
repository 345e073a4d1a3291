"""The reset checks by what a neuron needs for them, so that a backend can say in a word which it has not."""

from __future__ import annotations

SUBTRACTING = ("reset.by_subtraction", "reset.by_subtraction_takes_one_threshold", "reset.by_subtraction_with_leak")
"""Subtraction of one threshold in the step of the spike: microcode on Loihi 2."""
LATE = (
    "reset.delayed_subtraction",
    "reset.delayed_to_zero",
    "reset.delayed_to_zero_clears_the_input",
    "reset.subtraction_that_doubles_the_threshold",
)
"""Resets of snnTorch that come a step after the spike, or change what comes after it."""
NOT_ON_A_CHIP = ("reset.none", *LATE)
"""What no neuron of Loihi does, programmed or not."""
NOT_ON_FIXED_NEURONS = (*SUBTRACTING, *NOT_ON_A_CHIP)
"""All but the reset to zero in the step of the spike."""
