"""Checks of the conformance kit that Lava cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

from snn_export.hardware_sims.conformance.resets import NOT_ON_FIXED_NEURONS

EXPECTED_FAILURES: Mapping[str, str] = dict.fromkeys(
    NOT_ON_FIXED_NEURONS, "SNX203: Lava's LIF resets to zero in the step of the spike; it has no process for another reset"
)
