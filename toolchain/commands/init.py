"""``snn-export init``."""

from __future__ import annotations

from pathlib import Path

import click

from snn_export.config import DEFAULT_FILE


@click.command("init")
@click.argument("path", type=click.Path(path_type=Path), default=DEFAULT_FILE, metavar="[FILE]")
@click.option("--data", "source", default="digits", show_default=True, metavar="digits|npz:FILE", help="What is to be learnt.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def command(path: Path, source: str, force: bool) -> None:
    """Write a commented snn-export.toml.

    FILE is snn-export.toml in the current folder unless given. Every setting stands in it with its default, its range and
    what it means. The bundled digits need no data of yours; npz:FILE names arrays x_train, y_train, x_test and y_test.
    """
    from snn_export.config_schema import Config, DataConfig, ProjectConfig, to_toml
    from snn_export.models.diagnostics import UserError
    from snn_export.reporting.json_file import write_text

    if path.exists() and not force:
        raise UserError(
            "SNX027", f"{path} exists", where=str(path), why="your settings would be lost",
            fix="snn-export init --force replaces it; snn-export init OTHER.toml writes another",
        )  # fmt: skip
    _check_source(path, source)
    name = Path(source.removeprefix("npz:")).stem if source.startswith("npz:") else source
    config = Config(project=ProjectConfig(name=name), data=DataConfig(source=source))
    write_text(path, to_toml(config))
    click.echo(f"wrote {path}; next: snn-export doctor, then snn-export run", err=True)


def _check_source(path: Path, source: str) -> None:
    """Refuse what names no data. A file that is not there yet is only pointed out: it may come later."""
    from snn_export.models.diagnostics import UserError
    from snn_export.models.naming import suggestion

    kind, colon, file = source.partition(":")
    if source == "digits":
        return
    if kind != "npz" or not colon or not file:
        raise UserError(
            "SNX029", f"--data {source} names no data", where="--data", why="data is the bundled digits or a file of yours",
            fix=suggestion(source, ("digits", "npz:FILE")),
        )  # fmt: skip
    if not (path.parent / file).is_file():
        click.echo(f"note: there is no file {path.parent / file} yet", err=True)
