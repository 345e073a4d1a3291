"""``snn-export config``."""

from __future__ import annotations

from pathlib import Path

import click

from snn_export.command_group import CommandGroup
from snn_export.commands.options import Format, config_options, format_option


@click.group("config", cls=CommandGroup)
def command() -> None:
    """Show the configuration and where each value came from."""


@command.command("show")
@click.option("--origin", is_flag=True, help="Say where each value came from: flag, environment, file and line, or default.")
@config_options
@format_option
def show(config_file: Path | None, overrides: dict[str, str], origin: bool, output_format: Format) -> None:
    """Show every setting in force, as TOML or JSON.

    A flag overrides SNN_EXPORT_SECTION__KEY in the environment, which overrides the file, which overrides the default.
    """
    from snn_export.commands.output import print_json
    from snn_export.config import load_config
    from snn_export.config_schema import settings, toml_key, toml_value

    loaded = load_config(config_file, overrides, allow_missing=True)
    if output_format == "json":
        content: dict[str, object] = {"config": loaded.config.model_dump(mode="json")}
        print_json(content | ({"origin": dict(loaded.origin)} if origin else {}))
        return
    lines = []
    for path, value in settings(loaded.config):
        key = ".".join(map(toml_key, path))
        text = f"# {key} is not set" if value is None else f"{key} = {toml_value(value)}"
        lines.append((text, loaded.origin[".".join(path)]))
    width = max(len(text) for text, _ in lines)
    for text, came_from in lines:
        click.echo(f"{text:<{width}}  # {came_from}" if origin else text)
