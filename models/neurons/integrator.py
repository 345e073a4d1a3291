"""The non-spiking accumulator that ends every spiking student."""

from __future__ import annotations

from torch import Tensor, nn

from snn_export.models.arithmetic import FULL_CURRENT_DECAY, integrate
from snn_export.models.spec import NeuronSpec


class Integrator(nn.Module):
    """Accumulate the input current without threshold or reset: the readout of a spiking network.

    ODE        tau_syn du/dt = -u + i,  tau dv/dt = -v + u      without leak dv/dt = u, without filter u = i
    update     u_t = alpha u_{t-1} + x_t,  v_t = beta v_{t-1} + u_t,  both from 0
    decays     beta = 1 - dv/4096, alpha = 1 - (du + 1)/4096
    spike      never
    reset      never

    Shapes: ``x``, ``u`` and ``v`` are (B, *features) in units of the threshold of the spiking layers (dimensionless).

    NIR writes it as ``I`` with r = 1/dt (dv 0, du 4095: neither leak nor filter), as ``LI`` with a leak, as ``CubaLI`` with both.
    Loihi has no neuron without threshold: there it is a LIF with the largest threshold, which must never be reached (the
    quantiser's bound proves it).
    """

    def __init__(self, dv: int = 0, du: int = FULL_CURRENT_DECAY) -> None:
        """Decays as integers in 1/4096: ``dv`` of the membrane, ``du`` of the current; UserError SNX301 where they do not fit."""
        super().__init__()
        self.spec = NeuronSpec(dv, du, reset="none", spiking=False)

    @property
    def filtered(self) -> bool:
        """True where the current is low-pass filtered before it is accumulated."""
        return self.spec.du != FULL_CURRENT_DECAY

    def current(self, x: Tensor, u: Tensor) -> Tensor:
        """Filter one step of input: returns alpha u + x, or x where there is no filter. All (B, *features)."""
        filtered: Tensor = integrate(u, self.spec.alpha, x) if self.filtered else x
        return filtered

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        """Accumulate one step: returns beta v + x, x being the filtered current where there is a filter. Both (B, *features)."""
        # Without leak a plain sum: the product with 1.0 would change nothing but the time it takes.
        accumulated: Tensor = integrate(v, self.spec.beta, x) if self.spec.dv else v + x
        return accumulated

    def extra_repr(self) -> str:
        """The decays, where there are any."""
        shown = {"dv": self.spec.dv} if self.spec.dv or self.filtered else {}
        return ", ".join(f"{name}={value}" for name, value in (shown | ({"du": self.spec.du} if self.filtered else {})).items())
