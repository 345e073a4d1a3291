"""The steps of a run, in order, and how they are carried out, skipped or refused."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from snn_export.config_schema import Config, TrainingConfig
from snn_export.energy.cost_table import is_file
from snn_export.export.nir_io import file_digest
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.registry import BUILT_IN, simulator_or_broken
from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion
from snn_export.pipeline.workspace import Workspace, step_key
from snn_export.training.code_digest import code_beside


@dataclass(frozen=True)
class StepResult:
    """What a step says of itself: one line, and whether a later run may take its result over."""

    summary: str
    reusable: bool = True


class Teller(Protocol):
    """Where progress goes: stderr for the command, nowhere for the library."""

    def step(self, number: int, total: int, name: str, state: str) -> None:
        """A step starts, or is skipped; ``state`` says which and why."""
        ...

    def done(self, name: str, summary: str, seconds: float) -> None:
        """A step ended."""
        ...

    def line(self, text: str) -> None:
        """Something worth a line within a step; replaced by the next one on a terminal."""
        ...

    def training(self, label: str) -> Any:
        """A context manager whose value takes the training loop's progress."""
        ...


@dataclass(frozen=True)
class Context:
    """What a step may use. ``folder``: where it writes (its partial folder)."""

    config: Config
    workspace: Workspace
    folder: Path
    teller: Teller
    base: Path
    """Folder of the config file: relative data paths start here."""


@dataclass(frozen=True)
class Step:
    """One step. ``carry_out`` is ``"module:function"``, imported only when the step runs."""

    name: str
    after: tuple[str, ...]
    purpose: str
    carry_out: str
    settings: Callable[[Config, Path], Mapping[str, Any]]
    sources: tuple[str, ...]
    """Packages whose code decides the result; a change in them makes it stale."""


def _data(config: Config, base: Path) -> dict[str, Any]:
    from snn_export.pipeline.data_source import source_fingerprint

    return {**config.data.model_dump(), "content": source_fingerprint(config.data.source, base), "seed": config.project.seed}


def _teacher(config: Config, base: Path) -> dict[str, Any]:
    of_students = {"recipe", "forward_mode", "student_epochs", "student_taps", "teacher_taps", "terms"}
    return {
        "data": _data(config, base),
        "training": config.training.model_dump(exclude=of_students),
        "model": config.model.model_dump(include={"teacher", "teacher_width"}),
        "files": _teacher_files(config, base),
    }


def _teacher_files(config: Config, base: Path) -> dict[str, str]:
    """Digests of the files a teacher is read from; none for one that is trained."""
    from snn_export.pipeline.teacher_source import files_of

    return {str(path): file_digest(path) for path in files_of(config.model.teacher, base) if path.is_file()}


def _student(config: Config, base: Path) -> dict[str, Any]:
    training = config.training.model_dump(exclude={"teacher_epochs"})
    model = config.model.model_dump(exclude={"teacher", "teacher_width"})
    return {"data": _data(config, base), "training": training, "model": model, "plug-ins": _plug_ins(config.training)}


def _plug_ins(training: TrainingConfig) -> dict[str, dict[str, str]]:
    """Version and code of the recipe, and of the loss terms, that are a third party's: no digest of our own source holds them."""
    from snn_export.training.recipes import registry as recipes
    from snn_export.training.terms import registry as terms

    of_terms = [line.split()[0] for line in training.terms if line.split()]
    return {
        f"{registry.group}:{name}": _code_of(point)
        for registry, names in ((recipes.REGISTRY, [training.recipe]), (terms.REGISTRY, of_terms))
        for name, point in registry.others().items()
        if name in names
    }


def _code_of(point: EntryPoint) -> dict[str, str]:
    """Version of the package that registers a part, and its code.

    The code: the module that defines it, and the whole package around it where it lies in one.
    """
    version = {"version": point.dist.version} if point.dist is not None else {}
    try:
        spec = find_spec(point.module)
    except Exception as error:  # its package may raise anything while it is imported; loading it reports that as SNX346
        return {**version, "broken": type(error).__name__}
    origin = None if spec is None or spec.origin is None else Path(spec.origin)
    if origin is None or not origin.is_file():
        return version
    return {**version, **code_beside(point.module, origin)}


def _quantize(config: Config, base: Path) -> dict[str, Any]:
    settings = {"data": _data(config, base), **config.quantize.model_dump()}
    if not config.quantize.fine_tune_epochs:
        return settings
    training = config.training.model_dump(include={"recipe", "batch_size", "threads"})
    return {**settings, "training": training, "plug-ins": _plug_ins(config.training)}


def _verify(config: Config, base: Path) -> dict[str, Any]:
    return {
        "data": _data(config, base),
        "name": config.project.name,
        "verify": config.verify.model_dump(exclude={"workers", "scheduler"}),  # the result does not depend on where it ran
        "gates": config.gates.model_dump(),
        "energy": {**config.energy.model_dump(), "content": _table_digest(config, base)},
        "placement": config.placement.model_dump(),
        "available": {name: _presence(name) for name in config.verify.backends},
    }


def _table_digest(config: Config, base: Path) -> str:
    """Of a cost table that is a file; those that come with the program are part of its source."""
    path = base / Path(config.energy.table).expanduser()
    return file_digest(path) if is_file(config.energy.table) and path.is_file() else ""


def _presence(name: str) -> dict[str, Any]:
    """What a backend says of itself: a verification made without Lava is stale once Lava is there.

    Our own in-process backends are always there and cost an import of torch to ask, so only the others are asked.
    """
    if name in BUILT_IN and name not in environments.BUILT_IN:
        return {"ok": True}
    state = simulator_or_broken(name).availability()
    chosen = os.environ.get(environments.override_variable(name), "")
    digest = file_digest(Path(chosen)) if chosen and Path(chosen).is_file() else ""
    return {"ok": state.ok, "versions": dict(state.versions), "interpreter": [chosen, digest]}


def _nothing(config: Config, base: Path) -> dict[str, Any]:
    del config, base
    return {}


_TRAINING = ("models", "data", "training", "pipeline.training", "pipeline.choices")
_EXPORTING = (*_TRAINING, "export", "library", "pipeline.deploying")
_RUNNING = (*_EXPORTING, "hardware_sims", "calibration", "pipeline.quantising")
_JUDGING = (
    *_RUNNING,
    "verification",
    "energy",
    "reporting",
    "pipeline.verification",
    "pipeline.energy_run",
    "pipeline.placing",
    "pipeline.scaling",
)

STEPS: tuple[Step, ...] = (
    Step("teacher", (), "train the ANN teacher", "snn_export.pipeline.training:train_teacher", _teacher, _TRAINING),
    Step(
        "student", ("teacher",), "distil the spiking student", "snn_export.pipeline.training:train_student", _student, _TRAINING
    ),
    Step("export", ("student",), "fold, absorb, write NIR", "snn_export.pipeline.deploying:export_float", _data, _EXPORTING),
    Step("quantize", ("export",), "search the integer grid", "snn_export.pipeline.quantising:quantize", _quantize, _RUNNING),
    Step(
        "verify",
        ("quantize", "student", "teacher"),
        "run the ladder and compare",
        "snn_export.pipeline.verification:verify",
        _verify,
        _JUDGING,
    ),
    Step("report", ("verify",), "write report.json and report.html", "snn_export.pipeline.rendering:render", _nothing, _JUDGING),
)
STEP_NAMES = tuple(step.name for step in STEPS)
TRAINED = ("teacher", "student")
"""Steps that may take hours: what they made before is kept once, and no verification runs them unasked."""


@dataclass(frozen=True)
class Planned:
    """A step with what will become of it: "run" or "up to date", and why."""

    step: Step
    key: str
    runs: bool
    why: str


def plan(
    config: Config, workspace: Workspace, base: Path, start: str | None = None, until: str | None = None
) -> tuple[Planned, ...]:
    """Decide for every step whether it must run.

    Args:
        config: the settings.
        workspace: the output folder.
        base: folder of the config file.
        start: run this step and all after it again, whatever is there.
        until: stop after this step.

    Raises:
        UserError: SNX001 for a step that does not exist, or a ``start`` behind ``until``.
    """
    for name in (start, until):
        if name is not None and name not in STEP_NAMES:
            raise UserError("SNX001", f"there is no step called {name!r}", where="--from / --until",
                            why=f"the steps are {', '.join(STEP_NAMES)}", fix=suggestion(name, STEP_NAMES))  # fmt: skip
    last = STEP_NAMES.index(until) if until else len(STEPS) - 1
    first = STEP_NAMES.index(start) if start else len(STEPS)
    if start and first > last:
        raise UserError("SNX001", f"--from {start} comes after --until {until}", where="--from / --until",
                        why="there would be nothing to run", fix="name an earlier step with --from")  # fmt: skip
    keys = keys_now(config, base, STEPS[last].name)
    planned: list[Planned] = []
    for index, step in enumerate(STEPS[: last + 1]):
        stale = [p.step.name for p in planned if p.runs and p.step.name in step.after]
        if index >= first:
            reason, runs = "asked for", True
        elif stale:
            reason, runs = f"{stale[0]} runs first", True
        elif workspace.up_to_date(step.name, keys[step.name]):
            reason, runs = "nothing it depends on changed", False
        elif step.name in TRAINED and workspace.up_to_date(f"{step.name}.previous", keys[step.name]):
            reason, runs = f"taken back from {step.name}.previous, which was trained with these settings", False
        else:
            found = workspace.record(step.name)
            reason, runs = ("not done yet" if found is None else _why_stale(found.key, keys[step.name], found.reusable)), True
        planned.append(Planned(step, keys[step.name], runs, reason))
    return tuple(planned)


def keys_now(config: Config, base: Path, until: str) -> dict[str, str]:
    """Keys of the steps up to ``until``, from the settings and the data as they are at this moment."""
    keys: dict[str, str] = {}
    for step in STEPS[: STEP_NAMES.index(until) + 1]:
        before = {name: keys[name] for name in step.after}
        keys[step.name] = step_key(step.name, step.settings(config, base), before, step.sources)
    return keys


def _why_stale(old: str, new: str, reusable: bool) -> str:
    if not reusable:
        return "a backend failed the last time"
    return "its files were changed" if old == new else "something it depends on changed"


def _check_deployable(config: Config) -> None:
    """What the export would refuse, hours before it."""
    from snn_export.pipeline.choices import check_deployable

    check_deployable(config)


def carry_out(
    config: Config, workspace: Workspace, base: Path, teller: Teller, start: str | None = None, until: str | None = None
) -> int:
    """Plan and run, both under the workspace's lock; returns how many steps ran.

    A trained network that another one had replaced is taken back where its settings are those asked for.
    A step that is interrupted leaves its partial folder for the next run; finished steps stay. A step whose settings or data
    changed while it ran is kept for this run and not taken over by the next.
    """
    ran = 0
    with workspace.lock():
        planned = plan(config, workspace, base, start, until)
        if any(item.runs and item.step.name == "export" for item in planned):
            _check_deployable(config)
        for number, item in enumerate(planned, 1):
            step = item.step
            if not item.runs:
                if not workspace.up_to_date(step.name, item.key):
                    workspace.take_back(step.name)
                teller.step(number, len(planned), step.name, f"up to date: {item.why}")
                continue
            keeps = step.name in TRAINED
            kept = (
                f"; the one before is kept in {step.name}.previous" if keeps and workspace.replaces(step.name, item.key) else ""
            )
            teller.step(number, len(planned), step.name, f"{step.purpose} ({item.why}{kept})")
            started = time.monotonic()
            module, _, function = step.carry_out.partition(":")
            work: Callable[[Context], StepResult] = getattr(import_module(module), function)
            folder = workspace.partial(step.name, item.key)
            result = work(Context(config, workspace, folder, teller, base))
            unchanged = keys_now(config, base, step.name)[step.name] == item.key
            seconds = time.monotonic() - started
            workspace.commit(step.name, item.key, result.summary, seconds, result.reusable and unchanged, keeps)
            teller.done(step.name, result.summary, seconds)
            ran += 1
    return ran
