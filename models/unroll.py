"""Run a stack of torch layers and spiking neurons through time, layer by layer.

A feed-forward network may be unrolled in either order: all layers for step 1, then step 2, ...; or all steps of layer 1, then
of layer 2, ... Both compute the same numbers. The second ("layer-major") order lets every stateless layer see its T*B inputs
at once, and under direct encoding the layers before the first neuron are computed once instead of T times.
"""

from __future__ import annotations

from collections.abc import Callable

import snntorch
import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator

Observer = Callable[[str, Tensor | None, Tensor], None]
"""Called as ``observe(name, spikes, membrane)`` with (T, B, *features) tensors; spikes is None for an integrator."""

STATELESS_LAYERS: tuple[type[nn.Module], ...] = (
    nn.Conv2d,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.AvgPool2d,
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
)


def unroll(layers: nn.Sequential, inputs: Tensor, steps: int, *, constant: bool, observe: Observer | None = None) -> Tensor:
    """Membrane of the final integrator over time, (T, B, K), from zero state.

    Args:
        layers: named layers, ending in one :class:`~snn_export.models.neurons.integrator.Integrator`. Stateless ones are those
            of ``STATELESS_LAYERS``; spiking ones are ``snntorch.Leaky`` and are run by snnTorch itself.
        inputs: (B, *shape) with ``constant``, (T, B, *shape) otherwise.
        steps: T, at least 1.
        constant: direct encoding, the same input in every step. Stateless layers before the first neuron then run once on
            (B, *shape). In training mode their batch-norm sees B samples instead of T copies of them (the same mean and
            variance; only the n/(n-1) of the running variance differs) and dropout draws one mask for all steps.
        observe: called once per neuron layer, in order. The membrane is the one snnTorch returns: after the reset of the same
            step where ``reset_delay`` is False.

    Raises:
        UserError: SNX210 for a layer type that cannot be unrolled, SNX211 for a ``Leaky`` setting that cannot, SNX212 for a
            readout that is missing or not last, or inputs without T steps.
    """
    named = list(layers.named_children())
    check_unrollable(layers)
    if steps < 1 or (not constant and inputs.shape[0] != steps):
        raise UserError(
            "SNX212", f"inputs of shape {tuple(inputs.shape)} do not hold {steps} steps", where="unroll(inputs, steps)",
            why="without direct encoding the first axis is time, and its length is the number of steps T >= 1",
            fix="pass inputs of shape (T, B, *shape) with T = steps, or constant=True with (B, *shape)",
        )  # fmt: skip
    batch = inputs.shape[0] if constant else inputs.shape[1]
    # `flat` is (B, ...) while the value is still the same in every step, (T*B, ...) from the first neuron on.
    flat = inputs if constant else inputs.flatten(0, 1)
    over_time = not constant
    for name, layer in named:
        if isinstance(layer, STATELESS_LAYERS):
            flat = layer(flat)
            continue
        currents = flat.reshape(steps, batch, *flat.shape[1:]) if over_time else flat.expand(steps, *flat.shape)
        if isinstance(layer, Integrator):
            spikes, membrane = None, _accumulate(layer, currents)
        else:
            spikes, membrane = _step_neurons(layer, currents, with_membrane=observe is not None)
            flat, over_time = spikes.flatten(0, 1), True
        if observe is not None:
            observe(name, spikes, membrane)
    return membrane


def check_unrollable(layers: nn.Sequential) -> None:
    """Raise the UserError that :func:`unroll` would raise for these layers (SNX210, SNX211, SNX212)."""
    named = list(layers.named_children())
    if len(named) != len(layers):
        raise UserError(
            "SNX210", "one module stands in two places", where="layers",
            why="torch names a shared module once, so its second place would be lost", fix="make one module per place",
        )  # fmt: skip
    for name, layer in named:
        if isinstance(layer, snntorch.Leaky):
            _check_leaky(name, layer)
        elif not isinstance(layer, (*STATELESS_LAYERS, Integrator)):
            supported = ", ".join(kind.__name__ for kind in (*STATELESS_LAYERS, snntorch.Leaky, Integrator))
            raise UserError(
                "SNX210", f"layer '{name}' is a {type(layer).__name__}, which cannot be unrolled", where=f"layers.{name}",
                why="every layer needs a known meaning in time, on the chip and in NIR",
                fix=f"build the network from {supported}",
            )  # fmt: skip
    readouts = [name for name, layer in named if isinstance(layer, Integrator)]
    if len(readouts) != 1 or readouts[0] != named[-1][0]:
        raise UserError(
            "SNX212", f"expected one Integrator, as the last layer; found {readouts or 'none'}", where="layers",
            why="the prediction is read from the membrane of a single non-spiking readout",
            fix="end the nn.Sequential with one snn_export.models.neurons.integrator.Integrator",
        )  # fmt: skip


def _check_leaky(name: str, layer: snntorch.Leaky) -> None:
    """Refuse settings under which stepping ``layer(x, mem)`` is not one plain LIF step."""
    unsupported = [setting for setting in ("init_hidden", "inhibition", "state_quant") if getattr(layer, setting)]
    if unsupported:
        raise UserError(
            "SNX211", f"Leaky '{name}' sets {', '.join(unsupported)}", where=f"layers.{name}",
            why="hidden state would survive from one batch to the next; inhibition and state_quant have no counterpart on Loihi",
            fix="build it as snntorch.Leaky(beta, threshold, reset_mechanism='zero', reset_delay=False)",
        )  # fmt: skip


def _accumulate(layer: Integrator, currents: Tensor) -> Tensor:
    """Integrator membrane over time, (T, B, *features)."""
    membrane = torch.zeros_like(currents[0])
    history = []
    for current in currents:
        membrane = layer(current, membrane)
        history.append(membrane)
    return torch.stack(history)


def _step_neurons(layer: snntorch.Leaky, currents: Tensor, *, with_membrane: bool) -> tuple[Tensor, Tensor]:
    """Spikes and membrane over time, (T, B, *features) each; membrane is the last step alone without ``with_membrane``."""
    membrane = torch.zeros_like(currents[0])
    spikes, membranes = [], []
    for current in currents:
        spike, membrane = layer(current, membrane)
        spikes.append(spike.to(current.dtype))  # snnTorch returns float32 spikes whatever it is given
        if with_membrane:
            membranes.append(membrane)
    # snnTorch keeps the last membrane, and with it the autograd graph, on the module; a model holding one cannot be copied.
    layer.mem = torch.zeros(0, device=currents.device)
    return torch.stack(spikes), torch.stack(membranes) if with_membrane else membrane
