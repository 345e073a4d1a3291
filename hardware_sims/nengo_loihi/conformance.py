"""Checks of the conformance kit that nengo-loihi's emulator cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

from snn_export.hardware_sims.conformance.resets import NOT_ON_FIXED_NEURONS

_SUM = "the emulator adds synaptic sums in 22 bits: the run is refused with SNX268, because Lava would not wrap there"
"""No code in front: a code would expect a refusal by ``check``, and this one depends on the inputs."""

EXPECTED_FAILURES: Mapping[str, str] = {
    **dict.fromkeys(
        NOT_ON_FIXED_NEURONS, "SNX203: the emulator's compartments reset to zero in the step of the spike, nothing else"
    ),
    "leak.currents_wrap": _SUM,
    "leak.membranes_saturate": _SUM,
}
