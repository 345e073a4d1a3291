"""The report on a terminal: verdict, gates, ladder, layers, energy and what was not covered, within 100 columns."""

from __future__ import annotations

import io
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from snn_export.reporting import wording
from snn_export.reporting.formatting import ABSENT, text_of, to_ascii
from snn_export.reporting.report import Attribution, Comparison, Report
from snn_export.text_safety import printable

WIDTH: Final = 100
_STYLES: Final = {"good": "green", "bad": "red", "neutral": "yellow"}
_INDENT: Final = (0, 0, 0, 2)
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


def print_report(report: Report, console: Console) -> None:
    """Print to ``console``. Its settings decide on colour (NO_COLOR) and on plain ASCII (dumb terminals, other encodings)."""
    ascii_only = console.is_dumb_terminal or console.options.ascii_only
    _Renderer(report, ascii_only).print_to(console)


class _Renderer:
    """Builds the parts. Every string of the report passes through ``_text`` and never through rich's markup."""

    def __init__(self, report: Report, ascii_only: bool) -> None:
        self._report = report
        self._ascii = ascii_only

    def print_to(self, console: Console) -> None:
        """Print all parts in order."""
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
        return [*parts, Text(), self._coverage()]

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
        lines += [Padding(self._text(claim), (0, 0, 0, 6)) for claim in wording.exact_claims(report)]
        lines += [self._item(cause, "red") for cause in report.causes]
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
        table = self._table("Rung", "Backend", ">Accuracy", ">95 % interval", ">Samples", "Compared with", "Verdict", ">Differ")
        table.columns[0].min_width = 12  # "spikingjelly" in one piece
        models = {network.model for network in self._report.carried}  # they stand in the comparisons of their backends
        for index, rung in enumerate(self._report.ladder):
            if rung.name in models:
                continue
            at = f"ladder.{index}"
            table.add_row(
                self._text(rung.name, "bold"),
                self._text(rung.backend),
                self._cell(f"{at}.accuracy"),
                self._cell(f"{at}.interval"),
                self._cell(f"{at}.samples"),
                self._text(rung.compared_with or ABSENT),
                self._badge(rung.verdict),
                self._cell(f"{at}.mismatched_spikes"),
            )
        return table

    def _comparison(self, index: int, comparison: Comparison) -> RenderableType:
        at = f"comparisons.{index}"
        head = Text.assemble(
            self._text(f"{comparison.reference} → {comparison.target}", "bold"), "  ", self._badge(comparison.verdict)
        )
        if comparison.samples:
            same = f"same decision in {self._number(f'{at}.decisions_equal')} of {self._number(f'{at}.samples')} samples"
            head.append_text(self._text(f"  {same}", "dim"))
        lines: list[RenderableType] = [head]
        if comparison.message:
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
        table = self._table(
            "Layer",
            "Verdict",
            ">Reference",
            ">Got",
            ">Differ",
            ">Count\nerror",
            ">Membranes\ndiffer",
            ">Largest",
            ">Over-\nflows",
            ">Tolerance",
        )
        for number, layer in enumerate(comparison.layers):
            fields = (
                "reference_spikes",
                "got_spikes",
                "mismatched_spikes",
                "count_error_sum",
                "mismatched_membranes",
                "membrane_difference_max",
                "overflows",
                "tolerance_that_would_pass",
            )
            cells = [self._cell(f"{at}.layers.{number}.{field}") for field in fields]
            table.add_row(self._text(layer.layer, "bold"), self._badge(layer.verdict), *cells)
        return table

    def _attribution(self, found: Attribution) -> RenderableType:
        """What each effect changes: switched on one after the other, in both orders, and switched off alone."""
        head = Text.assemble(self._text("Attribution", "bold"), "  ", self._text(wording.attribution_headline(found), "dim"))
        table = self._table(
            "Effect", ">Forward", ">Backward", ">Interaction", ">Without", ">Removed", ">Accuracy", "First\ndivergence"
        )
        for number, effect in enumerate(found.effects):
            at = f"attribution.effects.{number}"
            fields = ("forward", "backward", "interaction", "without", "removed", "accuracy")
            table.add_row(
                self._text(effect.name, "bold" if effect.name == found.cause else ""),
                *(self._cell(f"{at}.{field}") for field in fields),
                self._text("explained" if effect.explains_first else ""),
            )
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
        for group in ("figures", "baselines"):
            for number, figure in enumerate(getattr(energy, group)):
                if group == "baselines" or figure.value is None:
                    table.add_row(self._cell(f"energy.{group}.{number}.value"), self._text(figure.component))
        return Group(head, table)

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
