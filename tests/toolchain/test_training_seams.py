"""What others hook into training: tasks, networks trained jointly, code of their own; and what must not pass silently there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snn_export.data.dataset import Samples
from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
from snn_export.training.code_digest import code_beside
from snn_export.training.loop import Progress, TrainingResult, fit
from snn_export.training.outputs import BatchOutputs
from snn_export.training.pairing import Pairing
from snn_export.training.progress import describe
from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.settings import TrainingSettings
from snn_export.training.task import Regression
from snn_export.training.term import LossTerm, Needs
from snn_export.training.terms.logits import CrossEntropy
from tests.bars import SHAPE, TRAIN, VALIDATION

SETTINGS = TrainingSettings(epochs=3, batch_size=16, seed=3, augmentation=())

pytestmark = pytest.mark.usefixtures("one_thread")


def train(recipe: Recipe, folder: Path | None = None, settings: TrainingSettings = SETTINGS) -> tuple[nn.Module, TrainingResult]:
    student = build_student("convnet", steps=3, seed=2, **SHAPE)
    return student, fit(student, TRAIN, VALIDATION, recipe, settings, checkpoint_dir=folder)


# --- regression --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SquaredError(LossTerm):
    """One output, one target per sample."""

    name: ClassVar[str] = "squared_error"

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        return (outputs.logits[:, 0] - outputs.labels).square().mean()


def test_one_target_per_sample_is_compared_with_its_own_output() -> None:
    outputs = torch.arange(4.0)[:, None]
    assert Regression().loss(outputs, torch.arange(4.0)) == 0
    assert Regression().loss(outputs, torch.arange(4.0) + 2) == 4
    with pytest.raises(UserError) as caught:
        Regression().loss(outputs.repeat(1, 2), torch.arange(4.0))
    assert caught.value.code == "SNX332"


def test_the_best_epoch_of_a_regression_is_that_of_the_least_error() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6)).astype(np.float32)
    y = x @ rng.normal(size=6).astype(np.float32)
    recipe = Recipe("regress", ForwardMode.BPTT, (WeightedTerm(SquaredError()),), "a test", task=Regression())
    model, told = nn.Linear(6, 1), list[Progress]()
    settings = replace(SETTINGS, epochs=20, learning_rate=0.05)
    result = fit(model, Samples(x[:60], y[:60]), Samples(x[60:], y[60:]), recipe, settings, progress=told.append)
    error = float(np.square(model(torch.from_numpy(x[60:])).detach().numpy()[:, 0] - y[60:]).mean())
    assert result.best.validation_loss == pytest.approx(error, rel=1e-5)
    assert result.best.validation_loss == min(record.validation_loss for record in result.history)
    assert f"validation MSE {result.last.validation_loss:.4g}" in describe(told[-1])


# --- networks beside the student -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Together(LossTerm):
    """A second network on the same inputs, trained jointly."""

    name: ClassVar[str] = "together"
    needs: ClassVar[Needs] = Needs(inputs=True)

    def companion(self, pairing: Pairing) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(16, pairing.classes))

    def __call__(self, outputs: BatchOutputs) -> Tensor:
        other = outputs.of_companion()(outputs.inputs)
        return nn.functional.cross_entropy(other, outputs.labels) + (other - outputs.logits).square().mean()


JOINT = Recipe("joint", ForwardMode.RATE, (WeightedTerm(CrossEntropy()), WeightedTerm(Together(), 0.5)), "a test")


class FirstIsBest(Regression):
    """Every epoch is worse than the one before."""

    def __init__(self) -> None:
        self.epoch = 0

    def loss(self, outputs: Tensor, targets: Tensor) -> float:
        return 0.0

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        self.epoch += 1
        return -float(self.epoch)


def test_a_network_trained_jointly_comes_back_as_it_was_at_the_best_epoch(tmp_path: Path) -> None:
    settings = replace(SETTINGS, schedule="constant")
    _, whole = train(replace(JOINT, task=FirstIsBest()), tmp_path, settings)
    _, first = train(replace(JOINT, task=FirstIsBest()), settings=replace(settings, epochs=1))
    _, last = train(JOINT, settings=settings)
    _, resumed = train(replace(JOINT, task=FirstIsBest()), tmp_path, settings)
    assert (whole.best.epoch, resumed.resumed_from) == (1, 3)
    assert {name: values.shape for name, values in whole.companions[1].items()} == {"1.weight": (2, 16), "1.bias": (2,)}
    for name, values in first.companions[1].items():
        assert np.array_equal(whole.companions[1][name], values)
        assert np.array_equal(resumed.companions[1][name], values)
        assert not np.array_equal(last.companions[1][name], values), "two epochs further on"


class Halved(nn.Module):
    """W = raw / 2."""

    def forward(self, raw: Tensor) -> Tensor:
        return raw / 2


def halve(pairing: Pairing) -> None:
    parametrize.register_parametrization(pairing.student.get_submodule("layers.conv1"), "weight", Halved())


def test_a_student_may_be_written_in_other_parameters_without_a_teacher() -> None:
    recipe = replace(load_recipe("no_teacher"), prepare=halve, prepare_needs_teacher=False)
    assert not recipe.needs_teacher
    student, result = train(recipe)
    assert np.isfinite(result.best.loss)
    assert "layers.conv1.parametrizations.weight.original" in student.state_dict()
    with pytest.raises(UserError, match="weights begin with a teacher's") as caught:
        train(replace(recipe, prepare_needs_teacher=True))
    assert caught.value.code == "SNX311"


# --- code of others ----------------------------------------------------------------------------------------------------

TERM = """\
from dataclasses import dataclass
from typing import ClassVar
from snn_export.training.term import LossTerm
from theirs.factor import FACTOR
@dataclass(frozen=True)
class Scaled(LossTerm):
    name: ClassVar[str] = "scaled"
    def __call__(self, outputs):
        return FACTOR * outputs.logits.square().mean()
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of a third party: a term in one folder builds on a number in another module."""
    folder = tmp_path / "packages" / "theirs"
    (folder / "terms").mkdir(parents=True)
    for name, text in (("__init__", ""), ("factor", "FACTOR = 1.0\n"), ("terms/__init__", ""), ("terms/scaled", TERM)):
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(folder.parent)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "theirs"]:
        del sys.modules[name]


def test_a_checkpoint_of_other_code_of_a_third_party_is_not_taken_over(theirs: Path, tmp_path: Path) -> None:
    def run() -> TrainingResult:
        term = importlib.import_module("theirs.terms.scaled").Scaled()
        recipe = Recipe("theirs", ForwardMode.RATE, (WeightedTerm(CrossEntropy()), WeightedTerm(term)), "a test")
        return train(recipe, tmp_path / "kept", replace(SETTINGS, epochs=1))[1]

    assert run().resumed_from == 0
    assert run().resumed_from == 1
    (theirs / "factor.py").write_text("FACTOR = -1.0\n", encoding="utf-8")
    assert run().resumed_from == 0, "the term reads the same and computes something else"
    assert set(code_beside("theirs.terms.scaled", theirs / "terms" / "scaled.py")) == {
        "__init__.py", "factor.py", "terms/__init__.py", "terms/scaled.py",
    }  # fmt: skip


def freeze(epoch: int, student: nn.Module, *, until: int) -> None:
    student.requires_grad_(epoch > until)


def test_a_hook_is_named_alike_in_every_process() -> None:
    recipe = replace(load_recipe("no_teacher"), before_epoch=partial(freeze, until=2))
    assert recipe.describe().endswith(f"{__name__}.freeze(until=2)")
    assert recipe.describe() != replace(recipe, before_epoch=partial(freeze, until=3)).describe()
    first = replace(recipe, before_epoch=lambda epoch, student: None).describe()
    second = replace(recipe, before_epoch=lambda epoch, student: None).describe()
    assert first != second
    assert "0x" not in first


# --- what must not pass silently ---------------------------------------------------------------------------------------


def test_samples_with_a_time_axis_are_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """(B, T, K, L): a shift would move features about and let zeros in."""
    student = build_student("dense", input_shape=(2, 8), classes=2, width=4, steps=3, encoder="events")
    x = (np.random.default_rng(0).random((8, 3, 2, 8)) < 0.5).astype(np.float32)
    seen: list[Tensor] = []
    term = Together()
    monkeypatch.setattr(Together, "companion", lambda self, pairing: nn.Identity())
    monkeypatch.setattr(Together, "__call__", lambda self, outputs: (seen.append(outputs.inputs), outputs.logits.mean())[1])
    recipe = Recipe("watch", ForwardMode.BPTT, (WeightedTerm(CrossEntropy()), WeightedTerm(term)), "a test")
    samples = Samples(x, np.arange(8) % 2)
    fit(student, samples, samples, recipe, TrainingSettings(epochs=1, batch_size=8, seed=0, augmentation=("shift",)))
    assert {row.tobytes() for row in torch.cat(seen).numpy()} == {row.tobytes() for row in x}


def test_a_recipe_of_rates_is_not_trained_through_time_under_its_name() -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("dsr").in_mode(ForwardMode.BPTT)
    assert caught.value.code == "SNX357"


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("mode", list(ForwardMode))
def test_a_batch_of_one_in_front_of_the_first_neuron_is_refused_in_both_modes(mode: ForwardMode, steps: int) -> None:
    """All steps are alike there: more of them give batch-norm no variance."""
    student = build_student("dense", input_shape=(16,), classes=2, width=8, steps=steps)
    flat = Samples(TRAIN.x[:3].reshape(3, 16), TRAIN.y[:3])
    with pytest.raises(UserError) as caught:
        fit(student, flat, flat, load_recipe("no_teacher").in_mode(mode), replace(SETTINGS, batch_size=1))
    assert caught.value.code == "SNX318"
