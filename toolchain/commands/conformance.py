"""``snn-export conformance``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snn_export.commands.options import Format, format_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snn_export.commands.conformance_matrix import Matrix, NotRun
    from snn_export.commands.telling import ConsoleTeller
    from snn_export.hardware_sims.conformance.kit import Conformance
    from snn_export.hardware_sims.conformance.topic import Check
    from snn_export.hardware_sims.simulator import Simulator

ENDINGS = (".json", ".md")


def _ending(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix not in ENDINGS:
        raise click.BadParameter(f"{path.name} ends neither in .json nor in .md")
    return path


@click.command("conformance")
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option(
    "--all", "everything", is_flag=True, help="Every backend that can run here; the others are listed with why they cannot."
)
@click.option(
    "--check", "patterns", multiple=True, metavar="PATTERN",
    help="A check, a topic or a pattern such as 'reset.*'. May be given several times.",
)  # fmt: skip
@click.option("--list", "listed", is_flag=True, help="List the checks and what each proves; run nothing.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", callback=_ending,
    help="Also write the outcomes to FILE: JSON (.json), or the support matrix (.md).",
)  # fmt: skip
@format_option
def command(
    names: tuple[str, ...], everything: bool, patterns: tuple[str, ...], listed: bool, output: Path | None, output_format: Format
) -> None:
    """Put backends through the conformance kit: small networks whose every spike is known beforehand.

    What a backend declares it cannot do is expected to fail, and a check that passes in spite of it is a failure as well. Exits
    with 1 where a check fails, with 4 where a named backend cannot run here or breaks, with 5 where nothing was compared.
    """
    from snn_export.exit_codes import worst_exit_code
    from snn_export.hardware_sims.conformance.kit import selected

    checks = selected(patterns)
    if listed:
        _list(checks, output_format)
        return
    if bool(names) == everything:
        raise click.UsageError("name backends, or give --all" if not names else "name backends or give --all, not both")
    matrix = _run(names, checks)
    code = worst_exit_code(matrix.exit_codes(required=not everything))
    if output is not None:
        _write(matrix, output, code)
    if output_format == "json":
        from snn_export.commands.output import print_json

        print_json(matrix.as_dict(code))
    else:
        from snn_export.commands.conformance_matrix import print_matrix

        print_matrix(matrix)
    raise SystemExit(code)


def _list(checks: Sequence[Check], output_format: Format) -> None:
    from snn_export.commands.output import print_json, print_table

    if output_format == "json":
        print_json([{"check": check.name, "proves": check.proves, "needs": check.needs} for check in checks])
    else:
        print_table(("Check", "What it proves"), ((check.name, check.proves) for check in checks))


def _run(names: Sequence[str], checks: Sequence[Check]) -> Matrix:
    """All backends one after the other; without names, every one that is registered."""
    from snn_export.commands.conformance_matrix import Matrix, NotRun
    from snn_export.commands.telling import ConsoleTeller
    from snn_export.hardware_sims.conformance.on_integers import forms
    from snn_export.hardware_sims.registry import locations, simulator_or_broken

    simulators = [simulator_or_broken(name) for name in dict.fromkeys(names or sorted(locations()))]
    found: list[Conformance] = []
    missing: list[NotRun] = []
    with ConsoleTeller() as teller:
        for number, simulator in enumerate(simulators, 1):
            there = simulator.availability()
            if there.ok:
                teller.step(number, len(simulators), simulator.name, f"{len(checks)} checks")
                found += [_told(form, checks, teller) for form in forms(simulator)]
            else:
                teller.step(number, len(simulators), simulator.name, f"cannot run here: {there.reason}")
                missing.append(NotRun(simulator.name, there.reason, there.fix))
    return Matrix(tuple(checks), tuple(found), tuple(missing))


def _told(simulator: Simulator, checks: Sequence[Check], teller: ConsoleTeller) -> Conformance:
    """One backend, with its progress on stderr."""
    from snn_export.hardware_sims.conformance.kit import run_kit

    started = time.perf_counter()
    found = run_kit(simulator, checks, on_check=lambda name, number, total: teller.line(f"{name} ({number}/{total})"))
    teller.done(found.backend, found.summary().partition("\n")[0], time.perf_counter() - started)
    return found


def _write(matrix: Matrix, path: Path, code: int) -> None:
    """JSON or Markdown by the ending; the file appears complete or not at all."""
    import json

    from snn_export.commands.conformance_matrix import markdown
    from snn_export.reporting.json_file import write_text

    text = markdown(matrix) if path.suffix == ".md" else json.dumps(matrix.as_dict(code), indent=2, sort_keys=True) + "\n"
    write_text(path, text)
    click.echo(f"written: {path}", err=True)
