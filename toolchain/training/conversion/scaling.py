"""The weights of a ReLU network in units of its thresholds: layer by layer into a spiking network of the same layers.

A population behind an activation with threshold theta_k fires with spikes of size 1 in place of theta_k, at a threshold of 1. So
weights between two activations are multiplied with theta_{k-1} / theta_k, and biases divided by theta_k:

    theta_k-sized membrane   u' = u + W (theta_{k-1} s) + b,   s' = u' > theta_k,   u' - theta_k s'
    divided by theta_k       w' = w + (W theta_{k-1} / theta_k) s + b / theta_k,    s' = w' > 1,  w' - s'

Equal in real arithmetic. Behind the last activation the unit is that of the logits. Rueckauer et al., Frontiers in Neuroscience
11:682, 2017, call it weight normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.qcfs_activation import QcfsActivation
from snn_export.models.teachers.teacher import Teacher
from snn_export.models.unroll import is_population, leaves

WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
ACTIVATIONS = (nn.ReLU, QcfsActivation)
POOLS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
SILENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
"""Layers that do nothing at inference."""


class LayerPair(NamedTuple):
    """A layer of the source, by name, and the student's in its place."""

    name: str
    source: nn.Module
    student: nn.Module


def source_layers(source: Teacher) -> list[tuple[str, nn.Module]]:
    """Layers with names ("block1.relu" inside an ``nn.Sequential`` "block1"), in order of flow, without those that do nothing."""
    return list(_leaves("", source.layers))


def _leaves(outer: str, layers: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in layers.named_children():
        full = f"{outer}.{name}" if outer else name
        if isinstance(layer, nn.Sequential):
            yield from _leaves(full, layer)
        elif not isinstance(layer, SILENT):
            yield full, layer


def activation_names(source: Teacher) -> tuple[str, ...]:
    """Names of the activations, in order of flow."""
    return tuple(name for name, layer in source_layers(source) if isinstance(layer, ACTIVATIONS))


def check_source(source: Teacher) -> None:
    """Raise SNX351 for every layer that has no counterpart among integrate-and-fire neurons, all of them in one error."""
    found = [_unconvertible(name, layer) for name, layer in source_layers(source) if not _convertible(layer)]
    found += _activations_without_weights(source)
    if found:
        raise UserError.from_diagnostics(tuple(found))


def _convertible(layer: nn.Module) -> bool:
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return layer.output_size in (1, (1, 1))
    return isinstance(layer, (*WEIGHTS, *NORMS, *ACTIVATIONS, nn.AvgPool2d, nn.Flatten))


def _unconvertible(name: str, layer: nn.Module) -> Diagnostic:
    kind = type(layer).__name__
    if "MaxPool" in kind:
        why = "the largest of several firing rates is no sum of spikes"
        fix = "train the source with average pooling, nn.AvgPool2d(2), or with a stride"
    elif any(True for _ in layer.children()):
        why = "thresholds differ from layer to layer, and a shortcut has no weights that could make up for it"
        fix = "convert a network that is one chain of layers, such as conv5"
    else:
        why = "a firing rate can stand for a ReLU, and a sum of spikes for weights, batch-norm and averages"
        fix = "build the source from Conv, Linear, BatchNorm, ReLU, AvgPool2d, AdaptiveAvgPool2d(1) and Flatten"
    return Diagnostic("SNX351", f"layer '{name}' is a {kind}, which cannot be converted", f"layers.{name}", why, fix)


def _activations_without_weights(source: Teacher) -> Iterator[Diagnostic]:
    weighted = False
    for name, layer in source_layers(source):
        if isinstance(layer, ACTIVATIONS):
            if not weighted:
                yield Diagnostic(
                    "SNX351", f"no weights stand in front of activation '{name}'", f"layers.{name}",
                    "weights carry the threshold from one activation to the next",
                    "put a convolution or a Linear between any two activations, and in front of the first",
                )  # fmt: skip
            weighted = False
        weighted = weighted or isinstance(layer, WEIGHTS)


def pair_layers(student: SpikingStudent, source: Teacher) -> list[LayerPair]:
    """The layers of both networks, matched in order; UserError SNX352 with all differences where they are not the same."""
    theirs = source_layers(source)
    mine = [(name, layer) for name, layer in leaves(student.layers) if not isinstance(layer, (*SILENT, Integrator))]
    differences = [] if len(theirs) == len(mine) else [f"{len(theirs)} layers against {len(mine)}"]
    sizes = _pooled_sizes(source)
    for (name, ours), (other, layer) in zip(theirs, mine, strict=False):
        if not _same(ours, layer, sizes.get(name)):
            differences.append(f"{name} is {_shown(ours)}, {other} {_shown(layer)}")
    if differences:
        raise UserError(
            "SNX352", f"the {source.config.name} teacher and student are not built alike", where="convert(source)",
            why="weights go from layer to layer: " + "; ".join(differences[:4]),
            fix="convert a teacher that build_teacher made, with its ReLUs in the places of the student's populations",
        )  # fmt: skip
    return [LayerPair(name, ours, layer) for (name, ours), (_, layer) in zip(theirs, mine, strict=True)]


def _shown(layer: nn.Module) -> str:
    return f"{type(layer).__name__}({layer.extra_repr()})"


def _same(source: nn.Module, student: nn.Module, pooled: tuple[int, ...] | None) -> bool:
    """Whether two layers compute the same, but for an activation and a population."""
    if isinstance(source, ACTIVATIONS):
        return is_population(student)
    if isinstance(source, nn.AdaptiveAvgPool2d) and isinstance(student, nn.AvgPool2d):
        sizes = (student.kernel_size, student.kernel_size) if isinstance(student.kernel_size, int) else student.kernel_size
        return tuple(sizes) == pooled and student.padding in (0, (0, 0))
    return type(source) is type(student) and source.extra_repr() == student.extra_repr()


def _pooled_sizes(source: Teacher) -> dict[str, tuple[int, ...]]:
    """(rows, columns) of what every pool is given."""
    pools = {name: layer for name, layer in source_layers(source) if isinstance(layer, POOLS)}
    found: dict[str, tuple[int, ...]] = {}

    def listening(name: str) -> RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[name] = tuple(inputs[0].shape[-2:])

        return pools[name].register_forward_pre_hook(hook)

    handles = [listening(name) for name in pools]
    try:
        source(next(source.parameters()).new_zeros((1, *source.input_shape)))
    finally:
        for handle in handles:
            handle.remove()
    return found


def load_scaled(student: SpikingStudent, source: Teacher, thresholds: Mapping[str, float]) -> None:
    """Copy the source's weights into the student, in units of the thresholds, computed in float64.

    Raises:
        UserError: SNX352 where the layers do not match, SNX353 for a threshold that is not positive and finite.
    """
    pairs = pair_layers(student, source)
    names = [pair.name for pair in pairs if isinstance(pair.source, ACTIVATIONS)]
    _check_thresholds({name: thresholds[name] for name in names})
    ahead = iter([*(thresholds[name] for name in names), 1.0])
    behind, unit = 1.0, next(ahead)
    for pair in pairs:
        if isinstance(pair.source, ACTIVATIONS):
            behind, unit = unit, next(ahead)
        elif isinstance(pair.source, (*WEIGHTS, *NORMS)):
            _copy_scaled(pair.student, pair.source, behind, unit)
            behind = unit


def _copy_scaled(student: nn.Module, source: nn.Module, unit_in: float, unit_out: float) -> None:
    """Parameters of a layer whose inputs come in ``unit_in`` and whose outputs leave in ``unit_out``."""
    factors = {"weight": unit_in / unit_out, "bias": 1 / unit_out, "running_mean": 1 / unit_in}
    student.load_state_dict(
        {name: (value.cpu().double() * factors.get(name, 1.0)).to(value.dtype) for name, value in source.state_dict().items()}
    )


def _check_thresholds(thresholds: Mapping[str, float]) -> None:
    found = tuple(
        Diagnostic(
            "SNX353", f"the threshold of activation '{name}' is {value:g}", f"layers.{name}",
            "a threshold is the activation that a neuron fires at in every step: positive and finite",
            "give calibration inputs that the layer answers to; where none does, train the source again at a lower learning rate",
        )
        for name, value in thresholds.items()
        if not 0 < value < float("inf")
    )  # fmt: skip
    if found:
        raise UserError.from_diagnostics(found)
