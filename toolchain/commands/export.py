"""``snn-export export``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from snn_export.commands.options import config_options


@click.command("export")
@click.argument("path", type=click.Path(path_type=Path), metavar="OUT.NIR|OUT.NET|OUT.ONNX")
@config_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the run [default: project.output]."
)
@click.option("--float", "as_float", is_flag=True, help="Write the network before quantisation.")
@click.option(
    "--to", "--format", "file_format", type=click.Choice(["nir", "net", "onnx"]),
    help="File format [default: by the file's ending].",
)  # fmt: skip
@click.option(
    "--probe", "probes", multiple=True, type=click.Choice(["spikes", "membrane", "current"]),
    help="ONNX: make this of every layer an output. May be given several times.",
)  # fmt: skip
@click.option("--streaming", is_flag=True, help="ONNX: take and return states, to run a sample in parts.")
@click.option(
    "--precision", type=click.Choice(["float32", "float64"]), default="float32", show_default=True,
    help="ONNX: numbers of a network before quantisation.",
)  # fmt: skip
def command(
    path: Path,
    config_file: Path | None,
    overrides: dict[str, str],
    output: Path | None,
    as_float: bool,
    file_format: Literal["nir", "net", "onnx"] | None,
    probes: tuple[str, ...],
    streaming: bool,
    precision: Literal["float32", "float64"],
) -> None:
    """Write the trained network as NIR with its contract, as lava-dl's HDF5, or as ONNX.

    Trains and quantizes first where that was not done yet. OUT.NIR gets the integer network, or the float one with --float.
    OUT.NET is read by lava.lib.dl.netx; quantize with quantize.bias_exponent = 6 for it, the one exponent that netx has.
    OUT.ONNX holds the whole network with its time loop; batch and time steps are chosen when it is run. A file that is there is
    replaced.
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
    deployment = relocated(nir_io.read(source), source.parent, path.parent)
    library.save(deployment, path, file_format, precision=precision, probes=probes, streaming=streaming)
    click.echo(str(path))
    chosen = file_format or library.SUFFIXES.get(path.suffix, "nir")
    if chosen == "nir" and nir_io.sidecar(path).is_file():
        click.echo(str(nir_io.sidecar(path)))
    if chosen == "onnx":
        from snn_export.export import onnx_io

        click.echo(f"\nTo run it:\n\n{onnx_io.how_to_run(deployment, path.name)}", err=True)
