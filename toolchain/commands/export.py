"""``snn-export export``."""

from __future__ import annotations

from pathlib import Path

import click

from snn_export.commands.options import config_options


@click.command("export")
@click.argument("path", type=click.Path(path_type=Path), metavar="OUT.NIR")
@config_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the run [default: project.output]."
)
@click.option("--float", "as_float", is_flag=True, help="Write the network before quantisation.")
def command(path: Path, config_file: Path | None, overrides: dict[str, str], output: Path | None, as_float: bool) -> None:
    """Write the trained network as NIR with its contract beside it.

    Trains and quantizes first where that was not done yet. OUT.NIR gets the integer network, or the float one with --float.
    """
    from snn_export.commands import pipeline_run
    from snn_export.export import nir_io
    from snn_export.pipeline.deploying import relocated
    from snn_export.pipeline.files import FLOAT_FILE, QUANTISED_FILE

    run = pipeline_run.prepare(config_file, overrides, output)
    step, name = ("export", FLOAT_FILE) if as_float else ("quantize", QUANTISED_FILE)
    pipeline_run.execute(run, until=step)
    source = run.workspace.folder(step) / name
    nir_io.write(relocated(nir_io.read(source), source.parent, path.parent), path)
    click.echo(str(path))
    click.echo(str(nir_io.sidecar(path)))
