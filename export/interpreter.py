"""The slow, plain NIR interpreter: float64 for graphs in real units, int64 for integers, both from the same equations.

It is the arbiter. Fast backends are tested against it, passes that claim to be exact are checked with it, and it calls
``models/arithmetic.py`` for every neuron. It shows every layer in local time: index 0 is the step of its first input. A
population without a loop runs over all its steps before the next one starts, which is the same as step by step; populations
that hear each other are stepped together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.chips import chip_of
from snn_export.export.deployment import Deployment, Firing, integer_parameters, not_quantised
from snn_export.export.gains import input_gains, membrane_bias, threshold_array
from snn_export.export.graph import Connection, delay_steps, weight_array
from snn_export.export.linear import apply
from snn_export.models import arithmetic
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import SAME_STEP_RESET, NeuronSpec

Array = NDArray[Any]
Numbers = Literal["float64", "int64"]
Step = Callable[[Array, Array, Array], tuple[Array, Array, Array, int]]
"""(u, v, drive) of one step -> (u, v, spikes, overflows); spikes are boolean, or counts of a neuron that emits several."""
CANONICAL = Firing()
UNREACHED = 1e300
"""Stands for an infinite threshold, which cannot be multiplied by the number of spikes."""
RELATIVE_ROUNDINGS = 4
"""Of one step v + (x - v) / tau: the difference, tau or its reciprocal, the quotient, the sum."""


@dataclass(frozen=True, eq=False)
class Activity:
    """What one population did. All arrays (T, B, *features); u and v as they stand after the step's reset.

    Float runs are in real units; integer runs in membrane units (1.0 real = 64 scale).
    ``several``: spikes per step, float64, of a neuron that emits more than one; None where ``spikes`` says it all.
    """

    spikes: NDArray[np.bool_]
    current: Array
    membrane: Array
    overflows: int = 0
    several: NDArray[np.float64] | None = None

    @property
    def sent(self) -> Array:
        """What the next layers receive."""
        return self.spikes if self.several is None else self.several


def run(deployment: Deployment, inputs: Array, numbers: Numbers = "float64") -> dict[str, Activity]:
    """Run every population on inputs (see :func:`snn_export.export.encoding.signal` for shapes and errors).

    ``float64`` on a quantised deployment means: the integers as they are, but state without truncation, wrap or
    saturation. That isolates what rounding the parameters did from what integer state does. Weights and inputs are then
    multiplied as integers, so nothing is lost in between.
    """
    if numbers == "int64" and not deployment.quantised:
        raise not_quantised("interpreter")
    signals = input_signals(deployment, inputs)
    host = encoding.host_bias(deployment, inputs) if deployment.quantised else {}
    steps = {name: _step(deployment, name, numbers, host.get(name)) for name in deployment.layers}
    units = {name: _unit(deployment, name, numbers) for name in deployment.layers}
    return run_with(deployment, signals, steps, numbers, units=units)


def run_with(
    deployment: Deployment,
    signals: Mapping[str, Array],
    steps: Mapping[str, Step],
    numbers: Numbers = "float64",
    *,
    units: Mapping[str, float] = MappingProxyType({}),
    own: Mapping[str, Mapping[str, Array]] = MappingProxyType({}),
) -> dict[str, Activity]:
    """Run every population with equations that the caller supplies; the network says what each of them hears, and when.

    Args:
        deployment: connections, weights, delays, periodic resets, steps.
        signals: of the input node, (T or 1, B, *shape).
        steps: one step of every population. Its drive is what :func:`synaptic_drive` gives.
        numbers: of the states.
        units: factors from the states to those an Activity shows; 1 where none is given.
        own: by population, signals that it alone hears in place of the common ones.
    """
    heard, result = dict(signals), dict[str, Activity]()
    sent = np.int64 if deployment.quantised else np.float64
    state = np.int64 if numbers == "int64" else np.float64
    for stage in deployment.stages:
        private = {name: {**heard, **own.get(name, {})} for name in stage}
        if deployment.is_recurrent(stage):
            recorders = _run_together(deployment, stage, private, steps, state)
        else:
            recorders = {stage[0]: _run_alone(deployment, stage[0], private[stage[0]], steps[stage[0]], state)}
        for name, recorder in recorders.items():
            result[name] = recorder.activity(units.get(name, 1.0))
            heard[name] = result[name].sent.astype(sent)
    return result


def input_signals(deployment: Deployment, inputs: Array) -> dict[str, Array]:
    """What the input node sends, (S, B, *shape): integer levels where quantised, real units otherwise."""
    start = encoding.levels(deployment, inputs) if deployment.quantised else encoding.signal(deployment, inputs)
    return {name: start for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Input)}


def run_population(
    deployment: Deployment, name: str, signals: Mapping[str, Array], numbers: Numbers = "float64", host: Array | None = None
) -> Activity:
    """Run one population on given signals of its sources, (T or 1, B, *features) each; otherwise as :func:`run`.

    A population with a loop hears in it what ``signals`` holds, not what it fires here. ``host``: biases per sample, as
    :func:`snn_export.export.encoding.host_bias` gives them.
    """
    step, state = _step(deployment, name, numbers, host), np.int64 if numbers == "int64" else np.float64
    return _run_alone(deployment, name, signals, step, state).activity(_unit(deployment, name, numbers))


def _run_alone(deployment: Deployment, name: str, signals: Mapping[str, Array], step: Step, state: type[np.generic]) -> _Recorder:
    """One population over all its steps."""
    drive = synaptic_drive(deployment, name, signals)
    recorder = _Recorder(deployment, name, drive.shape[1], state)
    for t in range(deployment.contract.steps):
        recorder.advance(t, drive[min(t, len(drive) - 1)], step)
    return recorder


def _run_together(
    deployment: Deployment,
    stage: tuple[str, ...],
    signals: Mapping[str, Mapping[str, Array]],
    advance: Mapping[str, Step],
    state: type[np.generic],
) -> dict[str, _Recorder]:
    """Populations that hear each other: all of them in step t, then all of them in step t + 1. signals: by population."""
    integer, steps = deployment.quantised, deployment.contract.steps
    inner = {name: [c for c in deployment.connections[name] if c.source in stage] for name in stage}
    outer = {name: synaptic_drive(deployment, name, signals[name], leave_out=stage) for name in stage}
    recorders, fired = {}, dict[str, Array]()
    for name in stage:
        batch = outer[name].shape[1]
        recorders[name] = _Recorder(deployment, name, batch, state)
        fired[name] = np.zeros((steps, batch, *deployment.shapes[name]), np.int64 if integer else np.float64)
    for t in range(steps):
        for name in stage:
            drive = outer[name][min(t, len(outer[name]) - 1)]
            for connection in inner[name]:
                arrived = _arriving(deployment, connection, fired, t, len(connection.path))
                drive = drive + arrived.reshape(drive.shape)
            fired[name][t] = recorders[name].advance(t, drive, advance[name])
    return recorders


def _arriving(deployment: Deployment, connection: Connection, fired: Mapping[str, Array], t: int, nodes: int) -> Array:
    """What the first ``nodes`` nodes of a connection give in step t, (B, *features), without biases."""
    if nodes == 0:
        t -= loop_step(deployment, connection)
        return fired[connection.source][t] if t >= 0 else np.zeros_like(fired[connection.source][0])
    name = connection.path[nodes - 1]
    node = deployment.graph.nodes[name]
    if isinstance(node, nir.Delay):
        now = _arriving(deployment, connection, fired, t, nodes - 1)
        steps = np.broadcast_to(delay_steps(name, node, deployment.contract.dt), now.shape[1:])
        result = np.zeros_like(now)
        for delay in np.unique(steps):
            if delay <= t:
                result[:, steps == delay] = _arriving(deployment, connection, fired, t - int(delay), nodes - 1)[:, steps == delay]
        return result
    return apply(name, node, _arriving(deployment, connection, fired, t, nodes - 1), *_linear_parameters(deployment, name, False))


def loop_step(deployment: Deployment, connection: Connection) -> int:
    """The step of delay that a recurrent connection has by itself; one with Delay nodes states its whole delay there."""
    delayed = any(isinstance(deployment.graph.nodes[name], nir.Delay) for name in connection.path)
    return 1 if connection.recurrent and not delayed else 0


def synaptic_drive(
    deployment: Deployment,
    population: str,
    signals: Mapping[str, Array],
    magnitude: bool = False,
    leave_out: tuple[str, ...] = (),
) -> Array:
    """What all connections bring to a population, (S, B, *features); S = 1 where it is the same in every step.

    Quantised deployments: the integer sum ``a``, biases into the current included, biases onto the membrane not. Otherwise
    real units, biases included; a bias belongs to the neuron it ends in and acts from the first step, whatever delays stand
    behind it. With ``magnitude`` every weight, bias and signal counts with its absolute value, plus what folding added up: the
    factor of an error bound. Connections from populations in ``leave_out`` are not counted, their biases are.
    """
    shape = deployment.shapes[population]
    integer = deployment.quantised
    constant = deployment.current_bias(population) if integer else _float_bias(deployment, population, magnitude)
    batch = next(iter(signals.values())).shape[1]
    total = np.broadcast_to(constant, (1, batch, *shape))
    for connection in deployment.connections[population]:
        on_host = integer and any(name in deployment.host_synapses for name in connection.path)
        if connection.source in leave_out or on_host:
            continue
        x = np.abs(signals[connection.source]) if magnitude else signals[connection.source]
        x = _later(x, loop_step(deployment, connection), deployment.contract.steps)
        for name in connection.path:
            node = deployment.graph.nodes[name]
            if isinstance(node, nir.Delay):
                x = _later(x, delay_steps(name, node, deployment.contract.dt), deployment.contract.steps)
                continue
            steps = len(x)
            flat = apply(name, node, x.reshape(steps * batch, *x.shape[2:]), *_linear_parameters(deployment, name, magnitude))
            x = flat.reshape(steps, batch, *flat.shape[1:])
        total = total + x.reshape(len(x), batch, *shape)
    return total


def _later(x: Array, steps: Array | int, length: int) -> Array:
    """A signal (S, B, *features) delayed by whole steps, one number or one per feature, (T, B, *features); zeros come first."""
    if not np.any(steps):
        return x
    whole = np.broadcast_to(x, (length, *x.shape[1:])) if len(x) == 1 else x
    delays = np.broadcast_to(steps, x.shape[2:])
    result = np.zeros_like(whole)
    for delay in np.unique(delays):
        if delay < length:
            result[delay:][:, :, delays == delay] = whole[: length - delay][:, :, delays == delay]
    return result


def _linear_parameters(deployment: Deployment, name: str, magnitude: bool) -> tuple[Array | None, Array | None]:
    """Weight to use for a linear node, and zeros in place of its bias."""
    node = deployment.graph.nodes[name]
    if not hasattr(node, "weight") and not isinstance(node, nir.Scale):
        return None, None
    if deployment.quantised:
        return integer_parameters(deployment.synapses.get(name))
    weight = weight_array(node)
    return np.abs(weight) if magnitude else weight, np.zeros(len(weight)) if hasattr(node, "bias") else None


def _float_bias(deployment: Deployment, population: str, magnitude: bool) -> Array:
    """Sum of the biases on all ways into a population, (*features), real units; a node with several sources counts once."""
    shape = deployment.shapes[population]
    total, counted = np.zeros(shape), set[str]()
    for connection in deployment.connections[population]:
        x = np.zeros((1, *deployment.shapes[connection.source]))
        for name in connection.path:
            node = deployment.graph.nodes[name]
            weight, bias = _linear_parameters_with_bias(deployment, name, magnitude, counted=name in counted)
            counted.add(name)
            if not isinstance(node, nir.Delay):
                x = apply(name, node, x, weight, bias)
        total = total + x.reshape(shape)
    return total


def _linear_parameters_with_bias(
    deployment: Deployment, name: str, magnitude: bool, counted: bool
) -> tuple[Array | None, Array | None]:
    node = deployment.graph.nodes[name]
    weight = weight_array(node) if hasattr(node, "weight") or isinstance(node, nir.Scale) else None
    bias = getattr(node, "bias", None)
    if bias is not None and counted:
        bias = np.zeros_like(bias)
    if magnitude and weight is not None:
        weight = np.abs(weight)
        bias = None if bias is None else np.abs(bias) + (0.0 if counted else deployment.fold_magnitude.get(name, 0.0))
    return weight, bias


class _Recorder:
    """State and history of one population."""

    def __init__(self, deployment: Deployment, name: str, batch: int, dtype: Any) -> None:
        shape = (batch, *deployment.shapes[name])
        self.spec: NeuronSpec = deployment.contract.neurons[name]
        self.u, self.v = np.zeros(shape, dtype), np.zeros(shape, dtype)
        steps, several = deployment.contract.steps, deployment.firing.get(name, CANONICAL).several
        self.spikes = np.zeros((steps, *shape), np.float64 if several else bool)
        self.currents, self.membranes = np.zeros((steps, *shape), dtype), np.zeros((steps, *shape), dtype)
        self.overflows = 0

    def advance(self, t: int, drive: Array, step: Step) -> Array:
        """One step; returns its spikes."""
        if self.spec.resets_at(t):
            self.u, self.v = np.zeros_like(self.u), np.zeros_like(self.v)
        self.u, self.v, fired, overflows = step(self.u, self.v, drive)
        self.spikes[t], self.currents[t], self.membranes[t] = fired, self.u, self.v
        self.overflows += overflows
        return fired

    def activity(self, unit: float) -> Activity:
        """The history, states times ``unit``."""
        several = None if self.spikes.dtype == bool else self.spikes
        currents, membranes = (self.currents, self.membranes) if unit == 1.0 else (self.currents * unit, self.membranes * unit)
        return Activity(self.spikes > 0, currents, membranes, self.overflows, several)


def _unit(deployment: Deployment, name: str, numbers: Numbers) -> float:
    """Factor from the numbers of a run to those an Activity shows."""
    return deployment.populations[name].unit if deployment.quantised and numbers == "float64" else 1.0


def _step(deployment: Deployment, name: str, numbers: Numbers, host: Array | None) -> Step:
    """The equations of one population, with its parameters bound."""
    if numbers == "int64":
        return _integer_step(deployment, name, host)
    return _float_step_on_integers(deployment, name, host) if deployment.quantised else _float_step(deployment, name)


def _float_step(deployment: Deployment, name: str) -> Step:
    node, spec = deployment.graph.nodes[name], deployment.contract.neurons[name]
    current_gain, membrane_gain = input_gains(deployment, name)
    leak = membrane_bias(deployment, name)
    threshold = np.broadcast_to(threshold_array(node), deployment.shapes[name])
    advance = _equations(name, spec, deployment.firing.get(name, CANONICAL), membrane_gain, leak, threshold)

    def step(u: Array, v: Array, x: Array) -> tuple[Array, Array, Array, int]:
        return advance(u, v, current_gain * x)

    return step


def _equations(name: str, spec: NeuronSpec, firing: Firing, gain: Array | float, bias: Array | float, threshold: Array) -> Step:
    """One step in floats on an input in units of u, with the reset in the step of the spike or in the one after it."""
    late = _late_step(name, spec) if spec.spiking and spec.reset_delay and spec.reset != "none" else None
    if spec.spiking:  # 0 times infinity is no number: a neuron that never fires gets a threshold that no membrane reaches
        threshold = np.where(np.isinf(threshold), UNREACHED, threshold)

    def step(u: Array, v: Array, x: Array) -> tuple[Array, Array, Array, int]:
        u, after = arithmetic.canonical_step(u, v, x, spec.alpha, spec.beta, gain, bias)
        return u, *fire_and_reset(spec, firing, v, after, threshold), 0

    def late_step(u: Array, v: Array, x: Array) -> tuple[Array, Array, Array, int]:
        before = spikes_of(firing, v, threshold)
        taken = before if spec.reset == "subtract" else before > 0
        u, v = equations(u, v, x, spec.alpha, spec.beta, gain, bias, threshold, taken)
        return u, v, spikes_of(firing, v, threshold), 0

    if late is None:
        return step
    equations = late
    return late_step


def _late_step(name: str, spec: NeuronSpec) -> Callable[..., tuple[Array, Array]]:
    """The equations of a reset that comes in the step after the spike; SNX203 for one that comes later still."""
    if spec.reset_delay > 1:
        raise UserError(
            "SNX203",
            f"{name} resets {spec.reset_delay} steps late",
            where=name,
            why="a neuron resets in the step of the spike or, as snnTorch does by default, in the next one",
            fix=SAME_STEP_RESET,
        )
    if spec.reset == "subtract":
        return arithmetic.late_subtract_step
    return arithmetic.late_clearing_step if spec.clears_input else arithmetic.late_zero_step


def _float_step_on_integers(deployment: Deployment, name: str, host: Array | None) -> Step:
    spec, population = deployment.contract.neurons[name], deployment.populations[name]
    finding = spec.reset_finding(name)
    late = spec.reset_delay or spec.double_to_refire
    if finding is not None and late and name not in deployment.firing:  # a declared deviation may be late: it runs on floats
        raise UserError.from_diagnostics((finding,))
    bias = deployment.bias(name) + (0 if host is None else host)
    threshold: Array = np.asarray(population.threshold << arithmetic.STATE_SHIFT if spec.spiking else np.inf, np.float64)
    advance = _equations(name, spec, deployment.firing.get(name, CANONICAL), 1.0, bias, threshold)

    def step(u: Array, v: Array, x: Array) -> tuple[Array, Array, Array, int]:
        return advance(u, v, (x << arithmetic.STATE_SHIFT).astype(np.float64))

    return step


def fire_and_reset(spec: NeuronSpec, firing: Firing, before: Array, v: Array, threshold: Array) -> tuple[Array, Array]:
    """Membrane after the reset of the same step, and spikes, of a float neuron.

    before: the membrane the last step left; v: as integrated. The threshold is finite (:data:`UNREACHED` for infinity).
    """
    if not spec.spiking:
        return v, np.zeros(v.shape, bool)
    if spec.double_to_refire:
        v, fired = arithmetic.reset_by_double_subtraction(before, v, threshold)
        return v, fired
    fired = spikes_of(firing, v, threshold)
    if spec.reset == "zero":
        v = arithmetic.reset_to_zero(v, fired > 0)
    elif spec.reset == "subtract":
        v = arithmetic.reset_by_subtraction(v, fired, threshold)
    return v, fired


def spikes_of(firing: Firing, v: Array, threshold: Array) -> Array:
    """Spikes of a membrane: boolean, or how many."""
    if firing.several:
        held: Array = arithmetic.thresholds_held(v, threshold, firing.at_threshold)
        return held
    found: Array = arithmetic.fires_from(v, threshold) if firing.at_threshold else arithmetic.fires(v, threshold)
    return found


def _integer_step(deployment: Deployment, name: str, host: Array | None) -> Step:
    spec, population = deployment.contract.neurons[name], deployment.populations[name]
    finding = spec.reset_finding(name, programmable(deployment))
    if finding is not None:
        raise UserError.from_diagnostics((finding,))
    bias = deployment.bias(name) + (0 if host is None else host)
    # A readout fires too if its membrane ever reaches the largest threshold: the chip has no neuron without one.
    threshold = population.threshold << arithmetic.STATE_SHIFT
    equations = arithmetic.loihi_step_subtract if spec.microcode else arithmetic.loihi_step

    def step(u: Array, v: Array, x: Array) -> tuple[Array, Array, Array, int]:
        u, v, fired, wrapped, clipped = equations(u, v, x, bias, population.du, population.dv, threshold)
        return u, v, fired, int(np.count_nonzero(wrapped) + np.count_nonzero(clipped))

    return step


def programmable(deployment: Deployment) -> bool:
    """True where the chip a deployment was quantised for has programmable neurons (Loihi 2's microcode)."""
    quantisation = deployment.contract.quantisation
    return quantisation is not None and chip_of(quantisation.target).programmable_neurons


def error_bound(deployment: Deployment, population: str, signals: Mapping[str, Array], unit_roundoff: float) -> Array:
    """Forward error bound of a population's membrane, (T, B, *features), real units, float deployments.

    A sum of n products evaluated in any order in floating point is off by at most gamma_n sum |w||x|, with
    gamma_n = n eps / (1 - n eps) (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). The
    membrane recursion adds three roundings a step, a late or doubled subtraction two more. n is the fan-in, plus eight for
    batch-norm and the neuron's gain, plus those of every step; magnitudes are summed without resets, so the bound holds for
    either side of a flip. A threshold is rounded once too, and is a term of the sum wherever it is subtracted. Some packages
    step by v + (x - v) / tau, whose four roundings are relative to v itself and not to what beta leaves of it.
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
    leak = np.abs(membrane_bias(deployment, population))
    threshold = np.abs(threshold_array(deployment.graph.nodes[population])) if spec.spiking else np.zeros(())
    threshold = np.where(np.isinf(threshold), 0.0, threshold)  # nothing is compared with it, and nothing subtracted
    several = deployment.firing.get(population, CANONICAL).several
    taken = threshold if spec.reset == "subtract" and not several else np.zeros(())
    twice = 2.0 if several else 1.0  # as many thresholds as a membrane holds add up to no more than the membrane
    roundings = 5 if spec.reset == "subtract" and (spec.reset_delay or spec.double_to_refire) else 3
    bounds = np.zeros((deployment.contract.steps, *size.shape[1:]))
    u, v, relative = (np.zeros(size.shape[1:]) for _ in range(3))
    for t in range(len(bounds)):
        if spec.resets_at(t):
            u, v, relative = np.zeros_like(u), np.zeros_like(v), np.zeros_like(v)
        u = arithmetic.integrate(u, spec.alpha, size[min(t, len(size) - 1)])
        before, v = v, arithmetic.integrate(v, spec.beta, u + leak + taken)
        relative = arithmetic.integrate(relative, spec.beta, (before + u + leak) * RELATIVE_ROUNDINGS * unit_roundoff)
        terms = (fan_in + 8 + roundings * (t + 1)) * unit_roundoff
        bounds[t] = twice * v * terms / (1.0 - terms) + relative + threshold * unit_roundoff
    return bounds
