"""Run a network of torch layers and spiking neurons through time, layer by layer.

A network without loops between its layers may be unrolled in either order: all layers for step 1, then step 2, ...; or all
steps of layer 1, then of layer 2, ... Both compute the same numbers. The second ("layer-major") order lets every stateless
layer see its T*B inputs at once, and under direct encoding the layers before the first neuron are computed once instead of T
times. A loop within one layer (``RLeaky``, ``RSynaptic``, ``Recurrent``) is stepped inside that layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import snntorch
import torch
from torch import Tensor, nn

from snn_export.models.delay import Delay
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import UNSTEPPABLE, Lif, lif_rule_of, lif_steps
from snn_export.models.neurons.recurrent import Recurrent
from snn_export.models.residual import ResidualSum

Observer = Callable[[str, Tensor | None, Tensor], None]
"""Called as ``observe(name, spikes, membrane)`` with (T, B, *features) tensors; spikes is None for an integrator."""
SpikeListener = Callable[[str, Tensor], None]
"""Called as ``listen(name, spikes)`` with (T, B, *features) spikes, with gradient where there is one."""

LINEAR_LAYERS: tuple[type[nn.Module], ...] = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.AvgPool2d,
    nn.Flatten,
    nn.Identity,
)
"""Layers whose mean over time is what they make of the mean."""
STATELESS_LAYERS = (*LINEAR_LAYERS, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
NEURONS: dict[type[nn.Module], int] = {snntorch.Leaky: 1, snntorch.Synaptic: 2, snntorch.RLeaky: 1, snntorch.RSynaptic: 2}
"""snnTorch neurons, and how many states they keep beside the spikes (membrane last)."""
HEARS_ITSELF = (snntorch.RLeaky, snntorch.RSynaptic, Recurrent)
CONTAINERS = (nn.Sequential, ResidualSum)


@runtime_checkable
class Population(Protocol):
    """A layer of neurons that runs all its steps by itself, e.g. one with integer arithmetic inside.

    A module with this method may stand wherever a snnTorch neuron may.
    """

    def run_steps(self, currents: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes and membranes, (T, B, *features) each, for currents of that shape, from zero state."""
        ...


@dataclass(frozen=True)
class _Flow:
    """What travels from layer to layer: (B, *features) while it is the same in every step, (T*B, *features) afterwards."""

    value: Tensor
    over_time: bool
    steps: int
    batch: int
    observe: Observer | None
    listen: SpikeListener | None
    detach_reset: bool

    def currents(self) -> Tensor:
        """(T, B, *features)."""
        if self.over_time:
            return self.value.reshape(self.steps, self.batch, *self.value.shape[1:])
        return self.value.expand(self.steps, *self.value.shape)

    def through_time(self, values: Tensor) -> _Flow:
        """The flow that goes on with ``values`` (T, B, *features)."""
        return replace(self, value=values.flatten(0, 1), over_time=True)


def unroll(
    layers: nn.Sequential,
    inputs: Tensor,
    steps: int,
    *,
    constant: bool,
    observe: Observer | None = None,
    listen: SpikeListener | None = None,
    detach_reset: bool = False,
) -> Tensor:
    """Membrane of the final integrator over time, (T, B, K), from zero state.

    Args:
        layers: named layers, ending in one :class:`~snn_export.models.neurons.integrator.Integrator`. Stateless ones are those
            of ``STATELESS_LAYERS``; spiking ones are snnTorch's ``Leaky``, ``Synaptic``, ``RLeaky`` and ``RSynaptic``, run by
            snnTorch itself, :class:`~snn_export.models.neurons.recurrent.Recurrent`, and any ``Population``. ``nn.Sequential``
            and :class:`~snn_export.models.residual.ResidualSum` may hold further layers.
        inputs: (B, *shape) with ``constant``, (T, B, *shape) otherwise.
        steps: T, at least 1.
        constant: direct encoding, the same input in every step. Stateless layers before the first neuron then run once on
            (B, *shape). In training mode their batch-norm sees B samples instead of T copies of them (the same mean and
            variance; only the n/(n-1) of the running variance differs) and dropout draws one mask for all steps.
        observe: called once per neuron layer, in order, with its name ("block1.lif" inside a container "block1"). The membrane
            is the one snnTorch returns: after the reset of the same step where ``reset_delay`` is False.
        listen: as ``observe``, for spikes alone, which costs no memory.
        detach_reset: the gradient of ``Leaky`` and ``Lif`` populations does not see the reset. It changes no value.

    Raises:
        UserError: SNX210 for a layer type that cannot be unrolled, SNX211 for a neuron's setting that cannot, SNX212 for a
            readout that is missing or not last, or inputs without T steps; all findings about the layers at once.
    """
    check_unrollable(layers)
    if steps < 1 or (not constant and inputs.shape[0] != steps):
        raise UserError(
            "SNX212", f"inputs of shape {tuple(inputs.shape)} do not hold {steps} steps", where="unroll(inputs, steps)",
            why="without direct encoding the first axis is time, and its length is the number of steps T >= 1",
            fix="pass inputs of shape (T, B, *shape) with T = steps, or constant=True with (B, *shape)",
        )  # fmt: skip
    batch = inputs.shape[0] if constant else inputs.shape[1]
    flow = _Flow(inputs if constant else inputs.flatten(0, 1), not constant, steps, batch, observe, listen, detach_reset)
    return _run("", layers, flow).currents()


def _run(name: str, layer: nn.Module, flow: _Flow) -> _Flow:
    """One layer, or all layers of a container; an integrator's output is its membrane."""
    if isinstance(layer, nn.Sequential):
        for child_name, child in layer.named_children():
            flow = _run(_joined(name, child_name), child, flow)
        return flow
    if isinstance(layer, ResidualSum):
        main, shortcut = (_run(f"{name}.{path}", layer.get_submodule(path), flow) for path in ("main", "shortcut"))
        return _sum(name, main, shortcut)
    if isinstance(layer, STATELESS_LAYERS):
        return replace(flow, value=layer(flow.value))
    currents = flow.currents()
    if isinstance(layer, Delay):
        return flow.through_time(layer(currents))
    if isinstance(layer, Integrator):
        spikes, membrane = None, _accumulate(layer, currents)
    else:
        spikes, membrane = _spikes(layer, currents, flow)
    if flow.observe is not None:
        flow.observe(name, spikes, membrane)
    if flow.listen is not None and spikes is not None:
        flow.listen(name, spikes)
    return flow.through_time(membrane if spikes is None else spikes)


def _spikes(layer: nn.Module, currents: Tensor, flow: _Flow) -> tuple[Tensor, Tensor]:
    """Spikes and membranes of a population; membranes may be those of the last step alone where nobody observes them."""
    observed = flow.observe is not None
    rule = lif_rule_of(layer)
    # What learns goes through one autograd function; what is only run is run by snnTorch itself. Same spikes, same membranes.
    if rule is not None and (type(layer) is Lif or (torch.is_grad_enabled() and currents.requires_grad)):
        return lif_steps(currents, replace(rule, detach_reset=flow.detach_reset or rule.detach_reset), with_membranes=observed)
    if isinstance(layer, Population):
        return layer.run_steps(currents)
    return _step_neurons(layer, currents, with_membrane=observed)


def _sum(name: str, main: _Flow, shortcut: _Flow) -> _Flow:
    """Two paths where they meet; one that is still constant is the same in every step."""
    if main.value.shape[1:] != shortcut.value.shape[1:]:
        raise UserError(
            "SNX213", f"'{name}' adds {tuple(main.value.shape[1:])} and {tuple(shortcut.value.shape[1:])}",
            where=f"layers.{name}", why="the two paths of a residual sum end in the same neurons",
            fix="project the shortcut, e.g. nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, more, 1, stride=2)))",
        )  # fmt: skip
    if main.over_time == shortcut.over_time:
        return replace(main, value=main.value + shortcut.value)
    return main.through_time(main.currents() + shortcut.currents())


def leaves(layers: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers of a network with their names, in order of flow, containers left out; a module in two places appears twice."""
    for name, layer in layers._modules.items():
        if isinstance(layer, CONTAINERS):
            for inner, found in leaves(layer):
                yield f"{name}.{inner}", found
        elif layer is not None:
            yield name, layer


def is_population(layer: nn.Module) -> bool:
    """True for a layer that fires: a neuron of snnTorch, ``Recurrent``, or a ``Population``."""
    return type(layer) in NEURONS or isinstance(layer, (Recurrent, Population))


def check_unrollable(layers: nn.Sequential) -> None:
    """Raise the UserError that :func:`unroll` would raise for these layers (SNX210, SNX211, SNX212), with all findings."""
    named = list(leaves(layers))
    found = [*_repeated(layers)]
    for name, layer in named:
        kind = type(layer.neuron) if isinstance(layer, Recurrent) else type(layer)
        if kind in NEURONS:
            found += _neuron_findings(name, layer.neuron if isinstance(layer, Recurrent) else layer)
        elif not isinstance(layer, (*STATELESS_LAYERS, Integrator, Delay, Population)):
            known = (*STATELESS_LAYERS, Delay, *CONTAINERS, *NEURONS, Recurrent, Integrator)
            found.append(Diagnostic(
                "SNX210", f"layer '{name}' is a {type(layer).__name__}, which cannot be unrolled", where=f"layers.{name}",
                why="every layer needs a known meaning in time, on the chip and in NIR",
                fix=f"build the network from {', '.join(kind.__name__ for kind in known)}",
            ))  # fmt: skip
    readouts = [name for name, layer in named if isinstance(layer, Integrator)]
    last = named[-1][0] if named else ""
    if len(readouts) != 1 or readouts[0] != last or (last and isinstance(list(layers.children())[-1], ResidualSum)):
        found.append(Diagnostic(
            "SNX212", f"expected one Integrator, as the last layer; found {readouts or 'none'}", where="layers",
            why="the prediction is read from the membrane of a single non-spiking readout",
            fix="end the nn.Sequential with one snn_export.models.neurons.integrator.Integrator",
        ))  # fmt: skip
    if found:
        raise UserError.from_diagnostics(tuple(found))


def _repeated(layers: nn.Sequential) -> Iterator[Diagnostic]:
    seen: dict[int, str] = {}
    for name, layer in leaves(layers):
        if id(layer) in seen:
            yield Diagnostic(
                "SNX210", f"one module stands in two places: '{seen[id(layer)]}' and '{name}'", where=f"layers.{name}",
                why="torch names a shared module once, so its second place would be lost", fix="make one module per place",
            )  # fmt: skip
        seen[id(layer)] = name


def _neuron_findings(name: str, layer: Any) -> Iterator[Diagnostic]:
    """Settings under which stepping the neuron is not one plain LIF step."""
    unsupported = [setting for setting in UNSTEPPABLE if getattr(layer, setting)]
    if unsupported:
        yield Diagnostic(
            "SNX211", f"{type(layer).__name__} '{name}' sets {', '.join(unsupported)}", where=f"layers.{name}",
            why="hidden state would survive from one batch to the next; inhibition and state_quant have no counterpart on Loihi",
            fix=f"build it as snntorch.{type(layer).__name__}(..., reset_mechanism='zero', reset_delay=False)",
        )  # fmt: skip


def _accumulate(layer: Integrator, currents: Tensor) -> Tensor:
    """Integrator membrane over time, (T, B, *features)."""
    filtered = membrane = torch.zeros_like(currents[0])
    history = []
    for current in currents:
        filtered = layer.current(current, filtered)
        membrane = layer(filtered, membrane)
        history.append(membrane)
    return torch.stack(history)


def _step_neurons(layer: nn.Module, currents: Tensor, *, with_membrane: bool) -> tuple[Tensor, Tensor]:
    """Spikes and membrane over time, (T, B, *features) each; membrane is the last step alone without ``with_membrane``."""
    neuron = layer.neuron if isinstance(layer, Recurrent) else layer
    state = (torch.zeros_like(currents[0]),) * NEURONS[type(neuron)]
    fired = torch.zeros_like(currents[0])
    spikes, membranes = [], []
    for current in currents:
        heard = (fired,) if isinstance(layer, HEARS_ITSELF) else ()
        fired, *state = layer(current, *heard, *state)
        fired = fired.to(current.dtype)  # snnTorch returns float32 spikes whatever it is given
        spikes.append(fired)
        if with_membrane:
            membranes.append(state[-1])
    # snnTorch keeps the last state, and with it the autograd graph, on the module; a model holding one cannot be copied.
    for kept in ("mem", "syn", "spk"):
        if hasattr(neuron, kept):
            setattr(neuron, kept, torch.zeros(0, device=currents.device))
    return torch.stack(spikes), torch.stack(membranes) if with_membrane else state[-1]


def _joined(outer: str, inner: str) -> str:
    return f"{outer}.{inner}" if outer else inner
