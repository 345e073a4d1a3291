"""What the ``onnxruntime`` backend cannot do, check by check of the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping

_RESETS = "SNX203: a quantised network has the chip's resets: to zero, or as microcode by subtraction, in the step of the spike"

ON_INTEGERS: Mapping[str, str] = {
    "reset.none": _RESETS,
    "reset.delayed_subtraction": _RESETS,
    "reset.delayed_to_zero": _RESETS,
    "reset.delayed_to_zero_clears_the_input": _RESETS,
    "reset.subtraction_that_doubles_the_threshold": _RESETS,
}
"""On quantised deployments; float networks it runs all."""
