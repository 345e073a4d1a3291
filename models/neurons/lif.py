"""A leaky integrate-and-fire population in the canonical order, run through all its steps by one autograd function.

snnTorch's ``Leaky`` is what students are made of. This module is for what ``Leaky`` does not do: a reset by subtraction that
subtracts once (snnTorch 1.0.0 subtracts again in the next step where the membrane was above twice the threshold), an initial
membrane, and a reset the gradient does not see. :func:`lif_steps` also carries ``Leaky`` itself while it learns: the spikes and
membranes are snnTorch's bit for bit, the gradients are its own up to rounding, and one number per neuron and step is kept for
the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import snntorch
import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.spec import NeuronSpec
from snn_export.models.surrogates import Surrogate

BLOCK = 1 << 15
"""Neurons whose steps are computed together: 128 KB of float32 per state."""

UNSTEPPABLE = ("init_hidden", "inhibition", "state_quant")
"""Settings of a snnTorch neuron under which one call is not one step of the plain equations."""


@dataclass(frozen=True)
class LifRule:
    """One step of a population: u = beta v + x; s = u > threshold; v = 0 where s, or v = u - threshold s.

    beta membrane kept per step (1.0: integrate-and-fire); threshold in the membrane's unit; reset "zero" or "subtract";
    detach_reset: whether the gradient ignores the reset; initial: membrane before the first step. A reset in the step of the
    spike is seen by snnTorch's gradients, so False is what ``Leaky(reset_delay=False)`` does.
    """

    beta: float
    threshold: float
    surrogate: Surrogate
    reset: str = "zero"
    detach_reset: bool = False
    initial: float = 0.0


def lif_steps(currents: Tensor, rule: LifRule, *, with_membranes: bool = False) -> tuple[Tensor, Tensor]:
    """Spikes and membranes after the reset over time, both (T, B, *features) like ``currents``; no membranes unless asked for.

    Gradients flow through the spikes, by the rule's surrogate; membranes carry none.

    The backward pass is the adjoint of the step, with g the surrogate's slope at u - threshold:

        dL/du_t = dL/ds_t g_t + beta dL/du_{t+1} k_t        k_t = dv_t/du_t, which is
        reset to zero    1 - s_t, minus u_t g_t where the reset is not detached
        by subtraction   1,       minus threshold g_t where the reset is not detached

    It was compared with autograd through the same steps (``tests/models/test_lif.py``).
    """
    found: tuple[Tensor, Tensor] = _LifSteps.apply(currents, rule, with_membranes)  # type: ignore[no-untyped-call]
    return found


class _LifSteps(torch.autograd.Function):
    """See :func:`lif_steps`. Saves u before the reset, (T, B, *features), and nothing else."""

    @staticmethod
    def forward(ctx: Any, currents: Tensor, rule: LifRule, with_membranes: bool) -> tuple[Tensor, Tensor]:
        """Spikes and membranes, (T, B, *features)."""
        potentials = torch.empty(currents.shape, dtype=currents.dtype, device=currents.device)
        spikes = torch.empty_like(potentials)
        membranes = torch.empty_like(potentials) if with_membranes else potentials.new_zeros(0)
        flat = [tensor.reshape(len(currents), -1) for tensor in (currents, potentials, spikes)]
        kept = membranes.reshape(len(currents), -1) if with_membranes else None
        for block in blocks_of_neurons(flat[0]):
            membrane = torch.full_like(flat[1][0, block], rule.initial)
            for step in range(len(currents)):
                potential = torch.mul(membrane, rule.beta, out=flat[1][step, block]).add_(flat[0][step, block])
                fired = fire(potential, rule, out=flat[2][step, block])
                membrane = reset(potential, fired, rule, out=membrane)
                if kept is not None:
                    kept[step, block] = membrane
        ctx.save_for_backward(potentials)
        ctx.rule = rule
        ctx.mark_non_differentiable(membranes)
        return spikes, membranes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The adjoint of the steps, from the last to the first."""
        (potentials,) = ctx.saved_tensors
        rule: LifRule = ctx.rule
        found = torch.empty_like(potentials)
        steps = len(potentials)
        flat = [tensor.reshape(steps, -1) for tensor in (potentials, gradients[0], found)]
        for block in blocks_of_neurons(flat[0]):
            carried: Tensor | None = None
            for step in range(steps - 1, -1, -1):
                potential = flat[0][step, block]
                above = potential - rule.threshold
                slope = rule.surrogate.derivative(above)
                total = torch.mul(flat[1][step, block], slope, out=flat[2][step, block])
                if carried is not None:
                    fired = torch.gt(above, 0.0, out=above)
                    total.addcmul_(carried, kept_through_reset(potential, fired, slope, rule))
                carried = total * rule.beta
        return found, None, None


def blocks_of_neurons(currents: Tensor) -> list[slice]:
    """Ranges of neurons, of (T, neurons), small enough that all of a neuron's state stays in a core's cache while steps go by.

    On a GPU there is one range: it has no such cache, and every call costs.
    """
    size = BLOCK if currents.device.type == "cpu" else max(currents.shape[-1], 1)
    return [slice(start, start + size) for start in range(0, currents.shape[-1], size)]


def fire(potential: Tensor, rule: LifRule, out: Tensor) -> Tensor:
    """Spikes, 0 or 1 in the type of ``out``: u - threshold > 0, the comparison snnTorch makes, bit for bit."""
    return torch.gt(potential - rule.threshold, 0.0, out=out)


def reset(potential: Tensor, fired: Tensor, rule: LifRule, out: Tensor) -> Tensor:
    """Membrane after the reset of the same step; ``fired`` holds 0 and 1 as floats, all of one shape."""
    if rule.reset == "zero":
        return torch.addcmul(potential, potential, fired, value=-1.0, out=out)  # u - u is 0 exactly, where u is finite
    return torch.sub(potential, fired, alpha=rule.threshold, out=out)


def kept_through_reset(potential: Tensor, fired: Tensor, slope: Tensor, rule: LifRule) -> Tensor:
    """dv/du of one step, elementwise: how much of a change of the membrane before the reset is left after it."""
    if rule.reset == "zero":
        kept = 1.0 - fired
        return kept if rule.detach_reset else kept.addcmul_(potential, slope, value=-1.0)
    if rule.detach_reset:
        return torch.ones_like(potential)
    return slope.mul(-rule.threshold).add_(1.0)


class Lif(nn.Module):
    """A LIF or IF population with any reset, in the canonical order (:class:`snn_export.models.unroll.Population`).

    ODE        tau dv/dt = -v + R i
    update     u = beta v + x,  beta = 1 - dv/4096,  v_0 = initial
    spike      s = u > threshold (strict)
    reset      v = 0 ("zero") or v = u - threshold s ("subtract"), in the step of the spike

    Shapes: currents, spikes and membranes are (T, B, *features). dv = 0 is the integrate-and-fire neuron.
    """

    def __init__(
        self,
        *,
        dv: int,
        threshold: float = 1.0,
        surrogate: Surrogate,
        reset: Literal["zero", "subtract"] = "zero",
        detach_reset: bool = False,
        initial: float = 0.0,
    ) -> None:
        """Make the population; UserError SNX301 where ``dv`` does not fit 12 bits, SNX012 for another reset."""
        super().__init__()
        if reset not in ("zero", "subtract"):
            raise UserError(
                "SNX012", f"a Lif cannot be built with reset = {reset!r}", where="Lif(reset=)",
                why="it is reset to zero, or by subtraction of its threshold", fix="choose 'zero' or 'subtract'",
            )  # fmt: skip
        self.spec = NeuronSpec(dv=dv, reset=reset, reset_delay=0)
        self.rule = LifRule(self.spec.beta, float(threshold), surrogate, self.spec.reset, detach_reset, float(initial))

    def run_steps(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and membranes (after the reset) of ``currents``, all (T, B, *features)."""
        return lif_steps(currents, self.rule, with_membranes=True)

    def extra_repr(self) -> str:
        """The numbers that decide its behaviour."""
        rule = self.rule
        parts = [f"dv={self.spec.dv}", f"threshold={rule.threshold:g}", f"reset={rule.reset!r}"]
        parts += [f"initial={rule.initial:g}"] if rule.initial else []
        return ", ".join([*parts, *(["detach_reset=True"] if rule.detach_reset else [])])


def lif_rule_of(layer: nn.Module) -> LifRule | None:
    """What a population computes in a step, where this module can carry it: :class:`Lif` or a plain snnTorch ``Leaky``.

    Plain: reset to zero in the step of the spike, decay and threshold fixed and one for all neurons, and a
    :class:`~snn_export.models.surrogates.Surrogate`. None for every other layer, classes
    derived from these two among them: what they compute is theirs.
    """
    if type(layer) is Lif:
        return layer.rule
    if type(layer) is not snntorch.Leaky or any(getattr(layer, setting) for setting in UNSTEPPABLE):
        return None
    beta, threshold, factor, surrogate = layer.beta, layer.threshold, layer.graded_spikes_factor, layer.spike_grad
    plain = layer.reset_mechanism == "zero" and not layer.reset_delay
    if not (plain and isinstance(surrogate, Surrogate) and _is_constant(beta) and _is_constant(threshold)):
        return None
    if not _is_constant(factor) or float(factor) != 1.0:
        return None
    return LifRule(min(max(float(beta), 0.0), 1.0), float(threshold), surrogate)


def _is_constant(value: object) -> TypeGuard[Tensor]:
    """One number that does not learn."""
    return isinstance(value, Tensor) and value.numel() == 1 and not isinstance(value, nn.Parameter)
