"""snnTorch -> Deployment: our own reader of trained modules.

snnTorch 1.0.0's own exporter loses the reset mechanism, fixes dt at 1e-4 s, forgets average-pool padding and drops modules it
does not know with a printed line. This one reads or refuses. It folds batch-norm while it reads, because NIR cannot hold it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import nir
import numpy as np
import snntorch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_export.export.contract import ExecutionContract, Lineage
from snn_export.export.deployment import Deployment
from snn_export.export.graph import Shape, latencies, shapes
from snn_export.models.arithmetic import DECAY_ONE, decay_from_integer, tau_from_integer
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutRule, ReadoutSpec, Reset

DEFAULT_DT = 1e-3
_RESETS: dict[str, Reset] = {"zero": "zero", "subtract": "subtract", "none": "none"}


@dataclass
class _Reading:
    """State while a module is read from front to back."""

    dt: float
    round_decays: bool
    shape: Shape
    nodes: dict[str, nir.NIRNode] = field(default_factory=dict)
    neurons: dict[str, NeuronSpec] = field(default_factory=dict)
    fold_magnitude: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    last: str = ""

    def add(self, name: str, node: nir.NIRNode) -> None:
        """Append a node; its name becomes its id."""
        self.nodes[name] = node
        self.last = name
        chain = list(self.nodes)
        graph = nir.NIRGraph(dict(self.nodes), list(pairwise(chain)), type_check=False)
        self.shape = shapes(graph)[name]


def deployment_from_snntorch(
    layers: nn.Sequential,
    input_shape: Shape,
    steps: int,
    *,
    rule: ReadoutRule | None = None,
    encoder: EncoderSpec | None = None,
    dt: float = DEFAULT_DT,
    round_decays: bool = False,
) -> Deployment:
    """Read a trained ``nn.Sequential`` of torch layers and snnTorch ``Leaky`` neurons into a float Deployment.

    Understood: Conv2d, Linear, BatchNorm1d/2d after either (folded), AvgPool2d, Flatten, Dropout and Identity (nothing at
    inference), ``snntorch.Leaky``, and :class:`snn_export.models.neurons.integrator.Integrator`. Parameters are taken as
    they stand in evaluation mode and widened to float64.

    Args:
        layers: the network; names of its children become layer ids.
        input_shape: shape of one sample, (channels, rows, columns) or (features,).
        steps: T.
        rule: how the last population is read out; by default its last membrane, or its spike counts where it spikes.
        encoder: default direct encoding.
        dt: seconds per step, for the time constants NIR stores.
        round_decays: accept a beta that is not 1 - n/4096 and take the nearest that is. Changes the network; recorded in
            the lineage.

    Returns:
        A deployment with unit-gain neurons (r = tau/dt); ``passes.portable_form`` brings it to r = 1.

    Raises:
        UserError: SNX210 unknown module, SNX211 neuron settings, SNX240 misplaced batch-norm, SNX241 a decay off the grid.
    """
    _check_request(layers, steps, dt)
    reading = _Reading(dt, round_decays, tuple(int(size) for size in input_shape))
    reading.add("input", nir.Input({"input": np.array(reading.shape)}))
    for name, module in layers.named_children():
        if name in ("input", "output") or "/" in name:
            raise _refuse(
                "SNX210", name, "is a reserved name", "NIR's input and output nodes and HDF5 paths need it", "rename it"
            )
        if reading.last in reading.neurons and not reading.neurons[reading.last].spiking:
            why = "it never spikes, so nothing behind it would hear anything"
            raise _refuse("SNX210", reading.last, "is a readout in the middle of the network", why, "move it to the end")
        _reader_of(name, module)(reading, name, module)
    if reading.last not in reading.neurons:
        raise _refuse(
            "SNX210",
            reading.last,
            "is the last layer and has no state",
            "predictions are read from a population",
            "end with Integrator()",
        )
    spiking = reading.neurons[reading.last].spiking
    readout = ReadoutSpec(reading.last, rule or ("spike_count" if spiking else "membrane_last"))
    reading.add("output", nir.Output({"output": np.array(reading.shape)}))
    chain = list(reading.nodes)
    graph = nir.NIRGraph(reading.nodes, list(pairwise(chain)), type_check=False)
    contract = ExecutionContract(
        dt=dt,
        steps=steps,
        latency=latencies(graph),
        encoder=encoder or EncoderSpec(),
        neurons=reading.neurons,
        readout=readout,
        origin={name: name for name in reading.neurons},
        lineage=Lineage(passes=("fold_batch_norm", *(("round_decays",) if round_decays else ()))),
    )
    return Deployment(graph, contract, fold_magnitude=MappingProxyType(reading.fold_magnitude))


def _check_request(layers: nn.Sequential, steps: int, dt: float) -> None:
    if steps < 1 or not (math.isfinite(dt) and dt > 0):
        why = "a network runs for one step or more, each of a positive duration"
        raise _refuse(
            "SNX109", "contract", f"cannot have steps = {steps} and dt = {dt}", why, "pass steps >= 1 and dt > 0 in seconds"
        )
    if len(list(layers.named_children())) != len(layers):
        why = "torch names a shared module once, so its second place would be lost"
        raise _refuse("SNX210", "layers", "hold one module in two places", why, "make one module per place")


def _read_conv(reading: _Reading, name: str, module: nn.Conv2d) -> None:
    if module.padding_mode != "zeros":
        raise _refuse(
            "SNX210", name, f"pads with {module.padding_mode!r}", "NIR's Conv2d pads with zeros", "use padding_mode='zeros'"
        )
    node = nir.Conv2d(
        input_shape=reading.shape[1:],
        weight=_array(module.weight),
        stride=tuple(module.stride),
        padding=module.padding if isinstance(module.padding, str) else tuple(module.padding),
        dilation=tuple(module.dilation),
        groups=module.groups,
        bias=_bias(module.bias, module.out_channels),
    )
    reading.add(name, node)


def _read_linear(reading: _Reading, name: str, module: nn.Linear) -> None:
    reading.add(name, nir.Affine(weight=_array(module.weight), bias=_bias(module.bias, module.out_features)))


def _read_batch_norm(reading: _Reading, name: str, module: nn.BatchNorm2d | nn.BatchNorm1d) -> None:
    """Y = (x - mean) g + b with g = gamma / sqrt(var + eps): weights times g, bias (bias - mean) g + b."""
    target = reading.nodes[reading.last]
    if not isinstance(target, nir.Conv2d | nir.Affine) or reading.last in reading.fold_magnitude:
        raise _refuse(
            "SNX240",
            name,
            f"follows {reading.last}, which has no weights to fold it into",
            "NIR has no batch-norm; it can only be folded into the Conv2d or Linear right before it",
            "move the batch-norm directly behind a Conv2d or Linear",
        )
    if module.running_mean is None or module.running_var is None:
        raise _refuse("SNX240", name, "keeps no running statistics", "inference needs them", "use track_running_stats=True")
    if len(module.running_mean) != len(target.weight):
        what = f"has {len(module.running_mean)} channels, {reading.last} has {len(target.weight)}"
        raise _refuse("SNX240", name, what, "one gain belongs to one channel", "give both the same number of channels")
    mean, variance = _array(module.running_mean), _array(module.running_var)
    gain = (_array(module.weight) if module.affine else np.ones_like(mean)) / np.sqrt(variance + module.eps)
    shift = _array(module.bias) if module.affine else np.zeros_like(mean)
    reading.fold_magnitude[reading.last] = np.abs(target.bias * gain) + np.abs(mean * gain) + np.abs(shift)
    target.weight = target.weight * gain.reshape(-1, *(1,) * (target.weight.ndim - 1))
    target.bias = (target.bias - mean) * gain + shift


def _read_pool(reading: _Reading, name: str, module: nn.AvgPool2d) -> None:
    if module.ceil_mode or not module.count_include_pad or module.divisor_override:
        raise _refuse(
            "SNX210",
            name,
            "uses ceil_mode, count_include_pad=False or a divisor",
            "NIR's AvgPool2d has no such fields",
            "use a plain AvgPool2d(kernel)",
        )
    size = [np.broadcast_to(np.asarray(value), 2).copy() for value in (module.kernel_size, module.stride, module.padding)]
    reading.add(name, nir.AvgPool2d(kernel_size=size[0], stride=size[1], padding=size[2]))


def _read_flatten(reading: _Reading, name: str, module: nn.Flatten) -> None:
    axes = len(reading.shape) + 1  # torch counts the batch axis, NIR does not
    start, end = module.start_dim % axes, module.end_dim % axes
    if not 1 <= start <= end:
        what = f"flattens axes {module.start_dim} to {module.end_dim}"
        raise _refuse("SNX210", name, what, "the batch axis must be left alone", "use nn.Flatten()")
    reading.add(name, nir.Flatten({"input": np.array(reading.shape)}, start_dim=start - 1, end_dim=end - 1))


def _read_leaky(reading: _Reading, name: str, module: Any) -> None:
    """A Leaky as a LIF, or an IF without leak.

    ``subtract`` becomes the canonical ``v -= theta s``. snnTorch 1.0.0 subtracts once more before the next comparison where a
    membrane is still above the threshold, so it fires differently after a membrane above twice the threshold.
    """
    problems = {
        "state_quant": bool(module.state_quant),
        "inhibition": bool(module.inhibition),
        "graded_spikes_factor": float(module.graded_spikes_factor) != 1.0,
        "a threshold per neuron": module.threshold.numel() != 1,
        "a beta per neuron": module.beta.numel() != 1,
    }
    wrong = [what for what, present in problems.items() if present]
    if wrong:
        raise _refuse(
            "SNX211",
            name,
            f"uses {', '.join(wrong)}",
            "there is no exact rule for it on the chip",
            "use one beta and one threshold per layer",
        )
    threshold = float(module.threshold)
    if not threshold > 0:
        raise _refuse("SNX211", name, f"has the threshold {threshold}", "a silent neuron would fire", "use a positive threshold")
    dv = _integer_decay(name, float(module.beta.clamp(0, 1)), reading.round_decays)
    reset = _RESETS[module.reset_mechanism]
    late = int(bool(module.reset_delay) and reset != "none")
    reading.neurons[name] = NeuronSpec(dv, reset=reset, reset_delay=late)
    size, rate = np.ones(reading.shape), 1.0 / reading.dt
    if dv == 0:
        reading.add(name, nir.IF(r=size * rate, v_threshold=size * threshold, v_reset=size * 0.0))
        return
    tau = tau_from_integer(dv, reading.dt)
    reading.add(
        name,
        nir.LIF(tau=size * tau, r=size * (DECAY_ONE / dv), v_leak=size * 0.0, v_threshold=size * threshold, v_reset=size * 0.0),
    )


def _read_integrator(reading: _Reading, name: str, module: Integrator) -> None:
    del module  # it has no parameters
    reading.neurons[name] = NeuronSpec(0, reset="none", spiking=False)
    reading.add(name, nir.I(r=np.full(reading.shape, 1.0 / reading.dt)))


def _skip(reading: _Reading, name: str, module: nn.Module) -> None:
    """Dropout and Identity do nothing at inference."""
    del reading, name, module


_READERS: tuple[tuple[type[nn.Module], Callable[[_Reading, str, Any], None]], ...] = (
    (nn.Conv2d, _read_conv),
    (nn.Linear, _read_linear),
    (nn.BatchNorm2d, _read_batch_norm),
    (nn.BatchNorm1d, _read_batch_norm),
    (nn.AvgPool2d, _read_pool),
    (nn.Flatten, _read_flatten),
    (snntorch.Leaky, _read_leaky),
    (Integrator, _read_integrator),
    (nn.Dropout, _skip),
    (nn.Dropout2d, _skip),
    (nn.Identity, _skip),
)


def _reader_of(name: str, module: nn.Module) -> Callable[[_Reading, str, Any], None]:
    for kind, reader in _READERS:
        if type(module) is kind:
            return reader
    known = ", ".join(kind.__name__ for kind, _ in _READERS)
    raise _refuse(
        "SNX210",
        name,
        f"is a {type(module).__name__}",
        f"the reader knows {known}",
        "build the network from these; in place of max pooling, use AvgPool2d or a stride",
    )


def _integer_decay(name: str, beta: float, round_decays: bool) -> int:
    dv = round((1.0 - beta) * DECAY_ONE)
    exact = np.float32(decay_from_integer(dv)) == np.float32(beta)
    if not 0 <= dv < DECAY_ONE or not (exact or round_decays):
        near = min(max(dv, 0), DECAY_ONE - 1)
        raise _refuse(
            "SNX241",
            name,
            f"has beta = {beta:.8g}, which is not 1 - n/4096",
            "Loihi holds decays in 1/4096; another beta is another network",
            f"train with beta = 1 - {near}/4096 = {decay_from_integer(near):.8g}, or accept the change with round_decays=True",
        )
    return dv


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().cpu().numpy(), np.float64)


def _bias(tensor: Tensor | None, size: int) -> NDArray[np.float64]:
    return np.zeros(size) if tensor is None else _array(tensor)


def _refuse(code: str, name: str, what: str, why: str, fix: str) -> UserError:
    return UserError(code, f"{name} {what}", where=name, why=why, fix=fix)
