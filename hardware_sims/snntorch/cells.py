"""Populations of a deployment as snnTorch neurons, and linear nodes as torch modules: our own importer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import snntorch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_export.export.deployment import Deployment
from snn_export.export.gains import input_gains, membrane_bias, threshold_array
from snn_export.export.graph import Shape, is_population
from snn_export.hardware_sims.float_networks import float_network
from snn_export.hardware_sims.snntorch.expressible import Chosen, chosen, filtered, unit_gain
from snn_export.hardware_sims.torch_graph import Fired, TorchProgram
from snn_export.hardware_sims.torch_layers import Scale, float32, layer_of
from snn_export.models.spec import NeuronSpec

NEURONS: dict[str, Callable[..., snntorch.SpikingNeuron]] = {
    "Leaky": snntorch.Leaky,
    "Synaptic": snntorch.Synaptic,
    "RLeaky": snntorch.RLeaky,
    "RSynaptic": snntorch.RSynaptic,
}


def program_of(given: Deployment, provenance: dict[str, str]) -> TorchProgram:
    """A deployment, rebuilt; :func:`~snn_export.hardware_sims.snntorch.expressible.findings` must have found nothing."""
    deployment, layers = float_network(given), {}
    for name, node in deployment.graph.nodes.items():
        sources = [source for source, target in deployment.graph.edges if target == name]
        if sources and not is_population(node) and type(node).__name__ not in ("Output", "Delay"):
            layers[name] = layer_of(name, node, deployment.shapes[sources[0]])
    cells, inside = {}, []
    for name in deployment.layers:
        choice = chosen(deployment, name)
        if choice is None:
            raise ValueError(f"{name} has no neuron: its findings were not looked at")
        loop = None
        if choice.loop is not None:
            loop = nn.Sequential(*(layers[node] for node in choice.loop.path))
            inside.append(choice.loop)
        cells[name] = SnnTorchCell(deployment, name, choice, loop)
    units = {name: _current_unit(deployment, name) for name in deployment.layers}
    return TorchProgram(given, deployment, cells, layers, frozenset(inside), units, provenance)


def _current_unit(deployment: Deployment, name: str) -> NDArray[np.float64]:
    """What turns the input, or what the neuron filters with the membrane's factor on it, into u of the graph."""
    current, membrane = (np.asarray(gain, np.float64) for gain in input_gains(deployment, name))
    if not filtered(deployment.contract.neurons[name]):
        return current
    return np.divide(1.0, membrane, out=np.ones_like(membrane), where=membrane != 0)


def neuron_of(deployment: Deployment, name: str, choice: Chosen, loop: nn.Module | None) -> snntorch.SpikingNeuron:
    """The snnTorch neuron of a population; ``loop`` maps its spikes to what they add to its input in the next step."""
    spec = deployment.contract.neurons[name]
    options: dict[str, Any] = {
        "beta": spec.beta,
        "threshold": _threshold(deployment, name) if spec.spiking else 1.0,
        "reset_mechanism": spec.reset if spec.spiking else "none",
        "reset_delay": bool(spec.reset_delay),
    }
    if filtered(spec):
        options["alpha"] = spec.alpha
    if choice.recurrent:
        options |= {"V": 0.0, "all_to_all": False, "learn_recurrent": False}
    neuron = NEURONS[choice.kind](**options)
    # snnTorch keeps every neuron that was ever made in a list; a program that is dropped shall be gone.
    snntorch.SpikingNeuron.instances.remove(neuron)
    if loop is not None:
        neuron.recurrent = loop
    return neuron.eval().requires_grad_(False)


def _threshold(deployment: Deployment, name: str) -> Any:
    theta = np.broadcast_to(threshold_array(deployment.graph.nodes[name]), deployment.shapes[name])
    return float(theta.flat[0]) if np.all(theta == theta.flat[0]) else float32(theta)


class SnnTorchCell:
    """One snnTorch neuron, stepped with its state in hand."""

    def __init__(self, deployment: Deployment, name: str, choice: Chosen, loop: nn.Module | None) -> None:
        """Make the neuron and the factors of its input."""
        self.spec: NeuronSpec = deployment.contract.neurons[name]
        self._choice = choice
        current, membrane = (np.asarray(gain, np.float64) for gain in input_gains(deployment, name))
        shape = deployment.shapes[name]
        self._unit = unit_gain(deployment, name)
        self._gain = float32(np.broadcast_to(current * membrane, shape))
        # What comes back on a loop inside the neuron is scaled as what comes from outside.
        self._loop = loop
        inside = loop if loop is None or self._unit else nn.Sequential(loop, Scale(self._gain.numpy()))
        self.neuron = neuron_of(deployment, name, choice, inside)
        self._leak = float32(np.broadcast_to(membrane_bias(deployment, name), shape))
        self._states: tuple[Tensor, ...] = ()
        self._fired = torch.zeros(0)

    def begin(self, shape: Shape) -> None:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        self._fired = torch.zeros(shape)
        self._states = (torch.zeros(shape),) * (2 if filtered(self.spec) else 1)

    def clear(self) -> None:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        self._states = tuple(torch.zeros_like(state) for state in self._states)

    def step(self, drive: Tensor) -> Fired:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        x = drive if self._unit else drive * self._gain + self._leak
        heard = (self._fired,) if self._choice.recurrent else ()
        fired, *states = self.neuron(x, *heard, *self._states)
        self._states = tuple(states)
        arrived = drive if self._loop is None else drive + self._loop(self._fired)
        self._fired = fired if self.spec.spiking else torch.zeros_like(fired)
        current = states[0] if filtered(self.spec) else arrived
        return Fired(self._fired, current, states[-1])
