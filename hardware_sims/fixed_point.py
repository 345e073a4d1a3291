"""Whether the Lava that a worker runs computes in fixed point: the probe of the backends that are built on it.

Lava has float models beside the fixed-point ones, and takes them silently where nothing else is asked for. The worker says what
its neurons did; what they should have done is :func:`snn_export.models.arithmetic.loihi_step`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_export.models.arithmetic import STATE_SHIFT, loihi_step


def judge(seen: dict[str, Any]) -> tuple[bool, str]:
    """Compare what a worker recorded with the chip's arithmetic, bit for bit.

    Args:
        seen: drives (N,) of neurons that hear the same in every step; du, dv, threshold; spikes, current and membrane, each
            (T, N); models, the names of the process models that ran.

    Returns:
        Whether every number is right, and the first variable that is not.
    """
    missing = {"drives", "du", "dv", "threshold", "spikes", "current", "membrane", "models"} - seen.keys()
    if missing or not seen["spikes"]:
        return False, f"its self-test does not tell {', '.join(sorted(missing)) or 'any step'}"
    drives = np.array(seen["drives"], np.int64)
    u, v = np.zeros_like(drives), np.zeros_like(drives)
    for step in range(len(seen["spikes"])):
        u, v, fired, _, _ = loihi_step(u, v, drives, 0, seen["du"], seen["dv"], seen["threshold"] << STATE_SHIFT)
        for name, expected in (("current", u), ("membrane", v), ("spikes", fired)):
            if list(seen[name][step]) != expected.astype(np.int64).tolist():
                got = list(seen[name][step])
                return False, f"Lava does not compute in fixed point: {name} of step {step} is {got}, not {expected.tolist()}"
    neurons = ", ".join(model for model in seen["models"] if "Lif" in model or "LIF" in model)
    return True, f"spikes, u and v are those of the chip's arithmetic, {neurons}"
