"""Residual students: currents meet in front of a neuron; spikes that meet behind it are found, told and exported exactly."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import snn_export
from snn_export.export.passes.quantize import Quantize
from snn_export.export.passes.rounding import InputRange
from snn_export.export.snntorch_reader import deployment_from_snntorch
from snn_export.library import prepared as prepare
from snn_export.models.residual import ResidualSum
from snn_export.models.students.registry import build_student
from snn_export.models.students.resnet import expensive_on_loihi
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.registry import build_teacher
from snn_export.training.pairing import pair
from tests.networks import finest
from tests.students import lively, without_gradient

torch.set_num_threads(1)

SHAPE, STEPS = (3, 8, 8), 4
NAMES = ("resnet18", "resnet19")


def residual(name: str, kind: str, **changes: Any) -> SpikingStudent:
    settings: dict[str, Any] = {"input_shape": SHAPE, "classes": 3, "width": 2, "steps": STEPS, "residual": kind}
    return build_student(name, **(settings | changes))


def images(shape: tuple[int, ...] = SHAPE) -> Tensor:
    return 2 * torch.rand(6, *shape, generator=torch.Generator().manual_seed(1))


def fed(student: SpikingStudent, name: str) -> Tensor:
    """What the layer ``name`` takes in while the student runs."""
    taken: list[Tensor] = []
    handle = student.layers.get_submodule(name).register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    with torch.no_grad():
        student(images())
    handle.remove()
    return torch.cat(taken)


@pytest.mark.parametrize("name", NAMES)
def test_added_currents_leave_plain_spikes_and_added_spikes_are_graded(name: str) -> None:
    first_of_stage2 = "stage2.block1.sum.main.conv1"
    assert build_student(name, input_shape=SHAPE, classes=3).config.residual == "currents"
    assert set(fed(lively(residual(name, "currents"), images()), first_of_stage2).unique().tolist()) == {0.0, 1.0}
    graded = fed(lively(residual(name, "spikes"), images()), first_of_stage2).unique().tolist()
    assert max(graded) >= 2 and all(value == round(value) for value in graded)


@pytest.mark.parametrize("kind", ["currents", "spikes"])
@pytest.mark.parametrize("name", NAMES)
def test_stages_are_the_last_populations_of_each_resolution(name: str, kind: str) -> None:
    student, teacher = residual(name, kind), build_teacher(name, input_shape=SHAPE, classes=3, width=2)
    found = pair(student, teacher, images()[:1], classes=3)
    assert [(stage.student, stage.teacher, stage.shape) for stage in found.stages] == [
        (tap, f"stage{number}", stage.teacher_shape)
        for number, (tap, stage) in enumerate(zip(student.stages, found.stages, strict=True), 1)
    ]
    assert all(
        tap.endswith("block2.lif2" if kind == "currents" else "sum.main.lif2") or "block3" in tap for tap in student.stages
    )


@pytest.mark.parametrize("name", NAMES)
def test_added_spikes_learn_through_time_and_by_rates(name: str) -> None:
    student = residual(name, "spikes").train()
    for forward in (student.through_time, student.by_rates):
        student.zero_grad()
        outputs = forward(images(), student.stages)
        (outputs.logits**2).sum().backward()
        assert without_gradient(student) == []
        assert set(outputs.taps) == set(student.stages)
    lively(student, images())
    torch.testing.assert_close(student.by_rates(images()).logits, student(images()))


@pytest.mark.parametrize("name", NAMES)
def test_only_added_spikes_are_told_to_be_expensive(name: str) -> None:
    assert expensive_on_loihi(residual(name, "currents")) == ()
    (found,) = expensive_on_loihi(residual(name, "spikes"))
    assert (found.code, found.severity) == ("SNX283", "warning")
    assert found.where == "stage2.block1.sum.main.conv1"
    assert expensive_on_loihi(build_student("vgg9", input_shape=SHAPE, classes=3)) == ()


@pytest.mark.parametrize("name", NAMES)
def test_added_spikes_are_exported_as_the_copies_that_the_warning_counts(name: str) -> None:
    student = lively(residual(name, "spikes"), images())
    read = deployment_from_snntorch(student.layers, SHAPE, STEPS)
    prepared = prepare(read, images().numpy())  # exact, or an error
    assert snn_export.check(prepared, "loihi1") == [item for item in snn_export.check(read, "loihi1") if item.code == "SNX247"]
    (found,) = expensive_on_loihi(student)
    pooled = (8 >> len(student.stages) - 1) ** 2  # the average over space becomes columns of the matrix behind it
    behind_pool = "dense1" if name == "resnet19" else "dense"
    weights = sum(
        node.weight.size // (pooled if key.startswith(behind_pool) else 1)
        for key, node in prepared.graph.nodes.items()
        if isinstance(node, nir.Conv2d | nir.Affine)
    )
    assert f"{weights} weights in place of" in found.why
    assert weights > 1.3 * sum(parameter.numel() for parameter in student.parameters() if parameter.ndim > 1)


@pytest.mark.parametrize(("name", "kind"), [("resnet18", "currents"), ("resnet18", "spikes")])
def test_residual_students_on_integers(name: str, kind: str) -> None:
    student = lively(residual(name, kind), images())
    inputs = images().numpy()
    prepared = prepare(deployment_from_snntorch(student.layers, SHAPE, STEPS), inputs)
    quantised = Quantize("loihi2", finest, InputRange(0.0, 2.0))(prepared)
    what = ("spikes", "membrane", "current")
    loihi, modules = (snn_export.simulate(quantised, inputs, backend, what) for backend in ("loihi", "quantised_student"))
    for layer, found in loihi.layers.items():
        for values in what:
            np.testing.assert_array_equal(getattr(found, values), getattr(modules.layers[layer], values))
    assert sum(found.overflows or 0 for found in loihi.layers.values()) == 0


@pytest.mark.parametrize("kind", ["currents", "spikes"])
def test_large_images_are_brought_to_a_quarter_by_an_average_pool(kind: str) -> None:
    shape = (2, 72, 68)
    student = residual("resnet18", kind, input_shape=shape, width=1)
    teacher = build_teacher("resnet18", input_shape=shape, classes=3, width=1).eval()
    for stem in (student.layers.stem, teacher.layers.stem):
        assert (stem.conv.kernel_size, stem.conv.stride) == ((7, 7), (2, 2))
        assert isinstance(stem.pool, nn.AvgPool2d)
    found = pair(student, teacher, images(shape)[:1], classes=3)
    assert [stage.shape for stage in found.stages] == [stage.teacher_shape for stage in found.stages]
    assert found.stages[0].shape == (1, 18, 17)
    lively(student, images(shape))
    read = deployment_from_snntorch(student.layers, shape, STEPS)
    prepared = prepare(read, images(shape).numpy())
    assert not any(isinstance(node, nir.AvgPool2d) for node in prepared.graph.nodes.values())
    assert {type(node) for key, node in prepared.graph.nodes.items() if key.startswith("stem")} <= {nir.Conv2d, nir.LIF}


def test_small_images_keep_their_size_in_the_stem() -> None:
    for model in (residual("resnet18", "currents"), build_teacher("resnet18", input_shape=SHAPE, classes=3)):
        assert [name for name, _ in model.layers.stem.named_children()][:2] == ["conv", "norm"]
        assert (model.layers.stem.conv.kernel_size, model.layers.stem.conv.stride) == ((3, 3), (1, 1))
    # also images with odd sides, which strides bring to 28, 14, 7, 4
    assert residual("resnet18", "currents", input_shape=(1, 28, 28))(torch.rand(2, 1, 28, 28)).shape == (2, 3)
    assert not hasattr(residual("resnet19", "currents", input_shape=(3, 96, 96)).layers.stem, "pool")


def test_gains_of_batch_norms_start_as_published() -> None:
    threshold = 1.5
    for name, gain in (("resnet18", 1.0), ("resnet19", threshold)):
        for kind in ("currents", "spikes"):
            student = residual(name, kind, threshold=threshold)
            last = gain / 2**0.5 if name == "resnet19" and kind == "currents" else gain
            for key, module in student.layers.named_modules():
                if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                    summed = key.endswith(("main.norm2", "shortcut.norm"))
                    assert module.weight.tolist() == pytest.approx([last if summed else gain] * len(module.weight)), key


def test_shortcuts_hold_a_convolution_only_where_the_shape_changes() -> None:
    student = residual("resnet18", "currents")
    sums = {name: module for name, module in student.layers.named_modules() if isinstance(module, ResidualSum)}
    projected = {name for name, module in sums.items() if isinstance(module.shortcut, nn.Sequential)}
    assert len(sums) == 8
    assert projected == {f"stage{number}.block1.sum" for number in (2, 3, 4)}
    assert (
        sum(
            isinstance(m.shortcut, nn.Sequential)
            for m in residual("resnet19", "currents").modules()
            if isinstance(m, ResidualSum)
        )
        == 3
    )
