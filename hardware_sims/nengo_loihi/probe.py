"""Whether the installed emulator computes what ``registers.py`` says it computes; ``worker.py --self-test`` tells what it did."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_export.hardware_sims.nengo_loihi.registers import emulated_step
from snn_export.models.arithmetic import STATE_SHIFT

REGISTER_OF = {"plain": (), "sum": ("sum",), "biased": ("biased",), "edge": ("edge",)}
"""By neuron of the self-test: the register it is made to leave."""


def judge(seen: dict[str, Any]) -> tuple[bool, str]:
    """Compare every neuron of the self-test with the arithmetic it is to show, bit for bit.

    Args:
        seen: ``neurons`` (name, drive, du, dv, threshold, bias), ``levels`` (T,) they hear times their drive (``plain`` hears its
            drive in every step), ``seen`` (spikes, current and membrane by neuron), ``narrow`` (registers left, by neuron).

    Returns:
        Whether every number is right, and the first that is not.
    """
    missing = {"neurons", "levels", "seen", "narrow"} - seen.keys()
    if missing:
        return False, f"its self-test does not tell {', '.join(sorted(missing))}"
    for neuron in seen["neurons"]:
        name = neuron["name"]
        wrong = _difference(neuron, seen["levels"], seen["seen"][name])
        left = tuple(seen["narrow"].get(name, {}))
        if wrong:
            return False, f"the emulator computes otherwise: neuron {name!r}, {wrong}"
        if left != REGISTER_OF[name]:
            return False, f"neuron {name!r} left the registers {left}, not {REGISTER_OF[name]}"
    return True, "spikes, u and v are those of the chip's arithmetic but for the three registers the backend watches"


def _difference(neuron: dict[str, Any], levels: list[int], seen: dict[str, list[int]]) -> str:
    """The first value that differs, or nothing."""
    u, v = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for step, level in enumerate(levels):
        drive = neuron["drive"] * (1 if neuron["name"] == "plain" else level)
        u, v, fired = emulated_step(
            u, v, np.array([drive], np.int64), neuron["bias"], neuron["du"], neuron["dv"], neuron["threshold"] << STATE_SHIFT
        )
        for what, value in (("current", u), ("membrane", v), ("spikes", fired)):
            if seen[what][step] != int(value[0]):
                return f"{what} of step {step} is {seen[what][step]}, not {int(value[0])}"
    return ""
