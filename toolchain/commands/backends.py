"""``snn-export backends``."""

from __future__ import annotations

import sys
from typing import Any

import click

from snn_export.command_group import CommandGroup
from snn_export.commands.options import Format, format_option


@click.group("backends", cls=CommandGroup)
def command() -> None:
    """List the backends, or install one."""


@command.command("list")
@format_option
def list_(output_format: Format) -> None:
    """List every backend: whether it can run here and, if not, why and what to do."""
    from rich.text import Text

    from snn_export.commands.output import print_json, print_table
    from snn_export.hardware_sims.registry import locations

    found = [_describe(name, location) for name, location in locations().items()]
    if output_format == "json":
        print_json(found)
        return
    colours = {"available": "green", "unavailable": "yellow", "broken": "red"}
    print_table(
        ("Backend", "State", "Arithmetic", "What it is"),
        ((item["name"], Text(item["state"], colours[item["state"]]), item["arithmetic"], item["description"]) for item in found),
    )
    for item in found:
        if item["reason"]:
            click.echo(f"\n{item['name']}: {item['reason']}\n  fix: {item['fix']}")


def _describe(name: str, location: str) -> dict[str, Any]:
    """One backend as plain data; ``state`` is available, unavailable or broken (a plug-in that cannot be imported)."""
    from snn_export.hardware_sims.registry import simulator
    from snn_export.hardware_sims.simulator import BackendError

    try:
        backend = simulator(name)
    except BackendError as error:
        return {
            "name": name, "state": "broken", "location": location, "reason": error.diagnostic.what, "fix": error.diagnostic.fix,
            "arithmetic": "", "description": "", "isolated": False, "needs_integers": False, "versions": {},
        }  # fmt: skip
    can, there = backend.capabilities(), backend.availability()
    return {
        "name": name, "state": "available" if there.ok else "unavailable", "location": location,
        "reason": there.reason, "fix": there.fix, "arithmetic": can.arithmetic, "description": can.description,
        "isolated": can.isolated, "needs_integers": can.needs_integers, "versions": dict(there.versions),
    }  # fmt: skip


@command.command("install")
@click.argument("name")
@click.option("--force", is_flag=True, help="Make the environment anew although it is there.")
@click.option(
    "--accept-licence", "accepted", metavar="NAME", multiple=True, help="Accept the licence of backend NAME; can be repeated."
)
@format_option
def install(name: str, force: bool, accepted: tuple[str, ...], output_format: Format) -> None:
    """Make the environment of backend NAME, e.g. lava. Does nothing where it is complete.

    A licence that asks more than the usual open source terms has to be accepted, here or at the question.
    Progress goes to standard error; standard output names the interpreter.
    """
    from snn_export.commands.output import print_json
    from snn_export.hardware_sims import environments

    def tell(line: str) -> None:
        click.echo(f"{name}: {line}", err=True)

    recipe, asked = environments.environment(name), environments.consent_finding(name)
    if recipe.licence:
        tell(f"licence {recipe.licence}")
    if recipe.restriction:
        tell(recipe.restriction)
    consent = asked is None or name in accepted
    if asked is not None and not consent and not environments.versions(name) and sys.stdin.isatty():
        consent = click.confirm(f"{name}: do you accept it?", err=True)
    done = environments.install(name, tell, force=force, licence_accepted=consent)
    if output_format == "json":
        print_json({
            "name": name, "interpreter": str(done.interpreter), "fresh": done.fresh, "seconds": round(done.seconds, 1),
            "versions": dict(done.versions),
        })  # fmt: skip
        return
    if done.fresh:
        click.echo(f"{name}: ready after {done.seconds:.0f} seconds", err=True)
    click.echo(str(done.interpreter))
