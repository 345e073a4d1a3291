"""The energy estimate as tables on standard output."""

from __future__ import annotations

import click

from snn_export.commands.output import print_table
from snn_export.reporting import formatting
from snn_export.reporting.energy_records import EnergyReport


def print_energy(energy: EnergyReport) -> None:
    """Layers, components, ANN baselines, break-even rates, limits; per inference."""
    click.echo(f"{energy.label}; mean of {energy.samples} samples, per inference\n")
    print_table(
        ("layer", "SynOps", "graded operations", "active updates", "inactive updates", "energy"),
        [
            (
                layer.layer,
                formatting.amount(layer.synops),
                formatting.amount(layer.graded_operations),
                formatting.amount(layer.active_updates),
                formatting.amount(layer.inactive_updates),
                formatting.energy_range(layer.value, layer.low, layer.high),
            )
            for layer in energy.layers
        ],
    )
    click.echo(
        f"\ntotal {formatting.energy_range(energy.total, energy.total_low, energy.total_high)}, without what has no figure\n"
    )
    print_table(
        ("component", "count", "energy", "coefficient", "source"),
        [
            (
                item.component,
                formatting.amount(item.count),
                formatting.energy_range(item.value, item.low, item.high),
                item.coefficient,
                item.source,
            )
            for item in (*energy.figures, *energy.baselines)
        ],
    )
    click.echo()
    for sentence in (*energy.break_even, *energy.limits):
        click.echo(f"- {sentence}")
