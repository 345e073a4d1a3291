"""Between integers and NIR's real-unit parameters, in both directions.

A quantised deployment says everything twice: the integers are authoritative, and NIR holds the same network in real units so
that any other reader gets it too. On population p with scale S, fed with spikes or with graded levels of gain g::

    weight_real = weight_int * g / S        bias_real = bias_int / (64 S)        theta = vth / S

and NIR stores weight and bias divided by the neuron's own input gain ((1 - beta) r for a LIF).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment, IntegerPopulation, IntegerSynapse
from snn_export.export.gains import input_gains, threshold_array
from snn_export.export.graph import SPIKING_TYPES, replace_nodes
from snn_export.export.populations import with_constants
from snn_export.models.arithmetic import DECAY_ONE, FULL_CURRENT_DECAY, shift_mantissa
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec

AGREEMENT = 1e-9
"""Relative difference up to which a NIR parameter counts as the integer's real value."""


def input_gain(deployment: Deployment, population: str) -> float:
    """Factor from a weight node's output to the membrane in one step, one value per population.

    Raises:
        UserError: SNX244 where it differs between the neurons of a population.
    """
    current, membrane = input_gains(deployment, population)
    gains = np.unique(np.asarray(current, np.float64) * np.asarray(membrane, np.float64))
    if gains.size != 1:
        raise UserError(
            "SNX244",
            f"the neurons of {population} have {gains.size} different input gains",
            where=population,
            why="a population shares one scale on the chip",
            fix="use one tau, r and w_in per population",
        )
    return float(gains[0])


def synapse_targets(deployment: Deployment) -> dict[str, tuple[str, bool]]:
    """For every weight node on the chip: the population it drives, and whether it sees graded input levels.

    Raises:
        UserError: SNX209 where a connection is not exactly one weight node beside flattens and delays, or a node drives two
            populations.
    """
    found: dict[str, tuple[str, bool]] = {}
    for population, incoming in deployment.wires.items():
        for wire in incoming:
            entry = (population, isinstance(deployment.graph.nodes[wire.source], nir.Input))
            if found.setdefault(wire.weight, entry) != entry:
                raise UserError(
                    "SNX209",
                    f"{wire.weight} leads to {population} and {found[wire.weight][0]}, or carries both input and spikes",
                    where=wire.weight,
                    why="a weight layer on a chip has one target, whose scale it is on",
                    fix="give every population its own weight layer",
                )
    return found


def threshold_of(node: nir.NIRNode) -> float:
    """Threshold of a spiking node, one value per population. Raises SNX245 where it differs between neurons."""
    values = np.unique(threshold_array(node))
    if values.size != 1:
        raise UserError(
            "SNX245",
            f"a population has {values.size} different thresholds",
            where=type(node).__name__,
            why="vth is one register per population",
            fix="use one threshold per population",
        )
    return float(values[0])


def nodes_on_grid(
    deployment: Deployment,
    encoder: EncoderSpec,
    synapses: Mapping[str, IntegerSynapse],
    populations: Mapping[str, IntegerPopulation],
) -> dict[str, nir.NIRNode]:
    """NIR nodes in real units that say exactly what the integers say; geometry and neuron constants are kept."""
    nodes: dict[str, nir.NIRNode] = {}
    for name, (population, graded) in synapse_targets(deployment).items():
        grid, gain, synapse = populations[population], input_gain(deployment, population), synapses[name]
        level = encoder.gain if graded and encoder.gain is not None else 1.0
        weight = shift_mantissa(synapse.weight.astype(np.int64), synapse.weight_exponent) * level / grid.scale / gain
        bias = np.zeros(len(weight))
        if synapse.bias_mantissa is not None and not is_filtered(deployment, population):
            bias = shift_mantissa(synapse.bias_mantissa.astype(np.int64), grid.bias_exponent) * grid.unit / gain
        if synapse.current_bias is not None:
            bias = bias + synapse.current_bias.astype(np.int64) / grid.scale / gain
        nodes[name] = with_parameters(deployment.graph.nodes[name], weight, bias)
    placed = deployment.replace(synapses=synapses, populations=populations)
    for name, grid in populations.items():
        changes: dict[str, Any] = {}
        if deployment.contract.neurons[name].spiking:
            changes["threshold"] = grid.threshold / grid.scale
        if is_filtered(deployment, name) and np.any(placed.bias(name)):
            changes["v_leak"] = placed.bias(name) * grid.unit / (1.0 - deployment.contract.neurons[name].beta)
        nodes[name] = _placed(deployment.graph.nodes[name], **changes)
    return nodes


def is_filtered(deployment: Deployment, population: str) -> bool:
    """True where a synaptic filter stands in front of the membrane: the bias of a weight node then enters the current."""
    return isinstance(deployment.graph.nodes[population], nir.CubaLIF | nir.CubaLI)


def with_parameters(node: nir.NIRNode, weight: NDArray[Any], bias: NDArray[Any] | None) -> nir.NIRNode:
    """A copy of a weight node with other parameters and the same geometry."""
    if isinstance(node, nir.Linear):
        return nir.Linear(weight=weight)
    if isinstance(node, nir.Affine):
        return nir.Affine(weight=weight, bias=bias)
    if isinstance(node, nir.Scale):
        return nir.Scale(scale=weight)
    return type(node)(
        input_shape=node.input_shape,
        weight=weight,
        stride=node.stride,
        padding=node.padding,
        dilation=node.dilation,
        groups=node.groups,
        bias=bias,
    )


def _placed(node: nir.NIRNode, threshold: float | None = None, v_leak: NDArray[np.float64] | None = None) -> nir.NIRNode:
    """A copy of a population with another threshold and, for one with a synaptic filter, another rest."""
    changes: dict[str, NDArray[np.float64]] = {}
    if threshold is not None:
        key = "threshold" if isinstance(node, nir.Threshold) else "v_threshold"
        changes[key] = np.full_like(getattr(node, key), threshold, np.float64)
    if isinstance(node, nir.CubaLIF | nir.CubaLI):
        changes["v_leak"] = np.zeros_like(node.v_leak, np.float64) if v_leak is None else v_leak
    return with_constants(node, **changes)


def on_grid(
    deployment: Deployment,
    encoder: EncoderSpec,
    synapses: Mapping[str, IntegerSynapse],
    populations: Mapping[str, IntegerPopulation],
) -> Deployment:
    """The deployment with these integers and the NIR parameters that belong to them."""
    nodes = nodes_on_grid(deployment, encoder, synapses, populations)
    return deployment.replace(
        graph=replace_nodes(deployment.graph, nodes),
        contract=deployment.contract.model_copy(update={"encoder": encoder}),
        synapses=synapses,
        populations=populations,
        fold_magnitude={},
    )


def check_agreement(deployment: Deployment) -> None:
    """Check that integers, NIR parameters and contract tell one story. Called for every file that is read.

    Raises:
        UserError: SNX106 with the node and parameter that differ; SNX107 where tau and the contract's decay differ.
    """
    _check_neurons(deployment)
    check_decays(deployment)
    if not deployment.quantised:
        return
    contract = deployment.contract
    for name, population in deployment.populations.items():
        spec = contract.neurons.get(name)
        if spec is None or (spec.decay_register, spec.du) != (population.dv, population.du):
            raise _disagree(name, "the decays in the contract and in the integers differ")
    with np.errstate(divide="ignore", invalid="ignore"):  # an r of zero gives no finite weight and is refused below
        expected = nodes_on_grid(deployment, contract.encoder, deployment.synapses, deployment.populations)
    for name, node in expected.items():
        for key in ("weight", "scale", "bias", "v_threshold", "threshold", "v_leak"):
            stored = getattr(deployment.graph.nodes[name], key, None)
            if stored is None or not hasattr(node, key):
                continue
            derived = getattr(node, key)
            size = float(np.max(np.abs(derived), initial=0.0)) or 1.0
            fits = stored.shape == derived.shape and np.isfinite(derived).all()
            if not fits or not np.all(np.abs(stored - derived) <= AGREEMENT * size):
                raise _disagree(name, f"{key} in NIR is not the real value of its integers")


def _check_neurons(deployment: Deployment) -> None:
    """The contract's neuron is one that its NIR node can be, and the node is a canonical one: at rest and reset at zero.

    Raises:
        UserError: SNX107 where the contract gives a node a decay or a threshold that it does not have; SNX201 for v_leak or
            v_reset other than zero, which the canonical neuron does not know.
    """
    for name, spec in deployment.contract.neurons.items():
        node = deployment.graph.nodes[name]
        filtered, leaky = isinstance(node, nir.CubaLIF | nir.CubaLI), not isinstance(node, nir.IF | nir.I)
        if (
            (not filtered and spec.du != FULL_CURRENT_DECAY)
            or (not leaky and spec.dv)
            or spec.memoryless != isinstance(node, nir.Threshold)
            or spec.spiking != isinstance(node, SPIKING_TYPES)
        ):
            raise UserError(
                "SNX107",
                f"{name} is a {type(node).__name__} in NIR and {spec} in the contract",
                where=name,
                why="only CubaLIF and CubaLI filter the current, IF and I have no leak, Threshold no memory, LI and I no spikes",
                fix="write the file again from the deployment it came from",
            )
        for key in ("v_reset",) if filtered else ("v_leak", "v_reset"):
            if np.any(getattr(node, key, 0)):
                raise UserError(
                    "SNX201",
                    f"{key} of {name} is not zero",
                    where=name,
                    why="the canonical neuron rests at zero and is reset to zero; nothing here would apply another value",
                    fix="shift the threshold and the bias so that both are zero",
                )


def check_decays(deployment: Deployment) -> None:
    """Every tau must belong to the contract's integer: round(4096 dt / tau) == dv. Raises SNX107."""
    for name, spec in deployment.contract.neurons.items():
        node = deployment.graph.nodes.get(name)
        for key, decay in (("tau", spec.dv), ("tau_mem", spec.dv), ("tau_syn", spec.du + 1)):
            tau = getattr(node, key, None)
            if tau is None:
                continue
            with np.errstate(divide="ignore", invalid="ignore"):  # a tau of zero is refused like any other wrong one
                found = np.unique(np.rint(DECAY_ONE * deployment.contract.dt / np.asarray(tau)))
            if found.size != 1 or found[0] != decay:
                raise UserError(
                    "SNX107",
                    f"{key} of {name} stands for the decay {found.tolist()}, the contract says {decay}",
                    where=name,
                    why="the integer decay is authoritative, and a reader that takes tau would run another network",
                    fix="write the file again from the deployment it came from",
                )


def decays_agree(deployment: Deployment, population: str) -> bool:
    """True where the node's time constants are the contract's decays to nine digits; :func:`check_decays` lets them round."""
    node, spec, dt = deployment.graph.nodes[population], deployment.contract.neurons[population], deployment.contract.dt
    for key, decay in (("tau", spec.dv), ("tau_mem", spec.dv), ("tau_syn", spec.du + 1)):
        tau = getattr(node, key, None)
        if tau is not None and not np.allclose(DECAY_ONE * dt / np.asarray(tau, np.float64), decay, rtol=AGREEMENT, atol=0):
            return False
    return True


def _disagree(name: str, what: str) -> UserError:
    return UserError(
        "SNX106",
        f"{name}: {what}",
        where=name,
        why="the file holds every parameter as integer and in real units, and the two must be one network",
        fix="write the file again from the deployment it came from; do not edit one side only",
    )
