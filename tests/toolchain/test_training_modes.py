"""The training loop with both forward modes, recipes that train layers of their own, small batches, and several processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snn_export.data.dataset import Samples
from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.traced import teacher_from_module
from snn_export.training.devices import Devices
from snn_export.training.evaluate import accuracy
from snn_export.training.loop import Progress, TrainingResult, fit
from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.resume import CHECKPOINT_NAME
from snn_export.training.settings import TrainingSettings
from snn_export.training.task import Regression
from snn_export.training.terms.logits import CrossEntropy
from tests.bars import SHAPE, TRAIN, VALIDATION, assert_equal_weights

SETTINGS = TrainingSettings(epochs=5, batch_size=16, seed=3)
LONG = TrainingSettings(epochs=40, batch_size=8, seed=3)
"""Long enough that a process killed soon after an epoch has not finished."""
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


pytestmark = pytest.mark.usefixtures("one_thread")


def train(
    recipe: Recipe,
    folder: Path | None = None,
    settings: TrainingSettings = SETTINGS,
    train: Samples = TRAIN,
    steps: int = 3,
    **more,
) -> tuple[nn.Module, TrainingResult]:
    student = build_student("convnet", steps=steps, seed=2, **SHAPE)
    teacher = build_teacher("convnet", seed=1, **SHAPE) if recipe.needs_teacher else None
    return student, fit(student, train, VALIDATION, recipe, settings, teacher=teacher, checkpoint_dir=folder, **more)


@pytest.mark.parametrize("name", ["no_teacher", "plain_kd", "hybrid_blockwise", "esd"])
def test_both_modes_learn_the_same_task(name: str) -> None:
    for mode in ForwardMode:
        student, result = train(load_recipe(name).in_mode(mode), settings=replace(SETTINGS, epochs=12))
        assert accuracy(student, VALIDATION) == result.best.validation_accuracy
        assert result.best.validation_accuracy > 0.9, mode


@pytest.mark.parametrize("name", ["no_teacher", "hybrid_blockwise", "esd", "bkdsnn", "ckdsnn", "idsnn"])
def test_interrupted_and_continued_is_uninterrupted(name: str, tmp_path: Path) -> None:
    """Layers that a recipe trains beside the student are part of the checkpoint."""
    recipe = load_recipe(name).in_mode(ForwardMode.RATE)
    whole, _ = train(recipe)

    def interrupt(report: Progress) -> None:
        if report.epoch == 2 and report.validation_accuracy is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, progress=interrupt)
    continued, result = train(recipe, tmp_path)
    assert result.resumed_from == 2
    assert_equal_weights(continued, whole)


@pytest.mark.parametrize("mode", list(ForwardMode))
def test_killed_at_a_random_moment_and_run_again(mode: ForwardMode, tmp_path: Path) -> None:
    """SIGKILL wherever the run happens to be, several times, until it gets through."""
    program = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        import torch
        from tests.toolchain.test_training_modes import LONG, train
        from snn_export.training.recipe import ForwardMode
        from snn_export.training.recipes.registry import load_recipe
        torch.set_num_threads(1)
        student, result = train(load_recipe("hybrid_blockwise").in_mode(ForwardMode("{mode}")), Path(sys.argv[1]), LONG)
        torch.save(student.state_dict(), sys.argv[2])
    """)
    out, folder = tmp_path / "weights.pt", tmp_path / "run"
    checkpoint = folder / CHECKPOINT_NAME
    seed = random.SystemRandom().randrange(2**32)
    moments, kills = random.Random(seed), 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", program, str(folder), str(out)], cwd=ROOT, env=ENVIRONMENT)
        written = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0
        deadline = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < deadline:
            if kills < 2 and checkpoint.is_file() and checkpoint.stat().st_mtime_ns != written:
                time.sleep(moments.uniform(0, 0.2))  # it got an epoch further; now at any moment
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
            time.sleep(0.002)
        if process.wait() == 0:
            break
    assert kills, "the run was never killed"
    whole, _ = train(load_recipe("hybrid_blockwise").in_mode(mode), settings=LONG)
    for name, tensor in torch.load(out, weights_only=True).items():
        assert torch.equal(tensor, whole.state_dict()[name]), f"{name}, seed {seed}"


def test_two_processes_average_their_gradients_and_give_one_model(tmp_path: Path) -> None:
    """DDP on two CPU processes, started in a process of its own: Fabric gathers the parts of every batch."""
    program = textwrap.dedent("""
        import sys
        import torch
        from tests.toolchain.test_training_modes import (
            SETTINGS, VALIDATION, Devices, ForwardMode, UserError, accuracy, load_recipe, replace, train)
        if __name__ == "__main__":
            torch.set_num_threads(1)
            recipe = load_recipe("hybrid_blockwise").in_mode(ForwardMode.RATE)
            try:
                train(recipe, taps=("nope",), teacher_taps=("relu1",), devices=Devices(count=2))
            except UserError as error:
                assert error.code == "SNX016", error
            else:
                raise AssertionError("a mistake got lost on its way back")
            student, result = train(recipe, settings=replace(SETTINGS, epochs=12), devices=Devices(count=2))
            assert len(result.history) == 12
            assert accuracy(student, VALIDATION) == result.best.validation_accuracy
            print(result.best.validation_accuracy)
    """)
    script = tmp_path / "run.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, timeout=400, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.split()[-1]) > 0.9


@pytest.mark.parametrize("mode", list(ForwardMode))
@pytest.mark.parametrize("name", ["no_teacher", "plain_kd", "ckdsnn", "lasnn", "hta_kl"])
def test_one_step_and_batches_of_one(name: str, mode: ForwardMode) -> None:
    """T = 1, and batches of one sample: maps of 4 x 4 positions still give batch-norm a variance."""
    few = Samples(TRAIN.x[:5], TRAIN.y[:5])
    _, result = train(load_recipe(name).in_mode(mode), settings=TrainingSettings(epochs=1, batch_size=1), train=few, steps=1)
    assert np.isfinite(result.best.loss)


def test_a_rest_of_one_sample_joins_the_batch_before() -> None:
    """A dense student has one position per channel: a batch of one would have no variance."""
    student = build_student("dense", input_shape=(16,), classes=2, width=8, steps=2)
    flat = Samples(TRAIN.x[:33].reshape(33, 16), TRAIN.y[:33])
    held = Samples(VALIDATION.x.reshape(30, 16), VALIDATION.y)
    settings = TrainingSettings(epochs=1, batch_size=16, augmentation=())
    for mode in ForwardMode:
        assert np.isfinite(fit(student, flat, held, load_recipe("no_teacher").in_mode(mode), settings).best.loss)


def test_a_batch_too_small_for_batch_norm_is_a_coded_error() -> None:
    student = build_student("dense", input_shape=(16,), classes=2, width=8, steps=1)
    flat = Samples(TRAIN.x[:3].reshape(3, 16), TRAIN.y[:3])
    settings = TrainingSettings(epochs=1, batch_size=1, augmentation=())
    with pytest.raises(UserError) as caught:
        fit(student, flat, flat, load_recipe("no_teacher"), settings)
    assert caught.value.code == "SNX318"


@pytest.mark.parametrize("mode", list(ForwardMode))
def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_epoch(mode: ForwardMode, tmp_path: Path) -> None:
    x = TRAIN.x.copy()
    x[7, 0, 0, 0] = np.inf
    with pytest.raises(UserError) as caught:
        train(load_recipe("no_teacher").in_mode(mode), tmp_path, train=Samples(x, TRAIN.y))
    assert caught.value.code == "SNX310"


def test_one_class_is_nothing_to_learn() -> None:
    for build in (build_student, build_teacher):
        with pytest.raises(UserError) as caught:
            build("convnet", input_shape=(1, 4, 4), classes=0)
        assert caught.value.code == "SNX012"
        one = build("convnet", input_shape=(1, 4, 4), classes=1)
        zeros = Samples(TRAIN.x, np.zeros_like(TRAIN.y))
        with pytest.raises(UserError, match="cannot tell classes apart") as caught:
            fit(one, zeros, zeros, load_recipe("no_teacher"), SETTINGS)
        assert caught.value.code == "SNX332"


def test_training_samples_of_one_class_train_without_a_crash() -> None:
    only = Samples(TRAIN.x[TRAIN.y == 0], TRAIN.y[TRAIN.y == 0])
    _, result = train(load_recipe("esd"), train=only)
    assert np.isfinite(result.last.loss)


def test_a_recipe_for_spiking_students_refuses_another_model() -> None:
    teacher = build_teacher("convnet", **SHAPE)
    for recipe in (load_recipe("no_teacher").in_mode(ForwardMode.RATE), load_recipe("esd").in_mode(ForwardMode.BPTT)):
        with pytest.raises(UserError) as caught:
            fit(teacher, TRAIN, VALIDATION, recipe, SETTINGS)
        assert caught.value.code == "SNX343"


def test_the_gradient_of_the_rate_mode_is_divided_by_the_steps() -> None:
    """SGD without momentum: the same first step, a third as long."""
    settings = TrainingSettings(
        epochs=1, batch_size=80, optimizer="sgd", momentum=0.0, weight_decay=0.0, schedule="constant", learning_rate=0.1
    )
    recipe = load_recipe("no_teacher").in_mode(ForwardMode.RATE)
    start = build_student("convnet", steps=3, seed=2, **SHAPE).layers.dense.weight.detach()
    scaled, result = train(recipe, settings=settings)
    plain, same = train(replace(recipe, scale_gradient=False), settings=settings)
    assert result.best.loss == same.best.loss
    torch.testing.assert_close(
        (plain.layers.dense.weight - start), 3 * (scaled.layers.dense.weight - start), rtol=1e-3, atol=1e-6
    )


def test_layers_can_be_frozen_epoch_by_epoch() -> None:
    """The seam of progressive methods: what learns may change before every epoch."""

    def last_layer_first(epoch: int, student: nn.Module) -> None:
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(epoch > 1 or "dense" in name)

    recipe = replace(load_recipe("no_teacher"), before_epoch=last_layer_first)
    fresh = build_student("convnet", steps=3, seed=2, **SHAPE)
    student, _ = train(recipe, settings=replace(SETTINGS, epochs=1))
    assert torch.equal(student.layers.conv1.weight, fresh.layers.conv1.weight)
    assert not torch.equal(student.layers.dense.weight, fresh.layers.dense.weight)


def test_a_regression_is_judged_by_its_error() -> None:
    """The seam of other heads: a task of its own, and a term that compares with targets."""
    from dataclasses import dataclass
    from typing import ClassVar

    from snn_export.training.outputs import BatchOutputs
    from snn_export.training.term import LossTerm

    @dataclass(frozen=True)
    class SquaredError(LossTerm):
        name: ClassVar[str] = "squared_error"

        def __call__(self, outputs: BatchOutputs) -> Tensor:
            return (outputs.logits - outputs.labels).square().mean()

    recipe = Recipe("regress", ForwardMode.RATE, (WeightedTerm(SquaredError()),), "a test", task=Regression())
    targets = np.stack([TRAIN.y, 1 - TRAIN.y], axis=1).astype(np.float32)
    held = np.stack([VALIDATION.y, 1 - VALIDATION.y], axis=1).astype(np.float32)
    student = build_student("convnet", steps=3, seed=2, **SHAPE)
    result = fit(student, Samples(TRAIN.x, targets), Samples(VALIDATION.x, held), recipe, replace(SETTINGS, epochs=15))
    assert result.best.validation_accuracy == -result.best.validation_loss
    assert result.best.validation_loss < 0.1


@pytest.mark.parametrize("mode", list(ForwardMode))
def test_one_output_learns_a_number_per_sample(mode: ForwardMode) -> None:
    """The usual head of a regression, whole numbers as targets among them."""
    from dataclasses import dataclass
    from typing import ClassVar

    from snn_export.training.outputs import BatchOutputs
    from snn_export.training.term import LossTerm

    @dataclass(frozen=True)
    class SquaredError(LossTerm):
        name: ClassVar[str] = "squared_error"

        def __call__(self, outputs: BatchOutputs) -> Tensor:
            return (outputs.logits[:, 0] - outputs.labels).square().mean()

    recipe = Recipe("regress", mode, (WeightedTerm(SquaredError()),), "a test", task=Regression())
    student = build_student("convnet", steps=3, seed=2, **{**SHAPE, "classes": 1})
    train, held = (Samples(part.x, 3 * part.y) for part in (TRAIN, VALIDATION))
    result = fit(student, train, held, recipe, replace(SETTINGS, epochs=15))
    assert result.best.validation_loss < 0.2 * float(held.y.var())


def test_a_second_network_can_be_trained_jointly() -> None:
    """The seam of joint training: a term's companion may be a network, run on the same inputs, saved and resumed with it."""
    from dataclasses import dataclass
    from typing import ClassVar

    from snn_export.training.outputs import BatchOutputs
    from snn_export.training.pairing import Pairing
    from snn_export.training.term import LossTerm, Needs

    built: list[nn.Module] = []

    @dataclass(frozen=True)
    class Together(LossTerm):
        name: ClassVar[str] = "together"
        needs: ClassVar[Needs] = Needs(inputs=True)

        def companion(self, pairing: Pairing) -> nn.Module:
            built.append(nn.Sequential(nn.Flatten(), nn.Linear(16, pairing.classes)))
            return built[-1]

        def __call__(self, outputs: BatchOutputs) -> Tensor:
            other = outputs.of_companion()(outputs.inputs)
            return nn.functional.cross_entropy(other, outputs.labels) + (other - outputs.logits).square().mean()

    recipe = Recipe("joint", ForwardMode.RATE, (WeightedTerm(CrossEntropy()), WeightedTerm(Together(), 0.5)), "a test")
    _, result = train(recipe, settings=replace(SETTINGS, epochs=15))
    assert result.best.validation_accuracy > 0.9
    right = (built[-1](torch.tensor(VALIDATION.x)).argmax(1) == torch.tensor(VALIDATION.y)).float().mean()
    assert right > 0.6  # a linear network cannot do better here; untrained it is at 0.5


@pytest.mark.parametrize("other", [{"surrogate": "triangle", "slope": 1.0}, {"detach_reset": True}])
def test_a_checkpoint_of_another_gradient_is_not_taken_over(tmp_path: Path, other: dict) -> None:
    """Neither shows in a network's weights or text."""
    recipe, settings = load_recipe("no_teacher"), replace(SETTINGS, epochs=1)
    train(recipe, tmp_path, settings)
    changed = build_student("convnet", steps=3, seed=2, **SHAPE, **other)
    assert fit(changed, TRAIN, VALIDATION, recipe, settings, checkpoint_dir=tmp_path).resumed_from == 0


def test_a_checkpoint_of_another_teacher_is_not_taken_over(tmp_path: Path) -> None:
    """Two teachers with the same weights and another activation."""

    def teacher(activation: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), activation, nn.Linear(8, 2))
        return teacher_from_module(network, input_shape=(1, 4, 4), classes=2)

    recipe, settings = load_recipe("plain_kd"), replace(SETTINGS, epochs=1)
    resumed = []
    for activation in (nn.ReLU(), nn.Tanh()):
        student = build_student("convnet", steps=3, seed=2, **SHAPE)
        result = fit(student, TRAIN, VALIDATION, recipe, settings, teacher=teacher(activation), checkpoint_dir=tmp_path)
        resumed.append(result.resumed_from)
    assert resumed == [0, 0]


def test_a_teacher_without_stages_teaches_by_its_logits() -> None:
    teacher = teacher_from_module(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), input_shape=(1, 4, 4), classes=2)
    student = build_student("convnet", steps=3, seed=2, **SHAPE)
    assert np.isfinite(fit(student, TRAIN, VALIDATION, load_recipe("plain_kd"), SETTINGS, teacher=teacher).best.loss)
    with pytest.raises(UserError) as caught:
        fit(student, TRAIN, VALIDATION, load_recipe("lasnn"), SETTINGS, teacher=teacher)
    assert caught.value.code == "SNX342"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_infinite_inputs_are_noticed_in_every_precision(precision: str) -> None:
    """What is no number never fires: the loss stays finite, the gradient does not."""
    x = TRAIN.x.copy()
    x[0, 0, 0, 0] = np.inf
    with pytest.raises(UserError) as caught:
        train(
            load_recipe("no_teacher"), settings=replace(SETTINGS, precision=precision, augmentation=()), train=Samples(x, TRAIN.y)
        )
    assert caught.value.code == "SNX310"


def test_validation_data_that_is_no_number_is_noticed() -> None:
    x = VALIDATION.x.copy()
    x[0] = np.nan
    teacher = build_teacher("convnet", **SHAPE)
    with pytest.raises(UserError) as caught:
        fit(teacher, TRAIN, Samples(x, VALIDATION.y), load_recipe("teacher"), SETTINGS)
    assert caught.value.code == "SNX310"


def test_a_teacher_of_other_classes_and_labels_beyond_them_are_refused() -> None:
    student = build_student("convnet", steps=3, seed=2, **SHAPE)
    other = build_teacher("convnet", input_shape=(1, 4, 4), classes=3, width=4)
    with pytest.raises(UserError) as caught:
        fit(student, TRAIN, VALIDATION, load_recipe("plain_kd"), SETTINGS, teacher=other)
    assert caught.value.code == "SNX342"
    with pytest.raises(UserError) as caught:
        fit(student, Samples(TRAIN.x, TRAIN.y + 1), VALIDATION, load_recipe("no_teacher"), SETTINGS)
    assert caught.value.code == "SNX332"


def test_fit_leaves_nothing_behind() -> None:
    """No gradients, modes and random state as they were; a batch-norm that was frozen stays frozen."""
    teacher = build_teacher("convnet", seed=1, **SHAPE)
    teacher.train()
    teacher.layers.norm1.eval()
    state = torch.get_rng_state()
    student = build_student("convnet", steps=3, seed=2, **SHAPE)
    fit(student, TRAIN, VALIDATION, load_recipe("ckdsnn"), replace(SETTINGS, epochs=1), teacher=teacher)
    assert torch.equal(torch.get_rng_state(), state)
    assert teacher.training
    assert not teacher.layers.norm1.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in student.parameters())


def test_several_machines_need_to_be_told_which_they_are() -> None:
    with pytest.raises(UserError) as caught:
        train(load_recipe("no_teacher"), devices=Devices(nodes=2))
    assert caught.value.code == "SNX017"
