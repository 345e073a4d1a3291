"""``snn-export check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_export.commands.options import FindingsFormat, findings_format_option

if TYPE_CHECKING:
    from snn_export.export.readiness import CheckTarget
    from snn_export.models.diagnostics import Diagnostic

TARGETS = ("loihi1", "loihi2", "loihi", "lava", "netx")


@click.command("check")
@click.argument("paths", type=click.Path(path_type=Path), metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--target", type=click.Choice(TARGETS), default="loihi2", show_default=True, help="Chip, or backend that runs integers."
)
@click.option("--steps", type=click.IntRange(min=1), help="Steps per inference, for a NIR file of another program.")
@click.option("--dt", type=float, help="Time per step in the unit of the file's time constants, for such a file.")
@click.option(
    "--reset", type=click.Choice(("zero", "subtract", "none")), default="zero", show_default=True, help="Reset, for such a file."
)
@findings_format_option
def command(
    paths: tuple[Path, ...],
    target: CheckTarget,
    steps: int | None,
    dt: float | None,
    reset: Any,
    output_format: FindingsFormat,
) -> None:
    """Say whether networks can be expressed on a target, and all that stands in the way.

    FILE is a deployment, float (can it be quantised for the target?) or quantised (can the target run it?), or a NIR file of
    another program with --steps and --dt. Nothing is written. Exits with 0 where all files are clean, 3 where one cannot be
    expressed, 2 where one cannot be read.
    """
    from snn_export.exit_codes import worst_exit_code

    checked = {str(path): _findings(path, target, steps, dt, reset) for path in paths}
    code = worst_exit_code(item.exit_code for found in checked.values() for item in found if item.severity == "error")
    if output_format == "json":
        from snn_export.commands.output import print_json

        files = [{"path": path, "findings": [item.as_dict() for item in found]} for path, found in checked.items()]
        print_json({"target": target, "files": files, "exit_code": code})
    elif output_format == "sarif":
        from snn_export.reporting.sarif import render

        click.echo(render(checked), nl=False)
    else:
        for path, found in checked.items():
            _show(path, found, target)
    raise SystemExit(code)


def _findings(path: Path, target: CheckTarget, steps: int | None, dt: float | None, reset: Any) -> list[Diagnostic]:
    """All findings about one file; one that cannot be read is a finding, so that the other files are looked at too."""
    from snn_export import library
    from snn_export.models.diagnostics import UserError

    try:
        deployment = library.load(path)
    except UserError as error:
        if error.code != "SNX108" or steps is None or dt is None:
            return list(error.diagnostics)
        try:
            deployment = library.from_nir(path, steps=steps, dt=dt, reset=reset)
        except UserError as reasons:
            return list(reasons.diagnostics)
    return library.check(deployment, target)


def _show(path: str, found: list[Diagnostic], target: str) -> None:
    from snn_export.commands.output import print_table
    from snn_export.text_safety import printable

    name = printable(path)
    if not found:
        click.echo(f"{name}: nothing stands in the way of {target}")
        return
    click.echo(f"{name}: {len(found)} finding{'s' if len(found) > 1 else ''} for {target}\n")
    print_table(
        ("Code", "Where", "What", "Why", "Fix"),
        ((item.code, item.where, item.what, item.why, item.fix) for item in found),
    )
    click.echo("\n`snn-export explain CODE` tells more")
