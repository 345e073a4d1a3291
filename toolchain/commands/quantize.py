"""``snn-export quantize``."""

from __future__ import annotations

from pathlib import Path

import click

from snn_export.commands.options import config_options


@click.command("quantize")
@click.argument("path", type=click.Path(path_type=Path), metavar="[FLOAT.NIR]", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE|DIR", help="File to write, or the run's folder.")
@config_options
def command(path: Path | None, output: Path | None, config_file: Path | None, overrides: dict[str, str]) -> None:
    """Put a network on the integer grid of a chip.

    With FLOAT.NIR: quantize that file (a deployment this program wrote), scales chosen on training samples of data.source,
    and write it to --output. Without: the same steps as `snn-export run --until quantize`.
    """
    from snn_export.commands import pipeline_run
    from snn_export.pipeline.files import QUANTISED_FILE

    if path is None:
        run = pipeline_run.prepare(config_file, overrides, output)
        pipeline_run.execute(run, until="quantize")
        click.echo(str(run.workspace.folder("quantize") / QUANTISED_FILE))
        return
    from snn_export.pipeline.deploying import quantize_file

    run = pipeline_run.prepare(config_file, overrides)
    target = output or path.with_name(f"{path.stem}.{run.config.quantize.target}.nir")
    click.echo(
        f"searching scales on {run.config.quantize.calibration_samples} training samples of {run.config.data.source}", err=True
    )
    click.echo(str(quantize_file(path, target, run.config, run.base)))
