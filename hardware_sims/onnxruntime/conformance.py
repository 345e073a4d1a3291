"""What the ``onnxruntime`` backend cannot do, check by check of the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping

from snn_export.hardware_sims.conformance.resets import NOT_ON_A_CHIP

ON_INTEGERS: Mapping[str, str] = dict.fromkeys(
    NOT_ON_A_CHIP,
    "SNX203: a quantised network has the chip's resets: to zero, or as microcode by subtraction, in the step of the spike",
)
"""On quantised deployments; float networks it runs all."""
