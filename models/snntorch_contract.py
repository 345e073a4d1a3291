"""Whether the installed snnTorch does in a step what this project says a step is.

snnTorch changed how and when it resets between releases. Everything here rests on one order - integrate, compare, reset in the
same step - so the installed one is asked, not its version number.
"""

from __future__ import annotations

import numpy as np
import snntorch
import torch

from snn_export.models import arithmetic

THRESHOLD = 1.0


def first_difference(dv: int = 1024, steps: int = 200, neurons: int = 64, seed: int = 0) -> str:
    """Run ``Leaky(reset_mechanism="zero", reset_delay=False)`` beside :mod:`snn_export.models.arithmetic` on random input.

    u = x ;  v = beta v + u ;  s = v > theta ;  v = 0 where s, in float32 with beta = 1 - dv/4096.

    Args:
        dv: integer membrane decay.
        steps: T.
        neurons: N; inputs are (T, N), uniform in [-0.5, 1.5) times the threshold.
        seed: of the inputs.

    Returns:
        Empty where every spike and every membrane of every step is equal bit for bit, otherwise what differs first.
    """
    beta = arithmetic.decay_from_integer(dv)
    leaky = snntorch.Leaky(beta=beta, threshold=THRESHOLD, reset_mechanism="zero", reset_delay=False)
    inputs = np.random.default_rng(seed).uniform(-0.5, 1.5, (steps, neurons)).astype(np.float32)
    got, expected = torch.zeros(neurons), np.zeros(neurons, np.float32)
    fired = 0
    with torch.no_grad():
        for step in range(steps):
            spikes, got = leaky(torch.from_numpy(inputs[step]), got)
            integrated = arithmetic.integrate(expected, np.float32(beta), inputs[step])
            should = arithmetic.fires(integrated, np.float32(THRESHOLD))
            expected = arithmetic.reset_to_zero(integrated, should)
            fired += int(should.sum())
            if not np.array_equal(spikes.numpy() > 0, should):
                return f"spikes differ in step {step}"
            if not np.array_equal(got.numpy(), expected):
                return f"membranes differ in step {step}"
    return "" if fired else "no neuron fired, so the reset was never seen"
