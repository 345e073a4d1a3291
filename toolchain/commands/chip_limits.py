"""Limits of chips on a terminal, for ``snn-export targets``: a line for each chip, or all that is known of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from snn_export.commands.options import Format

if TYPE_CHECKING:
    from snn_export.hardware_sims.chips.chip_table import ChipTable, Sourced

SHORT = ("Limits of", "What it is", "Networks are placed on", "A core holds, or the chip")
MANY = 4
"""Values of one limit above which a line for each chip names only the least and the most."""
LONG = ("Limit", "Value", "Unit", "Certainty", "Year", "Source")


def short(chip: ChipTable) -> tuple[str, ...]:
    """The cells of :data:`SHORT`."""
    from snn_export.hardware_sims.chips.core_resources import RESOURCES

    cores = "-" if chip.mesh is None else f"{chip.mesh.cores} cores per chip"
    held = (f"{value:,} {RESOURCES[name].title}" for name, value in chip.capacities.items())
    facts = (f"{name} {_briefly(limit.value)}" for name, limit in chip.limits.items() if name not in chip.capacities)
    return chip.name, chip.title, cores, "; ".join((*held, *facts))


def show(chip: str, output_format: Format) -> None:
    """Write all that is known of a chip, by name or from a file.

    Raises:
        UserError: SNX450 for an unknown name, SNX451 for a file that cannot be used.
    """
    from snn_export.commands.output import print_json, print_table
    from snn_export.hardware_sims.chips.chip_table import load_chip, read_chip
    from snn_export.text_safety import printable

    table = read_chip(chip) if chip.endswith(".toml") else load_chip(chip)
    if output_format == "json":
        print_json(table.model_dump(mode="json"))
        return
    placed = (
        "limits only: no network is placed on it"
        if table.mesh is None
        else f"networks are placed on its {table.mesh.cores} cores"
    )
    click.echo(printable(f"{table.name}: {table.title}, {placed}\n"))
    print_table(LONG, _rows(table))
    for line in _below(table):
        click.echo(printable(line))


def _rows(chip: ChipTable) -> Iterator[tuple[str, ...]]:
    """The cells of :data:`LONG`: limits, then mesh and memory."""
    for name, limit in chip.limits.items():
        yield name, _listed(limit.value), limit.unit, *_origin(limit)
    if chip.mesh is not None:
        mesh = chip.mesh
        yield (
            "mesh",
            f"{mesh.rows} x {mesh.columns} x {mesh.cores_per_router}",
            "rows x columns of routers x cores",
            *_origin(mesh),
        )
    if chip.synapses is not None:
        yield "synapses", ", ".join(chip.synapses.encodings), "lists, see docs/placement.md", *_origin(chip.synapses)


def _origin(item: Sourced) -> tuple[str, str, str]:
    return item.certainty, str(item.year), item.reference


def _below(chip: ChipTable) -> Iterator[str]:
    """Notes, and what has no limit of its own."""
    known: dict[str, Sourced | None] = {**chip.limits, "mesh": chip.mesh, "synapses": chip.synapses}
    told = (
        ("Notes", {name: item.note for name, item in known.items() if item is not None and item.note}),
        ("Not published, so not checked", chip.not_published),
        ("Covered by another limit", chip.covered),
    )
    for heading, sentences in told:
        if sentences:
            yield f"\n{heading}:"
            yield from (f"  {name}: {sentence}" for name, sentence in sentences.items())


def _briefly(value: int | tuple[int, ...]) -> str:
    if isinstance(value, tuple) and len(value) > MANY:
        return f"{min(value):,} to {max(value):,}"
    return _listed(value)


def _listed(value: int | tuple[int, ...]) -> str:
    return f"{value:,}" if isinstance(value, int) else ", ".join(f"{each:,}" for each in value)
