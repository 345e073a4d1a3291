"""The energy estimate as tables on standard output."""

from __future__ import annotations

import click

from snn_export.commands.output import print_table
from snn_export.reporting import formatting
from snn_export.reporting.energy_records import EnergyFigure, EnergyReport


def print_energy(energy: EnergyReport) -> None:
    """Who wins, layers, components, ANNs, fewer steps, break-even rates, time, limits, sources; per inference."""
    digest = f", SHA-256 {energy.table_digest[:12]}" if energy.table_digest else ""
    click.echo(f"{energy.label}; mean of {energy.samples} samples, per inference; table {energy.table}{digest}\n")
    total = formatting.energy_range(energy.total, energy.total_low, energy.total_high)
    click.echo(f"total {total}, without what has no figure\n")
    _listed("", energy.verdict)
    _layers(energy)
    sources = energy.sources()
    _components(energy, sources)
    _steps(energy)
    _listed("Published break-even rates", energy.break_even)
    _measures(energy, sources)
    _listed("What the estimate leaves out", energy.limits)
    click.echo("Sources")
    for source, number in sources.items():
        click.echo(f"[{number}] {source}")


def _listed(title: str, sentences: tuple[str, ...]) -> None:
    if title and sentences:
        click.echo(title)
    for sentence in sentences:
        click.echo(f"- {sentence}")
    if sentences:
        click.echo()


def _layers(energy: EnergyReport) -> None:
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
    click.echo()


def _components(energy: EnergyReport, sources: dict[str, int]) -> None:
    """Every figure."""
    groups = energy.groups()
    print_table(
        ("component", "count", "energy", "coefficient", "source"),
        [_row(item, sources) for group in groups if not group.orientation for item in group.figures],
    )
    click.echo()
    for group in groups:
        if group.orientation:
            click.echo(group.title)
            rows = (_row(item, sources) for item in group.figures)
            print_table(("chip", "energy", "one operation", "source"), [(row[0], row[2], row[3], row[4]) for row in rows])
            click.echo()


def _row(item: EnergyFigure, sources: dict[str, int]) -> tuple[str, str, str, str, str]:
    count = formatting.ABSENT if item.count is None else formatting.amount(item.count)
    energy = formatting.energy_range(item.value, item.low, item.high)
    return item.component, count, energy, item.coefficient, f"[{sources[item.source]}]"


def _steps(energy: EnergyReport) -> None:
    """What fewer steps would cost, and the early exit."""
    if not energy.curve:
        return
    print_table(
        ("steps", "accuracy", "energy", ""),
        [
            (
                str(point.steps),
                _percent(point.accuracy),
                formatting.energy_range(point.value, point.low, point.high),
                "knee" if point.steps == energy.knee else "",
            )
            for point in energy.curve
        ],
    )
    click.echo()
    early = energy.early_exit
    if early is not None:
        taken = formatting.energy_range(early.value, early.low, early.high)
        click.echo(
            f"Early exit: {taken}, {formatting.real(early.mean_steps)} steps on average, accuracy {_percent(early.accuracy)} "
            f"(all steps: {_percent(early.accuracy_full)}). The rule: {early.rule}. The threshold is "
            f"{formatting.real(early.threshold)}"
            + (f", chosen on {early.chosen_on} validation samples.\n" if early.chosen_on else ", as it was set.\n")
        )


def _measures(energy: EnergyReport, sources: dict[str, int]) -> None:
    """Time, NeuroBench's metrics, memory accesses."""
    if energy.latency is not None:
        step, whole = energy.latency.step, energy.latency.inference
        if step is not None and whole is not None:
            click.echo(
                f"Time: {formatting.time_range(whole.value, whole.low, whole.high)} per inference of {energy.latency.steps} "
                f"steps of {formatting.time_range(step.value, step.low, step.high)}, waiting for {energy.latency.busiest_core}"
            )
        cited = "".join(f" [{sources[source]}]" for source in energy.latency.sources)
        click.echo(f"Time: {energy.latency.reason}{cited}\n")
    found = energy.neurobench
    if found is not None:
        updates = formatting.ABSENT if found.membrane_updates is None else formatting.amount(found.membrane_updates)
        click.echo(
            f"NeuroBench: footprint {formatting.count(found.footprint)} bytes, connection sparsity "
            f"{formatting.share(found.connection_sparsity)}, activation sparsity {formatting.share(found.activation_sparsity)}, "
            f"effective MACs {formatting.amount(found.effective_macs)}, effective ACs {formatting.amount(found.effective_acs)}, "
            f"dense {formatting.amount(found.dense)}, membrane updates {updates}\n"
        )
    memory = energy.memory
    if memory is not None:
        click.echo(
            f"Memory accesses: {formatting.amount(memory.weight_reads)} weights read, {formatting.amount(memory.state_reads)} "
            f"state variables read and written; {memory.model}\n"
        )


def _percent(value: float | None) -> str:
    return formatting.ABSENT if value is None else formatting.percent(value)
