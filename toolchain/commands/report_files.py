"""A report written beside the verdict for a CI service: test results, a comment, annotations."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from snn_export.commands.options import Format

if TYPE_CHECKING:
    from snn_export.reporting.report import Report

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
"""Where GitHub Actions names the file that is shown on the page of a job."""

_PATH = click.Path(path_type=Path)
_LEAST_ROOM = 2_000


@dataclass(frozen=True)
class ReportFiles:
    """What is written of a report beside showing it; nothing by default."""

    junit: Path | None = None
    markdown: Path | None = None
    github: bool = False

    def write(self, report: Report, page: Path, *, to_stderr: bool) -> None:
        """Write the files that were asked for, and print the annotations.

        Args:
            report: what to write.
            page: where the whole report is, for a summary that had to be cut short.
            to_stderr: annotations go there, because standard output is taken.

        Raises:
            UserError: SNX132, a file cannot be written.
        """
        from snn_export.reporting.json_file import write_text

        if self.junit is not None:
            from snn_export.reporting import junit

            write_text(self.junit, junit.render(report))
        if self.markdown is not None:
            from snn_export.reporting import markdown

            write_text(self.markdown, markdown.render(report))
        if self.github:
            from snn_export.reporting import github

            click.echo(github.render(report), nl=False, err=to_stderr)
            append_summary(lambda room: github.step_summary(report, str(page), room))

    @contextmanager
    def quiet(self, output_format: Format = "human") -> Iterator[None]:
        """While what the report says is printed for people: no text in it is taken for a command by the service.

        GitHub reads commands from every line of the log, so a layer could be named like one.
        """
        if not self.github or output_format == "json":  # standard output belongs to a program then
            yield
            return
        token = secrets.token_hex(16)
        click.echo(f"::stop-commands::{token}")
        try:
            yield
        finally:
            click.echo(f"::{token}::")


def report_file_options(command: Decorated) -> Decorated:
    """``--junit FILE``, ``--markdown FILE`` and ``--github``: what a :class:`ReportFiles` is made of."""
    for option in (
        click.option("--github", is_flag=True, help="Print annotations for GitHub, and append to the step's summary."),
        click.option("--markdown", type=_PATH, metavar="FILE", help="Write the report as Markdown too."),
        click.option("--junit", type=_PATH, metavar="FILE", help="Write the report as JUnit XML too."),
    ):
        command = option(command)
    return command


def append_summary(rendered: Callable[[int], str], path: Path | None = None) -> None:
    """Append Markdown to the summary of the step that is running; does nothing where there is none.

    Args:
        rendered: Markdown for a number of bytes that are left.
        path: the file; by default the one that GitHub names.

    Raises:
        UserError: SNX132, the file cannot be written.
    """
    from snn_export.models.diagnostics import UserError
    from snn_export.reporting.github import SUMMARY_LIMIT

    named = os.environ.get(SUMMARY_VARIABLE)
    file = path if path is not None else Path(named) if named else None
    if file is None:
        return
    try:
        room = SUMMARY_LIMIT - (file.stat().st_size if file.exists() else 0)
        if room < _LEAST_ROOM:
            click.echo(f"the step's summary is full: nothing was appended to {file.name}", err=True)
            return
        with file.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(rendered(room))
    except OSError as error:
        raise UserError(
            "SNX132", "cannot append to the step's summary", where=str(file), why=error.strerror or str(error),
            fix=f"name a file that can be written to in {SUMMARY_VARIABLE}",
        ) from error  # fmt: skip
