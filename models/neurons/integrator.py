"""The non-spiking accumulator that ends every spiking student."""

from __future__ import annotations

from torch import Tensor, nn


class Integrator(nn.Module):
    """Accumulate the input current without leak, threshold or reset: the readout of a spiking network.

    ODE        dv/dt = i
    update     v_t = v_{t-1} + x_t, v_0 = 0
    spike      never
    reset      never

    Shapes: ``x`` and ``v`` are (B, *features) in units of the threshold of the spiking layers (dimensionless).

    NIR writes it as ``I`` with r = 1/dt. Loihi has no neuron without threshold: there it is a LIF with du = 4095, dv = 0 and
    the largest threshold, which must never be reached (the quantiser's bound proves it).
    """

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        """One step: returns v + x. Both (B, *features)."""
        return v + x
