"""The two passes of rate-based backpropagation.

    states = spike_pass(layers, x, steps, constant=True)     T steps, no gradients, batch-norm statistics taken and kept
    result = rate_pass(layers, x, states)                    one step over rates, with gradients
    loss(result.logits).backward()

One step of the second pass stands for T steps of backpropagation through time, so its memory does not grow with T; the first
pass holds one layer's currents and spikes at a time, the spikes as bytes. Nothing of it remains in the network: inference is
ordinary spiking.

Source: Yu et al., Advancing training efficiency of deep spiking neural networks through rate-based backpropagation, NeurIPS
2024, arXiv 2410.11488.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import LifRule, blocks_of_neurons, fire, lif_rule_of, reset
from snn_export.models.rate_based.admissible import check_rate_based
from snn_export.models.rate_based.gradients import along, channel_squares, channel_sums, rate_norm, rate_output
from snn_export.models.rate_based.slopes import SlopeRule, ThroughTime
from snn_export.models.residual import ResidualSum

CHUNK_ELEMENTS = 1 << 20
"""Numbers that a stateless layer is given at once in the spike pass (4 MB of float32), and never less than one step.

Larger pieces are slower on a CPU: memory of that size is fetched from the system, and given back, at every call."""

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class NeuronState:
    """What the rate pass needs of a population: firing rates, and slopes dr/dc; both (B, *features)."""

    rates: Tensor
    slopes: Tensor


@dataclass(frozen=True)
class NormState:
    """Statistics of a batch-norm over all steps and samples: mean and biased variance, (C,)."""

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class RateStates:
    """What a spike pass of ``steps`` steps leaves behind, by layer name ("block1.lif" inside a container)."""

    steps: int
    neurons: Mapping[str, NeuronState]
    norms: Mapping[str, NormState]


@dataclass(frozen=True)
class RateResult:
    """Of a rate pass: logits (B, K), the readout's mean input; taps (B, *features), rates of the populations asked for."""

    logits: Tensor
    taps: Mapping[str, Tensor]


def spike_pass(
    layers: nn.Sequential,
    inputs: Tensor,
    steps: int,
    *,
    constant: bool,
    detach_reset: bool = False,
    slopes: SlopeRule | None = None,
) -> RateStates:
    """Run ``steps`` spiking steps without gradients and keep rates, slopes and batch-norm statistics.

    In training mode batch-norm normalises over T and B together and moves its running statistics, once; in evaluation mode it
    uses them and leaves them alone. Layers before the first neuron run once under ``constant`` (the same input in every step).

    Args:
        layers: as for :func:`snn_export.models.unroll.unroll`.
        inputs: (B, *shape) with ``constant``, (T, B, *shape) otherwise.
        steps: T, at least 1.
        constant: direct encoding.
        detach_reset: whether the gradient ignores the reset. False is what backpropagation through snnTorch's neurons does.
        slopes: how rates answer to mean inputs; through all steps where nothing else is said.

    Raises:
        UserError: SNX280 to SNX282 for layers that rates cannot carry (:func:`check_rate_based`).
    """
    check_rate_based(layers)
    walk = _SpikeWalk(steps, detach_reset, slopes or ThroughTime(), inputs.dtype, _stateful(layers))
    with torch.no_grad():
        walk.run("", layers, _Signal(inputs, over_time=not constant))
    return RateStates(steps, walk.neurons, walk.norms)


def rate_pass(layers: nn.Sequential, mean_inputs: Tensor, states: RateStates, *, taps: Collection[str] = ()) -> RateResult:
    """One pass over rates: values are those of the spike pass, gradients go through its slopes.

    Args:
        layers: those of the spike pass, unchanged since.
        mean_inputs: (B, *shape), the mean of the inputs over time.
        states: of the spike pass.
        taps: names of neuron layers whose rates, with gradient, are wanted.

    Raises:
        UserError: SNX280 to SNX282 as above.
    """
    check_rate_based(layers)
    walk = _RateWalk(states, frozenset(taps))
    logits = walk.run("", layers, mean_inputs)
    return RateResult(logits, walk.taps)


# --- spike pass ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Signal:
    """(B, *features) while it is the same in every step, (T, B, *features) afterwards; spikes are bytes.

    ``owned``: nothing else reads these numbers, they may be overwritten.
    """

    value: Tensor
    over_time: bool
    owned: bool = False


@dataclass
class _SpikeWalk:
    """The spike pass over nested layers."""

    steps: int
    detach_reset: bool
    slopes: SlopeRule
    dtype: torch.dtype
    """What spikes, kept as bytes, are turned into in front of the next layer."""
    wanted: set[str]
    """Layers whose state is still to come; behind the last of them there is nothing left to do."""
    neurons: dict[str, NeuronState] = field(default_factory=dict)
    norms: dict[str, NormState] = field(default_factory=dict)

    def run(self, name: str, layer: nn.Module, signal: _Signal) -> _Signal:
        if not self.wanted:
            return signal
        if isinstance(layer, nn.Sequential):
            for child_name, child in layer.named_children():
                signal = self.run(_joined(name, child_name), child, signal)
            return signal
        if isinstance(layer, ResidualSum):
            return self._sum(name, layer, replace(signal, owned=False))
        if isinstance(layer, NORMS) and layer.training:
            self.wanted.discard(name)
            return self._norm(name, layer, signal)
        if isinstance(layer, nn.Identity):
            return signal
        rule = lif_rule_of(layer)
        if rule is not None:
            self.wanted.discard(name)
            return self._spike(name, replace(rule, detach_reset=self.detach_reset or rule.detach_reset), signal)
        return self._stateless(layer, signal)

    def _sum(self, name: str, layer: ResidualSum, signal: _Signal) -> _Signal:
        main = self.run(f"{name}.main", layer.main, signal)
        shortcut = self.run(f"{name}.shortcut", layer.shortcut, signal)
        if not self.wanted:  # the paths may have ended early, in different shapes; nobody reads their sum
            return main
        return _Signal(
            main.value.to(self.dtype) + shortcut.value.to(self.dtype), main.over_time or shortcut.over_time, owned=True
        )

    def _stateless(self, layer: nn.Module, signal: _Signal) -> _Signal:
        if not signal.over_time:
            return _Signal(layer(signal.value), over_time=False, owned=True)
        value, found = signal.value, None
        for start, stop in _chunks(value):
            part = layer(value[start:stop].flatten(0, 1).to(self.dtype))
            part = part.unflatten(0, (stop - start, -1))
            if found is None:
                found = part if stop == len(value) else part.new_empty((len(value), *part.shape[1:]))
            if found is not part:
                found[start:stop] = part
        return _Signal(value if found is None else found, over_time=True, owned=True)

    def _norm(self, name: str, layer: nn.BatchNorm1d | nn.BatchNorm2d, signal: _Signal) -> _Signal:
        value = signal.value.to(self.dtype)
        owned = signal.owned or value is not signal.value
        flat = value.flatten(0, 1) if signal.over_time else value
        count = flat.numel() // flat.shape[1]
        mean = channel_sums(flat) / count
        centred = flat.sub_(along(mean, flat)) if owned else flat - along(mean, flat)
        variance = channel_squares(centred) / count
        self.norms[name] = NormState(mean, variance)
        _move_running_statistics(layer, mean, variance, count)
        found = centred.mul_(along(torch.rsqrt(variance + layer.eps) * layer.weight, flat)).add_(along(layer.bias, flat))
        return _Signal(found.view(value.shape), signal.over_time, owned=True)

    def _spike(self, name: str, rule: LifRule, signal: _Signal) -> _Signal:
        currents = signal.value.to(self.dtype)
        first = currents[0] if signal.over_time else currents
        spikes = torch.empty((self.steps, *first.shape), dtype=torch.uint8, device=first.device)
        rates, slopes = (torch.empty(first.shape, dtype=first.dtype, device=first.device) for _ in range(2))
        flat = currents.reshape(self.steps, -1) if signal.over_time else currents.reshape(1, -1).expand(self.steps, -1)
        for block in blocks_of_neurons(flat):
            rate, slope = self._spike_block(rule, flat[:, block], spikes.view(self.steps, -1)[:, block])
            rates.view(-1)[block], slopes.view(-1)[block] = rate, slope
        self.neurons[name] = NeuronState(rates, slopes)
        return _Signal(spikes, over_time=True)

    def _spike_block(self, rule: LifRule, currents: Tensor, spikes: Tensor) -> tuple[Tensor, Tensor]:
        """Rates and slopes (neurons,) of some neurons under ``currents`` (T, neurons); their spikes are written."""
        trace = self.slopes.trace(rule, currents[0])
        total, fired = torch.zeros_like(currents[0]), torch.empty_like(currents[0])
        membrane = torch.full_like(currents[0], rule.initial)
        for step in range(self.steps):
            potential = membrane.mul_(rule.beta).add_(currents[step])
            fire(potential, rule, out=fired)
            spikes[step] = fired
            total.add_(fired)
            trace.step(potential, fired)
            membrane = reset(potential, fired, rule, out=membrane)
        return total.div_(self.steps), trace.slope(currents.mean(dim=0), self.steps)


def _stateful(layers: nn.Sequential) -> set[str]:
    """Names of the layers a spike pass takes something from."""
    return {
        name
        for name, layer in layers.named_modules()
        if lif_rule_of(layer) is not None or (isinstance(layer, NORMS) and layer.training)
    }


def _chunks(value: Tensor) -> list[tuple[int, int]]:
    """Ranges of steps that a stateless layer takes at once, bounded by ``CHUNK_ELEMENTS``."""
    size = max(CHUNK_ELEMENTS // max(value[0].numel(), 1), 1)
    return [(start, min(start + size, len(value))) for start in range(0, len(value), size)]


def _move_running_statistics(layer: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """What torch's batch-norm does to its running statistics in training: once per spike pass."""
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked.add_(1)
    momentum = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    unbiased = variance * (count / max(count - 1, 1))
    layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), momentum)
    layer.running_var.lerp_(unbiased.to(layer.running_var.dtype), momentum)


# --- rate pass -------------------------------------------------------------------------------------------------------


@dataclass
class _RateWalk:
    """The rate pass over nested layers."""

    states: RateStates
    wanted: frozenset[str]
    taps: dict[str, Tensor] = field(default_factory=dict)

    def run(self, name: str, layer: nn.Module, value: Tensor) -> Tensor:
        if isinstance(layer, nn.Sequential):
            for child_name, child in layer.named_children():
                value = self.run(_joined(name, child_name), child, value)
            return value
        if isinstance(layer, ResidualSum):
            return self.run(f"{name}.main", layer.main, value) + self.run(f"{name}.shortcut", layer.shortcut, value)
        if name in self.states.norms and isinstance(layer, NORMS):
            state = self.states.norms[name]
            return rate_norm(value, layer.weight, layer.bias, state.mean, state.variance, layer.eps)
        if name in self.states.neurons:
            neuron = self.states.neurons[name]
            rates = rate_output(value, neuron.rates, neuron.slopes)
            if name in self.wanted:
                self.taps[name] = rates
            return rates
        if isinstance(layer, Integrator):
            return value
        forward: Callable[[Tensor], Tensor] = layer
        return forward(value)


def _joined(outer: str, inner: str) -> str:
    return f"{outer}.{inner}" if outer else inner
