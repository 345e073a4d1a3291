"""Running the pipeline from a command: settings in, progress out, exit code from the report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from snn_export.config import Loaded, load_config
from snn_export.config_schema import Config
from snn_export.failures import OUTPUT_KEY
from snn_export.pipeline.files import HTML_FILE, REPORT_FILE, RUN_FILE
from snn_export.pipeline.machine import write_run_facts
from snn_export.pipeline.steps import TRAINED, Planned, carry_out, plan
from snn_export.pipeline.workspace import Workspace
from snn_export.reporting.json_file import read_report
from snn_export.reporting.report import Report


@dataclass(frozen=True)
class Run:
    """Settings of a command, and the folder they point at."""

    config: Config
    base: Path
    workspace: Workspace

    @property
    def report_path(self) -> Path:
        """Where the report of a whole run lies."""
        return self.workspace.folder("report") / REPORT_FILE

    @property
    def html_path(self) -> Path:
        """Its HTML rendering."""
        return self.workspace.folder("report") / HTML_FILE


def prepare(config_file: Path | None, overrides: Mapping[str, str], output: Path | None = None) -> Run:
    """Settings from file, environment and flags; without a file the defaults, which are the digits."""
    loaded: Loaded = load_config(config_file, overrides, allow_missing=config_file is None)
    root = output if output is not None else loaded.folder / loaded.config.project.output
    click.get_current_context().meta[OUTPUT_KEY] = root  # where a crash report goes
    return Run(loaded.config, loaded.folder, Workspace(root))


def planned(run: Run, start: str | None = None, until: str | None = None) -> tuple[Planned, ...]:
    """What would be done."""
    return plan(run.config, run.workspace, run.base, start, until)


def require_trained(run: Run) -> None:
    """Whether verifying would have to train first.

    Raises:
        UserError: SNX028, because nobody expects hours of training, or a verdict on another network, of a verification.
    """
    from snn_export.models.diagnostics import UserError

    stale = next((item for item in planned(run, start="verify") if item.runs and item.step.name in TRAINED), None)
    if stale is not None:
        raise UserError(
            "SNX028", "there is no trained network to verify", where=str(run.workspace.root),
            why=f"the step {stale.step.name} would have to run: {stale.why}",
            fix="`snn-export run` trains and verifies; for a network file, snn-export verify NET.nir",
        )  # fmt: skip


def require_project(run: Run, settings: bool) -> None:
    """That there is something to go on with: a run in the output folder, or settings that somebody wrote.

    Args:
        run: whose folder is looked at.
        settings: whether the user named a file of settings.

    Raises:
        UserError: SNX028, because nobody who asks for a result in an empty folder expects defaults to be trained.
    """
    from snn_export.models.diagnostics import UserError

    if settings or any(run.workspace.record(item.step.name) is not None for item in planned(run)):
        return
    raise UserError(
        "SNX028", "there is no run here, and no settings to make one from", where=str(run.workspace.root),
        why="what is missing is run only where there is a run, or a snn-export.toml, to go on from",
        fix="go to the folder of your run, name its folder with --run, or make one: snn-export init && snn-export run",
    )  # fmt: skip


def execute(run: Run, start: str | None = None, until: str | None = None) -> int:
    """Carry the plan out with progress on stderr; returns how many steps ran.

    Raises:
        UserError: SNX322, SNX323, SNX470 for a cost table that could not be used at the end.
    """
    from snn_export.commands.telling import ConsoleTeller
    from snn_export.energy.cost_table import find_table

    find_table(run.config.energy.table, run.base)  # hours before it is needed
    started = time.monotonic()
    with ConsoleTeller() as teller:
        ran = carry_out(run.config, run.workspace, run.base, teller, start, until)
    if ran:
        write_run_facts(run.workspace, run.workspace.root / RUN_FILE, time.monotonic() - started, ran)
    return ran


def finished_report(run: Run, step: str = "report") -> Report:
    """The report of the last whole run, or of its step "verify"."""
    return read_report(run.workspace.folder(step) / REPORT_FILE)
