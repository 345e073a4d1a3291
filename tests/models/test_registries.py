from __future__ import annotations

import pytest
import snntorch
import torch

from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
from snn_export.models.teachers.registry import build_teacher

SHAPE = {"input_shape": (1, 8, 8), "classes": 10}


def test_student_is_what_the_contract_will_say() -> None:
    student = build_student("convnet", dv=1365, threshold=1.5, steps=6, **SHAPE)
    names = ["conv1", "norm1", "lif1", "pool1", "conv2", "norm2", "lif2", "flatten", "dense", "readout"]
    assert [name for name, _ in student.layers.named_children()] == names
    for layer in (student.layers.lif1, student.layers.lif2):
        assert isinstance(layer, snntorch.Leaky)
        assert float(layer.beta) == 1 - 1365 / 4096  # exact: the integer is found again
        assert float(layer.threshold) == 1.5
        assert layer.reset_mechanism == "zero"
        assert layer.reset_delay is False
    assert student.layers.conv1.bias is None
    assert student.layers.conv2.bias is None
    assert student.layers.dense.bias is not None
    assert (student.encoder.kind, student.readout.node, student.readout.rule) == ("direct", "readout", "membrane_last")


def test_student_logits_are_the_last_membrane_over_t() -> None:
    student = build_student("convnet", steps=5, **SHAPE).eval()
    inputs = torch.rand(3, 1, 8, 8)
    membranes = student.membranes(inputs)
    assert membranes.shape == (5, 3, 10)
    torch.testing.assert_close(student(inputs), membranes[-1] / 5)


@pytest.mark.parametrize("build", [build_student, build_teacher])
def test_seed_decides_the_weights_and_leaves_the_global_state(build) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, same, other = (build("convnet", seed=seed, **SHAPE).layers.conv1.weight for seed in (4, 4, 5))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_teacher_maps_images_to_logits() -> None:
    assert build_teacher("convnet", width=4, **SHAPE)(torch.rand(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize("build", [build_student, build_teacher])
def test_unknown_name_suggests_the_closest(build) -> None:
    with pytest.raises(UserError, match="did you mean 'convnet'") as error:
        build("convent", **SHAPE)
    assert error.value.code == "SNX010"


@pytest.mark.parametrize(
    "wrong",
    [{"widht": 4}, {"width": 0}, {"width": 2.5}, {"classes": 0}, {"input_shape": (64,)}, {"input_shape": (1, 0, 8)}],
)
@pytest.mark.parametrize("build", [build_student, build_teacher])
def test_config_that_cannot_be_built(build, wrong) -> None:
    with pytest.raises(UserError) as error:
        build("convnet", **(SHAPE | wrong))
    assert error.value.code == "SNX012"


@pytest.mark.parametrize(
    ("wrong", "code"), [({"steps": 0}, "SNX012"), ({"input_shape": (1, 7, 8)}, "SNX012"), ({"dv": 4097}, "SNX301")]
)
def test_student_config_that_cannot_be_built(wrong, code) -> None:
    with pytest.raises(UserError) as error:
        build_student("convnet", **(SHAPE | wrong))
    assert error.value.code == code
