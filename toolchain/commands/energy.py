"""``snn-export energy``."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from snn_export.commands.options import config_options

if TYPE_CHECKING:
    from snn_export.energy.cost_table import CostTable
    from snn_export.reporting.report import Report

EnergyFormat = Literal["human", "json", "csv", "html"]
_PATH = click.Path(path_type=Path)


@click.command("energy")
@config_options
@click.option("--run", "folder", type=_PATH, metavar="DIR", help="Folder of the run [default: project.output].")
@click.option("--report", "report_file", type=_PATH, metavar="REPORT.JSON", help="Take the counts of this report; run nothing.")
@click.option("--table", metavar="NAME|FILE", help="Charge with this cost table: one of --tables, or a TOML file of your own.")
@click.option("--tables", "list_tables", is_flag=True, help="List the cost tables that come with the program, and stop.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["human", "json", "csv", "html"]),
    default="human",
    show_default=True,
    help="How to write it.",
)
@click.option("-o", "--output", type=_PATH, metavar="FILE", help="File to write [default: standard output].")
def command(
    config_file: Path | None, overrides: dict[str, str], folder: Path | None, report_file: Path | None, table: str | None,
    list_tables: bool, output_format: EnergyFormat, output: Path | None,
) -> None:  # fmt: skip
    """Count operations of the verified run and estimate energy, with ranges, sources and what an ANN would take.

    Takes the counts of the last verification, and runs what is missing for one where there are settings or a run. With --table
    the same counts are charged again; --report needs neither settings nor a run.
    """
    if list_tables:
        _list_tables(output_format)
        return
    if report_file is not None and (config_file is not None or overrides or folder is not None):
        raise click.UsageError("--report takes the counts as they are: it goes with none of --run, --config and --set")
    again = None if table is None else _found(table)
    report = _report(config_file, overrides, folder, report_file)
    if again is not None:
        report = _charged_again(report, again)
    text = _text(report, output_format, to_terminal=output is None)
    if output is None:
        click.echo(text, nl=False)
        return
    from snn_export.reporting.json_file import write_text

    write_text(output, text)
    click.echo(str(output))


def _report(config_file: Path | None, overrides: dict[str, str], folder: Path | None, report_file: Path | None) -> Report:
    """A report with an energy. Raises UserError SNX502 for one without."""
    from snn_export.models.diagnostics import UserError

    if report_file is not None:
        from snn_export.reporting.json_file import read_report

        report, place = read_report(report_file), report_file
    else:
        from snn_export.commands import pipeline_run
        from snn_export.config import DEFAULT_FILE

        run = pipeline_run.prepare(config_file, overrides, folder)
        pipeline_run.require_project(run, settings=folder is None and (config_file or Path(DEFAULT_FILE)).is_file())
        pipeline_run.execute(run)
        report, place = pipeline_run.finished_report(run), run.report_path
    if report.energy is None:
        raise UserError(
            "SNX502", "no operations were counted", where=str(place),
            why="energy is counted from the integer simulator's spikes, and it did not run",
            fix="see the report's failed gates, then run again",
        )  # fmt: skip
    return report


def _found(table: str) -> CostTable:
    """The table of --table, before anything runs."""
    from snn_export.energy.cost_table import find_table

    return find_table(table, Path.cwd())


def _charged_again(report: Report, table: CostTable) -> Report:
    """The report with its energy estimated again, from the same counts. Raises UserError SNX471 where it does not hold them."""
    from snn_export.energy.estimate import estimate_from
    from snn_export.models.diagnostics import UserError

    energy = report.energy
    if energy is None or energy.operations is None:
        raise UserError(
            "SNX471", "the report does not hold its operation counts", where="report.json: energy.operations",
            why="another cost table can only be charged where the counts are", fix="run snn-export verify again",
        )  # fmt: skip
    return report.model_copy(update={"energy": estimate_from(energy.operations, table)})


def _text(report: Report, output_format: EnergyFormat, to_terminal: bool) -> str:
    energy = report.energy
    if energy is None:
        raise ValueError("a report without energy")
    if output_format == "csv":
        from snn_export.reporting import energy_csv

        return energy_csv.render(energy)
    if output_format == "html":
        from snn_export.reporting import html

        return html.render_energy(report)
    from snn_export.commands import energy_table

    width, stream = energy_table.terminal_width() if to_terminal else None, io.StringIO()
    with redirect_stdout(stream):
        if output_format == "json":
            from snn_export.commands.output import print_json

            print_json(energy.model_dump(mode="json"))
        else:
            energy_table.print_energy(energy, width)
    return stream.getvalue()


def _list_tables(output_format: EnergyFormat) -> None:
    from snn_export.commands.output import print_json, print_table
    from snn_export.energy.cost_table import load_table, table_names

    tables = [load_table(name) for name in table_names()]
    if output_format == "json":
        print_json([item.model_dump(mode="json") for item in tables])
        return
    uses = {"chip": "energy.table", "process": "baselines", "comparison": "orientation only"}
    print_table(
        ("Table", "Used as", "What it prices", "Figures", "SHA-256"),
        ((item.name, uses[item.kind], item.title, str(len(item.coefficients) + len(item.times)), item.digest) for item in tables),
    )
    click.echo("\nA table of your own is a TOML file of the same form: `snn-export explain SNX323` shows one.")
