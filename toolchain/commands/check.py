"""``snn-export check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from snn_export.commands.options import FindingsFormat, findings_format_option
from snn_export.export.targets import CheckTarget

if TYPE_CHECKING:
    from snn_export.hardware_sims.rules.registry import Examined

ENCODERS = ("direct", "events", "rate", "bias")
NETWORKS = (".nir", ".net")
RUN_NETWORK = Path("quantize", "net.nir")
"""Where a run's folder holds its network."""
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
    "--chips", type=click.IntRange(min=1), metavar="N", help="Chips that the network may take [default: placement.chips]."
)
@click.option("--steps", type=click.IntRange(min=1), help="Steps per inference, for a NIR file of another program.")
@click.option("--dt", type=float, help="Time per step in the unit of the file's time constants, for such a file.")
@click.option(
    "--reset", type=click.Choice(("zero", "subtract", "none")), default="zero", show_default=True, help="Reset, for such a file."
)
@click.option(
    "--encoder",
    type=click.Choice(ENCODERS),
    default="direct",
    show_default=True,
    help="How its input arrives: a value in every step, events, rate-coded spikes, or as biases that the host computes.",
)
@click.option(
    "--round-decays", is_flag=True, help="Take the chip's nearest decay where such a file's time constants lie between two."
)
@click.option("--list", "listed", is_flag=True, help="List the design rules, their limits and sources; check nothing.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="With --list: also write them to FILE as Markdown."
)
@findings_format_option
def command(
    paths: tuple[Path, ...],
    target: CheckTarget,
    chips: int | None,
    steps: int | None,
    dt: float | None,
    reset: Any,
    encoder: Any,
    round_decays: bool,
    listed: bool,
    output: Path | None,
    output_format: FindingsFormat,
) -> None:
    """Say whether networks can be expressed on a target, and all that stands in the way.

    FILE is a deployment, float (can it be quantised for the target?) or quantised (can the target run it?), the folder of a
    run, or a NIR file of another program with --steps and --dt. Every design rule of the target is asked; nothing is written.
    Exits with 0 where no file breaks one, 1 where a network can be expressed and does not fit, 3 where it cannot be expressed, 2
    where it cannot be read. Warnings and notes do not count.
    """
    if bool(paths) == listed:
        raise click.UsageError("give files to check, or --list" if not paths else "give files to check or --list, not both")
    if listed:
        from snn_export.commands import check_rules

        check_rules.show(output_format, output)
        return
    if output is not None:
        raise click.UsageError("--output goes with --list; findings are written to standard output")
    foreign = {"steps": steps, "dt": dt, "reset": reset, "encoder": encoder, "round_decays": round_decays}
    allowed = chips or _chips_of_settings()
    checked = {str(path): _examined(path, target, allowed, foreign) for path in paths}
    raise SystemExit(_told(checked, target, output_format))


def _told(checked: dict[str, Examined], target: CheckTarget, output_format: FindingsFormat) -> int:
    """Write the findings by file, and return the exit code."""
    from snn_export.exit_codes import worst_exit_code

    code = worst_exit_code(item.exit_code for found in checked.values() for item in found.findings if item.severity == "error")
    if output_format == "json":
        from snn_export.commands.output import print_json

        files = [
            {
                "path": path,
                "findings": [item.as_dict() for item in found.findings],
                "placement": None if found.fit is None else found.fit.as_dict(),
            }
            for path, found in checked.items()
        ]
        print_json({"target": target, "files": files, "exit_code": code})
    elif output_format == "sarif":
        from snn_export.reporting.sarif import render

        click.echo(render({path: found.findings for path, found in checked.items()}), nl=False)
    else:
        for path, found in checked.items():
            _show(path, found, target)
    return code


def _chips_of_settings() -> int:
    """What the settings of the current folder, or the environment, let a placement take: what a run here is held to."""
    from snn_export.config import load_config

    return load_config(None, allow_missing=True).config.placement.chips


def _examined(path: Path, target: CheckTarget, chips: int, foreign: dict[str, Any]) -> Examined:
    """All findings about one file, and what it takes of the chip. One that cannot be read is a finding: others are looked at."""
    from dataclasses import replace

    from snn_export import library
    from snn_export.hardware_sims.rules.registry import Examined, examined
    from snn_export.models.diagnostics import UserError

    network = path / RUN_NETWORK if (path / RUN_NETWORK).is_file() else path
    try:
        return examined(library.load(network), target, chips)
    except UserError as error:
        if error.code != "SNX108" and path.suffix in NETWORKS:
            return Examined(list(error.diagnostics), None)
        if error.code != "SNX108":
            fix = f"give a network: a file that ends in {' or '.join(NETWORKS)}, or the folder of a run"
            return Examined([replace(item, fix=fix) for item in error.diagnostics], None)
        if foreign["steps"] is None or foreign["dt"] is None:
            fix = "say how it steps: --steps 100 --dt 1e-3, in the unit of its time constants, which `snn-export lint` tells"
            return Examined([replace(item, fix=fix) for item in error.diagnostics], None)
    return _foreign(path, target, chips, foreign)


def _foreign(path: Path, target: CheckTarget, chips: int, foreign: dict[str, Any]) -> Examined:
    """The same about a file of another program. Decays between two of the chip's hide nothing else: the nearest are taken."""
    from snn_export import library
    from snn_export.hardware_sims.rules.registry import Examined, examined
    from snn_export.models.diagnostics import UserError
    from snn_export.models.spec import EncoderSpec

    stated = {**foreign, "encoder": EncoderSpec(kind=foreign["encoder"])}
    between = []
    try:
        deployment = library.from_nir(path, **stated)
    except UserError as reasons:
        if any(item.code != "SNX241" for item in reasons.diagnostics):
            return Examined(list(reasons.diagnostics), None)
        between = list(reasons.diagnostics)
        deployment = library.from_nir(path, **{**stated, "round_decays": True})
    found = examined(deployment, target, chips)
    return Examined([*between, *found.findings], found.fit)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"


def _show(path: str, examined: Examined, target: str) -> None:
    from snn_export.commands.output import print_table
    from snn_export.text_safety import printable

    found, fit = examined
    severities = [item.severity for item in found]
    if "error" in severities:
        verdict = f"{_counted(len(found), 'finding')} for {target}"
    else:
        beside = "".join(f"{_counted(severities.count(kind), kind)}, " for kind in _LEVELS if kind in severities)
        verdict = f"nothing stands in the way of {target}" + (f"; {beside.removesuffix(', ')}" if beside else "")
    click.echo(f"{printable(path)}: {verdict}")
    if fit is not None:
        click.echo(f"  {fit}")
        if fit.unchecked:
            click.echo(f"  not published, so not checked: {', '.join(fit.unchecked)}")
    if not found:
        return
    click.echo()
    print_table(
        ("Code", "Severity", "Where", "What", "Why", "Fix"),
        (
            (item.code, item.severity, item.where, item.what, item.why, item.fix)
            for item in sorted(found, key=lambda item: _LEVELS[item.severity])
        ),
    )
    click.echo("\n`snn-export explain CODE` tells more")
