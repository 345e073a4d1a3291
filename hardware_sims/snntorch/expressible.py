"""Which neuron of snnTorch 1.0.0 computes a population, and why none does. Reads no torch.

snnTorch adds its input to the current or membrane as it is, so the constants of NIR's neurons become one factor and one bias on
the input: ``x' = m c x + b`` with the current's factor c, the membrane's m and the leak's b (``export/gains.py``). Behind a
filter the factor m moves from u to x, which is the same because both are linear; a bias on the membrane has no such place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import nir
import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.export.gains import input_gains, membrane_bias, threshold_array
from snn_export.export.graph import Connection
from snn_export.export.grid_units import in_grid_units
from snn_export.hardware_sims.float_networks import graph_findings, unreadable
from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.models.arithmetic import FULL_CURRENT_DECAY
from snn_export.models.diagnostics import Diagnostic, diagnostics_of
from snn_export.models.spec import NeuronSpec

NeuronKind = Literal["Leaky", "Synaptic", "RLeaky", "RSynaptic"]


_KINDS: dict[bool, tuple[NeuronKind, NeuronKind]] = {False: ("Leaky", "RLeaky"), True: ("Synaptic", "RSynaptic")}
"""By whether the current is filtered: the neuron without a recurrence of its own, and the one with it."""


@dataclass(frozen=True)
class Chosen:
    """The neuron of a population, and the loop that is inside of it, if any."""

    kind: NeuronKind
    loop: Connection | None = None

    @property
    def recurrent(self) -> bool:
        """True for a neuron with a recurrence of its own."""
        return self.kind.startswith("R")


def chosen(deployment: Deployment, name: str) -> Chosen | None:
    """The neuron of snnTorch that computes a population; None where there is none.

    A population's loop becomes the recurrence of ``RLeaky`` or ``RSynaptic`` where these reset as it does: RSynaptic never does
    so in the step of the spike, and both clear the input with a late reset to zero. Otherwise the loop is a connection around
    ``Leaky`` or ``Synaptic``. Leaky keeps that input, so without a loop it is an ``RLeaky`` that hears nothing which clears it.
    """
    spec = deployment.contract.neurons[name]
    plain, recurrent = _KINDS[filtered(spec)]
    loop, clears, impossible = _own_loop(deployment, name) if spec.spiking else None, False, False
    if spec.spiking and spec.reset == "zero" and spec.reset_delay:
        loop = loop if spec.clears_input else None
        clears = spec.clears_input and not filtered(spec)
        impossible = filtered(spec) and not spec.clears_input
    elif spec.spiking and spec.reset != "none" and not spec.reset_delay:
        loop = None if filtered(spec) else loop
        impossible = spec.reset == "subtract" and not spec.double_to_refire
    if impossible or (spec.spiking and spec.reset_delay > 1):
        return None
    return Chosen(recurrent if clears or loop is not None else plain, loop)


def filtered(spec: NeuronSpec) -> bool:
    """True where a current is kept from step to step."""
    return spec.du != FULL_CURRENT_DECAY


def _own_loop(deployment: Deployment, name: str) -> Connection | None:
    """The one connection of a population to itself, if it costs the step that snnTorch's recurrence costs and shares no node."""
    loops = [connection for connection in deployment.connections[name] if connection.source == name]
    if len(loops) != 1 or any(isinstance(deployment.graph.nodes[node], nir.Delay) for node in loops[0].path):
        return None
    others = {node for incoming in deployment.connections.values() for c in incoming if c != loops[0] for node in c.path}
    return None if others & set(loops[0].path) else loops[0]


def findings(deployment: Deployment) -> list[Diagnostic]:
    """Everything that keeps a deployment from being rebuilt, all at once."""
    if broken := unreadable(deployment):
        return broken
    populations = [item for name in deployment.layers for item in _population(deployment, name)]
    return [*graph_findings(deployment, "snntorch"), *populations]


def _population(deployment: Deployment, name: str) -> Iterator[Diagnostic]:
    spec, node = deployment.contract.neurons[name], deployment.graph.nodes[name]
    if chosen(deployment, name) is None:
        yield _no_neuron(name, spec)
    if spec.spiking and spec.reset == "zero" and not spec.reset_delay and np.any(threshold_array(node) < 0):
        yield Diagnostic(
            "SNX291", f"{name} has a negative threshold", where=name,
            why="snnTorch takes a membrane above its threshold for one that has just fired, and zero is above it",
            fix="use a threshold of 0 or more, or run the network on reference",
        )  # fmt: skip
    if filtered(spec) and np.any(membrane_bias(deployment, name)):
        yield Diagnostic(
            "SNX292", f"v_leak of {name} is not zero, and its current is filtered", where=name,
            why="snnTorch's Synaptic adds nothing to its membrane but the current",
            fix="shift the threshold and the bias so that v_leak is zero, or run the network on reference or norse",
        )  # fmt: skip


def _no_neuron(name: str, spec: NeuronSpec) -> Diagnostic:
    late = f", {spec.reset_delay} step late" if spec.reset_delay else ""
    what = f"{name} resets by {spec.reset!r}{late}"
    if spec.reset_delay > 1:
        why, fix = "snnTorch resets in the step of the spike or in the next one", "use reset_delay 0 or 1"
    elif spec.reset == "subtract":
        why = (
            "snnTorch 1.0.0 subtracts a second time before the next comparison where a membrane stands above twice the threshold"
        )
        fix = "run it on student, reference or loihi; a reset to zero, or a subtraction one step late, is the same in snnTorch"
    else:
        why, fix = (
            "snnTorch's Synaptic clears the input too when it resets to zero one step late",
            "set clears_input, or drop the filter",
        )
    return Diagnostic("SNX290", what, where=name, why=why, fix=fix)


def mapping(deployment: Deployment) -> dict[str, LayerMapping]:
    """What becomes of every node; for a deployment whose graph can be read."""
    found: dict[str, LayerMapping] = {}
    if deployment.quantised and not diagnostics_of(lambda: in_grid_units(deployment)):
        deployment = in_grid_units(deployment)
    for name, node in deployment.graph.nodes.items():
        if isinstance(node, nir.Input | nir.Output):
            continue
        if name not in deployment.contract.neurons:
            found[name] = LayerMapping("native", "torch computes it")
            continue
        wrong = list(_population(deployment, name))
        choice = chosen(deployment, name)
        if wrong or choice is None:
            found[name] = LayerMapping("unsupported", wrong[0].what)
        elif not unit_gain(deployment, name):
            found[name] = LayerMapping("rewritten", f"snntorch.{choice.kind}; r, w_in and v_leak scale and shift its input")
        else:
            found[name] = LayerMapping("native", f"snntorch.{choice.kind}")
    return found


def unit_gain(deployment: Deployment, name: str) -> bool:
    """True where the neuron adds its input as it is, in float32."""
    current, membrane = input_gains(deployment, name)
    gain = np.asarray(np.asarray(current) * membrane, np.float32)
    return bool(np.all(gain == 1.0) and not np.any(membrane_bias(deployment, name)))
