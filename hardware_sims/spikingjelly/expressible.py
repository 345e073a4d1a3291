"""What SpikingJelly 2.0 makes of each node of a graph, and what is done where that is not the contract's.

Imports neither SpikingJelly nor torch. ``spikingjelly.activation_based.nir_exchange.import_from_nir`` reads a node rightly, or
raises; it is told dt, and takes 1e-4 where it is not, which makes another LIF of a file with dt = 1e-3 (each line seen by
running it):

| node | what it makes of it |
| --- | --- |
| Affine, Linear | right: torch.nn.Linear |
| Conv1d, Conv2d | right with groups = 1 and a bias; raises with groups, without a bias, and on padding "same" with a stride |
| AvgPool2d | right; raises when it runs with a padding of more than half its kernel, as torch does |
| SumPool2d | right without padding, which it ignores: nirtorch's LPPool2d of norm 1 |
| Flatten | right |
| IF | IFNode with r = 1/dt, one threshold for all; raises else |
| LIF | LIFNode with r = 1 or r = tau/dt, tau > dt, v_leak = v_reset, all the same for all neurons; raises else |
| CubaLIF | CUBALIFNode with r = tau_mem/dt, w_in = tau_syn/dt, v_leak = 0, all the same for all neurons; raises else |
| Scale, Delay, I, LI, CubaLI, Threshold | raises: no rule |

Two values that differ in the last bit are not the same for all neurons. v_reset is read: the membrane begins there, and a spike
sets it there. A neuron it made fires at its threshold. The same nodes subtract with v_reset=None, which its export refuses to
write and its import never makes.

Here the linear nodes are torch's, as its import makes them, and the neurons are SpikingJelly's own nodes (``worker.py``): what
is asked of r, w_in and v_leak is reached by gains and a bias in front of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import nir
import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation
from snn_export.export.gains import input_gains, membrane_bias, threshold_array
from snn_export.export.graph import CONV_TYPES, is_population, pair, per_axis
from snn_export.export.grid import decays_agree, is_filtered
from snn_export.hardware_sims.isolated.engine import Rules
from snn_export.hardware_sims.isolated.told import deviations_of
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.models.diagnostics import Diagnostic

IMPORT = "spikingjelly.activation_based.nir_exchange"


def rules(*, strict: bool) -> Rules:
    """What the engine asks about a network; ``strict`` as in the backend's options."""
    return Rules(mapping, partial(deviations, strict=strict), findings)


def findings(deployment: Deployment) -> list[Diagnostic]:
    """Nothing: what SpikingJelly's neurons do otherwise is a deviation, and what it has no neuron for is put together."""
    del deployment
    return []


def deviations(deployment: Deployment, *, strict: bool) -> dict[str, Deviation]:
    """What SpikingJelly's neurons do otherwise than the contract, by population. ``strict``: they are told to fire above only."""
    neurons = deployment.contract.neurons.items()
    at_once = {name: replace(spec, reset_delay=0, clears_input=False, double_to_refire=False) for name, spec in neurons}
    return deviations_of(deployment, at_once, at_threshold=not strict)


def mapping(deployment: Deployment) -> dict[str, LayerMapping]:
    """By node: as SpikingJelly's import makes it (native), behind gains (rewritten), or put together by us (emulated)."""
    return {
        name: _population(deployment, name) if is_population(node) else _linear(node)
        for name, node in deployment.graph.nodes.items()
        if not isinstance(node, nir.Input | nir.Output)
    }


def _population(deployment: Deployment, name: str) -> LayerMapping:
    node, spec = deployment.graph.nodes[name], deployment.contract.neurons[name]
    kind = type(node).__name__
    integrator = "IFNode" if spec.memoryless or spec.beta == 1.0 else "LIFNode"
    from_zero = ", which begins every step at zero" if spec.memoryless else ""
    if not spec.spiking:
        filtered = " behind a filter in torch" if is_filtered(deployment, name) else ""
        return LayerMapping("emulated", f"its import has no neuron that never fires: NonSpiking{integrator}{filtered}")
    if spec.reset == "none":
        return LayerMapping("emulated", f"its neurons know no other than a reset: NonSpiking{integrator} and its spike function")
    if is_filtered(deployment, name):
        if np.any(membrane_bias(deployment, name)) or not np.all(input_gains(deployment, name)[1]):
            return LayerMapping("emulated", f"CUBALIFNode adds nothing to its membrane: a filter in torch, and {integrator}")
        made = "CUBALIFNode"
    elif integrator == "IFNode" and not isinstance(node, nir.IF):
        why = "its import has no rule for Threshold" if kind == "Threshold" else "its LIFNode takes a finite tau > dt only"
        return LayerMapping("emulated", f"{why}: IFNode{from_zero}")
    else:
        made = integrator
    if not decays_agree(deployment, name):
        return LayerMapping("emulated", f"its time constants are not the contract's decays, which {made} is given instead")
    if np.unique(threshold_array(node)).size > 1:
        return LayerMapping("emulated", f"its import takes one threshold for all: {made} with a tensor of them")
    if spec.reset == "subtract":
        return LayerMapping("emulated", f"its import resets every {kind} to v_reset: {made} with v_reset=None")
    if _as_imported(deployment, name):
        return LayerMapping("native", f"{made}, as {IMPORT} makes it")
    return LayerMapping("rewritten", f"{made} behind gains: its import takes no such r, w_in or v_leak")


def _as_imported(deployment: Deployment, name: str) -> bool:
    """True where the node's constants are those that the import takes."""
    node, dt = deployment.graph.nodes[name], deployment.contract.dt
    if isinstance(node, nir.IF):
        return _uniform(node.r, 1.0 / dt)
    if np.any(node.v_leak):
        return False
    if isinstance(node, nir.LIF):
        steps = _only(node.tau) / dt
        return np.unique(node.tau).size == 1 and (_uniform(node.r, 1.0) or _uniform(node.r, steps))
    same = np.unique(node.tau_mem).size == 1 and np.unique(node.tau_syn).size == 1
    return same and _uniform(node.r, _only(node.tau_mem) / dt) and _uniform(node.w_in, _only(node.tau_syn) / dt)


def _uniform(values: object, wanted: float) -> bool:
    """One value, bit for bit, and close to the wanted one by the import's own measure."""
    return np.unique(np.asarray(values)).size == 1 and bool(np.isclose(_only(values), wanted, rtol=1e-6, atol=1e-12))


def _only(values: object) -> float:
    return float(np.asarray(values, np.float64).flat[0])


def _linear(node: nir.NIRNode) -> LayerMapping:
    kind, native = type(node).__name__, LayerMapping("native", f"torch's, as {IMPORT} makes it")
    if isinstance(node, CONV_TYPES):
        if int(np.max(node.groups)) != 1:
            return LayerMapping("emulated", f"its import raises on groups: torch.nn.{kind}")
        if node.bias is None:
            return LayerMapping("emulated", f"its import raises without a bias: torch.nn.{kind}")
        if isinstance(node.padding, str) and node.padding == "same" and max(per_axis(node.stride, node.weight.ndim - 2)) > 1:
            return LayerMapping("emulated", f"its import raises on 'same' with a stride: torch.nn.{kind}, zeros around")
        return native
    if isinstance(node, nir.SumPool2d) and max(pair(node.padding)):
        return LayerMapping("emulated", "its import ignores the padding of a SumPool2d: torch.nn.AvgPool2d, divisor 1")
    if isinstance(node, nir.AvgPool2d) and any(
        2 * pad > size for pad, size in zip(pair(node.padding), pair(node.kernel_size), strict=True)
    ):
        return LayerMapping("emulated", "torch refuses a padding of more than half the kernel: torch.nn.AvgPool2d, zeros around")
    if isinstance(node, nir.Affine | nir.Linear | nir.SumPool2d | nir.AvgPool2d | nir.Flatten):
        return native
    return LayerMapping("emulated", f"its import has no rule for {kind}: torch")
