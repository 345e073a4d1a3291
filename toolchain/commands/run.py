"""``snn-export run``."""

from __future__ import annotations

from pathlib import Path

import click

from snn_export.commands.options import Format, config_options, format_option, scale_options, scaled
from snn_export.commands.report_files import ReportFiles, report_file_options


@click.command("run")
@config_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder to write to [default: project.output]."
)
@click.option("--from", "start", metavar="STEP", help="Run this step and all after it again.")
@click.option("--until", metavar="STEP", help="Stop after this step.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@scale_options
@report_file_options
@click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever the verdict is.")
@format_option
def command(
    config_file: Path | None,
    overrides: dict[str, str],
    output: Path | None,
    start: str | None,
    until: str | None,
    dry_run: bool,
    workers: int | None,
    scheduler: str | None,
    junit: Path | None,
    markdown: Path | None,
    github: bool,
    exit_zero: bool,
    output_format: Format,
) -> None:
    """Do everything: train, distil, export, quantize, verify, report.

    Steps: teacher, student, export, quantize, verify, report. A step whose inputs did not change is not done again; an
    interrupted training goes on from its last epoch. With other settings, the last three interrupted trainings wait for
    theirs to come back, and the network that was replaced last stays as teacher.previous or student.previous.
    """
    from snn_export.commands import pipeline_run

    run = pipeline_run.prepare(config_file, scaled(overrides, workers, scheduler), output)
    if dry_run:
        for item in pipeline_run.planned(run, start, until):
            click.echo(f"{item.step.name:<9} {'run' if item.runs else 'up to date':<11} {item.why}")
        return
    ran = pipeline_run.execute(run, start, until)
    if not ran:
        click.echo("nothing to do: every step is up to date", err=True)
    if until not in (None, "verify", "report"):
        return
    from snn_export.commands.verdict import show_report

    report = pipeline_run.finished_report(run, until or "report")
    files = ReportFiles(junit, markdown, github)
    with files.quiet(output_format):
        show_report(report, output_format, brief=not ran)
    if until != "verify":
        click.echo(f"report: {run.html_path}", err=output_format == "json")
    files.write(report, run.html_path, to_stderr=output_format == "json")
    raise SystemExit(0 if exit_zero else report.exit_code)
