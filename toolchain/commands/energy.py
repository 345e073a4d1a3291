"""``snn-export energy``."""

from __future__ import annotations

from pathlib import Path

import click

from snn_export.commands.options import Format, config_options, format_option


@click.command("energy")
@config_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the run [default: project.output]."
)
@format_option
def command(config_file: Path | None, overrides: dict[str, str], output: Path | None, output_format: Format) -> None:
    """Count synaptic operations of the verified run and estimate energy, with ranges and sources.

    Takes the counts of the last verification, and runs what is missing for one.
    """
    from snn_export.commands import pipeline_run
    from snn_export.commands.output import print_json
    from snn_export.models.diagnostics import UserError

    run = pipeline_run.prepare(config_file, overrides, output)
    pipeline_run.execute(run)
    energy = pipeline_run.finished_report(run).energy
    if energy is None:
        raise UserError(
            "SNX502", "no operations were counted", where=str(run.report_path),
            why="energy is counted from the integer simulator's spikes, and it did not run",
            fix="see the report's failed gates, then run again",
        )  # fmt: skip
    if output_format == "json":
        print_json(energy.model_dump(mode="json"))
        return
    from snn_export.commands.energy_table import print_energy

    print_energy(energy)
