"""What Spyx 1.0 makes of each node of a graph, what is done in its place, and what its neurons do otherwise. Imports no Spyx.

``spyx.nir.from_nir`` reads a node rightly, wrongly or not at all, and mostly says nothing (each line seen by running it):

| node | what it makes of it |
| --- | --- |
| Affine, Linear | right |
| Conv2d | right with groups = 1, dilation 1, and 'same' with stride 1 only; ignores dilation; raises on groups |
| SumPool2d | right without padding; any padding becomes JAX's 'SAME', which depends on kernel, stride and size |
| Flatten | flattens (H, W, C), all of it: weights behind it meet their inputs in another order than NIR's (C, H, W) |
| IF | spyx.nn.IF: ignores r |
| LIF | spyx.nn.LIF: ignores r and v_leak and adds its input whole; right with r = tau/dt |
| CubaLIF | spyx.nn.CuBaLIF: as LIF, ignores w_in too; raises in its first step on more than one axis of features |
| LI | raises, but in front of a Threshold: then spyx.nn.PSU_LIF, which ignores r and v_leak |
| Scale, Delay, Conv1d, AvgPool2d, I, CubaLI, Threshold | left out, without a word |
| a nested graph of four nodes | RLIF, RIF or RCuBaLIF, whatever its edges are; the recurrent bias is left out |
| the same, flat | the same for LIF and CubaLIF; of an IF, or of a longer loop, it lists edges until memory ends |
| a branch | its first edge; the others are left out without a word, as is everything where the input node is not named "input" |

dt is what it is told, 1 by default: with a tau in seconds every membrane forgets at once. v_reset is never read. All its
spiking neurons subtract their threshold and, but for PSU_LIF, return their spike one step later; see ``worker.py``. ``to_nir``
writes r = beta, with which NIR's equations give another network, and leads the input of RLIF through its recurrent weights.

Here populations are Spyx's modules, with the contract's decays; r, w_in and v_leak are multiplied and added in front of them,
and the linear nodes are torch's, outside of JAX. What is removed in local time is the step by which a spike is late. What is left
is the reset: Spyx subtracts. A contract that resets to zero runs with that deviation, on the module that Spyx itself would make;
with the backend's option ``zero_reset`` the membrane of a neuron that fired is set to zero between two calls of that module.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import nir
import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation
from snn_export.export.gains import input_gains, membrane_bias, threshold_array
from snn_export.export.graph import is_population
from snn_export.export.grid import decays_agree, is_filtered
from snn_export.hardware_sims.isolated.engine import Rules
from snn_export.hardware_sims.isolated.refusals import no_neuron, unsupported
from snn_export.hardware_sims.isolated.told import deviations_of
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.models.diagnostics import Diagnostic
from snn_export.models.spec import NeuronSpec

IMPORT = "Spyx's import"


def rules(*, zero_reset: bool) -> Rules:
    """What the engine asks about a network; ``zero_reset`` as in the backend's options."""
    return Rules(
        partial(mapping, zero_reset=zero_reset),
        partial(deviations, zero_reset=zero_reset),
        partial(findings, zero_reset=zero_reset),
    )


def findings(deployment: Deployment, *, zero_reset: bool) -> list[Diagnostic]:
    """SNX296 for a reset more than one step late, and for a threshold below zero where Spyx subtracts before the first spike."""
    found = []
    for name, spec in deployment.contract.neurons.items():
        if not spec.spiking or spec.reset == "none":
            continue
        early = held_by(deployment, name) == "CuBaLIF" or (zero_reset and spec.reset == "zero")
        if spec.reset_delay > 1:
            found.append(no_neuron(
                "Spyx", name, f"it resets {spec.reset_delay} steps late",
                "its neurons subtract in the step of the spike, or in the next",
                "train with a reset in the step of the spike, or one step late",
            ))  # fmt: skip
        elif early and np.min(threshold_array(deployment.graph.nodes[name]), initial=0.0) < 0:
            found.append(no_neuron(
                "Spyx", name, "it has a threshold below zero",
                "a membrane of zero is above it: Spyx subtracts before there was a spike",
                "give it thresholds of zero or more",
            ))  # fmt: skip
    return found


def deviations(deployment: Deployment, *, zero_reset: bool) -> dict[str, Deviation]:
    """What Spyx's neurons do otherwise than the contract, by population; nothing where that subtracts, once, or never resets."""
    neurons = deployment.contract.neurons.items()
    return deviations_of(deployment, {name: _held(spec, held_by(deployment, name), zero_reset) for name, spec in neurons})


def _held(spec: NeuronSpec, module: str, zero_reset: bool) -> NeuronSpec:
    """The neuron with the reset that Spyx has for its own."""
    if spec.reset != "zero" or module in ("LI", "PSU_LIF") or (zero_reset and not spec.clears_input):
        return replace(spec, double_to_refire=False)
    return replace(spec, reset="subtract", reset_delay=int(module != "CuBaLIF"), clears_input=False)


def held_by(deployment: Deployment, name: str) -> str:
    """The class of ``spyx.nn`` that holds a population's membrane: ``worker.kind_of``, from the contract."""
    spec = deployment.contract.neurons[name]
    if not spec.spiking:
        return "LI"
    if spec.reset == "none" or (spec.memoryless and spec.reset == "zero" and not spec.reset_delay):
        return "PSU_LIF"
    same_step = not spec.reset_delay if spec.reset == "subtract" else is_filtered(deployment, name)
    if same_step:
        return "CuBaLIF"
    return "IF" if spec.beta == 1.0 else "LIF"


def mapping(deployment: Deployment, *, zero_reset: bool) -> dict[str, LayerMapping]:
    """By node: as Spyx's import makes it (native), behind gains (rewritten), from other parts (emulated), or not at all."""
    refused = unsupported(findings(deployment, zero_reset=zero_reset))
    return {
        name: refused.get(name) or (_population(deployment, name, zero_reset) if is_population(node) else _linear(node))
        for name, node in deployment.graph.nodes.items()
        if not isinstance(node, nir.Input | nir.Output)
    }


def _population(deployment: Deployment, name: str, zero_reset: bool) -> LayerMapping:
    node, spec, module = deployment.graph.nodes[name], deployment.contract.neurons[name], held_by(deployment, name)
    kind, filtered = type(node).__name__, is_filtered(deployment, name)
    put_together = _put_together(deployment, name, module)
    made = {nir.IF: "IF", nir.LIF: "LIF", nir.CubaLIF: "CuBaLIF"}.get(type(node))
    if made is None or not spec.spiking:
        why = "raises on an LI without a Threshold behind it" if isinstance(node, nir.LI) else f"leaves a {kind} out"
        return LayerMapping("emulated", f"{IMPORT} {why if made is None else f'lets every {kind} fire'}: {put_together}")
    if made != module:
        return LayerMapping("emulated", f"{IMPORT} makes {made} of it, which resets otherwise: {put_together}")
    if zero_reset and spec.reset == "zero" and not spec.clears_input:
        return LayerMapping("emulated", f"Spyx never resets to zero: {put_together}, its membrane set to zero between two steps")
    if filtered and _in_two_parts(deployment, name):
        return LayerMapping("emulated", f"nothing can be added to the membrane of a CuBaLIF: {put_together}")
    if filtered and len(deployment.shapes[name]) > 1:
        return LayerMapping("rewritten", "CuBaLIF on flattened features: it cannot be stepped on more than one axis")
    if not decays_agree(deployment, name):
        return LayerMapping("rewritten", f"{made} with the contract's decays, which its time constants do not give")
    if _whole_input(deployment, name):
        return LayerMapping("native", f"{made}, as spyx.nir.from_nir makes it")
    return LayerMapping("rewritten", f"{made} behind gains: {IMPORT} ignores r, w_in and v_leak")


def _put_together(deployment: Deployment, name: str, module: str) -> str:
    """The modules of ``spyx.nn`` that hold a population."""
    if module == "CuBaLIF":
        if not is_filtered(deployment, name):
            return "CuBaLIF with alpha = 0"
        return "LI and CuBaLIF with alpha = 0" if _in_two_parts(deployment, name) else "CuBaLIF"
    return f"LI and {module}" if is_filtered(deployment, name) else module


def _in_two_parts(deployment: Deployment, name: str) -> bool:
    """True where a CuBaLIF cannot hold filter and membrane at once; ``worker.whole`` the other way round."""
    return bool(np.any(membrane_bias(deployment, name)) or not np.all(input_gains(deployment, name)[1]))


def _whole_input(deployment: Deployment, name: str) -> bool:
    """True where the neuron adds its input whole, with nothing beside it, as Spyx's does."""
    current, membrane = input_gains(deployment, name)
    one = np.allclose(current, 1.0, rtol=1e-6, atol=0) and np.allclose(membrane, 1.0, rtol=1e-6, atol=0)
    return bool(one and not np.any(membrane_bias(deployment, name)))


def _linear(node: nir.NIRNode) -> LayerMapping:
    kind = type(node).__name__
    wrong = {
        nir.Flatten: f"{IMPORT} flattens in another order",
        nir.SumPool2d: f"{IMPORT} takes any padding for 'SAME'",
        nir.Conv2d: f"{IMPORT} ignores dilation and raises on groups",
    }.get(type(node), f"{IMPORT} leaves a {kind} out")
    if isinstance(node, nir.Affine | nir.Linear):
        wrong = f"{IMPORT} makes flax's Linear, which is right"
    return LayerMapping("emulated", f"{wrong}; the graph is walked outside of JAX: torch")
