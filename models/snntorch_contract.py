"""Whether the installed snnTorch does in a step what this project says a step is.

snnTorch changed how and when it resets between releases. Every export rests on what its neurons do in a step - integrate,
compare, reset, in which order - so the installed ones are asked, not their version number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import snntorch
import torch
from torch import Tensor

from snn_export.models import arithmetic

THRESHOLD = 1.0
ALPHA = 0.5
"""Current kept per step by neurons that filter theirs."""

Neuron = Literal["Leaky", "Synaptic", "RLeaky", "RSynaptic"]
Does = Literal["zero", "late zero", "late clearing", "late subtract", "double subtract"]
"""What comes after a spike; ``models/arithmetic.py`` states each as equations."""

_STATES: Mapping[Neuron, int] = {"Leaky": 1, "Synaptic": 2, "RLeaky": 1, "RSynaptic": 2}


@dataclass(frozen=True)
class Law:
    """A neuron of snnTorch with its settings, and what this project says that it does.

    Attributes:
        neuron: class of snnTorch.
        reset: its ``reset_mechanism``.
        delay: its ``reset_delay``.
        does: what it does with that.
    """

    neuron: Neuron
    reset: Literal["zero", "subtract"]
    delay: bool
    does: Does

    def __str__(self) -> str:
        return f'{self.neuron}(reset_mechanism="{self.reset}", reset_delay={self.delay})'


SAME_STEP = (Law("Leaky", "zero", False, "zero"), Law("Synaptic", "zero", False, "zero"), Law("RLeaky", "zero", False, "zero"))
LATE = (
    Law("Leaky", "zero", True, "late zero"),
    Law("Synaptic", "zero", True, "late clearing"),
    Law("RLeaky", "zero", True, "late clearing"),
    Law("RSynaptic", "zero", True, "late clearing"),
    *(Law(neuron, "subtract", True, "late subtract") for neuron in _STATES),
)
DROPPED = (Law("RSynaptic", "zero", False, "late clearing"), Law("RSynaptic", "subtract", False, "late subtract"))
"""RSynaptic resets late whatever it is told."""
DOUBLED = tuple(Law(neuron, "subtract", False, "double subtract") for neuron in ("Leaky", "Synaptic", "RLeaky"))
"""Above twice the threshold a subtraction in the step of the spike is made twice."""


def first_difference(law: Law = SAME_STEP[0], dv: int = 1024, steps: int = 200, neurons: int = 64, seed: int = 0) -> str:
    """Run a neuron of snnTorch beside :mod:`snn_export.models.arithmetic` on random input, in float32.

    u = alpha u + x ;  v = beta v + u ;  s = v > theta ;  and what ``law`` says of the reset, with beta = 1 - dv/4096.

    Args:
        law: neuron, settings and what they mean.
        dv: integer membrane decay.
        steps: T.
        neurons: N; inputs are (T, N), uniform in [-0.5, 2.5) times the threshold: some membranes pass twice the threshold.
        seed: of the inputs.

    Returns:
        Empty where every spike and every state of every step is equal bit for bit, otherwise what differs first.
    """
    filters, beta = _STATES[law.neuron] == 2, arithmetic.decay_from_integer(dv)
    neuron, alpha = _neuron(law, beta), ALPHA if filters else 0.0
    given = torch.rand((steps, neurons), generator=torch.Generator().manual_seed(seed)) * 3.0 - 0.5
    heard = [torch.zeros(neurons)] if law.neuron.startswith("R") else []
    got, expected = [torch.zeros(neurons)] * (2 if filters else 1), [torch.zeros(neurons)] * 2
    fired = 0
    with torch.no_grad():
        for step in range(steps):
            spikes, *got = neuron(given[step], *heard, *got)
            should, *expected = _step(law.does, expected[0], expected[1], given[step], alpha, beta)
            fired += int(should.sum())
            if not torch.equal(spikes > 0, should):
                return f"{law}: spikes differ in step {step}"
            if not all(torch.equal(one, other) for one, other in zip(got, expected[-len(got) :], strict=True)):
                return f"{law}: membranes differ in step {step}"
            heard = [spikes] if heard else []
    return "" if fired else f"{law}: no neuron fired, so the reset was never seen"


def _neuron(law: Law, beta: float) -> snntorch.SpikingNeuron:
    """The neuron; a recurrent one hears nothing of itself."""
    options: dict[str, object] = {
        "beta": beta, "threshold": THRESHOLD, "reset_mechanism": law.reset, "reset_delay": law.delay,
    }  # fmt: skip
    if _STATES[law.neuron] == 2:
        options["alpha"] = ALPHA
    if law.neuron.startswith("R"):
        options |= {"V": 0.0, "all_to_all": False, "learn_recurrent": False}
    made: snntorch.SpikingNeuron = getattr(snntorch, law.neuron)(**options)
    # snnTorch keeps every neuron that was ever made in a list, and resets them all at once.
    snntorch.SpikingNeuron.instances.remove(made)
    return made


def _step(does: Does, u: Tensor, v: Tensor, x: Tensor, alpha: float, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, u and v of one step."""
    drive = (u, v, x, alpha, beta, 1.0, 0.0)
    if does == "late zero":
        after = arithmetic.late_zero_step(*drive, THRESHOLD)
    elif does == "late clearing":
        after = arithmetic.late_clearing_step(*drive, THRESHOLD)
    elif does == "late subtract":
        after = arithmetic.late_subtract_step(*drive, THRESHOLD)
    else:
        after = arithmetic.canonical_step(*drive)
    if does == "double subtract":
        left, spikes = arithmetic.reset_by_double_subtraction(v, after[1], THRESHOLD)
        return spikes, after[0], left
    spikes = arithmetic.fires(after[1], THRESHOLD)
    return spikes, after[0], arithmetic.reset_to_zero(after[1], spikes) if does == "zero" else after[1]
