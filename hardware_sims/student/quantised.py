"""A quantised student made from a deployment, and the deployment made from it again."""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn_export.export import bounds, encoding, grid
from snn_export.export.deployment import Deployment, IntegerSynapse, not_quantised
from snn_export.export.graph import conv_padding, input_node, per_axis
from snn_export.export.interpreter import programmable
from snn_export.export.wiring import Wire
from snn_export.models import arithmetic
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integer_lif import SpikeGradient
from snn_export.models.quantised.plan import BiasPlan, DriveLimits, Geometry, LayerPlan, PopulationPlan, StudentPlan, WirePlan
from snn_export.models.quantised.student import EncodedInput, LayerIntegers, QuantisedStudent
from snn_export.models.weight_grid import WeightGrid, weight_grid

CURRENT_BIAS_LIMIT = 1 << 17
"""Beyond this a constant current alone would wrap u."""


def student_from_deployment(deployment: Deployment, spike_grad: SpikeGradient | None = None) -> QuantisedStudent:
    """The PyTorch module that computes exactly what a quantised deployment says, and can go on learning.

    Args:
        deployment: quantised, proven safe from overflow.
        spike_grad: a surrogate of ``snntorch.surrogate``; default fast sigmoid.

    Raises:
        UserError: SNX302 for a float deployment, SNX203 for resets the chip does not have, SNX313 for one that may overflow,
            SNX317 for weights that a negative exponent cuts off.
    """
    return QuantisedStudent(student_plan(deployment), Encoder(deployment), spike_grad)


def student_plan(deployment: Deployment) -> StudentPlan:
    """Everything about a quantised deployment that a module needs. Raises as :func:`student_from_deployment`."""
    if not deployment.quantised:
        raise not_quantised("student_from_deployment")
    neurons = deployment.contract.neurons.items()
    resets = [finding for name, spec in neurons if (finding := spec.reset_finding(name, programmable(deployment))) is not None]
    if resets:
        raise UserError.from_diagnostics(tuple(resets))
    unsafe = bounds.overflow_findings(deployment)
    if unsafe:
        raise UserError(
            "SNX313", f"{unsafe[0].what}, so the network cannot be fine-tuned", where=unsafe[0].where,
            why="training keeps a network inside the limits of its registers, and this one starts outside of them",
            fix=unsafe[0].fix,
        )  # fmt: skip
    layers: dict[str, LayerPlan] = {}
    for incoming in deployment.wires.values():
        for wire in incoming:
            layers.setdefault(wire.weight, _layer_plan(deployment, wire))
    return StudentPlan(
        input_name=input_node(deployment.graph),
        steps=deployment.contract.steps,
        stages=deployment.stages,
        populations={name: _population_plan(deployment, name) for name in deployment.layers},
        layers=layers,
        readout=deployment.contract.readout.node,
        rule=deployment.contract.readout.rule,
    )


class Encoder:
    """Inputs, (B, *shape) or (T, B, *shape) in real units, to levels and host biases, by what every simulator calls."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def __call__(self, inputs: Tensor) -> EncodedInput:
        """Raises as :func:`snn_export.export.encoding.signal`."""
        values = inputs.detach().numpy()
        levels = torch.from_numpy(encoding.levels(self._deployment, values))
        host = {name: torch.from_numpy(bias) for name, bias in encoding.host_bias(self._deployment, values).items()}
        return EncodedInput(levels, host)


def deployment_from_student(student: QuantisedStudent, deployment: Deployment) -> Deployment:
    """The deployment a student was made from, with the integers it has now."""
    found = student.integers()
    synapses = {name: _with_integers(synapse, found[name]) if name in found else synapse
                for name, synapse in deployment.synapses.items()}  # fmt: skip
    return grid.on_grid(deployment, deployment.contract.encoder, synapses, deployment.populations)


def _with_integers(synapse: IntegerSynapse, found: LayerIntegers) -> IntegerSynapse:
    mantissa, current = found.biases.get("membrane"), found.biases.get("current")
    return replace(
        synapse,
        weight=found.weight.astype(np.int16),
        bias_mantissa=None if mantissa is None else mantissa.astype(np.int16),
        current_bias=None if current is None else current.astype(np.int32),
    )


def _layer_plan(deployment: Deployment, wire: Wire) -> LayerPlan:
    synapse, node = deployment.synapses[wire.weight], deployment.graph.nodes[wire.weight]
    population = deployment.populations[wire.target]
    encoder, quantisation = deployment.contract.encoder, deployment.contract.quantisation
    graded = isinstance(deployment.graph.nodes[wire.source], nir.Input)
    level = encoder.gain if graded and encoder.gain is not None else 1.0
    bits = quantisation.weight_bits if quantisation is not None else 8
    weight = synapse.weight.astype(np.int64)
    chosen = weight_grid(bits, synapse.sign_mode if np.any(weight) else "mixed")
    if np.any(weight % chosen.step) or weight.min(initial=0) < chosen.low or weight.max(initial=0) > chosen.high:
        chosen = weight_grid(8, chosen.signs)  # made elsewhere: what eight bits hold is what the chip holds
    chosen = _whole(chosen, wire.weight, synapse.weight_exponent, weight)
    return LayerPlan(
        wire.weight, _geometry(deployment, wire, node), chosen, synapse.weight_exponent, level / population.scale, weight,
        _bias_plans(deployment, wire),
    )  # fmt: skip


def _whole(grid: WeightGrid, name: str, exponent: int, weight: NDArray[np.int64]) -> WeightGrid:
    """The integers of a grid that a negative exponent leaves whole: all of its own, or every second, fourth, ... of them.

    Raises:
        UserError: SNX317 where a weight of today is none of them.
    """
    step = max(grid.step, 1 << max(0, -exponent))
    cut = int(np.count_nonzero(weight % step))
    if cut:
        raise UserError(
            "SNX317", f"{cut} weights of {name} are cut off by its exponent {exponent}, so the network cannot be fine-tuned",
            where=name, why=f"{exponent} drops bits of every weight that is no multiple of {step}: no step of training sees them",
            fix=f"make the weights of {name} multiples of {step}, or quantise the float network again",
        )  # fmt: skip
    return replace(grid, step=step, low=-(-grid.low // step) * step, high=grid.high // step * step)


def _geometry(deployment: Deployment, wire: Wire, node: nir.NIRNode) -> Geometry:
    path = (wire.source, *wire.connection.path)
    given, out = deployment.shapes[path[path.index(wire.weight) - 1]], deployment.shapes[wire.weight]
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        axes = node.weight.ndim - 2
        return Geometry(
            "conv", given, out, per_axis(node.stride, axes), conv_padding(node), per_axis(node.dilation, axes), int(node.groups)
        )
    return Geometry("scale" if isinstance(node, nir.Scale) else "dense", given, out)


def _bias_plans(deployment: Deployment, wire: Wire) -> tuple[BiasPlan, ...]:
    """Biases of a weight node; mantissas share what 13 bits leave, so that their sum fits for whatever is learnt."""
    synapse, population = deployment.synapses[wire.weight], deployment.populations[wire.target]
    plans = []
    if synapse.bias_mantissa is not None:
        names = {other.weight for other in deployment.wires[wire.target]}
        mantissas = [m for name in names if (m := deployment.synapses[name].bias_mantissa) is not None]
        largest = [int(np.abs(m.astype(np.int64)).max(initial=0)) for m in mantissas]
        spare = max(0, arithmetic.BIAS_MANTISSA_MAX - sum(largest)) // len(mantissas)
        own = synapse.bias_mantissa.astype(np.int64)
        limit = int(np.abs(own).max(initial=0)) + spare
        high = min(limit, arithmetic.BIAS_MANTISSA_MAX)
        plans.append(BiasPlan("membrane", population.unit * (1 << population.bias_exponent), 1, -limit, high, own))
    if synapse.current_bias is not None:
        own = synapse.current_bias.astype(np.int64)
        step = 1 if np.any(own % 2) else 2
        limit = max(CURRENT_BIAS_LIMIT, int(np.abs(own).max(initial=0)))
        plans.append(BiasPlan("current", 1.0 / population.scale, step, -limit, limit, own))
    return tuple(plans)


def _population_plan(deployment: Deployment, name: str) -> PopulationPlan:
    population = deployment.populations[name]
    wires = []
    for wire in deployment.wires[name]:
        low, high = bounds.source_range(deployment, wire)
        wires.append(WirePlan(wire.source, wire.weight, wire.before, wire.after, low, high))
    return PopulationPlan(
        name, deployment.shapes[name], deployment.contract.neurons[name], population.threshold, population.scale,
        population.bias_exponent, tuple(wires), drive_limits(deployment, name),
    )  # fmt: skip


def drive_limits(deployment: Deployment, name: str) -> DriveLimits:
    """The bounds of ``export/bounds.py`` solved for the drive: below these sums they hold."""
    spec, population = deployment.contract.neurons[name], deployment.populations[name]
    steps = min(deployment.contract.steps, spec.reset_interval or deployment.contract.steps)
    ceiling = population.threshold << arithmetic.STATE_SHIFT
    limit = float(arithmetic.STATE_MAX if spec.spiking else ceiling)
    limit = float(bounds.MEMORYLESS_LIMIT) if spec.memoryless else limit
    reach = _reach(spec.dv, steps)
    push = limit / reach
    if spec.spiking and spec.reset == "zero":
        push = max(push, limit - spec.beta * ceiling)
    elif spec.spiking and spec.reset == "subtract":
        settled = limit * spec.dv / arithmetic.DECAY_ONE + spec.beta * ceiling if spec.dv else float(ceiling)
        push = max(push, min(limit - spec.beta * ceiling, settled))
    pull, biased = limit / reach, True
    on_host = any(n in deployment.host_synapses for c in deployment.connections[name] for n in c.path)
    if on_host:
        room = float(arithmetic.DECAY_ONE << population.bias_exponent)
        push, pull, biased = push - room, pull - room, False
    return DriveLimits(_reach(population.du + 1, steps), float(arithmetic.CURRENT_MAX - 1), push, pull, biased)


def _reach(decay: int, steps: int) -> float:
    """What a constant input of 1 adds up to over ``steps`` steps of decay ``decay`` / 4096."""
    kept = 1.0 - decay / arithmetic.DECAY_ONE
    return float(steps) if decay == 0 else (1.0 - kept**steps) * arithmetic.DECAY_ONE / decay
