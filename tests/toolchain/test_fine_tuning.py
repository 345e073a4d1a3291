"""Fine-tuning: it learns, what it learnt is what the integer simulator runs, and it goes on after an interrupt."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import snn_export
from snn_export.data.dataset import Samples
from snn_export.export.contract import FileReference
from snn_export.export.deployment import Deployment
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.spec import EncoderSpec
from snn_export.pipeline.verification import forms_beside
from snn_export.training import fine_tuning
from snn_export.training.fine_tuning import fine_tune_deployment, load_quantised_student, save_quantised_student
from snn_export.training.loop import Progress
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.settings import TrainingSettings
from tests.networks import leaky, named, quantised, read, recurrent_net

CLASSES = 3


def untrained(kind: str = "direct") -> Deployment:
    """A network that knows nothing yet, on four bits."""
    torch.manual_seed(3)
    layers = named(fc1=nn.Linear(6, 16), lif=leaky(900, 0.4), fc2=nn.Linear(16, CLASSES), readout=Integrator())
    return quantised(read(layers, (6,), 6, encoder=EncoderSpec(kind)), weight_bits=4)  # type: ignore[arg-type]


def samples(seed: int, count: int = 150) -> Samples:
    """Three noisy prototypes in [0, 1]."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).uniform(0, 1, (CLASSES, 6))
    y = rng.integers(0, CLASSES, count)
    x = np.clip(centres[y] + rng.normal(0, 0.12, (count, 6)), 0, 1)
    return Samples(x.astype(np.float32), y.astype(np.int64))


SETTINGS = TrainingSettings(epochs=6, batch_size=25, learning_rate=0.05, max_shift=0)
tuned = partial(fine_tune_deployment, recipe=load_recipe("no_teacher"), settings=SETTINGS)


def assert_same_run(deployment: Deployment, module: nn.Module, inputs: np.ndarray) -> None:  # type: ignore[type-arg]
    record = ("spikes", "membrane", "current")
    first = snn_export.simulate(deployment, inputs, "loihi", record)
    second = snn_export.simulate(deployment, inputs, "quantised_student", record, module=module)
    for name, layer in first.layers.items():
        for what in record:
            np.testing.assert_array_equal(getattr(layer, what), getattr(second.layers[name], what), err_msg=f"{name} {what}")


def test_a_network_learns_on_integers_and_what_it_learnt_is_what_runs() -> None:
    start, train, validation, test = untrained(), samples(0), samples(1, 60), samples(2, 200)
    result = tuned(start, train, validation)
    assert result.improved
    assert result.before < 0.7 < 0.9 < result.after
    assert_same_run(result.deployment, result.student, test.x)
    right = [np.mean(snn_export.simulate(d, test.x).predictions == test.y) for d in (start, result.deployment)]
    assert right[0] < 0.7 < 0.9 < right[1]
    assert all(not np.any(synapse.weight % 32) for synapse in result.deployment.synapses.values()), "still four bits"
    assert {n: p.scale for n, p in result.deployment.populations.items()} == {n: p.scale for n, p in start.populations.items()}
    assert result.deployment.contract.lineage.passes[-1] == "fine_tune"
    assert result.deployment.contract.lineage.parents[-1] == start.fingerprint


def test_recurrent_filtered_network_with_biases_and_events() -> None:
    """A loop, a synaptic filter, always-on currents, input spikes over time."""
    rng = np.random.default_rng(0)
    start = quantised(read(recurrent_net(), (7,), 10, encoder=EncoderSpec("events")))
    y = rng.integers(0, 4, 60)
    x = (rng.random((10, 60, 7)) < 0.15 + 0.6 * (np.arange(7) % 4 == y[:, None])).astype(np.float32)
    better = snn_export.fine_tune(start, x, y, epochs=2, learning_rate=0.03, batch_size=20)
    assert better.fingerprint != start.fingerprint
    record = ("spikes", "membrane", "current")
    first, second = (snn_export.simulate(better, x, name, record) for name in ("loihi", "quantised_student"))
    for name, layer in first.layers.items():
        for what in record:
            np.testing.assert_array_equal(getattr(layer, what), getattr(second.layers[name], what), err_msg=f"{name} {what}")
    changed = better.synapses["hidden.weights"].current_bias
    assert changed is not None
    assert np.any(changed != start.synapses["hidden.weights"].current_bias)


def test_event_samples_with_four_axes_are_not_shifted_as_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """(N, T, K, L): the default augmentation moved features about and let zeros in."""
    seen: list[tuple[str, ...]] = []
    original = fine_tuning.fit

    def fit(model: Any, train: Any, validation: Any, recipe: Any, settings: TrainingSettings, **more: Any) -> Any:
        seen.append(settings.augmentation)
        return original(model, train, validation, recipe, settings, **more)

    monkeypatch.setattr(fine_tuning, "fit", fit)
    start = quantised(read(recurrent_net(), (7,), 10, encoder=EncoderSpec("events")))
    few = Samples((np.random.default_rng(0).random((8, 10, 7)) < 0.3).astype(np.float32), np.arange(8) % 4)
    fine_tune_deployment(start, few, few, load_recipe("no_teacher"), TrainingSettings(epochs=1, augmentation=("shift",)))
    assert seen == [()]


def test_the_start_is_kept_where_nothing_beats_it() -> None:
    start = untrained()
    settings = TrainingSettings(epochs=1, learning_rate=1e-9, max_shift=0)
    result = tuned(start, samples(0), samples(1, 60), settings=settings)
    assert not result.improved
    assert result.before == result.after
    assert {k: v.tolist() for k, v in result.deployment.integer_arrays().items()} == {
        k: v.tolist() for k, v in start.integer_arrays().items()
    }


def test_interrupted_fine_tuning_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.epoch == 3 and progress.validation_accuracy is not None:
            raise KilledError

    whole = tuned(untrained(), samples(0), samples(1, 60))
    with pytest.raises(KilledError):
        tuned(untrained(), samples(0), samples(1, 60), checkpoint_dir=tmp_path, progress=kill)
    again = tuned(untrained(), samples(0), samples(1, 60), checkpoint_dir=tmp_path)
    assert again.training.resumed_from == 3
    assert again.deployment.fingerprint == whole.deployment.fingerprint


@pytest.mark.parametrize("change", [{"seed": 7}, {"full_scale": 4.0}])
def test_a_checkpoint_of_another_encoder_is_left_aside(change: dict[str, float], tmp_path: Path) -> None:
    """Same integers, same data, other spikes going in: another run."""
    start = untrained("rate")
    contract = start.contract
    other = start.replace(contract=contract.model_copy(update={"encoder": replace(contract.encoder, **change)}))  # type: ignore[arg-type]
    tuned(start, samples(0), samples(1, 60), checkpoint_dir=tmp_path)
    again = tuned(other, samples(0), samples(1, 60), checkpoint_dir=tmp_path)
    assert again.training.resumed_from == 0
    assert "belongs to a run with other data" in again.training.notes[0]
    assert again.deployment.fingerprint == tuned(other, samples(0), samples(1, 60)).deployment.fingerprint


def test_a_network_tuned_again_does_not_name_the_first_student() -> None:
    start = untrained()
    named_files = {
        role: FileReference(path=f"{role}.file", sha256="0" * 64) for role in ("float", "searched", "quantised_student")
    }
    lineage = start.contract.lineage.model_copy(update={"files": named_files})
    start = start.replace(contract=start.contract.model_copy(update={"lineage": lineage}))
    assert tuned(start, samples(0), samples(1, 60)).deployment.contract.lineage.files == {"float": named_files["float"]}


def test_a_file_of_the_library_says_that_its_student_is_not_compared(tmp_path: Path) -> None:
    result = tuned(untrained(), samples(0), samples(1, 60))
    forms = forms_beside(snn_export.save(result.deployment, tmp_path / "tuned.nir"))
    found = {item.what: (item.status, item.why) for item in forms.absent}
    assert forms.quantised_student is None
    assert found["the quantised_student form of the network"] == (
        "NOT_COMPARED", "the lineage names no quantised_student file",
    )  # fmt: skip
    assert all("quantised_student" not in item.what for item in forms_beside(
        snn_export.save(untrained(), tmp_path / "start.nir")
    ).absent), "it was never tuned"  # fmt: skip


def test_checkpoint_brings_the_student_back_on_its_own_start_alone(tmp_path: Path) -> None:
    start = untrained()
    result = tuned(start, samples(0), samples(1, 60))
    save_quantised_student(tmp_path / "s.safetensors", result.student, start)
    student = load_quantised_student(tmp_path / "s.safetensors", start)
    assert_same_run(result.deployment, student, samples(2).x)
    with pytest.raises(UserError) as caught:
        load_quantised_student(tmp_path / "s.safetensors", result.deployment)
    assert caught.value.code == "SNX316"


def test_library_holds_samples_out_and_takes_a_teacher() -> None:
    data = samples(0, 240)
    seen = []
    teacher = nn.Linear(6, CLASSES)
    better = snn_export.fine_tune(
        untrained(), data.x, data.y, epochs=3, learning_rate=0.05, batch_size=25, teacher=teacher, progress=seen.append
    )
    assert seen[-1].epochs == 3
    assert np.mean(snn_export.simulate(better, samples(2).x).predictions == samples(2).y) > 0.7


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        snn_export.fine_tune(untrained(), samples(0).x, samples(0).y[:-1])
    assert caught.value.code == "SNX007"
