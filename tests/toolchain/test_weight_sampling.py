"""Weights of a student sampled from a teacher."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.teacher import Teacher, TeacherConfig
from snn_export.training.pairing import Pairing
from snn_export.training.weight_sampling import even_layers, even_selection, take_weights, weighted_layers

SHAPE = {"input_shape": (1, 8, 8), "classes": 3}


def take(student: nn.Module, teacher: Teacher) -> None:
    take_weights(Pairing(student, teacher, (), 3, 2))


def with_statistics(teacher: Teacher) -> Teacher:
    """Running statistics of its own, so that they can be told from fresh ones."""
    teacher.train()
    with torch.no_grad():
        teacher(torch.rand(16, 1, 8, 8))
    return teacher.eval()


def test_even_selections() -> None:
    assert even_selection(4, 4).tolist() == [0, 1, 2, 3]
    assert even_selection(8, 4).tolist() == [0, 2, 4, 6]
    assert even_selection(5, 3).tolist() == [0, 1, 3]
    assert even_layers(5, 5) == [0, 1, 2, 3, 4]
    assert even_layers(5, 3) == [0, 2, 4]
    assert even_layers(4, 1) == [0]


def test_a_student_of_the_teachers_size_takes_all_of_it() -> None:
    student = build_student("convnet", width=4, steps=2, **SHAPE)
    teacher = with_statistics(build_teacher("convnet", width=4, seed=1, **SHAPE))
    take(student, teacher)
    mine, theirs = student.layers.state_dict(), teacher.layers.state_dict()
    shared = [name for name in theirs if "num_batches" not in name]
    assert len(shared) == 12
    assert all(torch.equal(mine[name], theirs[name]) for name in shared)


def test_a_narrower_student_takes_every_other_channel_on_both_sides() -> None:
    student = build_student("convnet", width=2, steps=2, **SHAPE)
    teacher = with_statistics(build_teacher("convnet", width=4, seed=1, **SHAPE))
    take(student, teacher)
    mine, theirs = student.layers, teacher.layers
    assert torch.equal(mine.conv1.weight, theirs.conv1.weight[::2])
    assert torch.equal(mine.conv2.weight, theirs.conv2.weight[::2, ::2])
    assert torch.equal(mine.norm2.running_var, theirs.norm2.running_var[::2])
    by_channel = theirs.dense.weight.unflatten(1, (8, 16))
    assert torch.equal(mine.dense.weight, by_channel[:, ::2].flatten(1))
    assert torch.equal(mine.dense.bias, theirs.dense.bias)


def test_layers_of_a_deeper_teacher_are_spread_over_the_student() -> None:
    student = build_student("convnet", width=2, steps=2, **SHAPE)
    teacher = with_statistics(build_teacher("conv5", width=4, seed=1, **SHAPE))
    take(student, teacher)
    mine, theirs = student.layers, teacher.layers
    assert torch.equal(mine.conv1.weight, theirs.conv1.weight[::2])
    # The last of five; of its 16 channels 4, of its 8 inputs the 2 that conv1 kept of its own number.
    assert torch.equal(mine.conv2.weight, theirs.conv5.weight[::4, ::4])
    # The teacher's head sits on averages, the student's on 4 x 4 places: each gets a sixteenth.
    expected = (theirs.dense.weight[:, ::4] / 16).repeat_interleave(16, dim=1)
    torch.testing.assert_close(mine.dense.weight, expected)


def test_a_head_on_averages_takes_the_sum_over_places() -> None:
    student = build_student("conv5", width=2, steps=2, **SHAPE)
    layers = OrderedDict(
        (name, layer)
        for name, layer in build_teacher("conv5", width=2, seed=1, **SHAPE).layers.named_children()
        if name != "pool"
    )
    layers["dense"] = nn.Linear(8 * 4, 3)
    take(student, Teacher(TeacherConfig("flat", (1, 8, 8), 3), nn.Sequential(layers)))
    torch.testing.assert_close(student.layers.dense.weight, layers["dense"].weight.unflatten(1, (8, 4)).sum(dim=2))


def test_batch_norm_belongs_to_the_layer_in_front_of_it() -> None:
    found = weighted_layers(build_teacher("conv5", width=2, **SHAPE).layers)
    assert [layer.name for layer in found] == ["conv1", "conv2", "conv3", "conv4", "conv5", "dense"]
    assert [layer.norm is not None for layer in found] == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ({"name": "convnet", "width": 3}, "channels"), ({"name": "convnet", "width": 8, "classes": 4}, "classes"),
        ({"name": "conv5", "width": 2}, "channels"),
    ],
)  # fmt: skip
def test_a_teacher_that_is_too_small_is_refused(teacher: dict[str, object], words: str) -> None:
    student = build_student("convnet", width=4, steps=2, **SHAPE)
    with pytest.raises(UserError, match=words) as error:
        take(student, build_teacher(**{**SHAPE, **teacher}))  # type: ignore[arg-type]
    assert error.value.code == "SNX342"


def test_a_teacher_that_is_too_shallow_is_refused() -> None:
    with pytest.raises(UserError, match="5 layers of kind convolution 3 3, the teacher 2") as error:
        take(build_student("conv5", width=2, steps=2, **SHAPE), build_teacher("convnet", width=8, **SHAPE))
    assert error.value.code == "SNX342"


def test_a_recurrent_student_is_refused() -> None:
    student = build_student("recurrent", input_shape=(6,), encoder="events", classes=3, width=4)
    with pytest.raises(UserError, match="recurrent1 of the student is recurrent") as error:
        take(student, build_teacher("dense", input_shape=(6,), classes=3, width=8))
    assert error.value.code == "SNX342"
