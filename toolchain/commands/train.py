"""``snn-export train``."""

from __future__ import annotations

from pathlib import Path

import click

from snn_export.commands.options import config_options


@click.command("train")
@config_options
@click.option("--recipe", metavar="NAME", help="How the student learns; `snn-export recipes` lists the names.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder to write to [default: project.output]."
)
def command(config_file: Path | None, overrides: dict[str, str], recipe: str | None, output: Path | None) -> None:
    """Train the teacher and distil the spiking student.

    The same steps as `snn-export run --until student`. Prints the student's checkpoint.
    """
    from snn_export.commands import pipeline_run
    from snn_export.pipeline.files import STUDENT_FILE

    if recipe is not None:
        overrides = {**overrides, "training.recipe": recipe}
    run = pipeline_run.prepare(config_file, overrides, output)
    pipeline_run.execute(run, until="student")
    click.echo(str(run.workspace.folder("student") / STUDENT_FILE))
