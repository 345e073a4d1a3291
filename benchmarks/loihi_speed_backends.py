"""What ``loihi_speed.py`` measures: each backend as a function without arguments that runs a network once.

All get the same events. The float backends compute the same network on float32 (thresholds in units of the integers), so they
fire as often; they are here for their speed only. ``bare`` is no simulator: the same convolutions and products, one call per
layer over all T x B steps, on the spikes that the layers of this run really get.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import snntorch
import torch
from loihi_speed_networks import DECAY, DT, Layer, Network
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from snn_export.hardware_sims.loihi.simulator import LoihiSimulator

Run = Callable[[], object]
Spikes = dict[str, NDArray[np.bool_]]
BETA = 1 - DECAY / 4096


def loihi(network: Network, events: NDArray[np.bool_], threads: int) -> Run:
    """This project's simulator; spikes of the last layer are kept."""
    simulator = LoihiSimulator(threads=threads, layers=(network.layers[-1].name,))
    program = simulator.compile(network.deployment(len(events)))
    return lambda: simulator.run(program, events)


def bare(network: Network, events: NDArray[np.bool_], spikes: Spikes, channels_last: bool) -> Run:
    """Only the products, in torch's own layout or with the channel last (which is often faster)."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    calls: list[Run] = []
    given = events
    for layer in network.layers:
        x = torch.from_numpy(given.reshape(-1, *given.shape[2:])).float()
        weight = torch.from_numpy(layer.weight).float()
        if layer.convolution:
            maps, kernels = x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)
            calls.append(lambda m=maps, k=kernels, s=layer.stride: functional.conv2d(m, k, stride=s, padding=1))
        else:
            flat = x.flatten(1)
            calls.append(lambda f=flat, w=weight: functional.linear(f, w))
        given = spikes[layer.name]
        if layer.loop is not None:
            back, steps = torch.from_numpy(layer.loop).float(), torch.from_numpy(given).float()
            calls.append(lambda b=back, s=steps: [functional.linear(x, b) for x in s])

    def run() -> None:
        with torch.inference_mode():
            for call in calls:
                call()

    return run


class _Stepped(nn.Module):
    """A network stepped in time; ``cells`` are (input, state) -> (spikes, state)."""

    def __init__(self, network: Network, cells: list[Callable[..., tuple[torch.Tensor, object]]]) -> None:
        super().__init__()
        self.layers, self.cells = network.layers, cells
        self.weights = [torch.from_numpy(layer.weight).float() for layer in network.layers]
        self.loops = [None if layer.loop is None else torch.from_numpy(layer.loop).float() for layer in network.layers]

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        states: list[object] = [None] * len(self.layers)
        fired: list[torch.Tensor | None] = [None] * len(self.layers)
        out = []
        for x in events:
            given = x
            for index, layer in enumerate(self.layers):
                drive = self._drive(index, layer, given)
                back, before = self.loops[index], fired[index]
                if back is not None and before is not None:
                    drive = drive + functional.linear(before, back)
                given, states[index] = self.cells[index](drive, states[index])
                fired[index] = given
            out.append(given)
        return torch.stack(out)

    def _drive(self, index: int, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        if layer.convolution:
            return functional.conv2d(x, self.weights[index], stride=layer.stride, padding=1)
        return functional.linear(x.flatten(1), self.weights[index])


def snn_torch(network: Network, events: NDArray[np.bool_]) -> Run:
    """snnTorch: ``Leaky`` with reset to zero, no gradients."""

    def cell(layer: Layer) -> Callable[..., tuple[torch.Tensor, object]]:
        leaky = snntorch.Leaky(beta=BETA, threshold=float(layer.threshold), reset_mechanism="zero", reset_delay=False)

        def step(drive: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
            spikes, membrane = leaky(drive, torch.zeros_like(drive) if state is None else state)
            return spikes, membrane

        return step

    return _stepped(network, events, [cell(layer) for layer in network.layers])


def norse(network: Network, events: NDArray[np.bool_]) -> Run:
    """Norse: ``LIFBoxCell``, v += dt/tau (I - v); the threshold is scaled by dt/tau to match."""
    import norse.torch

    def cell(layer: Layer) -> Callable[..., tuple[torch.Tensor, object]]:
        rate = DECAY / 4096
        parameters = norse.torch.LIFBoxParameters(
            tau_mem_inv=torch.tensor(rate / DT), v_leak=torch.tensor(0.0),
            v_th=torch.tensor(float(layer.threshold) * rate), v_reset=torch.tensor(0.0),
        )  # fmt: skip
        return norse.torch.LIFBoxCell(p=parameters, dt=DT)

    return _stepped(network, events, [cell(layer) for layer in network.layers])


def _stepped(network: Network, events: NDArray[np.bool_], cells: list[Callable[..., tuple[torch.Tensor, object]]]) -> Run:
    model, given = _Stepped(network, cells), torch.from_numpy(events).float()

    def run() -> torch.Tensor:
        with torch.no_grad():
            return model(given)

    return run
