"""``snn-export doctor``."""

from __future__ import annotations

from pathlib import Path

import click

from snn_export.commands.options import Format, config_options, format_option


@click.command("doctor")
@config_options
@format_option
@click.pass_context
def command(ctx: click.Context, config_file: Path | None, overrides: dict[str, str], output_format: Format) -> None:
    """Check that this machine can do the work.

    Looks at Python, the packages, how the installed snnTorch resets, whether NIR keeps integers, and whether results can be
    written. Every backend that is there tests the versions it runs on: each finding says what it means for your exports. The
    exit code is 4 where something that the settings require is broken.
    """
    from rich.console import Console
    from rich.text import Text

    from snn_export.commands.output import print_json, print_table
    from snn_export.config import load_config
    from snn_export.exit_codes import worst_exit_code
    from snn_export.machine_checks import findings

    loaded = load_config(config_file, overrides, allow_missing=True)
    messages = Console(stderr=True, highlight=False)
    with messages.status("checking this machine"):
        found = list(findings(loaded))
    code = worst_exit_code(finding.exit_code for finding in found)
    if output_format == "json":
        print_json({"exit_code": code, "checks": [finding.as_dict() for finding in found]})
    else:
        colours = {"ok": "green", "warning": "yellow", "broken": "red"}
        print_table(
            ("Check", "State", "Found", "What for"),
            ((item.name, Text(item.state, colours[item.state]), item.detail, item.meaning) for item in found),
        )
        for item in found:
            if item.fix:
                click.echo(f"\n{item.name}: {item.fix}")
    ctx.exit(code)
