"""Initial weights of a student, taken from a deeper and wider teacher by even sampling of its layers and channels.

The i-th of n weighted layers of the student takes the round(i (m - 1) / (n - 1))-th of the teacher's m, counted among layers of
the same kind: convolutions of one kernel size, or linear ones. Of C channels c are taken, those at floor(j C / c). Which ones
depends on the two numbers alone, so that a layer's inputs are the channels that the layer before it kept. Batch-norm goes with
the layer in front of it, with its running statistics. The classifier is sampled from the teacher's classifier.

After Fan et al., IDSNN: towards high-performance and low-latency SNN training via initialization and distillation, Biomimetics
8(4), 375, 2023, which initialises by down-sampling a deeper network's weights. The rule of selection is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.recurrent import Recurrent
from snn_export.training.pairing import Pairing

Weighted = nn.Conv1d | nn.Conv2d | nn.Linear
Norm = nn.BatchNorm1d | nn.BatchNorm2d


@dataclass(frozen=True)
class WeightedLayer:
    """A convolution or linear layer, what it is called, the batch-norm behind it, and the channels of the layer before it."""

    name: str
    layer: Weighted
    norm: Norm | None = None
    channels_before: int = 0

    @property
    def kind(self) -> tuple[object, ...]:
        """What a counterpart has to share: convolution and kernel, or linear."""
        layer = self.layer
        return ("linear",) if isinstance(layer, nn.Linear) else ("convolution", *layer.kernel_size, layer.groups > 1)


def even_selection(available: int, wanted: int) -> Tensor:
    """Numbers of ``wanted`` of ``available`` channels, evenly spread from the first on: floor(j available / wanted)."""
    return torch.arange(wanted) * available // wanted


def even_layers(available: int, wanted: int) -> list[int]:
    """Numbers of ``wanted`` of ``available`` layers in order, the first and the last among them; the first of all for one."""
    return [round(index * (available - 1) / max(wanted - 1, 1)) for index in range(wanted)]


def weighted_layers(network: nn.Module) -> list[WeightedLayer]:
    """Convolutions and linear layers in the order they were built in, each with the batch-norm that follows it."""
    found: list[WeightedLayer] = []
    for name, layer in network.named_modules():
        if isinstance(layer, Weighted):
            found.append(WeightedLayer(name, layer, None, _width(found[-1].layer) if found else 0))
        elif isinstance(layer, Norm) and found and found[-1].norm is None and layer.num_features == _width(found[-1].layer):
            found[-1] = replace(found[-1], norm=layer)
    return found


@torch.no_grad()
def take_weights(pairing: Pairing) -> None:
    """Initialise the student's weights from the teacher's, in place: the ``prepare`` hook of a recipe.

    A bias or batch-norm that only one of the networks has is left as it was. Where a linear layer follows maps of another size
    than the teacher's, the sum of a channel's weights is spread evenly over its positions: exact for maps without contrast.

    Raises:
        UserError: SNX311 without a teacher, SNX342 where the teacher has fewer layers or channels than the student, or the
            student has loops.
    """
    teacher = pairing.teacher_network()
    loops = [name for name, layer in pairing.student.named_modules() if isinstance(layer, Recurrent)]
    if loops:
        raise _unfit(f"{loops[0]} of the student is recurrent, and a loop's weights have no counterpart")
    mine = weighted_layers(pairing.student)
    theirs = weighted_layers(teacher) if isinstance(teacher, nn.Module) else []
    for target, source in _matched(mine, theirs):
        _copy(target, source)


def _matched(mine: list[WeightedLayer], theirs: list[WeightedLayer]) -> Iterator[tuple[WeightedLayer, WeightedLayer]]:
    if not mine or not theirs or mine[-1].kind != theirs[-1].kind:
        raise _unfit("their classifiers are layers of different kinds, or one of them has no weighted layer")
    if _width(mine[-1].layer) != _width(theirs[-1].layer):
        raise _unfit(f"it tells {_width(mine[-1].layer)} classes apart, the teacher {_width(theirs[-1].layer)}")
    yield mine[-1], theirs[-1]
    for kind in dict.fromkeys(layer.kind for layer in mine[:-1]):
        targets = [layer for layer in mine[:-1] if layer.kind == kind]
        sources = [layer for layer in theirs[:-1] if layer.kind == kind]
        if len(sources) < len(targets):
            words = " ".join(str(part) for part in kind[:3])
            raise _unfit(f"the student has {len(targets)} layers of kind {words}, the teacher {len(sources)}")
        for target, number in zip(targets, even_layers(len(sources), len(targets)), strict=True):
            yield target, sources[number]


def _copy(target: WeightedLayer, source: WeightedLayer) -> None:
    outputs = _chosen(source, _width(source.layer), _width(target.layer), target)
    weight = source.layer.weight[outputs]
    target.layer.weight.copy_(_inputs_of(weight, target, source))
    if target.layer.bias is not None and source.layer.bias is not None:
        target.layer.bias.copy_(source.layer.bias[outputs])
    if target.norm is None or source.norm is None:
        return
    for name in ("weight", "bias", "running_mean", "running_var"):
        value, wanted = getattr(source.norm, name), getattr(target.norm, name)
        if value is not None and wanted is not None:
            wanted.copy_(value[outputs])


def _inputs_of(weight: Tensor, target: WeightedLayer, source: WeightedLayer) -> Tensor:
    """Columns of ``weight`` (D, inputs, ...) for the channels that the layer before ``target`` kept."""
    wanted, available = target.layer.weight.shape[1], weight.shape[1]
    before, before_source = target.channels_before, source.channels_before
    flat = isinstance(target.layer, nn.Linear) and before and before_source
    if not flat or wanted % before or available % before_source:
        return weight[:, _chosen(source, available, wanted, target)]
    # The inputs of a linear layer behind a flattened map are channels times positions.
    positions, positions_source = wanted // before, available // before_source
    by_channel = weight.reshape(len(weight), before_source, positions_source)
    kept: Tensor = by_channel[:, _chosen(source, before_source, before, target)]
    if positions != positions_source:
        kept = kept.sum(dim=2, keepdim=True).expand(-1, -1, positions) / positions
    return kept.flatten(1)


def _chosen(source: WeightedLayer, available: int, wanted: int, target: WeightedLayer) -> Tensor:
    if available < wanted:
        raise _unfit(f"layer {target.name} of the student has {wanted} channels, layer {source.name} of the teacher {available}")
    return even_selection(available, wanted)


def _width(layer: Weighted) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _unfit(what: str) -> UserError:
    return UserError(
        "SNX342", f"the student's weights cannot be taken from this teacher: {what}", where="recipe, prepare",
        why="layers and channels of the teacher are sampled down to those of the student",
        fix="use a teacher of the student's kind that is at least as deep and wide, or a recipe that leaves the weights alone",
    )  # fmt: skip
