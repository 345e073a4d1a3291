"""``snn-export report``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snn_export.command_group import CommandGroup
from snn_export.commands.options import Format, format_option
from snn_export.commands.report_diff import diff

if TYPE_CHECKING:
    from snn_export.reporting.report import Report

_PATH = click.Path(path_type=Path)
_report_argument = click.argument("path", type=_PATH, metavar="REPORT.JSON")
_output_option = click.option("-o", "--output", type=_PATH, metavar="FILE", help="File to write [default: standard output].")


@click.group("report", cls=CommandGroup)
def command() -> None:
    """Show a report, render it, or show what changed between two.

    The exit code is 0 whatever the verdict of a report is: it was shown. Only diff judges.
    """


command.add_command(diff)


@command.command("show")
@_report_argument
@format_option
def show(path: Path, output_format: Format) -> None:
    """Show a report on the terminal."""
    from snn_export.commands.verdict import show_report
    from snn_export.reporting.json_file import read_report

    show_report(read_report(path), output_format)


@command.command("html")
@_report_argument
@click.option("-o", "--output", type=_PATH, metavar="FILE", help="Page to write [default: the report's name with .html].")
def html(path: Path, output: Path | None) -> None:
    """Render a report as one HTML file that needs nothing else."""
    from snn_export.reporting.html import write_html
    from snn_export.reporting.json_file import read_report

    target = output or path.with_suffix(".html")
    write_html(read_report(path), target)
    click.echo(str(target))


@command.command("markdown")
@_report_argument
@_output_option
def markdown(path: Path, output: Path | None) -> None:
    """Render a report as Markdown, for a comment or a wiki."""
    from snn_export.reporting.markdown import render

    _write(path, output, render)


@command.command("junit")
@_report_argument
@_output_option
def junit(path: Path, output: Path | None) -> None:
    """Render a report as JUnit XML: layers and gates as test cases."""
    from snn_export.reporting.junit import render

    _write(path, output, render)


@command.command("github")
@_report_argument
@click.option(
    "-o", "--output", type=_PATH, metavar="FILE", help="File to append the summary to [default: $GITHUB_STEP_SUMMARY, if set]."
)
def github(path: Path, output: Path | None) -> None:
    """Print a report's annotations for GitHub Actions, and append it to the step's summary."""
    from snn_export.commands.report_files import append_summary
    from snn_export.reporting.github import render, step_summary
    from snn_export.reporting.json_file import read_report

    report = read_report(path)
    click.echo(render(report), nl=False)
    append_summary(lambda room: step_summary(report, str(path), room), output)


def _write(path: Path, output: Path | None, render: Callable[[Report], str]) -> None:
    """Write a rendering to a file and name it, or to standard output."""
    from snn_export.reporting.json_file import read_report, write_text

    text = render(read_report(path))
    if output is None:
        click.echo(text, nl=False)
        return
    write_text(output, text)
    click.echo(str(output))
