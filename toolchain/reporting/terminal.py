"""The report on a terminal: verdict, gates, ladder, layers, energy and what was not covered, within 100 columns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from snn_export.reporting import guidance, wording
from snn_export.reporting.formatting import ABSENT, text_of, to_ascii
from snn_export.reporting.report import Attribution, Comparison, Report
from snn_export.text_safety import printable

WIDTH: Final = 100
_STYLES: Final = {"good": "green", "bad": "red", "neutral": "yellow"}
_INDENT: Final = (0, 0, 0, 2)
_NAME: Final = 12
"""Columns that the first cell of a row has at least."""
_PLAIN_BOX: Final = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def render(report: Report, width: int = WIDTH, *, colour: bool = False, ascii_only: bool = False) -> str:
    """The report as text, at most ``width`` columns wide."""
    buffer = io.StringIO()
    console = Console(
        file=buffer, width=width, force_terminal=colour, no_color=not colour, color_system="standard" if colour else None,
        highlight=False, markup=False, emoji=False, legacy_windows=False, _environ={},
    )  # fmt: skip
    _Renderer(report, ascii_only).print_to(console)
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def console_of_report() -> Console:
    """Standard output as reports are printed to it: as wide as the terminal, at most ``WIDTH``, and that where there is none."""
    console = Console()
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def print_report(report: Report, console: Console) -> None:
    """Print to ``console``. Its settings decide on colour (NO_COLOR) and on plain ASCII (dumb terminals, other encodings)."""
    ascii_only = console.is_dumb_terminal or console.options.ascii_only
    _Renderer(report, ascii_only).print_to(console)


class _Renderer:
    """Builds the parts. Every string of the report passes through ``_text`` and never through rich's markup."""

    def __init__(self, report: Report, ascii_only: bool) -> None:
        self._report = report
        self._ascii = ascii_only
        self._console = Console(width=WIDTH, _environ={})
        self._left_out: dict[str, None] = {}

    def print_to(self, console: Console) -> None:
        """Print all parts in order."""
        self._console = console
        for part in self._parts():
            console.print(part)

    def _parts(self) -> list[RenderableType]:
        parts: list[RenderableType] = [self._verdict(), Text(), self._gates()]
        if self._report.ladder:
            parts += [Text(), self._ladder()]
        for index, comparison in enumerate(self._report.comparisons):
            parts += [Text(), self._comparison(index, comparison)]
        if self._report.attribution is not None:
            parts += [Text(), self._attribution(self._report.attribution)]
        if self._report.size is not None:
            size = Text.assemble(self._text("Size", "bold"), "  ", self._text(wording.size_sentence(self._report.size)))
            parts += [Text(), size]
        if self._report.energy is not None:
            parts += [Text(), self._energy()]
        if self._report.placement is not None:
            placed = self._text(wording.placement_sentence(self._report.placement))
            parts += [Text(), Text.assemble(self._text("Placement", "bold"), "  ", placed)]
        parts += [Text(), self._coverage()]
        if not self._report.passed:
            parts += [Text(), self._next_steps()]
        if self._left_out:
            room = f"{self._console.width} columns leave no room for: {', '.join(self._left_out)}"
            parts += [Text(), self._text(f"{room}. A wider terminal shows more of it, the HTML report all.", "dim")]
        return parts

    def _verdict(self) -> RenderableType:
        report = self._report
        style = "bold green" if report.passed else "bold red"
        head = Text.assemble(
            self._text("PASS" if report.passed else "FAIL", style), "  ", self._text(wording.headline(report), "bold")
        )
        facts = (
            f"{report.dataset}: {self._number('samples')} samples, {self._number('steps')} steps, reference {report.reference}"
        )
        if not report.passed:
            facts += f", exit code {self._number('exit_code')}"
        lines: list[RenderableType] = [head, Padding(self._text(facts, "dim"), (0, 0, 0, 6))]
        lines += [self._item(cause, "red") for cause in report.causes]
        lines += [Padding(self._text(claim), (0, 0, 0, 6)) for claim in wording.exact_claims(report)]
        return Group(*lines)

    def _gates(self) -> RenderableType:
        table = self._table("Gate", "Required", "Measured", "")
        for gate in self._report.gates:
            style = "yellow" if gate.skipped else "green" if gate.passed else "red"
            measured = self._text(gate.measured, "" if gate.passed else "red")
            if gate.detail:
                measured.append_text(self._text(f"\n{gate.detail}", "dim"))
            state = self._text("○ skipped" if gate.skipped else "✓ pass" if gate.passed else "✗ FAIL", style)
            table.add_row(self._text(gate.name), self._text(gate.required), measured, state)
        return table

    def _ladder(self) -> RenderableType:
        headers = ("Rung", "Backend", ">Accuracy", ">95 % interval", ">Samples", "Compared with", "Verdict", ">Differ")
        rows = list[tuple[Text, ...]]()
        models = {network.model for network in self._report.carried}  # they stand in the comparisons of their backends
        for index, rung in enumerate(self._report.ladder):
            if rung.name in models:
                continue
            at = f"ladder.{index}"
            numbers = (self._cell(f"{at}.{field}") for field in ("accuracy", "interval", "samples"))
            compared, badge = self._text(rung.compared_with or ABSENT), self._badge(rung.verdict)
            differ = self._cell(f"{at}.mismatched_spikes")
            rows.append((self._text(rung.name, "bold"), self._text(rung.backend), *numbers, compared, badge, differ))
        return self._fitting(headers, rows, spare=("Backend", "95 % interval", "Samples", "Compared with"))

    def _comparison(self, index: int, comparison: Comparison) -> RenderableType:
        at = f"comparisons.{index}"
        head = Text.assemble(
            self._text(f"{comparison.reference} → {comparison.target}", "bold"), "  ", self._badge(comparison.verdict)
        )
        if comparison.samples:
            same = f"same decision in {self._number(f'{at}.decisions_equal')} of {self._number(f'{at}.samples')} samples"
            head.append_text(self._text(f"  {same}", "dim"))
        if comparison.layers and all(layer.verdict == "EXACT" for layer in comparison.layers):
            head.append_text(self._text(f"; {wording.all_equal(comparison)}", "dim"))
            return head
        lines: list[RenderableType] = [head]
        if comparison.message and not comparison.layers:
            lines.append(Padding(self._text(comparison.message), _INDENT))
        if comparison.log:
            lines.append(Padding(self._text(f"log: {comparison.log}"), _INDENT))
        if comparison.layers:
            lines.append(self._layers(at, comparison))
        if comparison.first_faulty_layer is not None:
            lines.append(Padding(self._text(wording.faulty_layer_sentence(comparison), "red"), _INDENT))
        if at_fault := wording.isolated_sentence(comparison):
            lines.append(Padding(self._text(f"{at_fault}.", "red"), _INDENT))
        lines += [Padding(self._text(f"{late}.", "red"), _INDENT) for late in wording.lag_sentences(comparison)]
        if paired := wording.paired_sentence(comparison):
            lines.append(Padding(self._text(f"{paired}.", "dim"), _INDENT))
        for number, layer in enumerate(comparison.layers):
            if layer.first_divergence is not None:
                place = self._number(f"{at}.layers.{number}.first_divergence")
                lines.append(self._item(f"{layer.layer}: {place}", _STYLES[wording.tone(layer.verdict)]))
        return Group(*lines)

    def _layers(self, at: str, comparison: Comparison) -> RenderableType:
        fields = {
            ">Reference": "reference_spikes",
            ">Got": "got_spikes",
            ">Differ": "mismatched_spikes",
            ">Count\nerror": "count_error_sum",
            ">Membranes\ndiffer": "mismatched_membranes",
            ">Largest": "membrane_difference_max",
            ">Over-\nflows": "overflows",
            ">Tolerance": "tolerance_that_would_pass",
        }
        rows = [
            (self._text(layer.layer, "bold"), self._badge(layer.verdict),
             *(self._cell(f"{at}.layers.{number}.{field}") for field in fields.values()))
            for number, layer in enumerate(comparison.layers)
        ]  # fmt: skip
        spare = ("Largest", "Count\nerror", "Over-\nflows", "Tolerance", "Reference", "Got", "Membranes\ndiffer")
        return self._fitting(("Layer", "Verdict", *fields), rows, spare)

    def _attribution(self, found: Attribution) -> RenderableType:
        """What each effect changes: switched on one after the other, in both orders, and switched off alone."""
        head = Text.assemble(self._text("Attribution", "bold"), "  ", self._text(wording.attribution_headline(found), "dim"))
        headers = (
            "Effect", ">Forward", ">Backward", ">Interaction", ">Left\nwithout it", ">Removed", ">Accuracy", "First\ndivergence"
        )  # fmt: skip
        rows = list[tuple[Text, ...]]()
        for number, effect in enumerate(found.effects):
            at = f"attribution.effects.{number}"
            fields = ("forward", "backward", "interaction", "without", "removed", "accuracy")
            name = self._text(effect.name, "bold" if effect.name == found.cause else "")
            cells = (self._cell(f"{at}.{field}") for field in fields)
            rows.append((name, *cells, self._text("explained" if effect.explains_first else "")))
        table = self._fitting(headers, rows, spare=("First\ndivergence", "Accuracy", "Interaction", "Backward", "Forward"))
        lines: list[RenderableType] = [head, table, Padding(self._text(found.sentence), _INDENT)]
        lines += [self._item(part, "yellow") for part in wording.cause_sentences(found)]
        if found.fix:
            lines.append(Padding(self._text(f"fix: {found.fix}", "dim"), _INDENT))
        return Group(*lines)

    def _energy(self) -> RenderableType:
        energy = self._report.energy
        if energy is None:
            return Text()
        head = Text.assemble(self._text("Energy per inference", "bold"), "  ", self._text(energy.label, "dim"))
        table = self._table(">", "", show_header=False)
        table.add_row(self._cell("energy.total", "bold"), self._text("this network, spiking"))
        fair = [
            (number, item)
            for number, item in enumerate(energy.comparisons)
            if (item.subject, item.precision, item.memory) == ("network", "INT8", True)
        ]
        if fair:
            table.add_row(Text(), self._text(f"In {energy.process}, {fair[0][1].terms}", "dim"))
            table.add_row(self._cell(f"energy.comparisons.{fair[0][0]}.own_value"), self._text("this network"))
        for number, item in fair:
            table.add_row(self._cell(f"energy.comparisons.{number}.value"), self._text(item.other))
        unpriced = "; ".join(figure.component for figure in energy.figures if figure.value is None)
        lines = [self._item(f"no figure is published for: {unpriced}", "yellow")] if unpriced else []
        lines += [self._item(item.sentence[:1].upper() + item.sentence[1:], "yellow") for _, item in fair]
        more = self._text("every comparison, layer and source: snn-export energy", "dim")
        return Group(head, table, *lines, Padding(more, _INDENT))

    def _coverage(self) -> RenderableType:
        if not self._report.coverage:
            return self._text("Coverage: nothing was left out.")
        lines: list[RenderableType] = [self._text("Not covered", "bold")]
        for item in self._report.coverage:
            status = item.status.replace("_", " ").lower()
            lines.append(self._item(f"{item.what} ({status}): {item.why}", "yellow" if item.status != "UNAVAILABLE" else "red"))
            if item.fix:
                lines.append(Padding(self._text(f"to cover it: {item.fix}", "dim"), (0, 0, 0, 4)))
        return Group(*lines)

    def _next_steps(self) -> RenderableType:
        lines: list[RenderableType] = [self._text("What to do next", "bold")]
        for step in guidance.next_steps(self._report):
            lines.append(self._item(step.text, "yellow"))
            if step.code:
                lines.append(Padding(self._text(step.code), (0, 0, 0, 4)))
        return Group(*lines)

    def _fitting(self, headers: Sequence[str], rows: Sequence[Sequence[Text]], spare: Sequence[str]) -> Table:
        """A table of which no cell is cut: where the console is too narrow, columns are left out, in the order of ``spare``."""
        without: list[str] = []
        longest = max((row[0].cell_len for row in rows), default=0)
        room = self._console.width + max(0, longest - _NAME)  # a long name goes on in a second line
        wide = self._console.options.update(width=10 * WIDTH)
        while True:
            kept = [index for index, header in enumerate(headers) if header.removeprefix(">") not in without]
            table = self._table(*(headers[index] for index in kept))
            table.columns[0].min_width = min(longest, _NAME)  # "spikingjelly" in one piece
            for row in rows:
                table.add_row(*(row[index] for index in kept))
            if Measurement.get(self._console, wide, table).maximum <= room or len(without) == len(spare):
                self._left_out.update(dict.fromkeys(" ".join(header.replace("-\n", "").split()) for header in without))
                return table
            without.append(spare[len(without)])

    def _table(self, *headers: str, show_header: bool = True) -> Table:
        """A table without frames; a header that begins with ``>`` is aligned right."""
        lines = _PLAIN_BOX if self._ascii else box.SIMPLE_HEAD
        table = Table(box=lines, show_header=show_header, header_style="dim", border_style="dim")
        table.show_edge, table.pad_edge, table.padding = False, False, (0, 1, 0, 0)
        for header in headers:
            right = header.startswith(">")
            table.add_column(
                self._text(header.removeprefix(">")), justify="right" if right else "left", overflow="fold", no_wrap=right
            )
        return table

    def _item(self, text: str, style: str) -> RenderableType:
        """A line of a list, its continuation indented."""
        row = Table.grid(padding=(0, 1))
        row.add_row(Text("  -" if self._ascii else "  •", style=style), self._text(text))
        return row

    def _badge(self, verdict: str | None) -> Text:
        if verdict is None:
            return Text()
        return self._text(f"{wording.VERDICT_MARK[verdict]} {verdict.replace('_', ' ')}", _STYLES[wording.tone(verdict)])

    def _cell(self, path: str, style: str = "") -> Text:
        return self._text(self._number(path), style)

    def _number(self, path: str) -> str:
        return text_of(self._report, path)

    def _text(self, text: str, style: str = "") -> Text:
        shown = printable(text)
        return Text(to_ascii(shown) if self._ascii else shown, style=style)
