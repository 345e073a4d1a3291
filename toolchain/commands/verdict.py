"""Showing a report at the end of a command."""

from __future__ import annotations

import click

from snn_export.commands.options import Format
from snn_export.reporting.report import Report


def show_report(report: Report, output_format: Format, brief: bool = False) -> None:
    """Print a report to stdout as people or programs read it; ``brief`` leaves only the verdict."""
    if output_format == "json":
        from snn_export.reporting.json_file import report_text

        click.echo(report_text(report), nl=False)
        return
    if brief:
        click.echo("PASS" if report.passed else f"FAIL (exit {report.exit_code})")
        for cause in report.causes:
            click.echo(f"  {cause}")
        return
    from snn_export.reporting.terminal import console_of_report, print_report

    console = console_of_report()
    with console.capture() as captured:
        print_report(report, console)
    for line in captured.get().splitlines():  # a reader that ends early, like head, ends the command as it does any other
        click.echo(line.rstrip())
