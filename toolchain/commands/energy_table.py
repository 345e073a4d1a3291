"""The energy estimate as tables on standard output."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

import click
from rich.console import Console
from rich.table import Column
from rich.text import Text

from snn_export.commands.output import print_table
from snn_export.reporting import formatting
from snn_export.reporting.energy_records import EnergyFigure, EnergyReport
from snn_export.text_safety import printable

UNBROKEN: Final = 1000
"""Columns of a table where nothing limits them."""
ROOM: Final = 80
"""Columns from which numbers keep to one line."""
_Row = tuple[str | Text, ...]


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None where it is none, so that no line is broken."""
    console = Console()
    return console.width if console.is_terminal else None


def print_energy(energy: EnergyReport, width: int | None = None) -> None:
    """Who wins, layers, components, ANNs, fewer steps, break-even rates, time, limits, sources; per inference.

    Args:
        energy: to show. Its texts may come from a file that somebody made: what could steer a terminal is escaped.
        width: columns that no line exceeds; None: lines are not broken.
    """
    _Writer(energy, width).write()


class _Writer:
    """Writes the parts in order; every text passes through :func:`printable`."""

    def __init__(self, energy: EnergyReport, width: int | None) -> None:
        self._energy, self._width = energy, width
        self._sources = energy.sources()

    def write(self) -> None:
        """All parts, the answer first."""
        energy = self._energy
        digest = f", SHA-256 {energy.table_digest[:12]}" if energy.table_digest else ""
        self._say(f"{energy.label}; mean of {energy.samples} samples, per inference; table {energy.table_told()}{digest}\n")
        self._say(f"total {self._total()}, without what has no figure\n")
        self._listed("", energy.verdict)
        self._layers()
        self._components()
        self._steps()
        self._listed("Published break-even rates", energy.break_even)
        self._measures()
        self._listed("What the estimate leaves out", energy.limits)
        self._say("Sources")
        for source, number in self._sources.items():
            self._say(f"[{number}] {source}", indent="    ")
        for table in energy.tables:
            file = f" (file {table.file})" if table.file else ""
            self._say(f"Cost table {table.name}{file}: SHA-256 {table.digest}", indent="    ")

    def _say(self, text: str, indent: str = "") -> None:
        """A paragraph, with an empty line after it where it ends with a line break; later lines are indented."""
        shown = printable(text.rstrip("\n")).replace("\n", " ")
        if self._width is not None:
            shown = textwrap.fill(shown, self._width, subsequent_indent=indent, break_on_hyphens=False)
        click.echo(shown + ("\n" if text.endswith("\n") else ""))

    def _listed(self, title: str, sentences: tuple[str, ...]) -> None:
        if title and sentences:
            self._say(title)
        for sentence in sentences:
            self._say(f"- {sentence}", indent="  ")
        if sentences:
            click.echo()

    def _table(self, headings: Sequence[str], rows: Sequence[_Row]) -> None:
        """A table; a heading that begins with ``>`` is that of numbers, which keep to one line where there is room."""
        width = self._width or UNBROKEN
        columns = [
            Column(heading.removeprefix(">"), no_wrap=heading.startswith(">") and width >= ROOM, overflow="fold")
            for heading in headings
        ]
        print_table(columns, rows, width)
        click.echo()

    def _total(self) -> str:
        energy = self._energy
        return formatting.energy_range(energy.total, energy.total_low, energy.total_high)

    def _layers(self) -> None:
        amount = formatting.amount
        self._table(
            ("layer", ">SynOps", "graded operations", "active updates", "inactive updates", ">energy"),
            [
                (
                    layer.layer, amount(layer.synops), amount(layer.graded_operations), amount(layer.active_updates),
                    amount(layer.inactive_updates), formatting.energy_range(layer.value, layer.low, layer.high),
                )
                for layer in self._energy.layers
            ],
        )  # fmt: skip

    def _components(self) -> None:
        """Every figure, group by group, and the total below this network's own."""
        groups = self._energy.groups()
        rows: list[_Row] = []
        for group in groups:
            if group.orientation:
                continue
            rows += [()] if rows else []
            rows.append((Text(printable(group.title), style="bold"),))
            rows += [self._row(item) for item in group.figures]
            if group.name == "figures":
                rows.append((Text("total, this network", style="bold"), "", self._total(), "", ""))
        self._table(("component", ">count", ">energy", "coefficient", ">source"), rows)
        for group in groups:
            if group.orientation:
                self._say(group.title)
                shown = (self._row(item) for item in group.figures)
                self._table(("chip", ">energy", "one operation", ">source"), [(row[0], row[2], row[3], row[4]) for row in shown])

    def _row(self, item: EnergyFigure) -> tuple[str, str, str, str, str]:
        count = formatting.ABSENT if item.count is None else formatting.amount(item.count)
        energy = formatting.energy_range(item.value, item.low, item.high)
        return item.component, count, energy, item.coefficient, f"[{self._sources[item.source]}]"

    def _steps(self) -> None:
        """What fewer steps would cost, and the early exit."""
        energy = self._energy
        if not energy.curve:
            return
        self._table(
            (">steps", ">accuracy", ">energy", ""),
            [
                (
                    str(point.steps), _percent(point.accuracy), formatting.energy_range(point.value, point.low, point.high),
                    "knee" if point.steps == energy.knee else "",
                )
                for point in energy.curve
            ],
        )  # fmt: skip
        early = energy.early_exit
        if early is not None:
            taken = formatting.energy_range(early.value, early.low, early.high)
            chosen = f"chosen on {early.chosen_on} validation samples" if early.chosen_on else "as it was set"
            self._say(
                f"Early exit: {taken}, {formatting.real(early.mean_steps)} steps on average, accuracy {_percent(early.accuracy)} "
                f"(all steps: {_percent(early.accuracy_full)}). The rule: {early.rule}. The threshold is "
                f"{formatting.real(early.threshold)}, {chosen}.\n"
            )

    def _measures(self) -> None:
        """Time, NeuroBench's metrics, memory accesses."""
        energy = self._energy
        latency = energy.latency
        if latency is not None:
            if latency.step is not None and latency.inference is not None:
                step, whole = latency.step, latency.inference
                terms = f", {latency.terms}" if latency.terms else ""
                self._say(
                    f"Time{terms}: {formatting.time_range(whole.value, whole.low, whole.high)} per inference of {latency.steps} "
                    f"steps of {formatting.time_range(step.value, step.low, step.high)}, waiting for {latency.busiest_core}"
                )
            cited = "".join(f" [{self._sources[source]}]" for source in latency.sources)
            self._say(f"Time: {latency.reason}{cited}\n")
        found = energy.neurobench
        if found is not None:
            updates = formatting.ABSENT if found.membrane_updates is None else formatting.amount(found.membrane_updates)
            self._say(
                f"NeuroBench: footprint {formatting.count(found.footprint)} bytes, connection sparsity "
                f"{formatting.share(found.connection_sparsity)}, activation sparsity "
                f"{formatting.share(found.activation_sparsity)}, effective MACs {formatting.amount(found.effective_macs)}, "
                f"effective ACs {formatting.amount(found.effective_acs)}, dense {formatting.amount(found.dense)}, membrane "
                f"updates {updates}\n"
            )
        memory = energy.memory
        if memory is not None:
            self._say(
                f"Memory accesses: {formatting.amount(memory.weight_reads)} weights read, "
                f"{formatting.amount(memory.state_reads)} state variables read and written; {memory.model}\n"
            )


def _percent(value: float | None) -> str:
    return formatting.ABSENT if value is None else formatting.percent(value)
