"""Checks of the conformance kit that snnTorch's neurons cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

_SUBTRACT = "SNX431: snnTorch 1.0.0 subtracts a second time where a membrane stands above twice the threshold"

EXPECTED_FAILURES: Mapping[str, str] = {
    "reset.by_subtraction": _SUBTRACT,
    "reset.by_subtraction_takes_one_threshold": _SUBTRACT,
    "reset.by_subtraction_with_leak": _SUBTRACT,
    "leak.resting_potential_of_a_cubalif": "SNX433: snnTorch's Synaptic adds nothing to its membrane but the current",
}
