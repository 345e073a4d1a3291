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
from snn_export.export.graph import SPIKING_TYPES, SYNAPSE_TYPES, replace_nodes
from snn_export.export.interpreter import input_gains
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
    """For every weight node: the population it drives, and whether it sees graded input levels.

    Raises:
        UserError: SNX209 where a connection is not exactly one weight node beside flattens, or a node drives two populations.
    """
    found: dict[str, tuple[str, bool]] = {}
    for population, incoming in deployment.connections.items():
        for connection in incoming:
            nodes = [deployment.graph.nodes[n] for n in connection.path]
            weights = [n for n in connection.path if isinstance(deployment.graph.nodes[n], SYNAPSE_TYPES)]
            mapped = all(isinstance(node, (*SYNAPSE_TYPES, nir.Flatten)) for node in nodes)
            graded = isinstance(deployment.graph.nodes[connection.source], nir.Input)
            if len(weights) != 1 or not mapped or found.get(weights[0], (population, graded)) != (population, graded):
                raise UserError(
                    "SNX209",
                    f"between {connection.source} and {population} stand {' -> '.join(connection.path) or 'no nodes'}",
                    where=population,
                    why="a chip connection is exactly one weight layer of its own",
                    fix="absorb pooling first, and give every population its own weight layer",
                )
            found[weights[0]] = (population, graded)
    return found


def threshold_of(node: nir.NIRNode) -> float:
    """Threshold of a spiking node, one value per population. Raises SNX245 where it differs between neurons."""
    values = np.unique(node.v_threshold)
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
        grid, gain = populations[population], input_gain(deployment, population)
        level = encoder.gain if graded and encoder.gain is not None else 1.0
        weight = (
            shift_mantissa(synapses[name].weight.astype(np.int64), synapses[name].weight_exponent) * level / grid.scale / gain
        )
        mantissa = synapses[name].bias_mantissa
        bias = (
            np.zeros(len(weight))
            if mantissa is None
            else shift_mantissa(mantissa.astype(np.int64), grid.bias_exponent) * grid.unit / gain
        )
        nodes[name] = with_parameters(deployment.graph.nodes[name], weight, bias)
    for name, grid in populations.items():
        node = deployment.graph.nodes[name]
        if deployment.contract.neurons[name].spiking:
            nodes[name] = _with_threshold(node, grid.threshold / grid.scale)
    return nodes


def with_parameters(node: nir.NIRNode, weight: NDArray[Any], bias: NDArray[Any] | None) -> nir.NIRNode:
    """A copy of a weight node with other parameters and the same geometry."""
    if isinstance(node, nir.Linear):
        return nir.Linear(weight=weight)
    if isinstance(node, nir.Affine):
        return nir.Affine(weight=weight, bias=bias)
    return nir.Conv2d(
        input_shape=node.input_shape,
        weight=weight,
        stride=node.stride,
        padding=node.padding,
        dilation=node.dilation,
        groups=node.groups,
        bias=bias,
    )


def _with_threshold(node: nir.NIRNode, value: float) -> nir.NIRNode:
    threshold = np.full_like(node.v_threshold, value)
    if isinstance(node, nir.LIF):
        return nir.LIF(tau=node.tau, r=node.r, v_leak=node.v_leak, v_threshold=threshold, v_reset=node.v_reset)
    if isinstance(node, nir.IF):
        return nir.IF(r=node.r, v_threshold=threshold, v_reset=node.v_reset)
    return nir.CubaLIF(
        tau_mem=node.tau_mem,
        tau_syn=node.tau_syn,
        r=node.r,
        v_leak=node.v_leak,
        v_threshold=threshold,
        v_reset=node.v_reset,
        w_in=node.w_in,
    )


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
        if spec is None or (spec.dv, spec.du) != (population.dv, population.du):
            raise _disagree(name, "the decays in the contract and in the integers differ")
    with np.errstate(divide="ignore", invalid="ignore"):  # an r of zero gives no finite weight and is refused below
        expected = nodes_on_grid(deployment, contract.encoder, deployment.synapses, deployment.populations)
    for name, node in expected.items():
        for key in ("weight", "bias", "v_threshold"):
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
            or spec.spiking != isinstance(node, SPIKING_TYPES)
        ):
            raise UserError(
                "SNX107",
                f"{name} is a {type(node).__name__} in NIR and {spec} in the contract",
                where=name,
                why="only a CubaLIF or CubaLI filters its current, IF and I have no leak, and LI and I never spike",
                fix="write the file again from the deployment it came from",
            )
        for key in ("v_leak", "v_reset"):
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


def _disagree(name: str, what: str) -> UserError:
    return UserError(
        "SNX106",
        f"{name}: {what}",
        where=name,
        why="the file holds every parameter as integer and in real units, and the two must be one network",
        fix="write the file again from the deployment it came from; do not edit one side only",
    )
