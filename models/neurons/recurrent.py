"""A spiking neuron that hears its own population one step later."""

from __future__ import annotations

from typing import Any

import snntorch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError


class Recurrent(nn.Module):
    """A snnTorch neuron with a recurrent weight layer around it.

    update     x'_t = x_t + W s_{t-1} + b,  s_{-1} = 0;  then one step of the neuron on x'_t
    spike      as the neuron
    reset      as the neuron

    Shapes: x and s are (B, *features); ``weights`` maps that shape to itself.

    snnTorch has ``RLeaky`` and ``RSynaptic`` for this, and both are understood too. But snnTorch 1.0.0's ``RSynaptic`` never
    resets in the step of the spike, whatever ``reset_delay`` says (it assigns the reset to a local variable), and Loihi resets
    nowhere else: for a filtered recurrent neuron use ``Recurrent(Synaptic(..., reset_delay=False), nn.Linear(n, n))``.

    NIR writes it as the neuron's node and a weight node on an edge that leads back to it.
    """

    def __init__(self, neuron: snntorch.Leaky | snntorch.Synaptic, weights: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
        """Join a neuron and the weights of its recurrence; UserError SNX211 for another kind of either."""
        super().__init__()
        if type(neuron) not in (snntorch.Leaky, snntorch.Synaptic) or not isinstance(weights, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            raise UserError(
                "SNX211", f"Recurrent({type(neuron).__name__}, {type(weights).__name__}) has no known meaning", where="Recurrent",
                why="it joins one plain snnTorch neuron with one layer of weights",
                fix="build it as Recurrent(snntorch.Synaptic(...), nn.Linear(n, n)), or with Leaky, Conv1d or Conv2d",
            )  # fmt: skip
        self.neuron = neuron
        self.weights = weights

    def forward(self, x: Tensor, spikes: Tensor, *state: Tensor) -> Any:
        """One step: the neuron's own answer, (spikes, *state), to x + weights(spikes); all (B, *features)."""
        return self.neuron(x + self.weights(spikes), *state)
