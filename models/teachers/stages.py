"""Where a teacher may be tapped: stages that are found, layers that are named.

A stage ends with the last activation at a resolution. Its output is what recipes compare, scale or run on through the rest of the
teacher; for the last a tap must be a cut: nothing that the rest needs leads around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.graph_teacher import GraphTeacher, Step
from snn_export.models.teachers.teacher import TeacherNetwork
from snn_export.models.teachers.torch_operations import ACTIVATIONS, operation_of


class Tap(NamedTuple):
    """A layer of a teacher as a recipe sees it.

    Attributes:
        name: to write into a recipe.
        operation: what the layer computes.
        shape: of its output for one sample.
        is_stage: whether it is one of the teacher's stages.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    is_stage: bool


def with_found_stages(teacher: GraphTeacher) -> GraphTeacher:
    """``teacher``, with the stages that were found in it."""
    teacher.stages = found_stages(teacher)
    return teacher


def found_stages(teacher: GraphTeacher) -> tuple[str, ...]:
    """Names of the layers that end a stage, in order of flow; the last lies in front of the classifier head.

    Per spatial resolution the last activation at which the network can be cut: in a residual network the one behind the sum.
    Where a network of images has no activations, the last layer of any kind. A resolution of one place counts only where there is
    no other, since behind a global pool the head begins. In a dense network every hidden activation is a stage. Empty where
    nothing can be cut, such as in one single layer.
    """
    cuts = [step for step in teacher.cuts()[:-1] if step.shape]
    spatial = [step for step in cuts if len(step.shape or ()) > 1]
    wide = [step for step in spatial if math.prod((step.shape or ())[1:]) > 1]
    for candidates in (wide, spatial):
        if candidates:
            activations = [step for step in candidates if step.operation in ACTIVATIONS]
            return _last_per_resolution(activations or candidates)
    return tuple(step.name for step in cuts if step.operation in ACTIVATIONS)


def _last_per_resolution(steps: Sequence[Step]) -> tuple[str, ...]:
    last: dict[tuple[int, ...], Step] = {}
    for step in steps:
        resolution = (step.shape or ())[1:]
        last.pop(resolution, None)  # so that the order is that of the last steps
        last[resolution] = step
    return tuple(step.name for step in last.values())


def checked_taps(teacher: TeacherNetwork, taps: Sequence[str] = ()) -> tuple[str, ...]:
    """The layers that a recipe taps: those it names, in the order of its own, or all stages where it names none.

    Raises:
        UserError: SNX016 for a layer that does not exist, with the closest name; SNX275 for one that is no cut; SNX276 where none
            is named and none was found; SNX274 where the network could not be taken apart.
    """
    if not taps and not teacher.stages:
        raise UserError(
            "SNX276", "no stage was found in the teacher", where="teacher",
            why=getattr(teacher, "untraceable", None) or "no hidden layer alone decides the logits",
            fix="choose a recipe that compares logits only, or a teacher with hidden layers",
        )  # fmt: skip
    if isinstance(teacher, GraphTeacher):
        for tap in taps:
            teacher.cut(tap)
    else:
        _shapes(teacher, taps)
    return tuple(taps) or teacher.stages


def describe_taps(teacher: TeacherNetwork) -> list[Tap]:
    """Every layer of ``teacher`` that a recipe could name, in order of flow, with what it puts out; to be shown to a user.

    A teacher whose layers are not known (an object of the user's own) shows its stages.
    """
    if isinstance(teacher, GraphTeacher):
        return [
            Tap(step.name, step.operation, step.shape, step.name in teacher.stages)
            for step in teacher.steps
            if step.shape is not None and teacher.untraceable is None
        ]
    layers = getattr(teacher, "layers", None)
    named = dict(layers.named_children()) if isinstance(layers, nn.Sequential) else dict.fromkeys(teacher.stages)
    shapes = _shapes(teacher, tuple(named))
    return [
        Tap(name, "stage" if layer is None else operation_of(layer), shapes[name], name in teacher.stages)
        for name, layer in named.items()
    ]


def _shapes(teacher: TeacherNetwork, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs of layers, from a run with one sample that leaves no trace in the teacher."""
    if not isinstance(teacher, nn.Module):
        raise TypeError(f"a teacher is a torch module, not {type(teacher).__name__}")
    first = next(teacher.parameters(), torch.empty(0))
    trained = [module for module in teacher.modules() if module.training]
    teacher.eval()  # a norm in training would take the zeros for data
    try:
        with torch.no_grad():
            _, found = teacher.features(torch.zeros((1, *teacher.input_shape), device=first.device), names)
    finally:
        for module in trained:
            module.training = True
    return {name: tuple(output.shape[1:]) for name, output in found.items()}
