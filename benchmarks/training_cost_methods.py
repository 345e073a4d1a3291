"""One network, trained in five ways: what ``training_cost.py`` measures.

All of them take the same student (:func:`student`) apart, or use it as it is: the same weights, the same LIF equations
(u = beta v + x, s = u > 1, v = 0 where s, seen by the gradient), the same sigmoid surrogate, the same readout (the mean over the
steps of what the dense layer gives). What differs is the order of the work, what is kept for the backward pass, and, in training,
over how many samples a batch-norm takes its statistics: the plain loop has B in every step, the others T B at once.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import snntorch
import torch
from snntorch import surrogate
from torch import Tensor, nn

from snn_export.models.rate_based import spike_convolution
from snn_export.models.students.conv5 import build_conv5
from snn_export.models.students.student import SpikingStudent, StudentConfig

KEEP, SLOPE, THRESHOLD, CLASSES = 0.5, 4.0, 1.0, 10
LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Size:
    """What is trained: width of the conv5 student, side of the square colour images, batch."""

    width: int = 32
    side: int = 32
    batch: int = 32

    @property
    def neurons(self) -> int:
        """Of all populations and the whole batch."""
        quarter = self.side * self.side // 16
        return self.batch * self.width * quarter * (16 + 4 + 2 * 4 + 2 + 4)


def student(size: Size, steps: int, seed: int = 0) -> SpikingStudent:
    """The conv5 student with the weights of ``seed``, whatever T is."""
    config = StudentConfig(
        name="conv5", input_shape=(3, size.side, size.side), classes=CLASSES, steps=steps, width=size.width,
        dv=round((1 - KEEP) * 4096), threshold=THRESHOLD, surrogate="sigmoid", slope=SLOPE,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_conv5(config)


def batches(size: Size, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Random images (B, 3, S, S), normalised as CIFAR's are, smooth over a few pixels, and labels (B,); ever new ones."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        coarse = torch.randn(size.batch, 3, max(size.side // 4, 1), max(size.side // 4, 1), generator=generator)
        fine = torch.randn(size.batch, 3, size.side, size.side, generator=generator)
        images = nn.functional.interpolate(coarse, size=(size.side, size.side), mode="bilinear") + 0.5 * fine
        yield images, torch.randint(CLASSES, (size.batch,), generator=generator)


class PlainLoop(nn.Module):
    """snnTorch as its tutorials write it: all layers for one step, then the next; ``Leaky`` handed its membrane each time."""

    def __init__(self, origin: SpikingStudent) -> None:
        super().__init__()
        self.steps = origin.config.steps
        layers = list(origin.layers.children())[:-1]  # the integrator is the mean in forward()
        self.layers = nn.ModuleList(
            self._leaky() if isinstance(layer, snntorch.Leaky) else copy.deepcopy(layer) for layer in layers
        )

    @staticmethod
    def _leaky() -> snntorch.Leaky:
        return snntorch.Leaky(
            beta=KEEP, threshold=THRESHOLD, spike_grad=surrogate.sigmoid(slope=SLOPE), reset_mechanism="zero", reset_delay=False
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        membranes = {layer: layer.init_leaky() for layer in self.layers if isinstance(layer, snntorch.Leaky)}
        outputs = []
        for _ in range(self.steps):
            value = images
            for layer in self.layers:
                if isinstance(layer, snntorch.Leaky):
                    value, membranes[layer] = layer(value, membranes[layer])
                    value = value.to(images.dtype)  # snnTorch's spikes are float32 whatever it is given
                else:
                    value = layer(value)
            outputs.append(value)
        return torch.stack(outputs).mean(dim=0)


class MultiStep(nn.Module):
    """SpikingJelly in its multi-step mode: all steps of one layer, then the next layer; the image is repeated T times."""

    def __init__(self, origin: SpikingStudent) -> None:
        super().__init__()
        # No dependency of this project: imported where it is asked for.
        from spikingjelly.activation_based import functional, layer, neuron
        from spikingjelly.activation_based import surrogate as slopes

        self.steps = origin.config.steps
        self._reset: Callable[[nn.Module], None] = functional.reset_net
        parts: list[nn.Module] = []
        group: list[nn.Module] = []
        for child in list(origin.layers.children())[:-1]:
            if not isinstance(child, snntorch.Leaky):
                group.append(copy.deepcopy(child))
                continue
            parts.append(layer.SeqToANNContainer(*group))
            parts.append(neuron.LIFNode(
                tau=1 / (1 - KEEP), decay_input=False, v_threshold=THRESHOLD, v_reset=0.0, detach_reset=False, step_mode="m",
                surrogate_function=slopes.Sigmoid(alpha=SLOPE),
            ))  # fmt: skip
            group = []
        parts.append(layer.SeqToANNContainer(*group))
        self.layers = nn.Sequential(*parts)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        self._reset(self.layers)
        logits: Tensor = self.layers(images.unsqueeze(0).repeat(self.steps, 1, 1, 1, 1)).mean(dim=0)
        return logits


@dataclass(frozen=True)
class Method:
    """A way to train: its name in tables, numbers it keeps per neuron and step (float32, generous), and how it is made.

    ``make(student)`` gives the module whose parameters learn, and what turns images into logits with gradient.
    """

    title: str
    kept: float
    make: Callable[[SpikingStudent], tuple[nn.Module, Callable[[Tensor], Tensor]]]
    needs: str = "torch"

    @property
    def installed(self) -> bool:
        """Whether what it needs is there."""
        return importlib.util.find_spec(self.needs) is not None

    def expected_gigabytes(self, size: Size, steps: int) -> float:
        """Peak memory of a process that trains so, roughly and rather too much."""
        return 0.5 + self.kept * 4 * size.neurons * steps / 1e9


def _plain_loop(origin: SpikingStudent) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    network = PlainLoop(origin)
    return network, network


def _multi_step(origin: SpikingStudent) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    network = MultiStep(origin)
    return network, network


def _rates_in_floats(origin: SpikingStudent) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """What a processor without matrix units does: no convolution of bytes."""

    def logits(images: Tensor) -> Tensor:
        with mock.patch.object(spike_convolution, "available", lambda: False):
            return origin.by_rates(images).logits

    return origin, logits


METHODS = {
    "rates": Method("rate-based", 1, lambda origin: (origin, lambda images: origin.by_rates(images).logits)),
    "floats": Method("rate-based, float32 alone", 1, _rates_in_floats),
    "bptt": Method("BPTT", 8, lambda origin: (origin, lambda images: origin.through_time(images).logits)),
    "snntorch": Method("snnTorch loop", 18, _plain_loop),
    "spikingjelly": Method("SpikingJelly multi-step", 18, _multi_step, needs="spikingjelly"),
}


LIMIT = "convolutions"
"""Not a method: the convolutions of the rate-based pass in float32 and nothing else, below which only bytes can go."""


def training_step(name: str, size: Size, steps: int) -> Callable[[], float]:
    """A function that does one step of training (forward, cross-entropy, backward, SGD) on new images, and returns the loss."""
    if name == LIMIT:
        return convolutions_alone(size, steps)
    network, logits_of = METHODS[name].make(student(size, steps))
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    source = batches(size)

    def step() -> float:
        images, labels = next(source)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(logits_of(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def convolutions_alone(size: Size, steps: int) -> Callable[[], float]:
    """The convolutions of one rate-based training step: the first once and the others T times forward, then all forward and back.

    All in float32. Inputs lie ready, one batch that is used over and over, in the cache where it fits.
    """
    layers = [layer for layer in student(size, steps).layers if isinstance(layer, nn.Conv2d)]
    shapes = [value.shape for value in _inputs_of(layers, next(batches(size))[0])]
    inputs = [torch.rand(shape).round_().requires_grad_(bool(index)) for index, shape in enumerate(shapes)]

    def step() -> float:
        with torch.no_grad():
            for index, (layer, value) in enumerate(zip(layers, inputs, strict=True)):
                for _ in range(steps if index else 1):
                    layer(value)
        for layer, value in zip(layers, inputs, strict=True):
            layer(value).sum().backward()
        return 0.0

    return step


def _inputs_of(layers: list[nn.Conv2d], images: Tensor) -> Iterator[Tensor]:
    """What each convolution of a chain takes in, without gradients."""
    for layer in layers:
        yield images
        images = layer(images).detach()


def agreement(size: Size, steps: int) -> dict[str, Any]:
    """How far the logits and losses of all methods are apart, in evaluation mode with batch-norm statistics of their own.

    In float64: in float32 a sum in another order moves a membrane across its threshold now and then. ``rates``, the share of
    neurons that fire in a step, shows that there is something to compare.
    """
    origin = student(size, steps).double()
    generator = torch.Generator().manual_seed(1)
    for layer in origin.layers:
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.copy_(torch.rand(layer.running_mean.shape, generator=generator) * 0.2 - 0.1)
            layer.running_var.copy_(torch.rand(layer.running_var.shape, generator=generator) * 0.05 + 0.02)
    images, labels = next(batches(size, seed=2))
    logits = {}
    for name, method in METHODS.items():
        if method.installed:
            network, logits_of = method.make(copy.deepcopy(origin))
            network.eval()
            logits[name] = logits_of(images.double()).detach()
    losses = {name: float(nn.functional.cross_entropy(found, labels)) for name, found in logits.items()}
    names = [name for name, layer in origin.layers.named_children() if isinstance(layer, snntorch.Leaky)]
    taps = origin.eval().by_rates(images.double(), taps=names).taps
    return {
        "rates_in_integers": _same_rates(origin.float(), images, names),
        "steps": steps,
        "losses": losses,
        "logits_apart": {name: float((found - logits["rates"]).abs().max()) for name, found in logits.items()},
        "logits_spread": float(logits["rates"].std()),
        "rates": {name: float(tap.detach().mean()) for name, tap in taps.items()},
    }


def _same_rates(network: SpikingStudent, images: Tensor, names: list[str]) -> float:
    """Share of the neurons with the same rate in float32, whether spikes are convolved in integers or not."""
    ours = network.by_rates(images, taps=names).taps
    with mock.patch.object(spike_convolution, "available", lambda: False):
        floats = network.by_rates(images, taps=names).taps
    same = [(ours[name] == floats[name]).flatten() for name in names]
    return float(torch.cat(same).float().mean())
