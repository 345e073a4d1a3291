"""``snn-export report diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

_PATH = click.Path(path_type=Path)
_PERCENT = click.FloatRange(min=0)


@click.command("diff")
@click.argument("base", type=_PATH, metavar="BASE.JSON")
@click.argument("head", type=_PATH, metavar="HEAD.JSON")
@click.option(
    "--accuracy-drop", type=_PERCENT, default=0.5, show_default=True, metavar="POINTS", help="Most points any rung may lose."
)
@click.option(
    "--more-spikes", type=_PERCENT, default=5.0, show_default=True, metavar="PERCENT", help="Most spikes per inference on top."
)
@click.option(
    "--more-energy", type=_PERCENT, default=10.0, show_default=True, metavar="PERCENT", help="Most energy per inference on top."
)
@click.option("--larger", type=_PERCENT, default=0.0, show_default=True, metavar="PERCENT", help="Most bits of weights on top.")
@click.option("--other-data", is_flag=True, help="Compare accuracy although the two ran on different samples.")
@click.option("--github", is_flag=True, help="Print an annotation for GitHub, and append to the step's summary.")
@click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever changed.")
@click.option(
    "--format", "output_format", type=click.Choice(["human", "json", "markdown"]), default="human", show_default=True,
    help="How to write to standard output.",
)  # fmt: skip
def diff(
    base: Path,
    head: Path,
    accuracy_drop: float,
    more_spikes: float,
    more_energy: float,
    larger: float,
    other_data: bool,
    github: bool,
    exit_zero: bool,
    output_format: Literal["human", "json", "markdown"],
) -> None:
    """Show only what changed from one report to another, and fail where it got worse.

    Exits with 1 where a gate fails that did not, a verdict is worse, or a limit is passed; with 5 where something is not
    compared any more, or the two cannot be compared.
    """
    from snn_export.commands.report_files import ReportFiles, append_summary
    from snn_export.reporting.difference_gates import Limits, judge
    from snn_export.reporting.difference_text import annotation, document, markdown, print_difference
    from snn_export.reporting.json_file import read_report
    from snn_export.reporting.markdown import within

    limits = Limits(accuracy_drop, more_spikes, more_energy, larger, other_data)
    found = judge(read_report(base), read_report(head), limits)
    if output_format == "json":
        from snn_export.commands.output import print_json

        print_json(document(found))
    elif output_format == "markdown":
        click.echo(markdown(found), nl=False)
    else:
        from snn_export.reporting.terminal import console_of_report

        with ReportFiles(github=github).quiet():
            print_difference(found, console_of_report())
    if github:
        click.echo(annotation(found), nl=False, err=output_format != "human")
        append_summary(lambda room: within(markdown(found), room, f"{base} and {head}"))
    raise SystemExit(0 if exit_zero else found.exit_code)
