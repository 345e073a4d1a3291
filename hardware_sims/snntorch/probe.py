"""Whether the installed snnTorch resets as this project says it does, in each way that the contract can state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from snn_export.hardware_sims.self_test import Probe
from snn_export.models.snntorch_contract import DOUBLED, DROPPED, LATE, SAME_STEP, Law, first_difference

FIX = "install a tested version: pip install snntorch==1.0.0"
STEPS = 60

_WAYS: tuple[tuple[str, Sequence[Law], str, str], ...] = (
    (
        "reset in the step of the spike", SAME_STEP, "to zero, in Leaky, Synaptic and RLeaky",
        "reset_delay=False with reset_mechanism=\"zero\" runs everywhere: on the chips, in Lava and on every backend here",
    ),
    (
        "late reset", LATE, "one step late, to zero or by subtraction, in all four neurons; all but Leaky clear the input too",
        "snnTorch's default, reset_delay=True, is exported as it is; chips, Lava and Norse refuse it (SNX203, SNX294)",
    ),
    (
        "RSynaptic", DROPPED, "resets late although reset_delay=False",
        "it is exported as late, whatever it was told; Recurrent(Synaptic(...)) resets in the step of the spike",
    ),
    (
        "subtraction in the step of the spike", DOUBLED, "made twice above twice the threshold",
        "exported as it is (double_to_refire), which chips and Norse refuse; Lif(reset=\"subtract\") subtracts once",
    ),
)  # fmt: skip


def findings() -> Iterator[Probe]:
    """One finding for each way to reset."""
    for topic, laws, seen, meaning in _WAYS:
        differences = [difference for law in laws if (difference := first_difference(law, steps=STEPS))]
        if differences:
            yield Probe(topic, False, "; ".join(differences), "a file would state another reset than the network has", FIX)
        else:
            yield Probe(topic, True, f"{seen}: {len(laws)} neurons, equal bit for bit", meaning)
