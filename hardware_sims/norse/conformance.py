"""Checks of the conformance kit that Norse's neurons cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

from snn_export.hardware_sims.conformance.resets import LATE

EXPECTED_FAILURES: Mapping[str, str] = dict.fromkeys(
    LATE, "SNX294: Norse resets in the step of the spike, to zero or by one subtraction"
)
