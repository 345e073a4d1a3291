"""``snn-export export``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from snn_export.commands.options import config_options


@click.command("export")
@click.argument("path", type=click.Path(path_type=Path), metavar="OUT.NIR|OUT.NET")
@config_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the run [default: project.output]."
)
@click.option("--float", "as_float", is_flag=True, help="Write the network before quantisation.")
@click.option("--format", "file_format", type=click.Choice(["nir", "net"]), help="File format [default: by the file's ending].")
def command(
    path: Path,
    config_file: Path | None,
    overrides: dict[str, str],
    output: Path | None,
    as_float: bool,
    file_format: Literal["nir", "net"] | None,
) -> None:
    """Write the trained network as NIR with its contract, or as lava-dl's HDF5.

    Trains and quantizes first where that was not done yet. OUT.NIR gets the integer network, or the float one with --float.
    OUT.NET is read by lava.lib.dl.netx; quantize with quantize.bias_exponent = 6 for it, the one exponent that netx has.
    """
    from snn_export import library
    from snn_export.commands import pipeline_run
    from snn_export.export import nir_io
    from snn_export.pipeline.deploying import relocated
    from snn_export.pipeline.files import FLOAT_FILE, QUANTISED_FILE

    run = pipeline_run.prepare(config_file, overrides, output)
    step, name = ("export", FLOAT_FILE) if as_float else ("quantize", QUANTISED_FILE)
    pipeline_run.execute(run, until=step)
    source = run.workspace.folder(step) / name
    library.save(relocated(nir_io.read(source), source.parent, path.parent), path, file_format)
    click.echo(str(path))
    if nir_io.sidecar(path).is_file():
        click.echo(str(nir_io.sidecar(path)))
