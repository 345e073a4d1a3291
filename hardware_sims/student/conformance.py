"""Checks of the conformance kit that the quantised PyTorch student cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

from snn_export.hardware_sims.conformance.resets import NOT_ON_A_CHIP

_SAFE = "SNX313: it takes only networks that are proven safe from overflow, and this one is made to overflow"

EXPECTED_FAILURES: Mapping[str, str] = {
    **dict.fromkeys(
        NOT_ON_A_CHIP,
        "SNX203: it computes what the chip computes, which resets to zero or by subtraction, in the step of the spike",
    ),
    **dict.fromkeys(("leak.currents_wrap", "leak.membranes_saturate"), _SAFE),
}
