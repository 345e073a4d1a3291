from __future__ import annotations

import io
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from snn_export.data.dataset import Samples
from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.registry import build_teacher
from snn_export.training.augmentation import random_shift
from snn_export.training.checkpoint import load_model, save_model
from snn_export.training.evaluate import accuracy, predictions
from snn_export.training.loop import Progress, TrainingResult, fit
from snn_export.training.progress import TrainingDisplay
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.resume import CHECKPOINT_NAME, EpochRecord
from snn_export.training.settings import TrainingSettings, one_cycle
from tests.bars import SHAPE, TRAIN, VALIDATION, assert_equal_weights

SETTINGS = TrainingSettings(epochs=6, batch_size=16, seed=3)
LONG = TrainingSettings(epochs=40, batch_size=16, seed=3)
"""Long enough that a process killed at its first checkpoint has not finished."""


pytestmark = pytest.mark.usefixtures("one_thread")


def train(
    folder: Path | None,
    progress: Callable[[Progress], None] | None = None,
    settings: TrainingSettings = SETTINGS,
    teacher_seed: int = 1,
) -> tuple[SpikingStudent, TrainingResult]:
    student = build_student("convnet", steps=3, seed=2, **SHAPE)
    teacher = build_teacher("convnet", seed=teacher_seed, **SHAPE)
    recipe = load_recipe("plain_kd")
    return student, fit(student, TRAIN, VALIDATION, recipe, settings, teacher=teacher, checkpoint_dir=folder, progress=progress)


def interrupt_after(epoch: int) -> Callable[[Progress], None]:
    def progress(report: Progress) -> None:
        if report.epoch == epoch and report.validation_accuracy is not None:
            raise KeyboardInterrupt

    return progress


# --- learning --------------------------------------------------------------------------------------------------------


def test_learns_and_keeps_the_best_epoch() -> None:
    teacher = build_teacher("convnet", **SHAPE)
    result = fit(teacher, TRAIN, VALIDATION, load_recipe("teacher"), SETTINGS)
    assert accuracy(teacher, VALIDATION) >= 0.95
    assert result.best.validation_accuracy == pytest.approx(accuracy(teacher, VALIDATION))
    assert result.best == max(result.history, key=lambda record: record.rank)
    assert [record.epoch for record in result.history] == [1, 2, 3, 4, 5, 6]
    assert result.last is result.history[-1]
    assert not teacher.training


def test_best_epoch_by_accuracy_then_loss_then_the_earlier() -> None:
    records = [EpochRecord(1, 0, 0.5, 0.9), EpochRecord(2, 0, 0.4, 0.9), EpochRecord(3, 0, 0.4, 0.9), EpochRecord(4, 0, 0.1, 0.8)]
    assert max(records, key=lambda record: record.rank).epoch == 2


def test_weights_of_an_early_best_epoch_survive_later_epochs_and_a_resume(tmp_path: Path) -> None:
    contrary = Samples(VALIDATION.x, 1 - VALIDATION.y)  # the better the network learns, the worse it does here

    def run(folder: Path | None, progress: Callable[[Progress], None] | None = None) -> tuple[torch.nn.Module, TrainingResult]:
        model = build_teacher("convnet", seed=1, **SHAPE)
        recipe = load_recipe("teacher")
        return model, fit(model, TRAIN, contrary, recipe, SETTINGS, checkpoint_dir=folder, progress=progress)

    whole, result = run(None)
    assert result.best.epoch < 4
    assert result.best.validation_accuracy > result.last.validation_accuracy
    assert accuracy(whole, contrary) == result.best.validation_accuracy
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, interrupt_after(4))
    resumed, again = run(tmp_path)
    assert again.best == result.best
    assert_equal_weights(resumed, whole)


def test_teacher_is_left_as_it_was() -> None:
    student, teacher = build_student("convnet", steps=2, **SHAPE), build_teacher("convnet", **SHAPE).train()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    fit(student, TRAIN, VALIDATION, load_recipe("plain_kd"), TrainingSettings(epochs=1), teacher=teacher)
    assert teacher.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


# --- determinism and resume ------------------------------------------------------------------------------------------


def test_seed_decides_everything() -> None:
    torch.manual_seed(11)
    first, result = train(None)
    torch.manual_seed(12)
    same, result_again = train(None)
    other, _ = train(None, settings=TrainingSettings(epochs=6, batch_size=16, seed=4))
    assert_equal_weights(first, same)
    assert result == result_again
    assert not torch.equal(first.layers.dense.weight, other.layers.dense.weight)


@pytest.mark.parametrize("epoch", [1, 4, 6])
def test_interrupted_and_continued_equals_uninterrupted(tmp_path: Path, epoch: int) -> None:
    whole, expected = train(None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupt_after(epoch))
    messages: list[str] = []
    resumed, result = train(tmp_path, lambda report: messages.append(report.message))
    assert result.resumed_from == epoch
    assert f"continuing after epoch {epoch}" in messages[0]
    assert_equal_weights(resumed, whole)
    assert result.history == expected.history


def test_killed_process_continues_to_the_same_weights(tmp_path: Path) -> None:
    """SIGKILL at an arbitrary moment: whatever is on disk is a whole checkpoint."""
    script = f"""
        import sys
        sys.path.append({str(Path(__file__).parents[2])!r})
        from pathlib import Path
        import torch
        torch.set_num_threads(1)
        from tests.toolchain import test_training
        test_training.train(Path({str(tmp_path)!r}), settings=test_training.LONG)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (tmp_path / CHECKPOINT_NAME).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()
    resumed, result = train(tmp_path, settings=LONG)
    assert 1 <= result.resumed_from <= LONG.epochs
    whole, expected = train(None, settings=LONG)
    assert_equal_weights(resumed, whole)
    assert result.history == expected.history


def test_interrupt_while_a_checkpoint_is_written_keeps_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupt_after(2))

    def interrupted(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", interrupted)
        train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_NAME]
    assert train(tmp_path)[1].resumed_from == 2


def test_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first, result = train(tmp_path)
    reports: list[Progress] = []
    again, repeated = train(tmp_path, reports.append)
    assert repeated.resumed_from == SETTINGS.epochs
    assert repeated.history == result.history
    assert [bool(report.message) for report in reports] == [True]
    assert_equal_weights(again, first)


@pytest.mark.parametrize(
    "changed",
    [{"settings": TrainingSettings(epochs=6, batch_size=16, seed=3, learning_rate=0.02)}, {"teacher_seed": 9}],
    ids=["settings", "teacher"],
)
def test_checkpoint_of_another_run_is_left_aside_and_it_is_said(tmp_path: Path, changed: dict) -> None:
    train(tmp_path)
    fresh, result = train(tmp_path, **changed)
    assert result.resumed_from == 0
    assert "other data, weights or settings" in result.notes[0]
    assert_equal_weights(fresh, train(None, **changed)[0])


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-40], lambda data: b"x" * len(data)])
def test_damaged_checkpoint_is_left_aside_and_it_is_said(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupt_after(1))
    path = tmp_path / CHECKPOINT_NAME
    path.write_bytes(damage(path.read_bytes()))
    _, result = train(tmp_path)
    assert result.resumed_from == 0
    assert "cannot be used" in result.notes[0]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_diverged_loss_is_a_coded_error_and_the_checkpoint_survives(tmp_path: Path) -> None:
    teacher = build_teacher("convnet", **SHAPE)
    poisoned = Samples(TRAIN.x.copy(), TRAIN.y)
    poisoned.x[-1] = np.nan
    with pytest.raises(UserError) as error:
        fit(teacher, poisoned, VALIDATION, load_recipe("teacher"), SETTINGS, checkpoint_dir=tmp_path)
    assert error.value.code == "SNX310"
    assert "learning_rate" in str(error.value)


def test_recipe_with_a_teacher_needs_one() -> None:
    with pytest.raises(UserError) as error:
        fit(build_student("convnet", **SHAPE), TRAIN, VALIDATION, load_recipe("plain_kd"), SETTINGS)
    assert error.value.code == "SNX311"


def test_no_samples() -> None:
    empty = Samples(TRAIN.x[:0], TRAIN.y[:0])
    model = build_teacher("convnet", **SHAPE)
    for call in (lambda: fit(model, TRAIN, empty, load_recipe("teacher"), SETTINGS), lambda: accuracy(model, empty)):
        with pytest.raises(UserError) as error:
            call()
        assert error.value.code == "SNX312"


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": -1}, {"learning_rate": float("nan")}, {"max_shift": -1}])
def test_settings_out_of_range(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))) as error:
        TrainingSettings(**wrong)
    assert error.value.code == "SNX014"


# --- parts -----------------------------------------------------------------------------------------------------------


def test_one_cycle_rises_to_the_peak_and_falls_to_zero() -> None:
    rates = [one_cycle(step, 100, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1 / 25)
    assert np.argmax(rates) == 25
    assert rates[25] == 0.1
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert np.all(np.diff(rates[:26]) > 0)
    assert np.all(np.diff(rates[25:]) < 0)


def test_random_shift_moves_each_image_by_at_most_the_limit() -> None:
    images = torch.zeros(200, 2, 5, 5)
    images[:, :, 2, 2] = torch.arange(1.0, 201.0)[:, None]
    shifted = random_shift(images, 1, torch.Generator().manual_seed(0))
    assert torch.equal(shifted.amax((1, 2, 3)), torch.arange(1.0, 201.0))
    assert torch.equal(shifted[:, 0], shifted[:, 1])
    where = {tuple(position) for position in shifted[:, 0].nonzero()[:, 1:].tolist()}
    assert where == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
    assert random_shift(images, 0, torch.Generator()) is images
    vectors = torch.zeros(3, 7)
    assert random_shift(vectors, 1, torch.Generator()) is vectors


def test_accuracy_does_not_depend_on_the_chunk_and_restores_the_mode() -> None:
    model = build_teacher("convnet", **SHAPE).train()
    expected = np.mean(predictions(model, VALIDATION.x, chunk=7) == VALIDATION.y)
    assert accuracy(model, VALIDATION) == expected
    assert model.training


def test_trained_model_survives_a_file(tmp_path: Path) -> None:
    student, _ = train(None)
    save_model(tmp_path / "student.safetensors", student)
    assert np.array_equal(
        predictions(load_model(tmp_path / "student.safetensors"), VALIDATION.x), predictions(student, VALIDATION.x)
    )


def test_display_writes_one_line_per_epoch_where_there_is_no_terminal(tmp_path: Path) -> None:
    stream = io.StringIO()
    with TrainingDisplay("student", Console(file=stream)) as display:
        train(tmp_path, display)
        train(tmp_path, display)
    lines = stream.getvalue().splitlines()
    assert len(lines) == SETTINGS.epochs + 1
    assert lines[0].startswith("student: epoch 1/6  loss ")
    assert "validation" in lines[0]
    assert "continuing after epoch 6" in lines[-1]


def test_display_on_a_terminal_updates_one_line() -> None:
    stream = io.StringIO()
    with TrainingDisplay("teacher", Console(file=stream, force_terminal=True, width=100)) as display:
        train(None, display)
    assert "epoch 6/6" in stream.getvalue()
    assert stream.getvalue().count("\n") <= 2
