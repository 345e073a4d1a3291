"""What sinabs 3.1.3 makes of each node of a graph, what is done in its place, and what its neurons do otherwise.

``sinabs.from_nir`` (with nir 1.0.4, the last one it allows) reads a node rightly, wrongly or not at all, each seen by running it:

| node | what it makes of it |
| --- | --- |
| Affine, Flatten | right |
| Conv2d | right with groups = 1; with groups it raises, and with padding "same" and a stride |
| SumPool2d | right without padding, which it ignores |
| Conv1d | raises: it takes the weights for a tensor |
| LIF | tau counts steps, whatever dt is: keeps exp(-1/tau); ignores r; adds its input whole, not dt/tau of it; refuses v_leak |
| LI | as LIF, but refuses r != 1 |
| IF | ignores r; clips the membrane at -v_threshold |
| Linear, Scale, AvgPool2d, Delay, I, CubaLIF, Threshold | no rule: the graph cannot be loaded |
| CubaLI | nir 1.0.4 does not know it: the file cannot be read |

Every neuron it makes subtracts its threshold, several times in one step where the membrane holds it several times. A file that
nir 1.0.8 wrote cannot be read at all with nir 1.0.4 where it holds a LIF, an IF or a CubaLIF: it does not know ``v_reset``.

Populations are therefore put together here from ``sinabs.layers``, with the contract's decays; see ``worker.py``. What these
cannot do as the contract says is stated by :func:`deviations`. Nothing here imports sinabs.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import nir
import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation
from snn_export.export.gains import threshold_array
from snn_export.export.graph import is_population, pair, per_axis
from snn_export.export.grid import is_filtered
from snn_export.hardware_sims.isolated.engine import Rules
from snn_export.hardware_sims.isolated.refusals import no_neuron, unsupported
from snn_export.hardware_sims.isolated.told import deviations_of
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.models.diagnostics import Diagnostic
from snn_export.models.spec import NeuronSpec

NATIVE = LayerMapping("native", "sinabs.from_nir")


def rules(*, several_spikes: bool, strict: bool) -> Rules:
    """What the engine asks about a network; arguments as the backend's options."""
    return Rules(
        partial(mapping, several_spikes=several_spikes),
        partial(deviations, several_spikes=several_spikes, strict=strict),
        partial(findings, several_spikes=several_spikes),
    )


def mapping(deployment: Deployment, *, several_spikes: bool) -> dict[str, LayerMapping]:
    """By node: what sinabs' import reads rightly (native), what stands in its place (emulated), or what it cannot have."""
    refused = unsupported(findings(deployment, several_spikes=several_spikes))
    return {
        name: refused.get(name) or (_population(deployment, name) if is_population(node) else _linear(node))
        for name, node in deployment.graph.nodes.items()
        if not isinstance(node, nir.Input | nir.Output)
    }


def deviations(deployment: Deployment, *, several_spikes: bool, strict: bool) -> dict[str, Deviation]:
    """What the neurons of a population that spikes do otherwise; the others do as the contract says."""
    held = {name: _held(spec) for name, spec in deployment.contract.neurons.items()}
    return deviations_of(deployment, held, at_threshold=not strict, several_spikes=several_spikes)


def _held(spec: NeuronSpec) -> NeuronSpec:
    """The neuron with the reset that sinabs has for its own."""
    if spec.reset == "subtract" and spec.memoryless:
        spec = replace(spec, reset_delay=0)  # nothing of the membrane is kept for the next step
    return replace(spec, clears_input=False, double_to_refire=False)


def findings(deployment: Deployment, *, several_spikes: bool) -> list[Diagnostic]:
    """SNX296 for a reset more than one step late, and for a threshold below what a neuron's way of firing and resetting takes."""
    found = []
    for name, spec in deployment.contract.neurons.items():
        if not spec.spiking:
            continue
        smallest = float(np.min(threshold_array(deployment.graph.nodes[name]), initial=np.inf))
        if spec.reset != "none" and spec.reset_delay > 1:
            found.append(no_neuron(
                "sinabs", name, f"it resets {spec.reset_delay} steps late",
                "its neurons reset in the step of the spike, or one step later",
                "train with a reset in the step of the spike, or one step late",
            ))  # fmt: skip
        elif several_spikes and smallest <= 0:
            found.append(no_neuron(
                "sinabs", name, "not all of its thresholds are above zero",
                "several_spikes counts how often the membrane holds the threshold", "leave several_spikes off",
            ))  # fmt: skip
        elif spec.reset == "subtract" and spec.reset_delay and not spec.memoryless and smallest < 0:
            found.append(no_neuron(
                "sinabs", name, "it subtracts a threshold below zero, one step late",
                "as such a reset is defined, that neuron is reset before its first step too; here a spike comes before a reset",
                "train with a reset in the step of the spike",
            ))  # fmt: skip
    return found


def _population(deployment: Deployment, name: str) -> LayerMapping:
    node, spec = deployment.graph.nodes[name], deployment.contract.neurons[name]
    made = "sinabs.layers.LIF" if spec.spiking else "sinabs.layers.ExpLeak"
    if is_filtered(deployment, name):
        made = f"{made} behind an ExpLeak"
    why = {
        nir.LIF: "sinabs' import takes tau for a number of steps and ignores r",
        nir.LI: "sinabs' import takes tau for a number of steps and adds the input whole",
        nir.IF: "sinabs' import ignores r and clips the membrane from below",
    }.get(type(node), "sinabs' import has no rule for it")
    return LayerMapping("emulated", f"{why}: {made} with the contract's decay")


def _linear(node: nir.NIRNode) -> LayerMapping:
    if isinstance(node, nir.Affine | nir.Flatten):
        return NATIVE
    if isinstance(node, nir.Conv2d):
        return _conv2d(node)
    if isinstance(node, nir.SumPool2d) and max(pair(node.padding)):
        return LayerMapping("emulated", "sinabs' import ignores the padding of a SumPool2d: torch.nn.AvgPool2d, divisor 1")
    if isinstance(node, nir.SumPool2d):
        return NATIVE
    if isinstance(node, nir.Conv1d):
        return LayerMapping("emulated", "sinabs' import raises on it: torch.nn.Conv1d")
    return LayerMapping("emulated", f"sinabs' import has no rule for {type(node).__name__}: torch")


def _conv2d(node: nir.Conv2d) -> LayerMapping:
    if int(node.groups) != 1:
        return LayerMapping("emulated", "sinabs' import raises on groups: torch.nn.Conv2d")
    if isinstance(node.padding, str) and node.padding == "same" and max(per_axis(node.stride, 2)) > 1:
        return LayerMapping("emulated", "torch has no padding 'same' with a stride: torch.nn.Conv2d, zeros around")
    return NATIVE
