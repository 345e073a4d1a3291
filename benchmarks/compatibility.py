"""Which recipe trains which network in which forward mode, found out by doing it.

``python benchmarks/compatibility.py`` trains every recipe on every named student for one optimiser step, converts every named
network with every conversion, and writes ``docs/compatibility.md``. ``tests/toolchain/test_compatibility.py`` does the same and
compares, so the document cannot say what the program does not do.

A cell is "yes" or the code of the refusal. Everything else - an exception without a code, a loss or a weight that is not finite,
weights that did not move - ends the run with an error: none of them is an answer.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_export.data.dataset import Samples
from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.teacher import Teacher
from snn_export.reporting.json_file import write_text
from snn_export.training.conversion.registry import CONVERSIONS, load_conversion
from snn_export.training.loop import fit
from snn_export.training.recipe import ForwardMode
from snn_export.training.recipes.registry import RECIPES, load_recipe
from snn_export.training.settings import TrainingSettings

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "compatibility.md"
PAGES = ROOT / "toolchain" / "explanations" / "pages"

CLASSES, WIDTH, STEPS, BATCH = 3, 4, 2, 4
ONE_STEP = TrainingSettings(epochs=1, batch_size=BATCH, augmentation=())
DIVERGED = "SNX310"
CONVERSION = "conversion"


@dataclass(frozen=True)
class Architecture:
    """A column of the table: a student, the smallest input that leaves its last stage a map, and a teacher that fits it."""

    label: str
    student: str
    teacher: str
    input_shape: tuple[int, ...]
    student_settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def sequence(self) -> bool:
        """Whether inputs are events with a time axis of their own."""
        return self.student_settings.get("encoder") == "events"


SPIKES = {"residual": "spikes"}
EVENTS = {"encoder": "events"}
ARCHITECTURES = (
    Architecture("convnet", "convnet", "convnet", (1, 8, 8)),
    Architecture("conv5", "conv5", "conv5", (3, 8, 8)),
    Architecture("vgg9", "vgg9", "vgg9", (3, 8, 8)),
    Architecture("vgg11", "vgg11", "vgg11", (3, 32, 32)),
    Architecture("resnet18", "resnet18", "resnet18", (3, 16, 16)),
    Architecture("resnet18, spikes added", "resnet18", "resnet18", (3, 16, 16), SPIKES),
    Architecture("resnet19", "resnet19", "resnet19", (3, 8, 8)),
    Architecture("resnet19, spikes added", "resnet19", "resnet19", (3, 8, 8), SPIKES),
    Architecture("dense", "dense", "dense", (16,)),
    Architecture("recurrent, from gru", "recurrent", "gru", (6,), EVENTS),
    Architecture("recurrent, from conv1d", "recurrent", "conv1d", (6,), EVENTS),
    Architecture("recurrent2, from gru", "recurrent2", "gru", (6,), EVENTS),
    Architecture("recurrent2, from conv1d", "recurrent2", "conv1d", (6,), EVENTS),
)
RECIPES_OF_STUDENTS = tuple(name for name in RECIPES if name != "teacher")
"""Those of this program: what else is installed on a machine must not change the document."""


@dataclass(frozen=True)
class Case:
    """A cell: what is tried on what. ``mode`` is a forward mode, or "conversion"."""

    mode: str
    recipe: str
    architecture: Architecture


@dataclass(frozen=True)
class Answer:
    """What became of it: "yes", or the code of a refusal with its reason."""

    said: str
    why: str = ""


def cases() -> Iterator[Case]:
    """All cells, table by table, row by row."""
    for mode in ForwardMode:
        for name in RECIPES_OF_STUDENTS:
            yield from (Case(mode.value, name, architecture) for architecture in ARCHITECTURES)
    for name in CONVERSIONS:
        yield from (Case(CONVERSION, name, architecture) for architecture in ARCHITECTURES)


def answer(case: Case) -> Answer:
    """Train or convert; RuntimeError where the outcome is neither a trained network nor a refusal with a code."""
    try:
        if case.mode == CONVERSION:
            _convert(case)
        else:
            _train(case)
    except UserError as error:
        if error.code == DIVERGED:
            raise RuntimeError(f"{_named(case)}: {error}") from error
        return Answer(error.code, error.diagnostics[0].why)
    except Exception as error:
        raise RuntimeError(f"{_named(case)} fails without a code: {type(error).__name__}: {error}") from error
    return Answer("yes")


def _train(case: Case) -> None:
    samples = _samples(case.architecture)
    student, teacher = _student(case.architecture), _teacher(case.architecture)
    recipe = load_recipe(case.recipe).in_mode(ForwardMode(case.mode))
    before = {name: value.clone() for name, value in student.named_parameters()}
    result = fit(student, samples, samples, recipe, ONE_STEP, teacher=teacher)
    _check_finite(case, torch.tensor(result.last.loss), *student.state_dict().values())
    if all(torch.equal(before[name], value) for name, value in student.named_parameters()):
        raise RuntimeError(f"{_named(case)}: no weight has moved")


def _convert(case: Case) -> None:
    samples, conversion = _samples(case.architecture), load_conversion(case.recipe)
    source = conversion.prepare_source(_teacher(case.architecture))
    fit(source, samples, samples, load_recipe("teacher"), ONE_STEP)
    student = conversion.convert(source, torch.tensor(samples.x), STEPS)
    with torch.no_grad():
        _check_finite(case, student(torch.tensor(samples.x)))


def _samples(architecture: Architecture) -> Samples:
    generator = np.random.default_rng(0)
    time = (STEPS,) if architecture.sequence else ()
    x = generator.random((BATCH, *time, *architecture.input_shape), np.float32)
    return Samples((x < 0.5).astype(np.float32) if time else x, np.arange(BATCH) % CLASSES)


def _student(architecture: Architecture) -> SpikingStudent:
    return build_student(
        architecture.student, input_shape=architecture.input_shape, classes=CLASSES, width=WIDTH, steps=STEPS,
        **architecture.student_settings,
    )  # fmt: skip


def _teacher(architecture: Architecture) -> Teacher:
    """Twice as wide, so that terms have to bring features of different widths together."""
    return build_teacher(architecture.teacher, input_shape=architecture.input_shape, classes=CLASSES, width=2 * WIDTH)


def _check_finite(case: Case, *values: Tensor) -> None:
    if not all(bool(value.isfinite().all()) for value in values):
        raise RuntimeError(f"{_named(case)}: a loss, a weight or a logit is not finite")


def _named(case: Case) -> str:
    return f"{case.recipe} ({case.mode}) on {case.architecture.label}"


# --- the document ----------------------------------------------------------------------------------------------------


def document(answers: Mapping[Case, Answer]) -> str:
    """The Markdown text, from the answers alone."""
    lines = [
        "# Which recipe trains which network",
        "",
        "Written by `python benchmarks/compatibility.py`, which tries every cell; the test suite tries them again and compares.",
        "",
        f"A cell of the first two tables is one optimiser step on {BATCH} samples and an evaluation: a student of width {WIDTH} "
        f"with its default neuron and T = {STEPS}, a teacher twice as wide. *yes*: loss and weights are finite, and the weights "
        "have moved. Otherwise the code of the refusal, explained below. One step says nothing about accuracy, which the recipes "
        "benchmark measures.",
        "",
        *_table(answers, ForwardMode.BPTT.value, "Through time (`forward_mode = bptt`)", "recipe"),
        *_table(answers, ForwardMode.RATE.value, "On rates (`forward_mode = rate`)", "recipe"),
        *_table(
            answers, CONVERSION, "Conversions: the teacher, trained for one step, converted and run for T steps", "conversion"
        ),
        *_networks(),
        *_codes(answers),
    ]
    return "\n".join(lines) + "\n"


def _table(answers: Mapping[Case, Answer], mode: str, title: str, what: str) -> list[str]:
    rows: dict[str, list[str]] = defaultdict(list)
    for case, found in answers.items():
        if case.mode == mode:
            rows[case.recipe].append("yes" if found.said == "yes" else f"[{found.said}]")
    lines = [f"## {title}", "", _line([what, *(architecture.label for architecture in ARCHITECTURES)])]
    lines.append(_line(["---"] * (1 + len(ARCHITECTURES))))
    return [*lines, *(_line([f"`{name}`", *cells]) for name, cells in rows.items()), ""]


def _networks() -> list[str]:
    lines = ["## Networks", "", _line(["column", "student", "teacher", "input"]), _line(["---"] * 4)]
    for item in ARCHITECTURES:
        settings = "".join(f", {name} = {value}" for name, value in item.student_settings.items())
        shape = " x ".join(map(str, item.input_shape))
        lines.append(_line([item.label, f"`{item.student}`{settings}", f"`{item.teacher}`", shape]))
    return [*lines, ""]


def _codes(answers: Mapping[Case, Answer]) -> list[str]:
    """Every code that occurs: what it means, each reason given, and where."""
    reasons: dict[str, dict[str, dict[str, list[str]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for case, found in answers.items():
        if found.said != "yes":
            reasons[found.said][found.why][f"`{case.recipe}` ({case.mode})"].append(case.architecture.label)
    lines = ["## Refusals", ""]
    for code in sorted(reasons):
        lines += [f"### {_title(code)}", ""]
        for why, places in reasons[code].items():
            lines.append(f"- {why}: {_places(places)}")
        lines.append("")
    return lines + [f"[{code}]: ../toolchain/explanations/pages/{code}.md" for code in sorted(reasons)]


def _places(places: Mapping[str, Sequence[str]]) -> str:
    """Recipes that were refused on the same networks, together."""
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for recipe, labels in places.items():
        together[tuple(labels)].append(recipe)
    everything = tuple(architecture.label for architecture in ARCHITECTURES)
    found = [
        f"{', '.join(recipes)} on {'every network' if labels == everything else '; '.join(labels)}"
        for labels, recipes in together.items()
    ]
    return ". ".join(found)


def _title(code: str) -> str:
    return (PAGES / f"{code}.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    torch.set_num_threads(1)
    text = document({case: answer(case) for case in cases()})
    write_text(DOCUMENT, text)
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
