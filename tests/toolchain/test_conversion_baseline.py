"""The baseline from beginning to end: trained, converted, measured over T."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from snn_export.data.dataset import Samples
from snn_export.data.registry import load_dataset
from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.qcfs_activation import QcfsActivation
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.teacher import TeacherConfig
from snn_export.training.conversion.baseline import ConvertedTeacher, first_to_reach, train_and_convert
from snn_export.training.conversion.qcfs import CONVERSION as QCFS
from snn_export.training.conversion.qcfs import Qcfs
from snn_export.training.conversion.registry import load_conversion
from snn_export.training.evaluate import accuracy
from snn_export.training.loop import Progress
from snn_export.training.settings import TrainingSettings

CONFIG = TeacherConfig("convnet", (1, 8, 8), 10, 8)
SETTINGS = TrainingSettings(epochs=6, seed=1)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained() -> dict[str, ConvertedTeacher]:
    torch.set_num_threads(1)
    data = load_dataset("digits", 0)
    return {
        name: train_and_convert(load_conversion(name), CONFIG, data.train, data.validation, SETTINGS, seed=1)
        for name in ("qcfs", "max_norm", "calibration")
    }


def test_accuracy_grows_with_the_steps_to_that_of_the_source(trained: dict[str, ConvertedTeacher]) -> None:
    test = load_dataset("digits", 0).test
    for name, run in trained.items():
        source, found = run.source_accuracy(test), run.accuracies(test, (1, 4, 64))
        assert source > 0.93, name
        assert found[64] > source - 0.02, name
        assert found[1] < found[64], name
    four = {name: run.accuracies(test, (4,))[4] for name, run in trained.items()}
    assert min(four["qcfs"], four["calibration"]) > four["max_norm"] + 0.1


@pytest.mark.parametrize("name", ["qcfs", "calibration"])
def test_one_run_answers_for_all_steps_as_single_runs_do(trained: dict[str, ConvertedTeacher], name: str) -> None:
    test = load_dataset("digits", 0).test
    part = Samples(test.x[:300], test.y[:300])  # more than one chunk
    run = trained[name]
    assert run.accuracies(part, [5, 2]) == {steps: accuracy(run.at(steps), part) for steps in (2, 5)}


def test_the_source_learns_its_thresholds(trained: dict[str, ConvertedTeacher]) -> None:
    thresholds = [layer.threshold.item() for layer in trained["qcfs"].source.modules() if isinstance(layer, QcfsActivation)]
    assert len(thresholds) == 2
    assert all(0 < threshold != 2.0 for threshold in thresholds)


def test_calibration_inputs_are_training_samples(trained: dict[str, ConvertedTeacher]) -> None:
    inputs = trained["max_norm"].calibration_inputs.numpy()
    samples = {sample.tobytes() for sample in load_dataset("digits", 0).x_train}
    assert len(inputs) == 256
    assert {sample.tobytes() for sample in inputs} <= samples


def test_an_interrupted_run_goes_on_to_the_same_network(tmp_path: Path, trained: dict[str, ConvertedTeacher]) -> None:
    data = load_dataset("digits", 0)

    def interrupt(report: Progress) -> None:
        if report.epoch == 3 and report.validation_accuracy is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_and_convert(
            QCFS, CONFIG, data.train, data.validation, SETTINGS, seed=1, checkpoint_dir=tmp_path, progress=interrupt
        )
    resumed = train_and_convert(QCFS, CONFIG, data.train, data.validation, SETTINGS, seed=1, checkpoint_dir=tmp_path)
    assert resumed.training.resumed_from == 3
    for name, value in resumed.at(4).state_dict().items():
        assert torch.equal(value, trained["qcfs"].at(4).state_dict()[name]), name


def test_another_staircase_does_not_go_on_from_this_ones_checkpoint(tmp_path: Path) -> None:
    data = load_dataset("digits", 0)
    few, settings = Samples(data.x_train[:64], data.y_train[:64]), TrainingSettings(epochs=1)
    train_and_convert(QCFS, CONFIG, few, data.validation, settings, checkpoint_dir=tmp_path)
    other = replace(QCFS, method=Qcfs(levels=8))
    assert train_and_convert(other, CONFIG, few, data.validation, settings, checkpoint_dir=tmp_path).training.resumed_from == 0


def test_the_seed_decides_the_initial_weights() -> None:
    data = load_dataset("digits", 0)
    few, settings = Samples(data.x_train[:64], data.y_train[:64]), TrainingSettings(epochs=1, learning_rate=1e-6)
    one, other = (train_and_convert(QCFS, CONFIG, few, data.validation, settings, seed=seed).source for seed in (0, 1))
    untrained = build_teacher("convnet", seed=1, input_shape=(1, 8, 8), classes=10, width=8)
    wanted = untrained.get_submodule("layers.conv1").weight
    assert torch.allclose(other.get_submodule("layers.conv1").weight, wanted, atol=1e-4)
    assert not torch.allclose(one.get_submodule("layers.conv1").weight, wanted, atol=1e-4)


def test_the_first_t_that_is_enough() -> None:
    curve = {64: 0.91, 1: 0.2, 4: 0.9, 8: 0.92, 16: 0.89}
    assert first_to_reach(curve, 0.9) == 4
    assert first_to_reach(curve, 0.915) == 8
    assert first_to_reach(curve, 0.95) is None


@pytest.mark.parametrize(("steps", "count", "code"), [((0, 4), 4, "SNX354"), ((), 4, "SNX354"), ((4,), 0, "SNX312")])
def test_what_cannot_be_measured_is_refused(
    trained: dict[str, ConvertedTeacher], steps: tuple[int, ...], count: int, code: str
) -> None:
    test = load_dataset("digits", 0).test
    with pytest.raises(UserError) as caught:
        trained["max_norm"].accuracies(Samples(test.x[:count], test.y[:count]), steps)
    assert caught.value.diagnostics[0].code == code


def test_what_cannot_be_converted_is_refused_before_it_is_trained() -> None:
    data = load_dataset("digits", 0)
    empty = Samples(np.zeros((0, 1, 8, 8), np.float32), np.zeros(0, np.int64))
    with pytest.raises(UserError) as caught:
        train_and_convert(QCFS, CONFIG, empty, data.validation, SETTINGS, calibration_samples=0)
    assert caught.value.diagnostics[0].code == "SNX356"
