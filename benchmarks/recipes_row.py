"""One row of the recipes benchmark: train, choose by validation, read the test set once, deploy on integer Loihi.

Run by ``benchmarks/recipes.py`` in a process of its own, so that its peak memory is that of the row:
``python benchmarks/recipes_row.py DATA RECIPE MODE SEED WORK_FOLDER WORKERS WEIGHTS``, WEIGHTS being those of ``Row`` as JSON.
The result is one JSON object in WORK_FOLDER.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.append(str(ROOT))

from benchmarks.recipes_data import load  # noqa: E402
from benchmarks.recipes_plan import EXPERIMENTS, QCFS_LEVELS, STEPS_OF_BALANCING, STEPS_OF_CONVERSION, TOLERATED, Experiment, Row  # noqa: E402
from snn_export import library  # noqa: E402
from snn_export.data.dataset import Dataset  # noqa: E402
from snn_export.export.deployment import Deployment  # noqa: E402
from snn_export.export.snntorch_reader import deployment_from_snntorch  # noqa: E402
from snn_export.models.diagnostics import UserError  # noqa: E402
from snn_export.models.students.registry import build_student  # noqa: E402
from snn_export.models.students.student import SpikingStudent  # noqa: E402
from snn_export.models.teachers.registry import build_teacher  # noqa: E402
from snn_export.models.teachers.teacher import Teacher  # noqa: E402
from snn_export.reporting.json_file import write_text  # noqa: E402
from snn_export.training.checkpoint import load_model, save_model  # noqa: E402
from snn_export.training.conversion.conversion import Conversion  # noqa: E402
from snn_export.training.conversion.qcfs import Qcfs  # noqa: E402
from snn_export.training.devices import peak_memory  # noqa: E402
from snn_export.training.evaluate import predictions  # noqa: E402
from snn_export.training.loop import Progress, TrainingResult, fit  # noqa: E402
from snn_export.training.recipe import ForwardMode, Recipe  # noqa: E402
from snn_export.training.recipes.registry import load_recipe  # noqa: E402
from snn_export.training.settings import TrainingSettings  # noqa: E402

CALIBRATION = 128
"""Training samples that choose the integer grid."""
NOT_FOR_THIS_NETWORK = ("SNX28", "SNX34", "SNX35")
"""Codes by which a recipe refuses a pair of networks: a row of the table like any other."""
DEPLOYED_STEPS = 4
"""T of a conversion that is compared with the students and deployed."""
CHUNK = 250
"""Test samples per call of the simulator."""
AT_ONCE = 512
"""Samples times steps that a network in floats takes at once: more of them leave the cache, and take twice as long."""


def main(arguments: list[str]) -> None:
    data_name, recipe, mode, seed, work, workers, weights = arguments
    torch.set_num_threads(1)
    row = Row(data_name, recipe, mode, int(seed), tuple((term, float(weight)) for term, weight in json.loads(weights)))
    experiment, data, folder = EXPERIMENTS[data_name], load(data_name), Path(work)
    result = {
        "row": asdict(row), "data": data.fingerprint, "torch": torch.__version__, "workers": int(workers), "machine": _machine(),
        "training_samples": len(data.train), "validation_samples": len(data.validation), "student": experiment.student,
    }  # fmt: skip
    try:
        result |= _converted(row, experiment, data, folder) if mode == "conversion" else _trained(row, experiment, data, folder)
    except UserError as error:
        if not error.code.startswith(NOT_FOR_THIS_NETWORK):
            raise
        result |= {"refused": error.code, "why_refused": error.diagnostics[0].what}
    write_text(folder / f"{row.key}.json", json.dumps(result, indent=1, sort_keys=True) + "\n")


def _trained(row: Row, experiment: Experiment, data: Dataset, folder: Path) -> dict[str, Any]:
    """A student under a recipe, or the plain ReLU network of its shape."""
    settings = replace(experiment.settings, seed=row.seed)
    if row.mode == "ann":
        source, facts = relu_network(experiment, data, folder, row.seed)
        found = predictions(source, data.test.x)
        return {"method": "ReLU network", "fully_spiking": False, **facts, **_accuracy("test", found, data)}
    # The gradient is not divided by T, so that one learning rate serves both forward modes.
    recipe = replace(load_recipe(row.recipe).in_mode(ForwardMode(row.mode)), scale_gradient=False)
    recipe = reweighted(recipe, dict(row.weights))
    teacher, teacher_facts = shared_teacher(experiment, data, folder) if recipe.needs_teacher else (None, {})
    student = student_of(experiment, data, row.seed)
    before = peak_memory()
    result = fit(
        student, data.train, data.validation, recipe, settings,
        teacher=teacher, checkpoint_dir=folder / row.key, progress=_progress(row.key),
    )  # fmt: skip
    if row.weights:  # a trial: the test samples have no part in what is chosen
        return {"method": recipe.describe(), **_training(result, settings)}
    peak = peak_memory()
    save_model(folder / f"{row.key}.safetensors", student)
    found, rates = _tested(student, data)
    facts = {
        "method": recipe.describe(), "teacher": _name(experiment.teacher) if teacher is not None else None,
        "teacher_accuracy": teacher_facts.get("accuracy"),
        "steps": data.steps or student.config.steps,
        "firing_rates": rates, "fully_spiking": True, "peak_memory_bytes": peak, "memory_before_bytes": before,
    }  # fmt: skip
    return {
        **facts,
        **_training(result, settings),
        **_accuracy("test", found, data),
        **deploy(student, data, found, experiment.fine_tune_epochs),
    }


def _converted(row: Row, experiment: Experiment, data: Dataset, folder: Path) -> dict[str, Any]:
    """A conversion baseline: its source network, trained under the same budget, and the spiking network at many T."""
    from snn_export.training.conversion.registry import load_conversion

    conversion = load_conversion(row.recipe)
    settings = replace(experiment.settings, seed=row.seed)
    if row.recipe == "qcfs":
        conversion = replace(conversion, method=Qcfs(levels=QCFS_LEVELS))
        name, config = experiment.source or ("", {})
        source = build_teacher(name, seed=row.seed, input_shape=data.input_shape, classes=data.classes, **config)
        source = conversion.prepare_source(source)
        result = fit(
            source, data.train, data.validation, load_recipe("teacher"), settings,
            checkpoint_dir=folder / row.key, progress=_progress(row.key),
        )  # fmt: skip
        facts = _training(result, settings)
    else:
        source, facts = relu_network(experiment, data, folder, row.seed)
    calibration = torch.tensor(data.train.x[:CALIBRATION])
    student = conversion.convert(source, calibration, DEPLOYED_STEPS)
    found, rates = _tested(student, data)
    levels = f", L = {QCFS_LEVELS}" if row.recipe == "qcfs" else ""
    return {
        "method": f"conversion: {conversion.name}{levels}", "steps": DEPLOYED_STEPS,
        "firing_rates": rates, "fully_spiking": True,
        "curve": _curve(conversion, source, calibration, data),
        "peak_memory_bytes": peak_memory(), "source_accuracy": float(np.mean(predictions(source, data.test.x) == data.test.y)),
        **facts, **_accuracy("test", found, data), **deploy(student, data, found, epochs=0),
    }  # fmt: skip


def _curve(conversion: Conversion, source: Teacher, calibration: torch.Tensor, data: Dataset) -> dict[str, float]:
    """Test accuracy by T. A network that is the same for every T has had its answer of step T on the way to the last one."""
    wanted = STEPS_OF_BALANCING if conversion.name == "max_norm" else STEPS_OF_CONVERSION
    if conversion.method.depends_on_steps:
        students = {steps: conversion.convert(source, calibration, steps) for steps in wanted}
        found = {steps: _answers(student, data, [steps])[steps] for steps, student in students.items()}
    else:
        found = _answers(conversion.convert(source, calibration, max(wanted)), data, wanted)
    return {str(steps): float(np.mean(answers == data.test.y)) for steps, answers in found.items()}


def reweighted(recipe: Recipe, weights: Mapping[str, float]) -> Recipe:
    """The recipe with other weights for the terms that are named."""
    unknown = weights.keys() - {item.term.name for item in recipe.terms}
    if unknown:
        raise ValueError(f"{recipe.name} has no term {', '.join(sorted(unknown))}")
    return replace(recipe, terms=tuple(replace(item, weight=weights.get(item.term.name, item.weight)) for item in recipe.terms))


# --- networks --------------------------------------------------------------------------------------------------------


def student_of(experiment: Experiment, data: Dataset, seed: int) -> SpikingStudent:
    name, config = experiment.student
    time = {} if data.steps is None else {"steps": data.steps, "encoder": "events"}
    return build_student(name, seed=seed, input_shape=data.input_shape, classes=data.classes, **config, **time)


def shared_teacher(experiment: Experiment, data: Dataset, folder: Path) -> tuple[Teacher, dict[str, Any]]:
    """The teacher of a data set, trained once in a work folder; one of another processor rounds otherwise, and is another one."""
    return _cached_ann(experiment.teacher, experiment.teacher_settings, 0, data, folder)


def relu_network(experiment: Experiment, data: Dataset, folder: Path, seed: int) -> tuple[Teacher, dict[str, Any]]:
    """The ReLU network of the student's shape under the student's budget, trained once per seed."""
    if experiment.source is None:
        raise ValueError(f"{experiment.data} has no network to convert")
    return _cached_ann(experiment.source, replace(experiment.settings, seed=seed), seed, data, folder)


def _cached_ann(
    network: tuple[str, Any], settings: TrainingSettings, seed: int, data: Dataset, folder: Path
) -> tuple[Teacher, dict[str, Any]]:
    name, config = network
    recipe = load_recipe("teacher")
    facts = [name, sorted(config.items()), asdict(settings), seed, data.fingerprint, recipe.describe(), torch.__version__]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    with (folder / f"ann-{key}.lock").open("w") as lock:  # two rows may want the same network at once: one trains, one waits
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _trained_ann(network, settings, seed, data, folder / f"ann-{key}.safetensors")


def _trained_ann(
    network: tuple[str, Any], settings: TrainingSettings, seed: int, data: Dataset, path: Path
) -> tuple[Teacher, dict[str, Any]]:
    (name, config), record = network, path.with_suffix(".json")
    if path.is_file() and record.is_file():
        found = load_model(path)
        if isinstance(found, Teacher):
            return found, json.loads(record.read_text(encoding="utf-8"))
    teacher = build_teacher(name, seed=seed, input_shape=data.input_shape, classes=data.classes, **config)
    result = fit(
        teacher, data.train, data.validation, load_recipe("teacher"), settings,
        checkpoint_dir=path.with_suffix(""), progress=_progress(path.stem),
    )  # fmt: skip
    save_model(path, teacher)
    found_test = predictions(teacher, data.test.x)
    facts = {**_training(result, settings), "accuracy": float(np.mean(found_test == data.test.y))}
    record.write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")
    return teacher, facts


# --- measuring -------------------------------------------------------------------------------------------------------


def _answers(student: SpikingStudent, data: Dataset, steps: Sequence[int]) -> dict[int, NDArray[np.int64]]:
    """Predictions on the test set after each of ``steps`` steps of one run."""
    student.eval()
    found: dict[int, list[NDArray[np.int64]]] = {step: [] for step in steps}
    with torch.no_grad():
        for piece in _pieces(data, max(steps)):
            membranes = student.membranes(piece)
            for step in steps:
                found[step].append(membranes[step - 1].argmax(dim=1).numpy())
    return {step: np.concatenate(parts) for step, parts in found.items()}


def _pieces(data: Dataset, steps: int) -> Iterator[torch.Tensor]:
    """The test samples, some at a time, for a network of so many steps."""
    size = max(AT_ONCE // steps, 1)
    yield from (torch.tensor(data.test.x[start : start + size]) for start in range(0, len(data.test), size))


def _tested(student: SpikingStudent, data: Dataset) -> tuple[NDArray[np.int64], dict[str, float]]:
    """Predictions on the test set, and spikes per neuron and step of every population."""
    total: dict[str, float] = {}

    def listen(name: str, spikes: torch.Tensor) -> None:
        total[name] = total.get(name, 0.0) + float(spikes.mean()) * spikes.shape[1]

    student.eval()
    found = []
    with torch.no_grad():
        for piece in _pieces(data, data.steps or student.config.steps):
            membranes = student.membranes(piece, listen=listen)
            found.append(membranes[-1].argmax(dim=1).numpy())
    return np.concatenate(found), {name: value / len(data.test) for name, value in total.items()}


def deploy(student: SpikingStudent, data: Dataset, expected: NDArray[np.int64], epochs: int) -> dict[str, Any]:
    """The student on the integer grid of Loihi 2, run by the ``loihi`` simulator on the same test samples; or why not."""
    started = time.monotonic()
    try:
        integers, before = on_the_grid(student, data, epochs)
        found = _simulated(integers, data, data.test.x)
        untuned = None if before is None else float(np.mean(_simulated(before, data, data.test.x) == data.test.y))
    except UserError as error:
        return {"deployed": f"refused: {error.code}", "why_refused": error.diagnostics[0].what}
    microcode = any(spec.microcode for spec in integers.contract.neurons.values())
    return {
        "deployed": "loihi2 microcode" if microcode else "loihi2",
        "fine_tuned_epochs": 0 if before is None else epochs,
        "integer_accuracy_before_fine_tuning": untuned,
        "decisions_changed": float(np.mean(found != expected)),
        "deployment_seconds": time.monotonic() - started,
        "deployment": integers.fingerprint,
        **_accuracy("integer", found, data),
    }


def on_the_grid(student: SpikingStudent, data: Dataset, epochs: int) -> tuple[Deployment, Deployment | None]:
    """The student in integers, and as it was before it was trained on them, None where it was not.

    Where quantisation costs more than ``TOLERATED`` points on the validation samples, the network is trained for ``epochs`` more
    on the integers it runs on, and the better of the two by validation is deployed. Raises UserError for what cannot be held.
    """
    calibration, held = data.signal(data.train.x[:CALIBRATION]), data.validation
    deployment = deployment_from_snntorch(
        student.layers, data.input_shape, data.steps or student.config.steps, rule=student.readout.rule, encoder=student.encoder
    )
    deployment = library.prepared(deployment, calibration)
    integers = library.quantize(deployment, calibration, target="loihi2", input_range=(data.input_low, data.input_high))
    lost = _right(predictions(student, held.x), data) - _right(_simulated(integers, data, held.x), data) if epochs else 0
    if lost <= TOLERATED / 100 * len(held):
        return integers, None
    learnt = library.fine_tune(
        integers, data.signal(data.train.x), data.train.y, epochs=epochs, validation=(data.signal(held.x), held.y)
    )
    return learnt, None if learnt.fingerprint == integers.fingerprint else integers


def _simulated(integers: Deployment, data: Dataset, x: NDArray[np.float32]) -> NDArray[np.int64]:
    starts = range(0, len(x), CHUNK)
    return np.concatenate([library.simulate(integers, data.signal(x[start : start + CHUNK])).predictions for start in starts])


def _right(found: NDArray[np.int64], data: Dataset) -> int:
    return int(np.count_nonzero(found == data.validation.y))


def _machine() -> dict[str, Any]:
    return {"cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(), "architecture": platform.machine()}


def _accuracy(kind: str, found: NDArray[np.int64], data: Dataset) -> dict[str, Any]:
    """Accuracy, and which samples were right: differences between rows are compared sample by sample."""
    right = np.asarray(found == data.test.y)
    packed = base64.b64encode(np.packbits(right).tobytes()).decode()
    return {f"{kind}_accuracy": float(right.mean()), f"{kind}_right": packed, "test_samples": len(right)}


def _training(result: TrainingResult, settings: TrainingSettings) -> dict[str, Any]:
    """Best and last epoch apart. The seconds are wall time with as many rows beside it as the benchmark ran."""
    return {
        "settings": asdict(settings),
        "best_epoch": result.best.epoch,
        "validation_best": result.best.validation_accuracy,
        "validation_last": result.last.validation_accuracy,
        "loss_last": result.last.loss,
        "seconds_per_epoch": float(np.median([record.seconds for record in result.history])),
        "stages": list(result.pairing),
    }


def _name(network: tuple[str, Any]) -> str:
    name, config = network
    return " ".join([name, *(f"{key} {value}" for key, value in config.items())])


def _progress(label: str) -> Any:
    def report(progress: Progress) -> None:
        if progress.validation_accuracy is not None:
            print(
                f"{label}: epoch {progress.epoch}/{progress.epochs} loss {progress.loss:.3f} train {progress.accuracy:.3f} "
                f"validation {progress.validation_accuracy:.4f} {progress.images_per_second:.0f}/s",
                flush=True,
            )

    return report


if __name__ == "__main__":
    main(sys.argv[1:])
