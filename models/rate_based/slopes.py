"""How a neuron's firing rate answers to its mean input: the slope g_T of rate-based backpropagation, per reset rule.

With a constant input to one neuron, ``dr/dc`` through T steps is the mean over time of surrogate slope times eligibility:

    g_T = (1/T) sum_t sg_t rho_t,    sg_t = surrogate'(u_t - threshold),    rho_1 = 1,    rho_t = du_t/dc
    rho_t = 1 + beta k_{t-1} rho_{t-1}, with k = dv/du of the step before:
    by subtraction   k = 1 (detached) or 1 - threshold sg
    to zero          k = 1 - s (detached) or 1 - s - u sg, u before the reset

Source: Yu et al., Advancing training efficiency of deep spiking neural networks through rate-based backpropagation, NeurIPS
2024, arXiv 2410.11488, section 4, for the reset by subtraction; the rules for the reset to zero follow in the same way. All
four equal autograd through time (``tests/models/test_rate_based.py``).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from snn_export.models.neurons.lif import LifRule, kept_through_reset


class SlopeTrace(Protocol):
    """Accumulates what the slope needs while the steps of a population go by."""

    def step(self, potential: Tensor, fired: Tensor) -> None:
        """Take in one step: membrane before the reset and spikes, 0 or 1, as floats of the same shape."""

    def slope(self, mean_current: Tensor, steps: int) -> Tensor:
        """dr/dc, in the shape of the steps, after ``steps`` of them whose input was ``mean_current`` on average."""


class SlopeRule(Protocol):
    """Makes a trace for one population. Hashable and with a telling ``repr``: it is part of a run's fingerprint."""

    def trace(self, rule: LifRule, like: Tensor) -> SlopeTrace:
        """A fresh trace for some neurons that follow ``rule``, in the shape of ``like``."""


class ThroughTime:
    """The slope through all steps, as the equations above say. ``ThroughTime()`` is what rate-based backpropagation means."""

    def trace(self, rule: LifRule, like: Tensor) -> SlopeTrace:
        """A fresh trace."""
        return _Eligibility(rule, like)

    def __repr__(self) -> str:
        return "ThroughTime()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ThroughTime)

    def __hash__(self) -> int:
        return hash("ThroughTime")


class _Eligibility:
    """rho and the running sum of sg rho, in the neurons' shape."""

    def __init__(self, rule: LifRule, like: Tensor) -> None:
        self._rule = rule
        self._total = torch.zeros_like(like)
        self._rho: Tensor | None = None

    def step(self, potential: Tensor, fired: Tensor) -> None:
        slope = self._rule.surrogate.derivative(potential - self._rule.threshold)
        if self._rho is None:
            self._rho = torch.ones_like(potential)
        self._total.addcmul_(self._rho, slope)
        # rho of the step to come; one product more than needed after the last step.
        self._rho.mul_(kept_through_reset(potential, fired, slope, self._rule)).mul_(self._rule.beta).add_(1.0)

    def slope(self, mean_current: Tensor, steps: int) -> Tensor:
        del mean_current
        return self._total / steps
