"""``snn-export verify``."""

from __future__ import annotations

from pathlib import Path

import click

from snn_export.commands.options import Format, config_options, format_option, scale_options, scaled
from snn_export.commands.report_files import ReportFiles, report_file_options


@click.command("verify")
@click.argument("path", type=click.Path(path_type=Path), metavar="[NET.NIR|NET.NET]", required=False)
@config_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder for the report [default: project.output]."
)
@scale_options
@report_file_options
@click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever the verdict is.")
@format_option
def command(
    path: Path | None,
    config_file: Path | None,
    overrides: dict[str, str],
    output: Path | None,
    workers: int | None,
    scheduler: str | None,
    junit: Path | None,
    markdown: Path | None,
    github: bool,
    exit_zero: bool,
    output_format: Format,
) -> None:
    """Compare backends spike by spike, layer by layer, and check the gates.

    With a file: verify that quantised deployment on the test samples of data.source, together with the earlier forms its
    lineage names (a .net file of lava-dl names none). Without: verify what `snn-export run` made, again; nothing is trained.
    """
    from snn_export.commands import pipeline_run
    from snn_export.commands.verdict import show_report

    run = pipeline_run.prepare(config_file, scaled(overrides, workers, scheduler), output)
    if path is None:
        pipeline_run.require_trained(run)
        pipeline_run.execute(run, start="verify")
        report, page = pipeline_run.finished_report(run), run.html_path
    else:
        from snn_export.commands.telling import ConsoleTeller
        from snn_export.pipeline.verifying_files import verify_file

        with ConsoleTeller() as teller:
            report, page = verify_file(path, run.config, run.base, run.workspace, teller)
    files = ReportFiles(junit, markdown, github)
    with files.quiet(output_format):
        show_report(report, output_format)
    click.echo(f"report: {page}", err=output_format == "json")
    files.write(report, page, to_stderr=output_format == "json")
    raise SystemExit(0 if exit_zero else report.exit_code)
