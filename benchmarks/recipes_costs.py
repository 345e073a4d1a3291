"""Seconds that an epoch of every recipe takes, measured side by side.

``python benchmarks/recipes.py --costs`` asks for it and writes ``docs/results/recipes_costs.json``. The rows of the table were
trained over days with other work beside them, so their own seconds tell nothing about recipes: here each trains a few batches in
turn, round by round, in one process with one thread, and the median of the rounds counts. The first round warms up.

``python benchmarks/recipes_costs.py DATA`` prints the costs of one data set as JSON, on the last line.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.recipes_data import load
from benchmarks.recipes_plan import EXPERIMENTS, QCFS_LEVELS, Experiment, Row, rows
from benchmarks.recipes_row import student_of
from snn_export.data.dataset import Dataset, Samples
from snn_export.models.diagnostics import UserError
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.teacher import Teacher
from snn_export.training.conversion.qcfs import Qcfs
from snn_export.training.conversion.registry import load_conversion
from snn_export.training.loop import fit
from snn_export.training.recipe import ForwardMode
from snn_export.training.recipes.registry import load_recipe

BATCHES = 12
ROUNDS = 5
THROUGH_TIME_TOO = ("hybrid_blockwise",)
"""Recipes on rates whose claim is that they cost less than through time: that is measured too, though no row asks for it."""
Train = Callable[[], float]
"""Trains some batches and returns the seconds that they took, without validation."""


def costs(data: str, batches: int = BATCHES, rounds: int = ROUNDS) -> dict[str, Any]:
    """``epochs``: ``{"recipe-mode": {"median", "minimum", "rounds"}}``, seconds; ``refused``: codes; and what they hold under."""
    threads, load_before = torch.get_num_threads(), os.getloadavg()[0]
    torch.set_num_threads(1)
    try:
        experiment, found = EXPERIMENTS[data], load(data)
        count = min(batches * experiment.settings.batch_size, len(found.train))
        ways = _ways(data, experiment, found, count)
        refused = {name: code for name, way in ways.items() if (code := _refusal(way))}
        ways = {name: way for name, way in ways.items() if name not in refused}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for index in range(rounds + 1):
            for name, train in ways.items():
                taken = train()
                if index:
                    seconds[name].append(taken * len(found.train) / count)
            print(f"{data}: round {index} of {rounds}", flush=True)
    finally:
        torch.set_num_threads(threads)
    epochs = {
        name: {"median": statistics.median(taken), "minimum": min(taken), "rounds": len(taken)} for name, taken in seconds.items()
    }
    return {"epochs": epochs, "refused": refused, "batches": batches, "torch": torch.__version__, "load_before": load_before}


def _refusal(way: Train) -> str:
    """The code by which a recipe refuses these networks, as its row does; empty where it trains them."""
    try:
        way()
    except UserError as error:
        return error.code
    return ""


def _ways(data: str, experiment: Experiment, found: Dataset, count: int) -> dict[str, Train]:
    """Every recipe of the plan, ready to train ``count`` samples. Conversions but QCFS train the ReLU network, which is there."""
    train = Samples(found.train.x[:count], found.train.y[:count])
    held = Samples(found.validation.x[:1], found.validation.y[:1])
    names = dict.fromkeys((row.recipe, row.mode) for row in rows(data) if row.mode != "conversion" or row.recipe == "qcfs")
    names |= {(recipe, "bptt"): None for recipe in THROUGH_TIME_TOO}
    return {f"{recipe}-{mode}": _way(Row(data, recipe, mode, 0), experiment, found, train, held) for recipe, mode in names}


def _way(row: Row, experiment: Experiment, found: Dataset, train: Samples, held: Samples) -> Train:
    settings = replace(experiment.settings, epochs=1)
    teacher = _network(experiment.teacher, found) if row.mode in ("rate", "bptt") else None
    recipe = load_recipe(row.recipe if teacher is not None else "teacher")
    if teacher is not None:
        recipe = replace(recipe.in_mode(ForwardMode(row.mode)), scale_gradient=False)

    def seconds() -> float:
        learner = _learner(row, experiment, found)
        result = fit(learner, train, held, recipe, settings, teacher=teacher if recipe.needs_teacher else None)
        return result.last.seconds

    return seconds


def _learner(row: Row, experiment: Experiment, found: Dataset) -> SpikingStudent | Teacher:
    """What a row trains: a student, or the network that it converts."""
    if row.mode in ("rate", "bptt"):
        return student_of(experiment, found, 0)
    source = _network(experiment.source or ("", {}), found)
    if row.mode == "ann":
        return source
    return replace(load_conversion("qcfs"), method=Qcfs(levels=QCFS_LEVELS)).prepare_source(source)


def _network(network: tuple[str, Any], found: Dataset) -> Teacher:
    """With weights as drawn: what it has learnt costs nothing."""
    name, config = network
    return build_teacher(name, seed=0, input_shape=found.input_shape, classes=found.classes, **config)


if __name__ == "__main__":
    print(json.dumps(costs(sys.argv[1])))
