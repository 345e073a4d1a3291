"""What Norse 1.1 makes of each node of a graph, and what is done where that is wrong. Imports neither Norse nor torch.

``norse.torch.from_nir`` reads a node rightly, wrongly or not at all (each seen by running it):

| node | what it makes of it |
| --- | --- |
| Affine, Linear | right |
| Conv2d | right with groups = 1; with groups it raises: it passes the channels of a group for those of the input |
| Flatten | wrong: NIR counts axes without the batch, and it hands the same numbers to torch, which counts the batch |
| SumPool2d | right without padding, which it ignores |
| LIF | right with r = 1, which it ignores else; always resets to zero; begins at v_leak, not at zero |
| IF | right with r = 1/dt, which it ignores: it adds the input as it is; always resets to zero |
| CubaLIF | right, with any r and w_in and the reset it is told, without v_leak, which it feeds to the synapse too |
| Conv1d, AvgPool2d, Scale, Delay, I, LI, CubaLI, Threshold | no rule: the graph cannot be loaded |

v_reset is never read. Where a graph has r of its own, the portable form (``export/passes/portable_form.py``) folds it into the
weights first; state is always handed in, so nothing begins at v_leak.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import nir
import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.export.gains import membrane_bias
from snn_export.export.graph import conv_padding, is_population, pair, per_axis
from snn_export.export.grid import decays_agree
from snn_export.export.passes.portable_form import PortableForm
from snn_export.hardware_sims.float_networks import float_network, graph_findings, unreadable
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.spec import NeuronSpec


@dataclass(frozen=True, eq=False)
class Plan:
    """What is done for a deployment.

    Attributes:
        given: what was asked for.
        original: the same, in the units of its grid where it is quantised.
        deployment: what Norse is handed: ``original``, or its portable form.
        layers: by node, what carries it.
    """

    given: Deployment
    original: Deployment
    deployment: Deployment
    layers: dict[str, LayerMapping]

    def native(self, name: str) -> bool:
        """True where Norse's own import makes the node."""
        return self.layers[name].kind in ("native", "rewritten")


def findings(deployment: Deployment) -> list[Diagnostic]:
    """Everything that keeps a deployment from running in Norse, all at once."""
    if broken := unreadable(deployment):
        return broken
    resets = [item for name, spec in deployment.contract.neurons.items() for item in _resets(name, spec)]
    return [*graph_findings(deployment, "norse"), *resets]


def _resets(name: str, spec: NeuronSpec) -> Iterator[Diagnostic]:
    if not spec.spiking or spec.reset == "none" or not (spec.reset_delay or spec.double_to_refire):
        return
    how = f", {spec.reset_delay} step late" if spec.reset_delay else " as snnTorch 1.0.0 does, twice above twice the threshold"
    yield Diagnostic(
        "SNX294", f"{name} resets by {spec.reset!r}{how}", where=name,
        why="Norse resets in the step of the spike, to zero or by one subtraction",
        fix="train with reset_delay=False and a reset to zero, or run the network on student, snntorch or reference",
    )  # fmt: skip


def plan_of(deployment: Deployment) -> Plan:
    """What is done for each node; :func:`findings` must have found nothing that keeps the graph from being read."""
    asked, deployment = deployment, float_network(deployment)
    given, changed = deployment, frozenset[str]()
    if any(_needs_unit_r(deployment, name) for name in deployment.contract.neurons):
        try:
            given = PortableForm()(deployment)
        except UserError as error:
            if error.code != "SNX242":  # r stays where it is, and scales the input in front of Norse's cell
                raise
        changed = frozenset(name for name, node in given.graph.nodes.items() if node is not deployment.graph.nodes[name])
    layers = {}
    for name, node in given.graph.nodes.items():
        if isinstance(node, nir.Input | nir.Output):
            continue
        layers[name] = _population(given, name) if is_population(node) else _linear(node)
        if name in changed and layers[name].kind == "native":
            layers[name] = LayerMapping("rewritten", "r is folded into the weights, then read by norse.torch.from_nir")
    return Plan(asked, deployment, given, layers)


def mapping(deployment: Deployment) -> dict[str, LayerMapping]:
    """By node: read by Norse's import (native), after r was folded (rewritten), put together by us (emulated), or refused."""
    refused = {name: list(_resets(name, spec)) for name, spec in deployment.contract.neurons.items()}
    return {
        name: LayerMapping("unsupported", refused[name][0].what) if refused.get(name) else found
        for name, found in plan_of(deployment).layers.items()
    }


def unit_r(deployment: Deployment, name: str) -> bool:
    """True where ignoring r, as Norse does on LIF, LI and IF, changes nothing."""
    node = deployment.graph.nodes[name]
    if isinstance(node, nir.IF | nir.I):
        return bool(np.allclose(np.asarray(node.r) * deployment.contract.dt, 1.0, rtol=1e-12, atol=0))
    return not isinstance(node, nir.LIF | nir.LI) or bool(np.all(np.asarray(node.r) == 1.0))


def _needs_unit_r(deployment: Deployment, name: str) -> bool:
    return not unit_r(deployment, name)


def _population(deployment: Deployment, name: str) -> LayerMapping:
    node, spec = deployment.graph.nodes[name], deployment.contract.neurons[name]
    if isinstance(node, nir.LI | nir.I | nir.CubaLI | nir.Threshold):
        parts = {nir.LI: "LIBoxCell", nir.I: "IAFCell that never fires", nir.CubaLI: "two LIBoxCells", nir.Threshold: "IAFCell"}
        return LayerMapping("emulated", f"Norse's import has no rule for it: {parts[type(node)]}")
    if not decays_agree(deployment, name):
        return LayerMapping("emulated", "its time constants are not those of the contract's decays, which are given instead")
    if isinstance(node, nir.CubaLIF):
        if np.any(membrane_bias(deployment, name)):
            return LayerMapping("emulated", "Norse's import feeds v_leak to the synapse too: LIBoxCell and LIFBoxCell")
        if spec.reset == "none":
            return LayerMapping("emulated", "Norse's import knows no neuron without a reset: LIBoxCell and LIFBoxCell")
        return LayerMapping("native", "norse.torch.from_nir")
    cell = "IAFCell" if isinstance(node, nir.IF) else "LIFBoxCell"
    if spec.reset != "zero":
        return LayerMapping("emulated", f"Norse's import resets every {type(node).__name__} to zero: {cell} with the other reset")
    if not unit_r(deployment, name):
        return LayerMapping("emulated", f"Norse's import ignores r, and no weights are there to take it: {cell} behind r")
    return LayerMapping("native", "norse.torch.from_nir")


def _linear(node: nir.NIRNode) -> LayerMapping:
    kind = type(node).__name__
    if isinstance(node, nir.Affine | nir.Linear):
        return LayerMapping("native", "norse.torch.from_nir")
    if isinstance(node, nir.Conv2d):
        if int(node.groups) != 1:
            return LayerMapping("emulated", "Norse's import raises on groups: torch.nn.Conv2d")
        uneven = any(before != after for before, after in conv_padding(node))
        if isinstance(node.padding, str) and node.padding == "same" and (uneven or max(per_axis(node.stride, 2)) > 1):
            return LayerMapping(
                "emulated", "torch pads 'same' by itself with stride 1 and evenly only: torch.nn.Conv2d, zeros around"
            )
        return LayerMapping("native", "norse.torch.from_nir")
    if isinstance(node, nir.SumPool2d):
        if max(pair(node.padding)):
            return LayerMapping("emulated", "Norse's import ignores the padding of a SumPool2d: torch.nn.AvgPool2d, divisor 1")
        return LayerMapping("native", "norse.torch.from_nir")
    if isinstance(node, nir.Flatten):
        return LayerMapping("emulated", "Norse's import counts axes one too early: torch.nn.Flatten")
    return LayerMapping("emulated", f"Norse's import has no rule for {kind}: torch")
