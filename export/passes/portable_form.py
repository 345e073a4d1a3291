"""Portable form: every neuron with r = 1, the factor moved into its weights.

LIF as NIR defines it, ``tau dv/dt = -v + r i``, steps as ``v = beta v + (1 - beta) r i``. Norse ignores r on a LIF (the graph
goes silent), others read it: with r = 1 and weights times r all of them see the same network. IF and I keep r = 1/dt, the one
value for which a step adds the input as it is.
"""

from __future__ import annotations

from typing import ClassVar, final

import nir
import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.export.graph import SYNAPSE_TYPES, replace_nodes, successors
from snn_export.export.passes.pass_ import Exactness
from snn_export.models.diagnostics import UserError


@final
class PortableForm:
    """Fold r of every LIF and LI into the weight node before it.

    The factor is r of the neuron, one value per population (tau/dt where the graph was read from snnTorch).
    """

    name: ClassVar[str] = "portable_form"
    exactness: ClassVar[Exactness] = "EXACT"

    def __call__(self, deployment: Deployment) -> Deployment:
        """A deployment with r = 1.

        Raises:
            UserError: SNX242 where r differs within a population, or its weight node feeds another population too.
        """
        changed: dict[str, nir.NIRNode] = {}
        magnitudes = dict(deployment.fold_magnitude)
        for population, incoming in deployment.connections.items():
            node = deployment.graph.nodes[population]
            if not isinstance(node, nir.LIF | nir.LI) or np.all(node.r == 1.0):
                continue
            factor = float(np.ravel(node.r)[0])
            if not np.all(node.r == factor):
                raise _refuse(population, "r differs between its neurons")
            for name in dict.fromkeys(_last_synapse(deployment, population, c.path) for c in incoming):
                changed[name] = _scaled(deployment.graph.nodes[name], factor)
                if name in magnitudes:
                    magnitudes[name] = magnitudes[name] * factor
            changed[population] = _unit_gain(node)
        return deployment.replace(graph=replace_nodes(deployment.graph, changed), fold_magnitude=magnitudes)


def _last_synapse(deployment: Deployment, population: str, path: tuple[str, ...]) -> str:
    for name in reversed(path):
        if len(successors(deployment.graph, name)) != 1:
            raise _refuse(population, f"{name} feeds other nodes too")
        if isinstance(deployment.graph.nodes[name], SYNAPSE_TYPES):
            return name
    raise _refuse(population, "no weight node leads to it")


def _scaled(node: nir.NIRNode, factor: float) -> nir.NIRNode:
    if isinstance(node, nir.Linear):
        return nir.Linear(weight=node.weight * factor)
    if isinstance(node, nir.Affine):
        return nir.Affine(weight=node.weight * factor, bias=node.bias * factor)
    return nir.Conv2d(
        input_shape=node.input_shape,
        weight=node.weight * factor,
        stride=node.stride,
        padding=node.padding,
        dilation=node.dilation,
        groups=node.groups,
        bias=node.bias * factor,
    )


def _unit_gain(node: nir.LIF | nir.LI) -> nir.NIRNode:
    ones = np.ones_like(node.r)
    if isinstance(node, nir.LIF):
        return nir.LIF(tau=node.tau, r=ones, v_leak=node.v_leak, v_threshold=node.v_threshold, v_reset=node.v_reset)
    return nir.LI(tau=node.tau, r=ones, v_leak=node.v_leak)


def _refuse(where: str, what: str) -> UserError:
    return UserError(
        "SNX242",
        f"r of {where} cannot be moved into its weights: {what}",
        where=where,
        why="the portable form has r = 1, and the factor must go somewhere without changing another population",
        fix="give the population one r and a weight layer of its own",
    )
