"""``snn-export report``."""

from __future__ import annotations

from pathlib import Path

import click

from snn_export.command_group import CommandGroup
from snn_export.commands.options import Format, format_option

_PATH = click.Path(path_type=Path)


@click.group("report", cls=CommandGroup)
def command() -> None:
    """Show a report, or render it as HTML."""


@command.command("show")
@click.argument("path", type=_PATH, metavar="REPORT.JSON")
@format_option
def show(path: Path, output_format: Format) -> None:
    """Show a report. The exit code is 0 whatever its verdict is: it was shown."""
    from snn_export.reporting.json_file import read_report, report_text

    report = read_report(path)
    if output_format == "json":
        click.echo(report_text(report), nl=False)
        return
    from rich.console import Console

    from snn_export.reporting.terminal import WIDTH, print_report

    console = Console()
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    print_report(report, console)


@command.command("html")
@click.argument("path", type=_PATH, metavar="REPORT.JSON")
@click.option("-o", "--output", type=_PATH, metavar="FILE", help="Page to write [default: the report's name with .html].")
def html(path: Path, output: Path | None) -> None:
    """Render a report as one HTML file that needs nothing else."""
    from snn_export.reporting.html import write_html
    from snn_export.reporting.json_file import read_report

    target = output or path.with_suffix(".html")
    write_html(read_report(path), target)
    click.echo(str(target))
