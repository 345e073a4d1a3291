"""The two passes of rate-based backpropagation.

    states = spike_pass(layers, x, steps, constant=True)     T steps, no gradients, batch-norm statistics taken and kept
    result = rate_pass(layers, x, states)                    one step over rates, with gradients
    loss(result.logits).backward()

One step of the second pass stands for T steps of backpropagation through time, so its memory does not grow with T; the first
pass holds one layer's currents and spikes at a time, the spikes as bytes. Nothing of it remains in the network: inference is
ordinary spiking. On a CPU the steps of a population are compiled (:mod:`snn_export.models.rate_based.kernels`).

Source: Yu et al., Advancing training efficiency of deep spiking neural networks through rate-based backpropagation, NeurIPS
2024, arXiv 2410.11488.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import LifRule, blocks_of_neurons, fire, lif_rule_of, reset
from snn_export.models.rate_based import kernels, spike_convolution
from snn_export.models.rate_based.admissible import check_rate_based
from snn_export.models.rate_based.gradients import along, channel_squares, channel_sums, rate_norm, rate_output
from snn_export.models.rate_based.slopes import SlopeRule, ThroughTime
from snn_export.models.residual import ResidualSum

CHUNK_ELEMENTS = 1 << 18
"""Numbers that go into, and come out of, a stateless layer at once in the spike pass, for each thread of a CPU (1 MB of float32).

Larger pieces leave the cache, and memory of their size is fetched from the system, and given back, at every call."""
DEVICE_CHUNK_ELEMENTS = 1 << 26
"""The same on any other device: 256 MB, so that a call is worth its launch."""

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

    ``owned``: nothing else reads these numbers, they may be overwritten. ``affine``: (scale, shift), both (C,), of a batch-norm
    that the next population carries out while it reads, which saves two rounds through memory; anything else asks for
    :meth:`settled` first. ``moments``: mean and biased variance of ``value``, (C,), where they are known.
    """

    value: Tensor
    over_time: bool
    owned: bool = False
    affine: tuple[Tensor, Tensor] | None = None
    moments: tuple[Tensor, Tensor] | None = None

    def samples(self) -> Tensor:
        """(T*B, *features), or (B, *features)."""
        return self.value.flatten(0, 1) if self.over_time else self.value

    def settled(self) -> _Signal:
        """The same signal with nothing left to carry out."""
        if self.affine is None:
            return self
        samples = self.samples()
        scale, shift = (along(factor, samples) for factor in self.affine)
        value = samples.mul_(scale).add_(shift) if self.owned else torch.addcmul(shift, samples, scale)
        return _Signal(value.view(self.value.shape), self.over_time, owned=True)


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
        """One layer, or all layers of a container."""
        if not self.wanted:
            return signal
        if isinstance(layer, nn.Sequential):
            for child_name, child in layer.named_children():
                signal = self.run(_joined(name, child_name), child, signal)
            return signal
        if isinstance(layer, ResidualSum):
            return self._sum(name, layer, replace(signal.settled(), owned=False))
        if isinstance(layer, NORMS) and layer.training:
            self.wanted.discard(name)
            return self._norm(name, layer, signal.settled())
        if isinstance(layer, nn.Identity):
            return signal
        rule = lif_rule_of(layer)
        if rule is not None:
            self.wanted.discard(name)
            return self._spike(name, replace(rule, detach_reset=self.detach_reset or rule.detach_reset), signal)
        return self._stateless(layer, signal.settled())

    def _sum(self, name: str, layer: ResidualSum, signal: _Signal) -> _Signal:
        main = self.run(f"{name}.main", layer.main, signal).settled()
        shortcut = self.run(f"{name}.shortcut", layer.shortcut, signal).settled()
        if not self.wanted:  # the paths may have ended early, in different shapes; nobody reads their sum
            return main
        return _Signal(
            main.value.to(self.dtype) + shortcut.value.to(self.dtype), main.over_time or shortcut.over_time, owned=True
        )

    def _stateless(self, layer: nn.Module, signal: _Signal) -> _Signal:
        if isinstance(layer, nn.Flatten):  # bytes remain bytes, and belong to whom they belonged
            flat = layer(signal.samples())
            return replace(signal, value=flat.unflatten(0, (self.steps, -1)) if signal.over_time else flat, moments=None)
        if not signal.over_time:
            return _Signal(layer(signal.value), over_time=False, owned=True)
        samples, found = signal.samples(), None
        if spike_convolution.fits(layer, samples):
            return self._convolve(layer, samples)
        size = _samples_at_once(samples)
        start = 0
        layout = torch.channels_last if samples.ndim == 4 and _in_integers(samples) else torch.contiguous_format
        given = torch.empty(samples[:size].shape, dtype=self.dtype, device=samples.device, memory_format=layout)
        while start < len(samples):
            piece = samples[start : start + size]
            part = layer(given[: len(piece)].copy_(piece))
            if found is None:
                size = min(size, _samples_at_once(part))
                found = part if len(part) == len(samples) else _storage_like(part, len(samples))
            if found is not part:
                found[start : start + len(part)] = part
            start += len(part)
        return signal if found is None else _Signal(found.unflatten(0, (self.steps, -1)), over_time=True, owned=True)

    def _convolve(self, layer: nn.Conv2d, spikes: Tensor) -> _Signal:
        """A convolution of spikes in integers, and the moments that a batch-norm behind it takes."""
        elements = CHUNK_ELEMENTS * torch.get_num_threads()
        found = spike_convolution.convolve(layer, spikes, elements, lambda shape, kind: _storage(shape, kind, spikes.device))
        currents = found.value.view(self.steps, -1, *found.value.shape[1:])
        return _Signal(currents, over_time=True, owned=True, moments=(found.mean, found.variance))

    def _norm(self, name: str, layer: nn.BatchNorm1d | nn.BatchNorm2d, signal: _Signal) -> _Signal:
        value = signal.value.to(self.dtype)
        found = replace(signal, value=value, owned=signal.owned or value is not signal.value)
        samples = found.samples()
        if samples.numel() == samples.shape[1]:  # as torch does, in its words
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(value.shape)}")
        mean, variance = found.moments or _moments(samples)
        self.norms[name] = NormState(mean, variance)
        _move_running_statistics(layer, mean, variance, samples.numel() // samples.shape[1])
        scale = torch.rsqrt(variance + layer.eps) * layer.weight
        return replace(found, affine=(scale, layer.bias - mean * scale), moments=None)

    def _spike(self, name: str, rule: LifRule, signal: _Signal) -> _Signal:
        compiled = kernels.available(signal.value) and self.dtype == torch.float32 and type(self.slopes) is ThroughTime
        if not compiled:
            signal = signal.settled()
        currents = signal.value.to(self.dtype)
        if not signal.over_time and currents.ndim == 4 and _in_integers(currents):
            currents = currents.contiguous(memory_format=torch.channels_last)
        first = currents[0] if signal.over_time else currents
        last = first.ndim == 4 and spike_convolution.stored_channels_last(currents)
        spikes = _storage((self.steps, *first.shape), torch.uint8, first.device, channels_last=last)
        rates, slopes = (_storage(first.shape, first.dtype, first.device, channels_last=last) for _ in range(2))
        # The same tensors in the order of their memory: neurons do not care which of them is next.
        stored = [value.movedim(-3, -1) if last else value for value in (currents, spikes, rates, slopes)]
        if compiled:
            scale, shift = _of_features(signal.affine, first, last)
            arriving = kernels.Currents(stored[0] if signal.over_time else stored[0][None], scale, shift)
            kernels.run(rule, arriving, *stored[1:])
        else:
            self._spike_in_blocks(rule, signal.over_time, *stored)
        self.neurons[name] = NeuronState(rates, slopes)
        return _Signal(spikes, over_time=True)

    def _spike_in_blocks(
        self, rule: LifRule, over_time: bool, currents: Tensor, spikes: Tensor, rates: Tensor, slopes: Tensor
    ) -> None:
        """What the kernels do, in torch's operations and with any rule for slopes; spikes, rates and slopes are written."""
        flat = currents.reshape(self.steps, -1) if over_time else currents.reshape(1, -1).expand(self.steps, -1)
        for block in blocks_of_neurons(flat):
            rate, slope = self._spike_block(rule, flat[:, block], spikes.view(self.steps, -1)[:, block])
            rates.view(-1)[block], slopes.view(-1)[block] = rate, slope

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


def _in_integers(maps: Tensor) -> bool:
    """Whether convolutions behind ``maps`` may be in integers, which read their spikes channels last."""
    return maps.device.type == "cpu" and spike_convolution.available()


def _stateful(layers: nn.Sequential) -> set[str]:
    """Names of the layers a spike pass takes something from."""
    return {
        name
        for name, layer in layers.named_modules()
        if lif_rule_of(layer) is not None or (isinstance(layer, NORMS) and layer.training)
    }


def _storage(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, *, channels_last: bool = False) -> Tensor:
    """An empty tensor of many steps; ``channels_last``: maps (..., C, H, W) lie in memory as (..., H, W, C).

    On a CPU its memory is numpy's, which asks Linux for huge pages: torch's arrives in pages of 4 KB, and that takes as long as
    a third of a convolution.
    """
    if channels_last:
        *outer, channels, height, width = shape
        return _storage((*outer, height, width, channels), dtype, device).movedim(-1, -3)
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.empty(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)


def _storage_like(part: Tensor, count: int) -> Tensor:
    """Storage for ``count`` samples that lie in memory as those of ``part`` do."""
    last = spike_convolution.stored_channels_last(part)
    return _storage((count, *part.shape[1:]), part.dtype, part.device, channels_last=last)


def _samples_at_once(samples: Tensor) -> int:
    """How many samples like these, (N, *features), a stateless layer takes at once; at least one."""
    on_processor = samples.device.type == "cpu"
    allowed = CHUNK_ELEMENTS * torch.get_num_threads() if on_processor else DEVICE_CHUNK_ELEMENTS
    return max(allowed // max(samples[0].numel(), 1), 1)


def _moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel, (C,), of (N, C, *space): exact moments of pieces that fit a cache, merged.

    Merging is that of Chan, Golub and LeVeque, "Algorithms for computing the sample variance", The American Statistician 37(3),
    1983: unlike E[x^2] - E[x]^2 it loses nothing where the mean is large.
    """
    size = _samples_at_once(samples)
    edges = [*range(0, len(samples), size), len(samples)]
    count = 0
    mean = squares = samples.new_zeros(samples.shape[1], dtype=torch.promote_types(samples.dtype, torch.float32))
    for start, stop in pairwise(edges):
        piece = samples[start:stop]
        more = piece.numel() // piece.shape[1]
        own = channel_sums(piece) / more
        own_squares = channel_squares(piece - along(own, piece))
        apart = own.to(mean.dtype) - mean
        total = count + more
        squares = squares + own_squares + apart.square() * (count * more / total)
        mean = mean + apart * (more / total)
        count = total
    return mean.to(samples.dtype), (squares / count).to(samples.dtype)


def _of_features(affine: tuple[Tensor, Tensor] | None, like: Tensor, channels_last: bool) -> tuple[Tensor, Tensor]:
    """(scale, shift) of every feature of ``like`` (B, C, *space) in the order of memory, both (C * space,); 1 and 0 without."""
    features = like[0].numel()
    if affine is None:
        return like.new_ones(features), like.new_zeros(features)
    copies = features // len(affine[0])
    scale, shift = (factor.repeat(copies) if channels_last else factor.repeat_interleave(copies) for factor in affine)
    return scale, shift


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
        """One layer, or all layers of a container, over rates."""
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
