"""Checks of the conformance kit that snnTorch's neurons cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

from snn_export.hardware_sims.conformance.resets import SUBTRACTING

EXPECTED_FAILURES: Mapping[str, str] = {
    **dict.fromkeys(
        SUBTRACTING, "SNX290: snnTorch 1.0.0 subtracts a second time where a membrane stands above twice the threshold"
    ),
    "leak.resting_potential_of_a_cubalif": "SNX292: snnTorch's Synaptic adds nothing to its membrane but the current",
}
