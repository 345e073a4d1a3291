"""snnTorch neurons -> NIR populations and their discrete-time semantics.

Every population is written with unit gain: one step adds the input to its current or membrane as it is, which is what snnTorch
does. In NIR's continuous time that is r = tau/dt (and w_in = tau_syn/dt), r = 1/dt without leak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import snntorch

from snn_export.export.graph import Shape
from snn_export.models.arithmetic import DECAY_ONE, FULL_CURRENT_DECAY, alpha_from_integer, decay_from_integer, tau_from_integer
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.neurons.lif import Lif
from snn_export.models.spec import NeuronSpec, Reset

RESETS: dict[str, Reset] = {"zero": "zero", "subtract": "subtract", "none": "none"}
KEEPS_INPUT = (snntorch.Leaky,)
"""Neurons of snnTorch 1.0.0 whose late reset to zero leaves the input of its step; the others clear it with the membrane."""
LATE_WHATEVER_IT_SAYS = (snntorch.RSynaptic,)
"""snnTorch 1.0.0 computes the same-step reset of these into a local variable: it comes with the next step's reset instead."""


@dataclass(frozen=True)
class ReadNeuron:
    """What a snnTorch neuron is: its semantics, and its threshold in units of the membrane."""

    spec: NeuronSpec
    threshold: float


def refused(code: str, name: str, what: str, why: str, fix: str) -> UserError:
    """A finding about the layer ``name``."""
    return UserError(code, f"{name} {what}", where=name, why=why, fix=fix)


def begins_charged(who: str, initial: float, where: str) -> UserError:
    """SNX350 for a membrane of ``initial`` at the start of a sample: of a layer, or of all layers that a conversion makes."""
    return UserError(
        "SNX350", f"{who} begins with a membrane of {initial:g}", where=where,
        why="NIR has no initial membrane, and a chip clears its membranes before every sample; a bias would come in every step",
        fix="convert with max_norm or calibration, which begin at zero, or run this network in PyTorch only (snn-export train)",
    )  # fmt: skip


def read_neuron(name: str, module: Any, round_decays: bool) -> ReadNeuron:
    """Semantics of a ``Leaky``, ``Synaptic``, ``RLeaky`` or ``RSynaptic``.

    ``subtract`` in the step of the spike is not the canonical ``v -= theta s``: snnTorch 1.0.0 subtracts once more before the
    next comparison where a membrane is still above the threshold (``NeuronSpec.double_to_refire``).

    Args:
        name: of the layer.
        module: the snnTorch neuron.
        round_decays: take the nearest decay in 1/4096.

    Raises:
        UserError: SNX211 settings, SNX215 a filter without a leak, SNX241 a decay off the grid; all findings at once.
    """
    found: list[Diagnostic] = []
    problems = {
        "init_hidden": bool(module.init_hidden),
        "state_quant": bool(module.state_quant),
        "inhibition": bool(module.inhibition),
        "graded_spikes_factor": float(module.graded_spikes_factor) != 1.0,
        "a threshold per neuron": module.threshold.numel() != 1,
        "a beta per neuron": module.beta.numel() != 1,
        "an alpha per neuron": hasattr(module, "alpha") and module.alpha.numel() != 1,
    }
    wrong = [what for what, present in problems.items() if present]
    if wrong:
        why = "there is no exact rule for it on the chip"
        found += refused("SNX211", name, f"uses {', '.join(wrong)}", why, "use one decay and one threshold per layer").diagnostics
    threshold = float(module.threshold.flatten()[0])
    if not threshold > 0:
        why = "a silent neuron would fire"
        found += refused("SNX211", name, f"has the threshold {threshold}", why, "use a positive threshold").diagnostics
    try:
        dv, du = _decays(name, module, round_decays)
    except UserError as error:
        raise UserError.from_diagnostics((*found, *error.diagnostics)) from error
    if found:
        raise UserError.from_diagnostics(tuple(found))
    reset = RESETS[module.reset_mechanism]
    late = int(reset != "none" and (bool(module.reset_delay) or isinstance(module, LATE_WHATEVER_IT_SAYS)))
    clears = bool(late) and reset == "zero" and type(module) not in KEEPS_INPUT
    doubled = reset == "subtract" and not late
    return ReadNeuron(NeuronSpec(dv, du, reset=reset, reset_delay=late, clears_input=clears, double_to_refire=doubled), threshold)


def read_lif(name: str, module: Lif) -> ReadNeuron:
    """Semantics of a :class:`~snn_export.models.neurons.lif.Lif`, which states them itself.

    Raises:
        UserError: SNX211 for a threshold that is not positive, SNX350 for a membrane that does not begin at zero; both at once.
    """
    found: list[Diagnostic] = []
    if not module.rule.threshold > 0:
        why = "a silent neuron would fire"
        what = f"has the threshold {module.rule.threshold:g}"
        found += refused("SNX211", name, what, why, "use a positive threshold").diagnostics
    if module.rule.initial:
        found += begins_charged(name, module.rule.initial, name).diagnostics
    if found:
        raise UserError.from_diagnostics(tuple(found))
    return ReadNeuron(module.spec, module.rule.threshold)


def _decays(name: str, module: Any, round_decays: bool) -> tuple[int, int]:
    dv = integer_decay(name, "beta", float(module.beta.flatten()[0].clamp(0, 1)), round_decays)
    if not hasattr(module, "alpha"):
        return dv, FULL_CURRENT_DECAY
    du = integer_decay(name, "alpha", float(module.alpha.flatten()[0].clamp(0, 1)), round_decays)
    if du != FULL_CURRENT_DECAY and dv == 0:
        raise no_leak(name)
    return dv, du


def no_leak(name: str) -> UserError:
    """The finding about a filtered current on a membrane without leak."""
    return refused(
        "SNX215", name, "filters its current and has no leak",
        "NIR writes it with an infinite time constant, which no file can hold",
        f"use the slowest leak there is, beta = 1 - 1/4096 = {decay_from_integer(1):.8g}, or drop the filter (alpha = 0)",
    )  # fmt: skip


def integer_decay(name: str, which: str, decay: float, round_decays: bool) -> int:
    """The integer of a float decay: dv of a ``beta`` (0..4095), du of an ``alpha`` (0..4095, 4095 for alpha = 0).

    Raises:
        UserError: SNX241 for a decay that is no such integer, unless ``round_decays``, or that has no place on the chip at all.
    """
    first, float_of = (0, decay_from_integer) if which == "beta" else (1, alpha_from_integer)
    lost = round((1.0 - decay) * DECAY_ONE)  # of 4096, per step
    last = DECAY_ONE - 1 + first
    integer = lost - first
    exact = first <= lost <= last and np.float32(float_of(integer)) == np.float32(decay)
    if not first <= lost <= last or not (exact or round_decays):
        near = min(max(lost, first), last)
        raise refused(
            "SNX241", name, f"has {which} = {decay:.8g}, which is not {'1 - n/4096' if lost else 'a decay'}",
            "Loihi holds decays in 1/4096; another decay is another network",
            f"train with {which} = 1 - {near}/4096 = {1 - near / DECAY_ONE:.8g}, or accept the change with round_decays=True",
        )  # fmt: skip
    return integer


def population_node(spec: NeuronSpec, threshold: float, shape: Shape, dt: float) -> nir.NIRNode:
    """The NIR node of a population with unit gain: I, IF, LI, LIF, CubaLI or CubaLIF.

    Raises:
        UserError: SNX215 for a filter without leak.
    """
    ones = np.ones(shape)
    zeros, theta = np.zeros(shape), ones * threshold
    if spec.du != FULL_CURRENT_DECAY:
        if spec.dv == 0:
            raise no_leak("the population")
        filtered: dict[str, Any] = {
            "tau_syn": ones * tau_from_integer(spec.du + 1, dt),
            "tau_mem": ones * tau_from_integer(spec.dv, dt),
            "r": ones * (DECAY_ONE / spec.dv),
            "v_leak": zeros,
            "w_in": ones * (DECAY_ONE / (spec.du + 1)),
        }
        return nir.CubaLIF(**filtered, v_threshold=theta, v_reset=zeros) if spec.spiking else nir.CubaLI(**filtered)
    if spec.dv == 0:
        rate = ones / dt
        return nir.IF(r=rate, v_threshold=theta, v_reset=zeros) if spec.spiking else nir.I(r=rate)
    leaky = {"tau": ones * tau_from_integer(spec.dv, dt), "r": ones * (DECAY_ONE / spec.dv), "v_leak": zeros}
    return nir.LIF(**leaky, v_threshold=theta, v_reset=zeros) if spec.spiking else nir.LI(**leaky)
