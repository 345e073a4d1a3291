"""Portable form: every neuron with r = 1, the factor moved into its weights.

LIF as NIR defines it, ``tau dv/dt = -v + r i``, steps as ``v = beta v + (1 - beta) r i``. Norse ignores r on a LIF (the graph
goes silent), others read it: with r = 1 and weights times r all of them see the same network. A CubaLIF keeps w_in =
1 / (1 - alpha), so that one step adds the input to its current as it is, and r = 1. IF and I keep r = 1/dt, the one value for
which a step adds the input as it is.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.graph import CONV_TYPES, SYNAPSE_TYPES, replace_nodes, successors, weight_array
from snn_export.export.grid import with_parameters
from snn_export.export.passes.pass_ import Exactness
from snn_export.export.populations import with_constants
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import NeuronSpec

Array = NDArray[Any]


@final
class PortableForm:
    """Fold the gain of every population into the weight nodes that end in it, recurrent ones included.

    The factor is r of a LIF or LI, r dt of an IF or I, (1 - alpha) w_in r of a CubaLIF or CubaLI: one value, or one per neuron
    where each neuron has weights of its own (the rows of a matrix, the channels of a convolution).
    """

    name: ClassVar[str] = "portable_form"
    exactness: ClassVar[Exactness] = "EXACT"

    def __call__(self, deployment: Deployment) -> Deployment:
        """A deployment with r = 1; the same one where that holds already.

        Raises:
            UserError: SNX242 where r differs between neurons that share weights, or a weight node feeds another population too.
        """
        changed: dict[str, nir.NIRNode] = {}
        magnitudes = dict(deployment.fold_magnitude)
        for population, incoming in deployment.connections.items():
            node, spec = deployment.graph.nodes[population], deployment.contract.neurons[population]
            factor, portable = _factor(node, spec, deployment.contract.dt)
            if portable is None:
                continue
            for name in dict.fromkeys(_last_synapse(deployment, population, c.path) for c in incoming):
                rows = _rows(deployment, population, name, factor)
                changed[name] = _scaled(deployment.graph.nodes[name], rows)
                if name in magnitudes:
                    magnitudes[name] = magnitudes[name] * np.abs(rows)
            changed[population] = portable
        if not changed:
            return deployment
        return deployment.replace(graph=replace_nodes(deployment.graph, changed), fold_magnitude=magnitudes)


def _factor(node: nir.NIRNode, spec: NeuronSpec, dt: float) -> tuple[Array, nir.NIRNode | None]:
    """What the weights are multiplied with, and the neuron that is left; None for one that is portable already."""
    if isinstance(node, nir.Threshold):
        return np.ones(()), None
    factor, r = np.asarray(node.r, np.float64), np.ones_like(node.r, np.float64)
    if isinstance(node, nir.IF | nir.I):
        factor, r = factor * dt, r / dt
        return factor, None if np.allclose(factor, 1.0, rtol=1e-12, atol=0) else with_constants(node, r=r)
    if isinstance(node, nir.CubaLIF | nir.CubaLI):
        w_in = r / (1.0 - spec.alpha)
        portable = np.allclose(node.w_in, w_in, rtol=1e-12, atol=0) and np.all(factor == 1.0)
        return factor * (1.0 - spec.alpha) * node.w_in, None if portable else with_constants(node, r=r, w_in=w_in)
    return factor, None if np.all(factor == 1.0) else with_constants(node, r=r)


def _last_synapse(deployment: Deployment, population: str, path: tuple[str, ...]) -> str:
    for name in reversed(path):
        if len(successors(deployment.graph, name)) != 1:
            raise _refuse(population, f"{name} feeds other nodes too")
        if isinstance(deployment.graph.nodes[name], SYNAPSE_TYPES):
            return name
    raise _refuse(population, "no weight node leads to it")


def _rows(deployment: Deployment, population: str, name: str, factor: Array) -> Array:
    """One factor per output of a weight node: (out,), channels of a convolution, or one number."""
    if factor.size == 1 or np.all(factor == factor.flat[0]):
        return np.asarray(factor.flat[0])
    node, shape = deployment.graph.nodes[name], deployment.shapes[name]
    each = np.broadcast_to(factor, deployment.shapes[population]).reshape(shape)
    if isinstance(node, nir.Scale):
        return each
    channels = each.reshape(len(each), -1)
    if isinstance(node, CONV_TYPES) and np.any(channels != channels[:, :1]):
        raise _refuse(population, f"r differs between neurons that share the weights of {name}")
    return channels[:, 0]


def _scaled(node: nir.NIRNode, rows: Array) -> nir.NIRNode:
    weight = weight_array(node)
    if isinstance(node, nir.Scale):
        return nir.Scale(np.asarray(weight * rows))
    bias = node.bias * rows if hasattr(node, "bias") else None
    return with_parameters(node, weight * np.reshape(rows, (-1, *(1,) * (weight.ndim - 1))), bias)


def _refuse(where: str, what: str) -> UserError:
    return UserError(
        "SNX242",
        f"r of {where} cannot be moved into its weights: {what}",
        where=where,
        why="the portable form has r = 1, and the factor must go somewhere without changing another neuron",
        fix="give the population one r and a weight layer of its own",
    )
