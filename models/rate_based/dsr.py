"""Differentiation on spike representation: the slope of a population from its closed-form rate map, not from its membranes.

A neuron that integrates and subtracts its threshold on a spike keeps ``sum of inputs = threshold * spikes + last membrane``, so
that its rate follows its mean input c up to an error that falls with the number of steps:

    r = clamp(c / threshold, 0, 1),      dr/dc = 1 / threshold where 0 <= c <= threshold, 0 elsewhere

Exact in this sense for the integrate-and-fire neuron with reset by subtraction. With a leak the same map holds for rates and
inputs weighted by beta^(T - t); with the reset to zero it is the map of the same neuron without what a spike cuts off. In both
cases the slope is used as it is, with plain means.

Source: Meng et al., Training high-performance low-latency spiking neural networks by differentiation on spike representation,
CVPR 2022; there spikes have the amplitude of the threshold and the map reads clamp(c, 0, threshold).
"""

from __future__ import annotations

import torch
from torch import Tensor

from snn_export.models.neurons.lif import LifRule


class SpikeRepresentation:
    """The slope of the rate map, as a rule for rate-based training (:class:`~snn_export.models.rate_based.slopes.SlopeRule`)."""

    def trace(self, rule: LifRule, like: Tensor) -> _RateMap:
        """A fresh trace; nothing of ``like`` is needed, the map looks at the mean input alone."""
        del like
        return _RateMap(rule.threshold)

    def __repr__(self) -> str:
        return "SpikeRepresentation()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpikeRepresentation)

    def __hash__(self) -> int:
        return hash("SpikeRepresentation")


class _RateMap:
    """The slope of clamp(c / threshold, 0, 1)."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def step(self, potential: Tensor, fired: Tensor) -> None:
        """Nothing is taken from single steps."""

    def slope(self, mean_current: Tensor, steps: int) -> Tensor:
        """dr/dc at ``mean_current`` (B, *features), which is all that decides it."""
        del steps
        inside = (mean_current >= 0) & (mean_current <= self._threshold)
        return torch.where(inside, 1.0 / self._threshold, 0.0).to(mean_current.dtype)
