"""Checks of the conformance kit that integer Loihi cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

from snn_export.hardware_sims.conformance.resets import NOT_ON_A_CHIP

EXPECTED_FAILURES: Mapping[str, str] = dict.fromkeys(
    NOT_ON_A_CHIP,
    "SNX203: Loihi's neurons reset to zero or, as microcode of Loihi 2, by subtraction, in the step of the spike",
)
