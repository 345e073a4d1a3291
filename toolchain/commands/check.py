"""``snn-export check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from snn_export.commands.options import FindingsFormat, findings_format_option
from snn_export.export.targets import MOST_CHIPS, CheckTarget

if TYPE_CHECKING:
    from snn_export.models.diagnostics import Diagnostic

_LEVELS = {"error": 0, "warning": 1, "note": 2}


@click.command("check")
@click.argument("paths", type=click.Path(path_type=Path), metavar="FILE...", nargs=-1)
@click.option(
    "--target",
    type=click.Choice(get_args(CheckTarget)),
    default="loihi2",
    show_default=True,
    help="Chip, or backend that runs integers.",
)
@click.option(
    "--chips",
    type=click.IntRange(min=1),
    default=MOST_CHIPS,
    show_default=True,
    metavar="N",
    help="Chips that the network may take.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Steps per inference, for a NIR file of another program.")
@click.option("--dt", type=float, help="Time per step in the unit of the file's time constants, for such a file.")
@click.option(
    "--reset", type=click.Choice(("zero", "subtract", "none")), default="zero", show_default=True, help="Reset, for such a file."
)
@click.option("--list", "listed", is_flag=True, help="List the design rules, their limits and sources; check nothing.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="With --list: also write them to FILE as Markdown."
)
@findings_format_option
def command(
    paths: tuple[Path, ...],
    target: CheckTarget,
    chips: int,
    steps: int | None,
    dt: float | None,
    reset: Any,
    listed: bool,
    output: Path | None,
    output_format: FindingsFormat,
) -> None:
    """Say whether networks can be expressed on a target, and all that stands in the way.

    FILE is a deployment, float (can it be quantised for the target?) or quantised (can the target run it?), or a NIR file of
    another program with --steps and --dt. Every design rule of the target is asked; nothing is written. Exits with 0 where no
    file breaks one, 1 where a network can be expressed and does not fit, 3 where it cannot be expressed, 2 where it cannot be
    read. Warnings and notes do not count.
    """
    if bool(paths) == listed:
        raise click.UsageError("give files to check, or --list" if not paths else "give files to check or --list, not both")
    if listed:
        from snn_export.commands import check_rules

        check_rules.show(output_format, output)
        return
    if output is not None:
        raise click.UsageError("--output goes with --list; findings are written to standard output")
    checked = {str(path): _findings(path, target, chips, steps, dt, reset) for path in paths}
    raise SystemExit(_told(checked, target, output_format))


def _told(checked: dict[str, list[Diagnostic]], target: CheckTarget, output_format: FindingsFormat) -> int:
    """Write the findings by file, and return the exit code."""
    from snn_export.exit_codes import worst_exit_code

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
    return code


def _findings(path: Path, target: CheckTarget, chips: int, steps: int | None, dt: float | None, reset: Any) -> list[Diagnostic]:
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
    return library.check(deployment, target, chips)


def _show(path: str, found: list[Diagnostic], target: str) -> None:
    from snn_export.commands.output import print_table
    from snn_export.text_safety import printable

    name, broken = printable(path), any(item.severity == "error" for item in found)
    if not broken:
        click.echo(f"{name}: nothing stands in the way of {target}")
    if not found:
        return
    click.echo(f"{name}: {len(found)} finding{'s' if len(found) > 1 else ''} for {target}\n")
    print_table(
        ("Code", "Severity", "Where", "What", "Why", "Fix"),
        (
            (item.code, item.severity, item.where, item.what, item.why, item.fix)
            for item in sorted(found, key=lambda item: _LEVELS[item.severity])
        ),
    )
    click.echo("\n`snn-export explain CODE` tells more")
