"""What a NIR neuron's own constants do to its input in one step, and the threshold it compares with."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.graph import unsupported

Array = NDArray[Any]


def input_gains(deployment: Deployment, name: str) -> tuple[Array | float, Array | float]:
    """Factors (current, membrane) by which a NIR neuron's own constants scale its input in one step.

    LIF   tau dv/dt = -v + r i     v += dt/tau (r i - v)         membrane factor (1 - beta) r
    I     dv/dt = r i              v += dt r i                   membrane factor dt r
    CubaLIF   tau_syn du/dt = -u + w_in i                        current factor (1 - alpha) w_in
    Threshold                                                    both 1: it compares its input
    """
    node, spec = deployment.graph.nodes[name], deployment.contract.neurons[name]
    loss = 1.0 - spec.beta
    if isinstance(node, nir.CubaLIF | nir.CubaLI):
        return (1.0 - spec.alpha) * node.w_in, loss * node.r
    if isinstance(node, nir.LIF | nir.LI):
        return 1.0, loss * node.r
    if isinstance(node, nir.IF | nir.I):
        return 1.0, deployment.contract.dt * node.r
    if isinstance(node, nir.Threshold):
        return 1.0, 1.0
    raise unsupported(name, node)


def membrane_bias(deployment: Deployment, name: str) -> Array | float:
    """What v_leak adds to the membrane in every step, (1 - beta) v_leak, real units.

    It is how NIR states a bias on the membrane of a neuron with a synaptic filter: a weight node's bias would be filtered.
    """
    leak = getattr(deployment.graph.nodes[name], "v_leak", None)
    return 0.0 if leak is None else (1.0 - deployment.contract.neurons[name].beta) * np.asarray(leak)


def threshold_array(node: nir.NIRNode) -> Array:
    """Thresholds of a population, one per neuron or one for all; infinity for one that never spikes."""
    return np.asarray(node.threshold if isinstance(node, nir.Threshold) else getattr(node, "v_threshold", np.inf))
