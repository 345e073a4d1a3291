"""snnTorch-style neurons that compute on Loihi's integers and learn through them.

    forward    the integer step of ``models/arithmetic.py``, called here on int64 tensors: bit for bit what the chip does
    backward   the canonical float neuron at the same state: du/du' = alpha, dv/dv' = beta, du/da = 64, dv/du = 1, truncation,
               wrap and saturation passed through; spikes through a surrogate of ``snntorch.surrogate``

State and synaptic sums travel as floats that hold whole numbers, in the chip's units: a membrane of 1.0 in real units is 64 S
on a population's scale S. float32 holds every 24-bit state exactly; a current that a single wrap leaves outside 24 bits may need
float64. The surrogate sees (v - theta) / theta, so that its
slope means the same on every scale.

Straight-through gradients: Bengio, Leonard and Courville, arXiv 1308.3432, 2013; surrogate: Zenke and Ganguli, SuperSpike, 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from snntorch import surrogate
from torch import Tensor, nn

from snn_export.models import arithmetic

SURROGATE_SLOPE = 5.0
"""Slope of the default surrogate, that of the float students."""

SpikeGradient = Callable[[Tensor], Tensor]
"""A surrogate: Heaviside of its argument, strict, with a gradient of its own; ``snntorch.surrogate`` makes them."""

IntegerReset = Literal["zero", "subtract"]


class IntegerLeaky(nn.Module):
    """Loihi's LIF without synaptic filter, called as ``spikes, mem = neuron(x, mem)`` like ``snntorch.Leaky``.

    ODE        tau dv/dt = -v + R i
    update     u = wrap(a << 6) ;  v = saturate(trunc(v (4096 - dv) / 4096) + u + bias)
    spike      s = v > (vth << 6), strict
    reset      v = 0 where s, or v -= vth << 6 ("subtract": Loihi 2 with a neuron program of its own)

    Shapes: x, mem, spikes (B, *features). x is the synaptic sum a, whole numbers below 2^24; mem whole numbers of 24 bits;
    ``bias`` (third argument, none by default) is added to v and broadcasts. Start with ``mem = neuron.init_leaky()``.
    """

    def __init__(
        self,
        dv: int,
        threshold: int,
        *,
        reset: IntegerReset = "zero",
        spiking: bool = True,
        spike_grad: SpikeGradient | None = None,
    ) -> None:
        """Dv 0..4095, threshold 0..131071 (vth, unshifted). ``spiking`` False: a readout, whose gradient knows no spikes."""
        super().__init__()
        self.step = IntegerStep(arithmetic.FULL_CURRENT_DECAY, dv, threshold, reset, spiking, spike_grad)

    def init_leaky(self) -> Tensor:
        """A membrane of zero for any shape."""
        return torch.zeros(())

    def forward(self, x: Tensor, mem: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step: spikes (0.0 or 1.0) and the membrane after the reset."""
        spikes, _, mem = self.step(x, torch.zeros((), device=x.device), mem, bias)
        return spikes, mem

    def extra_repr(self) -> str:
        """Registers."""
        return self.step.describe()


class IntegerSynaptic(nn.Module):
    """Loihi's LIF with synaptic filter, called as ``spikes, syn, mem = neuron(x, syn, mem)`` like ``snntorch.Synaptic``.

    ODE        tau_syn du/dt = -u + i ;  tau dv/dt = -v + R u
    update     u = wrap(trunc(u (4095 - du) / 4096) + (a << 6)) ;  v = saturate(trunc(v (4096 - dv) / 4096) + u + bias)
    spike      s = v > (vth << 6), strict
    reset      v = 0 where s, or v -= vth << 6; u is left alone

    Shapes and units as :class:`IntegerLeaky`; syn is u. Start with ``syn, mem = neuron.init_synaptic()``.
    """

    def __init__(
        self,
        du: int,
        dv: int,
        threshold: int,
        *,
        reset: IntegerReset = "zero",
        spiking: bool = True,
        spike_grad: SpikeGradient | None = None,
    ) -> None:
        """du, dv 0..4095; otherwise as :class:`IntegerLeaky`."""
        super().__init__()
        self.step = IntegerStep(du, dv, threshold, reset, spiking, spike_grad)

    def init_synaptic(self) -> tuple[Tensor, Tensor]:
        """A current and a membrane of zero for any shape."""
        return torch.zeros(()), torch.zeros(())

    def forward(self, x: Tensor, syn: Tensor, mem: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """One step: spikes (0.0 or 1.0), current, and the membrane after the reset."""
        return self.step(x, syn, mem, bias)

    def extra_repr(self) -> str:
        """Registers."""
        return self.step.describe()


class IntegerStep:
    """One step of the integer neuron with the gradient of the canonical float neuron; what both modules call."""

    def __init__(
        self, du: int, dv: int, threshold: int, reset: IntegerReset, spiking: bool, spike_grad: SpikeGradient | None
    ) -> None:
        self._du, self._dv, self._threshold = du, dv, threshold
        self._reset, self._spiking = reset, spiking
        self._spike_grad: SpikeGradient = spike_grad or surrogate.fast_sigmoid(slope=SURROGATE_SLOPE)

    def describe(self) -> str:
        """Registers in one line."""
        return f"du={self._du}, dv={self._dv}, vth={self._threshold}, reset={self._reset}, spiking={self._spiking}"

    def __call__(self, a: Tensor, u: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes, u, and v after the reset, each in the shape of ``a``."""
        given = torch.zeros((), device=a.device) if bias is None else bias
        u, v = _Integrate.apply(  # type: ignore[no-untyped-call]
            a, u.expand_as(a), v.expand_as(a), given.expand_as(a), self._du, self._dv
        )
        threshold = self._threshold << arithmetic.STATE_SHIFT
        if self._spiking:
            spikes = self._spike_grad((v - threshold) / max(threshold, 1))
        else:  # a readout has no threshold to learn about; the chip gives it one that its bound keeps out of reach
            spikes = arithmetic.fires(v.detach(), threshold).to(v.dtype)
        if self._reset == "subtract":
            return spikes, u, arithmetic.reset_by_subtraction(v, spikes, threshold)
        return spikes, u, arithmetic.reset_to_zero(v, spikes)


class _Integrate(torch.autograd.Function):
    """``loihi_integrate`` forward, the canonical neuron's derivative backward."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, u: Tensor, v: Tensor, bias: Tensor, du: int, dv: int) -> tuple[Tensor, Tensor]:
        """U and v before any reset, as floats."""
        ctx.alpha, ctx.beta = arithmetic.alpha_from_integer(du), arithmetic.decay_from_integer(dv)
        whole_u, whole_v, whole_a, whole_bias = (value.to(torch.int64) for value in (u, v, a, bias))
        new_u, new_v, _, _ = arithmetic.loihi_integrate(whole_u, whole_v, whole_a, whole_bias, du, dv)
        return new_u.to(a.dtype), new_v.to(a.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """U = alpha u' + 64 a ; v = beta v' + u + bias."""
        grad_u, grad_v = gradients
        grad_u = grad_u + grad_v
        return float(1 << arithmetic.STATE_SHIFT) * grad_u, ctx.alpha * grad_u, ctx.beta * grad_v, grad_v, None, None
