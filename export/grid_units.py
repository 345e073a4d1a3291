"""A quantised deployment as a float one in the units of its grid: the integers as they are, for programs that compute in floats.

The real-unit graph of a quantised deployment says the same network, but its numbers are integers divided by a scale. Integers
meet their threshold exactly, and often; divided by a scale that is no power of two they round, and float32 decides by chance.
In grid units nothing is divided: weights, thresholds and levels are whole numbers, biases whole 64ths, and every neuron adds
its input as it is (r = tau/dt, w_in = tau_syn/dt)::

    v_grid = S v_real = v_int / 64         with the population's scale S

A bias on the membrane of a neuron without a filter stands at its weights, so it shows in u too. This is what the reference
simulator runs on a quantised deployment: integer parameters, and state that is neither truncated nor wrapped nor saturated.
"""

from __future__ import annotations

from types import MappingProxyType

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment, IntegerPopulation, IntegerSynapse, integer_parameters, not_quantised
from snn_export.export.graph import Shape, replace_nodes, unsupported
from snn_export.export.grid import is_filtered, synapse_targets, with_parameters
from snn_export.models.arithmetic import DECAY_ONE, STATE_SHIFT, shift_mantissa, tau_from_integer
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.spec import EncoderSpec, NeuronSpec


def in_grid_units(deployment: Deployment) -> Deployment:
    """The float deployment whose weights, thresholds and biases are the integers; its inputs are the encoder's levels.

    Raises:
        UserError: SNX302 for a float deployment; SNX201, SNX215 as :func:`findings`; SNX209.
    """
    if not deployment.quantised:
        raise not_quantised("in_grid_units")
    found = findings(deployment)
    if found:
        raise UserError.from_diagnostics(tuple(found))
    nodes: dict[str, nir.NIRNode] = {}
    for name, (population, _) in synapse_targets(deployment).items():
        synapse, filtered = deployment.synapses[name], is_filtered(deployment, population)
        bias = _bias(synapse, 0 if filtered else deployment.populations[population].bias_exponent, membrane=not filtered)
        weight = integer_parameters(synapse)[0]
        node = deployment.graph.nodes[name]
        if isinstance(node, nir.Linear) and np.any(bias):
            nodes[name] = nir.Affine(np.asarray(weight, np.float64), bias)
        else:
            nodes[name] = with_parameters(node, np.asarray(weight, np.float64), bias)
    for name, grid in deployment.populations.items():
        leak = deployment.bias(name) / float(1 << STATE_SHIFT) if is_filtered(deployment, name) else np.zeros(())
        nodes[name] = _population(deployment, name, grid, leak)
    contract = deployment.contract.model_copy(update={"quantisation": None, "encoder": EncoderSpec()})
    empty = MappingProxyType[str, NDArray[np.float64]]({})
    return Deployment(replace_nodes(deployment.graph, nodes), contract, fold_magnitude=empty, firing=deployment.firing)


def findings(deployment: Deployment) -> list[Diagnostic]:
    """What no NIR node says in these units: a filter without a leak (SNX215), a bias behind a Scale (SNX201)."""
    found: list[Diagnostic] = []
    for name, spec in deployment.contract.neurons.items():
        if is_filtered(deployment, name) and spec.dv == 0:
            found.append(Diagnostic(
                "SNX215", f"{name} filters its current and has no leak", where=name,
                why="NIR writes it with an infinite time constant", fix="run it on loihi or reference",
            ))  # fmt: skip
    for name, synapse in deployment.synapses.items():
        node = deployment.graph.nodes[name]
        if isinstance(node, nir.Scale) and (synapse.bias_mantissa is not None or synapse.current_bias is not None):
            found += unsupported(name, node).diagnostics
    return found


def _bias(synapse: IntegerSynapse, exponent: int, *, membrane: bool) -> NDArray[np.float64]:
    """What a weight node adds to the sum of every step, in the sum's units."""
    found = np.zeros(len(synapse.weight))
    if membrane and synapse.bias_mantissa is not None:
        found = found + shift_mantissa(synapse.bias_mantissa.astype(np.int64), exponent) / float(1 << STATE_SHIFT)
    return found if synapse.current_bias is None else found + synapse.current_bias


def _population(deployment: Deployment, name: str, grid: IntegerPopulation, leak: NDArray[np.float64]) -> nir.NIRNode:
    """The population with unit gain and its integer threshold; ``leak`` is added to the membrane in every step."""
    spec, dt, shape = deployment.contract.neurons[name], deployment.contract.dt, deployment.shapes[name]
    ones, zeros = np.ones(shape), np.zeros(shape)
    fires = {"v_threshold": ones * grid.threshold, "v_reset": zeros}
    if spec.memoryless:
        return nir.Threshold(ones * grid.threshold)
    if is_filtered(deployment, name):
        return _filtered(spec, dt, shape, leak, fires)
    if spec.dv == 0:
        return nir.IF(r=ones / dt, **fires) if spec.spiking else nir.I(r=ones / dt)
    leaky = {"tau": ones * tau_from_integer(spec.dv, dt), "r": ones * (DECAY_ONE / spec.dv), "v_leak": zeros}
    return nir.LIF(**leaky, **fires) if spec.spiking else nir.LI(**leaky)


def _filtered(
    spec: NeuronSpec, dt: float, shape: Shape, leak: NDArray[np.float64], fires: dict[str, NDArray[np.float64]]
) -> nir.NIRNode:
    ones = np.ones(shape)
    constants = {
        "tau_syn": ones * tau_from_integer(spec.du + 1, dt),
        "tau_mem": ones * tau_from_integer(spec.dv, dt),
        "r": ones * (DECAY_ONE / spec.dv),
        "v_leak": ones * leak * (DECAY_ONE / spec.dv),
        "w_in": ones * (DECAY_ONE / (spec.du + 1)),
    }
    return nir.CubaLIF(**constants, **fires) if spec.spiking else nir.CubaLI(**constants)
