"""What Rockpool 3.1 makes of each node of a graph, and what is done where that is wrong. Imports neither Rockpool nor torch.

``rockpool.nn.modules.torch.nir.from_nir`` (with nir 1.0.4 and nirtorch 1.0) reads a node rightly, wrongly or not at all (each
seen by running it):

| node | what it makes of it |
| --- | --- |
| Affine, Linear | LinearTorch: right |
| LIF | raises: it reads tau_mem, which a LIF does not have |
| CubaLIF | LIFTorch, wrong: it guesses dt = tau_mem / (1 + r), for tau_mem = 4 ms 2 ms where r = 1 and 0.8 ms where r is |
|  | tau_mem / 1 ms (0.97 ms of what Rockpool wrote with 1 ms); ignores w_in; adds v_leak whole in every step; subtracts, |
|  | whatever v_reset says |
| LI | ExpSynTorch, wrong: its tau is cut to whole seconds, so 4 ms become 0 and the response is 0 |
| IF, I, CubaLI, Threshold, Scale, Delay, Flatten, Conv1d, Conv2d, SumPool2d, AvgPool2d | raises: no rule |

So none of its neurons come from there. Every population is a LIFTorch that is given the contract's decays and gains, see
``worker.py``, and linear nodes are torch's, as LinearTorch is. What LIFTorch does otherwise than the contract is declared: it
fires at its threshold (with ``strict`` it is handed a spike function that does not), and a spike takes one threshold away in the
same step. It fires once in a step (``max_spikes_per_dt=1``), or with ``several_spikes`` once per threshold that its membrane
holds, which is its default.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import nir
import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation
from snn_export.export.gains import input_gains, threshold_array
from snn_export.export.graph import is_population
from snn_export.export.grid import is_filtered
from snn_export.hardware_sims.isolated.engine import Rules
from snn_export.hardware_sims.isolated.refusals import no_neuron, unsupported
from snn_export.hardware_sims.isolated.told import deviations_of
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.models.diagnostics import Diagnostic


def rules(*, several_spikes: bool, strict: bool) -> Rules:
    """What the engine asks about a network; arguments as the backend's options."""
    return Rules(mapping, partial(deviations, several_spikes=several_spikes, strict=strict), findings)


def mapping(deployment: Deployment) -> dict[str, LayerMapping]:
    """By node: as Rockpool's import makes it (native), put together by us (emulated), or refused."""
    refused = unsupported(findings(deployment))
    return {
        name: refused.get(name) or (_population(node) if is_population(node) else _linear(node))
        for name, node in deployment.graph.nodes.items()
        if not isinstance(node, nir.Input | nir.Output)
    }


def deviations(deployment: Deployment, *, several_spikes: bool, strict: bool) -> dict[str, Deviation]:
    """By population that spikes: what LIFTorch does otherwise than the contract."""
    held = {
        name: replace(spec, reset="subtract", reset_delay=0, clears_input=False, double_to_refire=False)
        for name, spec in deployment.contract.neurons.items()
    }
    return deviations_of(deployment, held, at_threshold=not strict, several_spikes=several_spikes)


def findings(deployment: Deployment) -> list[Diagnostic]:
    """SNX296: what LIFTorch computes no spikes or no current of."""
    found = []
    for name, spec in deployment.contract.neurons.items():
        if spec.spiking and np.any(np.float32(threshold_array(deployment.graph.nodes[name])) <= 0):
            found.append(no_neuron(
                "Rockpool", name, "it has a threshold of 0 or less",
                "LIFTorch divides the membrane by the threshold to count its spikes",
                "train with positive thresholds, or leave rockpool out",
            ))  # fmt: skip
        elif is_filtered(deployment, name) and np.any(np.asarray(input_gains(deployment, name)[1]) == 0):
            found.append(no_neuron(
                "Rockpool", name, "its current does not reach its membrane (r = 0)",
                "LIFTorch adds its current to its membrane as it is", "take the population out, or leave rockpool out",
            ))  # fmt: skip
    return found


def _population(node: nir.NIRNode) -> LayerMapping:
    kind = type(node).__name__
    wrong = {
        "LIF": "Rockpool's import raises on it",
        "CubaLIF": "Rockpool's import guesses dt from r and ignores w_in",
        "LI": "Rockpool's import cuts its tau to whole seconds",
    }.get(kind, "Rockpool's import has no rule for it")
    silent = "" if isinstance(node, nir.LIF | nir.CubaLIF | nir.IF | nir.Threshold) else " and a threshold out of reach"
    return LayerMapping("emulated", f"{wrong}: LIFTorch with the contract's decays{silent}")


def _linear(node: nir.NIRNode) -> LayerMapping:
    if isinstance(node, nir.Affine | nir.Linear):
        return LayerMapping("native", "LinearTorch is torch's linear function")
    return LayerMapping("emulated", f"Rockpool's import has no rule for {type(node).__name__}: torch")
