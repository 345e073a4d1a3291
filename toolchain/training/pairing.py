"""Student and teacher side by side: which stage of the one is compared with which of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.teacher import TeacherNetwork
from snn_export.training.evaluating import evaluating

Shape = tuple[int, ...]


@dataclass(frozen=True)
class StagePair:
    """A stage of the student and its counterpart: layer names, and the shapes of one sample there, e.g. (64, 8, 8)."""

    student: str
    shape: Shape
    teacher: str | None = None
    teacher_shape: Shape | None = None

    def describe(self) -> str:
        """In words, e.g. ``lif2 (32, 4, 4) <- relu2 (64, 4, 4)``."""
        mine = f"{self.student} {self.shape}"
        return f"{mine} <- {self.teacher} {self.teacher_shape}" if self.teacher else mine


@dataclass(frozen=True)
class Pairing:
    """The networks of a run. ``stages`` in order of flow, the last one in front of the classifier; empty for no student."""

    student: nn.Module
    teacher: TeacherNetwork | None
    stages: tuple[StagePair, ...]
    classes: int
    steps: int

    def describe(self) -> tuple[str, ...]:
        """One line per stage."""
        return tuple(stage.describe() for stage in self.stages)

    def teacher_network(self) -> TeacherNetwork:
        """The teacher; UserError SNX311 without one."""
        if self.teacher is None:
            raise UserError(
                "SNX311", "a loss term builds on a teacher, and there is none", where="recipe",
                why="it runs the student's features through the teacher's layers", fix="train a teacher first",
            )  # fmt: skip
        return self.teacher


def pair(
    student: nn.Module,
    teacher: nn.Module | None,
    sample: torch.Tensor,
    *,
    classes: int,
    taps: Sequence[str] = (),
    teacher_taps: Sequence[str] = (),
) -> Pairing:
    """Match the stages of two networks.

    As many stages on both sides are matched in order. Otherwise each stage of the student takes the last stage of the teacher
    with maps of its size; where there is none, stages are counted from the classifier, and the student's earliest are left out.

    Args:
        student: a :class:`SpikingStudent`; any other module has no stages.
        teacher: a :class:`TeacherNetwork`; any other module has logits alone.
        sample: one input as a batch of one, (1, *shape), to measure shapes with.
        classes: K.
        taps: names to use in place of the student's own ``stages``.
        teacher_taps: names to use in place of the teacher's, as many, matched in order.

    Raises:
        UserError: SNX016 for a name that is not there, SNX342 for two lists of names of different lengths.
    """
    if not isinstance(student, SpikingStudent):
        return Pairing(student, teacher if isinstance(teacher, TeacherNetwork) else None, (), classes, 1)
    for names in (taps, teacher_taps):
        if len(set(names)) < len(names):
            raise UserError(
                "SNX342", f"a layer is named twice among the taps {', '.join(names)}", where="taps",
                why="every stage of the one network is compared with one of the other", fix="name each layer once",
            )  # fmt: skip
    mine = _shapes_of_student(student, sample, tuple(taps) or student.stages)
    steps = student.config.steps if student.encoder.kind == "direct" else sample.shape[1]
    if teacher is None or not isinstance(teacher, TeacherNetwork):
        return Pairing(student, None, tuple(StagePair(*item) for item in mine.items()), classes, steps)
    theirs = _shapes_of_teacher(teacher, sample, tuple(teacher_taps) or teacher.stages)
    if (taps or teacher_taps) and len(mine) != len(theirs):
        raise UserError(
            "SNX342", f"{len(mine)} taps of the student meet {len(theirs)} of the teacher", where="taps",
            why=f"named taps are matched in order: {', '.join(mine)} and {', '.join(theirs)}",
            fix="name as many layers of the one as of the other",
        )  # fmt: skip
    return Pairing(student, teacher, _matched(mine, theirs), classes, steps)


def _matched(mine: dict[str, Shape], theirs: dict[str, Shape]) -> tuple[StagePair, ...]:
    if len(mine) == len(theirs):
        return tuple(StagePair(*left, *right) for left, right in zip(mine.items(), theirs.items(), strict=True))
    by_size = [
        (left, [right for right in theirs.items() if right[1][1:] == left[1][1:] and len(right[1]) == len(left[1])])
        for left in mine.items()
    ]
    found = [StagePair(*left, *candidates[-1]) for left, candidates in by_size if candidates]
    used = {stage.teacher for stage in found}
    if len(found) == len(mine) and len(used) == len(found):
        return tuple(found)
    count = min(len(mine), len(theirs))
    if not count:  # a teacher without stages has logits to teach; terms that compare stages refuse it themselves
        return tuple(StagePair(*left) for left in mine.items())
    return tuple(
        StagePair(*left, *right) for left, right in zip([*mine.items()][-count:], [*theirs.items()][-count:], strict=True)
    )


def _shapes_of_student(student: SpikingStudent, sample: torch.Tensor, names: Sequence[str]) -> dict[str, Shape]:
    found: dict[str, Shape] = {}

    def listen(name: str, spikes: torch.Tensor) -> None:
        found[name] = tuple(spikes.shape[2:])

    with torch.no_grad(), evaluating(student):
        student.membranes(sample, listen=listen)
    for name in names:
        if name not in found:
            raise UserError(
                "SNX016", f"the student has no population called '{name}'", where="taps",
                why=f"its populations are {', '.join(found)}", fix=suggestion(name, found),
            )  # fmt: skip
    return {name: found[name] for name in names}


def _shapes_of_teacher(teacher: TeacherNetwork, sample: torch.Tensor, names: Sequence[str]) -> dict[str, Shape]:
    with torch.no_grad(), evaluating(cast(nn.Module, teacher)):
        _, taps = teacher.features(sample, names)
    return {name: tuple(taps[name].shape[1:]) for name in names}
