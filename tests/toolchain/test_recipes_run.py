"""Every recipe trains, in every mode it admits."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from snn_export.data.dataset import Samples
from snn_export.data.digits import load_digits
from snn_export.models.students.registry import build_student
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.teacher import Teacher
from snn_export.training.loop import TrainingResult, fit
from snn_export.training.recipe import ForwardMode
from snn_export.training.recipes.registry import RECIPES, load_recipe
from snn_export.training.settings import TrainingSettings

SETTINGS = TrainingSettings(epochs=2, batch_size=20, seed=1)
CASES = [
    (name, mode)
    for name in RECIPES
    for mode in ForwardMode
    if name != "teacher" and (name not in ("tser", "temporal_decoupling") if mode is ForwardMode.RATE else name != "dsr")
]


pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def digits() -> tuple[Samples, Samples]:
    found = load_digits(0)
    return Samples(found.train.x[:200], found.train.y[:200]), Samples(found.validation.x[:60], found.validation.y[:60])


@cache
def teacher() -> Teacher:
    """A teacher that has learnt something."""
    network = build_teacher("convnet", input_shape=(1, 8, 8), classes=10, width=12, seed=1)
    fit(network, *digits(), load_recipe("teacher"), TrainingSettings(epochs=6, batch_size=50))
    return network


def train(name: str, mode: ForwardMode) -> tuple[SpikingStudent, TrainingResult]:
    recipe = load_recipe(name).in_mode(mode)
    given = {field: value for field, value in recipe.student.items() if field not in ("steps", "threshold")}
    student = build_student("convnet", input_shape=(1, 8, 8), classes=10, width=6, steps=3, seed=2, **given)
    return student, fit(student, *digits(), recipe, SETTINGS, teacher=teacher() if recipe.needs_teacher else None)


@pytest.mark.parametrize(("name", "mode"), CASES, ids=str)
def test_a_recipe_learns(name: str, mode: ForwardMode) -> None:
    before = {key: value.clone() for key, value in teacher().state_dict().items()}
    student, result = train(name, mode)
    assert all(math.isfinite(record.loss) for record in result.history)
    assert result.history[-1].loss < result.history[0].loss
    assert result.history[-1].accuracy > 0.2
    assert all(parameter.isfinite().all() for parameter in student.parameters())
    assert all(torch.equal(before[key], value) for key, value in teacher().state_dict().items())


@pytest.mark.parametrize("name", ["ckdsnn", "bkdsnn"])
def test_random_draws_follow_the_seed(name: str) -> None:
    one, other = (train(name, ForwardMode.RATE)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_weights_of_the_teacher_are_a_better_start() -> None:
    _, taken = train("idsnn", ForwardMode.BPTT)
    _, fresh = train("plain_kd", ForwardMode.BPTT)
    assert taken.history[0].accuracy > fresh.history[0].accuracy
