"""The slow, plain NIR interpreter: float64 for graphs in real units, int64 for integers, both from the same equations.

It is the arbiter. Fast backends are tested against it, passes that claim to be exact are checked with it, and it calls
``models/arithmetic.py`` for every neuron. It runs a layer over all its steps before the next layer starts, which is the same
as step by step in a feed-forward graph, and shows every layer in local time: index 0 is the step of its first input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.deployment import Deployment, integer_parameters, not_quantised
from snn_export.export.graph import unsupported
from snn_export.export.linear import apply
from snn_export.models import arithmetic
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import NeuronSpec

Array = NDArray[Any]
Numbers = Literal["float64", "int64"]


@dataclass(frozen=True, eq=False)
class Activity:
    """What one population did. All arrays (T, B, *features); u and v as they stand after the step's reset.

    Float runs are in real units; integer runs in membrane units (1.0 real = 64 scale).
    """

    spikes: NDArray[np.bool_]
    current: Array
    membrane: Array
    overflows: int = 0


def run(deployment: Deployment, inputs: Array, numbers: Numbers = "float64") -> dict[str, Activity]:
    """Run every population on inputs (see :func:`snn_export.export.encoding.signal` for shapes and errors).

    ``float64`` on a quantised deployment means: the integers as they are, but state without truncation, wrap or
    saturation. That isolates what rounding the parameters did from what integer state does. Weights and inputs are then
    multiplied as integers, so nothing is lost in between.
    """
    integer = deployment.quantised
    if numbers == "int64" and not integer:
        raise not_quantised("interpreter")
    start = encoding.levels(deployment, inputs) if integer else encoding.signal(deployment, inputs)
    signals: dict[str, Array] = {name: start for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Input)}
    result: dict[str, Activity] = {}
    for name in deployment.layers:
        activity = run_population(deployment, name, signals, numbers)
        result[name] = activity
        signals[name] = activity.spikes.astype(np.int64 if integer else np.float64)
    return result


def run_population(deployment: Deployment, name: str, signals: Mapping[str, Array], numbers: Numbers = "float64") -> Activity:
    """Run one population on given signals of its sources, (T or 1, B, *features) each; otherwise as :func:`run`."""
    drive = synaptic_drive(deployment, name, signals)
    if numbers == "int64":
        return _integer_population(deployment, name, drive)
    return _float_on_integers(deployment, name, drive) if deployment.quantised else _float_population(deployment, name, drive)


def synaptic_drive(deployment: Deployment, population: str, signals: Mapping[str, Array], magnitude: bool = False) -> Array:
    """Sum of all connections into a population, (S, B, *features); S = 1 where no source changes over time.

    Quantised deployments: the integer sum ``a`` without bias. Otherwise real units, bias included. With ``magnitude`` every
    weight, bias and signal counts with its absolute value, plus what folding added up: the factor of an error bound.
    """
    total: Array | None = None
    counted: set[str] = set()
    for connection in deployment.connections[population]:
        source = np.abs(signals[connection.source]) if magnitude else signals[connection.source]
        steps, batch = source.shape[:2]
        x = source.reshape(steps * batch, *source.shape[2:])
        for name in connection.path:
            node, synapse = deployment.graph.nodes[name], deployment.synapses.get(name)
            weight, bias = integer_parameters(synapse) if deployment.quantised else (None, None)
            if not deployment.quantised:
                weight, bias = _float_parameters(deployment, name, name in counted, magnitude)
            counted.add(name)
            x = apply(name, node, x, weight, bias)
        x = x.reshape(steps, batch, *x.shape[1:])
        total = x if total is None else total + x
    if total is None:
        raise UserError(
            "SNX206", f"nothing leads to {population}", where=population, why="a population needs an input", fix="connect it"
        )
    return total


def _float_parameters(
    deployment: Deployment, name: str, bias_counted: bool, magnitude: bool
) -> tuple[Array | None, Array | None]:
    node = deployment.graph.nodes[name]
    weight, bias = getattr(node, "weight", None), getattr(node, "bias", None)
    if weight is None:
        return None, None
    if bias is not None and bias_counted:
        bias = np.zeros_like(bias)
    if magnitude:
        weight = np.abs(weight)
        bias = None if bias is None else np.abs(bias) + deployment.fold_magnitude.get(name, 0.0)
    return weight, bias


def input_gains(deployment: Deployment, name: str) -> tuple[Array | float, Array | float]:
    """Factors (current, membrane) by which a NIR neuron's own constants scale its input in one step.

    LIF   tau dv/dt = -v + r i     v += dt/tau (r i - v)         membrane factor (1 - beta) r
    I     dv/dt = r i              v += dt r i                   membrane factor dt r
    CubaLIF   tau_syn du/dt = -u + w_in i                        current factor (1 - alpha) w_in
    """
    node, spec = deployment.graph.nodes[name], deployment.contract.neurons[name]
    loss = 1.0 - spec.beta
    if isinstance(node, nir.CubaLIF | nir.CubaLI):
        return (1.0 - spec.alpha) * node.w_in, loss * node.r
    if isinstance(node, nir.LIF | nir.LI):
        return 1.0, loss * node.r
    if isinstance(node, nir.IF | nir.I):
        return 1.0, deployment.contract.dt * node.r
    raise unsupported(name, node)


def _float_population(deployment: Deployment, name: str, drive: Array) -> Activity:
    node, spec = deployment.graph.nodes[name], deployment.contract.neurons[name]
    if spec.reset_delay:
        raise UserError(
            "SNX203",
            f"{name} resets {spec.reset_delay} step late",
            where=name,
            why="the canonical neuron and Loihi reset in the step of the spike",
            fix='use Leaky(reset_mechanism="zero", reset_delay=False); snnTorch\'s default is a late reset by subtraction',
        )
    current_gain, membrane_gain = input_gains(deployment, name)
    shape = deployment.shapes[name]
    threshold = np.broadcast_to(getattr(node, "v_threshold", np.inf), shape)

    def step(u: Array, v: Array, x: Array) -> tuple[Array, Array]:
        return arithmetic.canonical_step(u, v, current_gain * x, spec.alpha, spec.beta, membrane_gain, 0.0)

    return _scan(deployment, spec, drive, threshold, step)


def _float_on_integers(deployment: Deployment, name: str, drive: Array) -> Activity:
    spec, population, bias = deployment.contract.neurons[name], deployment.populations[name], deployment.bias(name)
    threshold: Array = np.asarray(population.threshold << arithmetic.STATE_SHIFT if spec.spiking else np.inf, np.float64)

    def step(u: Array, v: Array, x: Array) -> tuple[Array, Array]:
        shifted = (x << arithmetic.STATE_SHIFT).astype(np.float64)
        return arithmetic.canonical_step(u, v, shifted, spec.alpha, spec.beta, 1.0, bias)

    activity = _scan(deployment, spec, drive, threshold, step)
    return Activity(activity.spikes, activity.current * population.unit, activity.membrane * population.unit)


def _integer_population(deployment: Deployment, name: str, drive: Array) -> Activity:
    spec, population, bias = deployment.contract.neurons[name], deployment.populations[name], deployment.bias(name)
    finding = spec.reset_finding(name)
    if finding is not None:
        raise UserError.from_diagnostics((finding,))
    # A readout fires too if its membrane ever reaches the largest threshold: the chip has no neuron without one.
    threshold = population.threshold << arithmetic.STATE_SHIFT
    spikes = np.zeros((deployment.contract.steps, *drive.shape[1:]), bool)
    currents, membranes = np.zeros(spikes.shape, np.int64), np.zeros(spikes.shape, np.int64)
    u, v, overflows = np.zeros(drive.shape[1:], np.int64), np.zeros(drive.shape[1:], np.int64), 0
    for t in range(len(spikes)):
        x = drive[min(t, len(drive) - 1)]
        u, v, fired, wrapped, clipped = arithmetic.loihi_step(u, v, x, bias, population.du, population.dv, threshold)
        overflows += int(np.count_nonzero(wrapped) + np.count_nonzero(clipped))
        spikes[t], currents[t], membranes[t] = fired, u, v
    return Activity(spikes, currents, membranes, overflows)


def _scan(
    deployment: Deployment,
    spec: NeuronSpec,
    drive: Array,
    threshold: Array,
    step: Callable[[Array, Array, Array], tuple[Array, Array]],
) -> Activity:
    """All float steps of one population from zero state; drive (S, B, *features) with S = T or 1."""
    steps = deployment.contract.steps
    spikes = np.zeros((steps, *drive.shape[1:]), bool)
    currents, membranes = np.zeros(spikes.shape), np.zeros(spikes.shape)
    u, v = np.zeros(drive.shape[1:]), np.zeros(drive.shape[1:])
    for t in range(steps):
        u, v = step(u, v, drive[min(t, len(drive) - 1)])
        fired = arithmetic.fires(v, threshold) if spec.spiking else np.zeros(v.shape, bool)
        if spec.reset == "zero":
            v = arithmetic.reset_to_zero(v, fired)
        elif spec.reset == "subtract":
            v = arithmetic.reset_by_subtraction(v, fired, threshold)
        spikes[t], currents[t], membranes[t] = fired, u, v
    return Activity(spikes, currents, membranes)


def error_bound(deployment: Deployment, population: str, signals: Mapping[str, Array], unit_roundoff: float) -> Array:
    """Forward error bound of a population's membrane, (T, B, *features), real units, float deployments.

    A sum of n products evaluated in any order in floating point is off by at most gamma_n sum |w||x|, with
    gamma_n = n eps / (1 - n eps) (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). The
    membrane recursion adds three roundings a step. n is the fan-in, plus eight for batch-norm and the neuron's gain, plus
    three per step; magnitudes are summed without resets, so the bound holds for either side of a flip.
    """
    spec = deployment.contract.neurons[population]
    current_gain, membrane_gain = input_gains(deployment, population)
    size = abs(synaptic_drive(deployment, population, signals, magnitude=True)) * np.abs(current_gain * membrane_gain)
    fan_in = sum(
        int(np.prod(deployment.graph.nodes[name].weight.shape[1:]))
        for connection in deployment.connections[population]
        for name in connection.path
        if hasattr(deployment.graph.nodes[name], "weight")
    )
    bounds = np.zeros((deployment.contract.steps, *size.shape[1:]))
    u, v = np.zeros(size.shape[1:]), np.zeros(size.shape[1:])
    for t in range(len(bounds)):
        u = arithmetic.integrate(u, spec.alpha, size[min(t, len(size) - 1)])
        v = arithmetic.integrate(v, spec.beta, u)
        terms = (fan_in + 8 + 3 * (t + 1)) * unit_roundoff
        bounds[t] = v * terms / (1.0 - terms)
    return bounds
