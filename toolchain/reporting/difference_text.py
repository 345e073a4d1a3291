"""The difference of two reports for a terminal, as Markdown, as plain data, and as GitHub's annotations."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from snn_export.reporting import github
from snn_export.reporting.difference import Change, Difference, Kind, Part, Value
from snn_export.reporting.formatting import ABSENT, MINUS, NARROW_SPACE, amount, count, energy, percent, real, to_ascii
from snn_export.reporting.markdown import inline, table
from snn_export.reporting.report import Gate
from snn_export.reporting.terminal import WIDTH
from snn_export.text_safety import printable

SCHEMA_VERSION: Final = 1
_PARTS: Final[tuple[Part, ...]] = get_args(Part)
_TITLES: Final[dict[Part, str]] = {
    "verdict": "Verdict", "gate": "Gates", "accuracy": "Accuracy", "layer": "Layers", "activity": "Spikes", "energy": "Energy",
    "size": "Size", "coverage": "Not covered", "setting": "Settings", "fingerprint": "SHA-256", "version": "Versions",
}  # fmt: skip
_NO_CHANGE: Final = "Nothing changed."
_DIGITS: Final = 12
"""Of a fingerprint: enough to tell two apart."""


def headline(found: Difference) -> str:
    """The outcome in one sentence."""
    failed = sum(not gate.passed for gate in found.gates)
    name = found.head.network
    if failed:
        return f"{name}: {failed} of {len(found.gates)} demands on the change do not hold."
    return f"{name}: nothing got worse than it may." if found.changes else f"{name}: {_NO_CHANGE.lower()}"


def document(found: Difference) -> dict[str, Any]:
    """The difference as plain data, for JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "base": _named(found, "base"),
        "head": _named(found, "head"),
        "same_subject": not found.notes,
        "notes": list(found.notes),
        "other_data": found.other_data,
        "changes": [
            {
                "part": change.part, "what": change.what, "base": change.base, "head": change.head, "kind": change.kind,
                "worse": change.worse,
            }
            for change in _ordered(found)
        ],
        "gates": [gate.model_dump(mode="json") for gate in found.gates],
        "passed": found.exit_code == 0,
        "exit_code": found.exit_code,
    }  # fmt: skip


def _named(found: Difference, end: str) -> dict[str, Any]:
    report = found.base if end == "base" else found.head
    return {"network": report.network, "target": report.target, "passed": report.passed, "exit_code": report.exit_code}


def markdown(found: Difference) -> str:
    """The difference as Markdown: outcome, demands, then a table of all that changed."""
    state = "✗ FAIL" if found.exit_code else "✓ PASS"
    parts = [f"## {state}: {inline(headline(found))}"]
    if found.notes:
        parts.append("\n".join(f"- {inline(note)}" for note in found.notes))
    parts.append(table(("", "Demand", "Limit", "Measured"), (_gate_cells(gate) for gate in found.gates)))
    rows = [
        (inline(_TITLES[change.part]), inline(change.what), *(inline(cell) for cell in _cells(change)), _mark(change))
        for change in _ordered(found)
    ]
    parts.append(table(("", "What", ">Before", ">Now", ">Change", ""), rows) if rows else _NO_CHANGE)
    return "\n\n".join(parts) + "\n"


def _gate_cells(gate: Gate) -> tuple[str, str, str, str]:
    measured = inline(gate.measured) + (f"<br>{inline(gate.detail)}" if gate.detail else "")
    return ("✓ pass" if gate.passed else "✗ **FAIL**", inline(gate.name), inline(gate.required), measured)


def annotation(found: Difference) -> str:
    """One workflow command that names every demand that does not hold; an empty string where all hold."""
    failed = [gate for gate in found.gates if not gate.passed]
    if not failed:
        return ""
    lines = [f"{gate.name}: {gate.measured}" + (f" ({gate.detail})" if gate.detail else "") for gate in failed]
    return github.command("error", f"{found.head.network} is worse than its baseline", "\n".join([*lines, *found.notes])) + "\n"


def render(found: Difference, width: int = WIDTH, *, ascii_only: bool = False) -> str:
    """The difference as text, at most ``width`` columns wide, without colour."""
    buffer = io.StringIO()
    console = Console(
        file=buffer, width=width, no_color=True, color_system=None, highlight=False, markup=False, emoji=False,
        legacy_windows=False, _environ={},
    )  # fmt: skip
    _print(found, console, ascii_only)
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def print_difference(found: Difference, console: Console) -> None:
    """Print to ``console``, whose settings decide on colour and on plain ASCII."""
    _print(found, console, console.is_dumb_terminal or console.options.ascii_only)


def _print(found: Difference, console: Console, ascii_only: bool) -> None:
    def text(content: str, style: str = "") -> Text:
        shown = printable(content)
        return Text(to_ascii(shown) if ascii_only else shown, style=style)

    def grid(*headers: str) -> Table:
        made = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for header in headers:
            right = header.startswith(">")
            made.add_column(text(header.removeprefix(">")), justify="right" if right else "left", overflow="fold")
        return made

    good = found.exit_code == 0
    state = text("PASS" if good else "FAIL", "bold green" if good else "bold red")
    console.print(Text.assemble(state, "  ", text(headline(found), "bold")))
    for note in found.notes:
        console.print(text(f"      {note}", "yellow"))
    demands = grid("Demand", "Limit", "Measured", "")
    for gate in found.gates:
        style = "green" if gate.passed else "red"
        measured = f"{gate.measured}\n{gate.detail}" if gate.detail else gate.measured
        demands.add_row(text(gate.name), text(gate.required), text(measured), text("✓ pass" if gate.passed else "✗ FAIL", style))
    console.print(Text(), demands, sep="\n")
    for part, group in groupby(_ordered(found), lambda change: change.part):
        rows = grid(_TITLES[part], ">Before", ">Now", ">Change", "")
        for change in group:
            style = {True: "red", False: "green", None: ""}[change.worse]
            rows.add_row(text(change.what), *(text(cell) for cell in _cells(change)), text(_mark(change), style))
        console.print(Text(), rows, sep="\n")
    if not found.changes:
        console.print(Text(), text(_NO_CHANGE), sep="\n")


def _ordered(found: Difference) -> Iterator[Change]:
    yield from sorted(found.changes, key=lambda change: _PARTS.index(change.part))


def _cells(change: Change) -> tuple[str, str, str]:
    """Both values and what lies between them."""
    base, head = (_written(value, change) for value in (change.base, change.head))
    return base, head, _between(change)


def _written(value: Value, change: Change) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, str):
        return value[:_DIGITS] if change.part == "fingerprint" else value.replace("_", " ") if change.kind == "verdict" else value
    return _number(value, change.kind)


def _number(value: float, kind: Kind) -> str:
    if kind == "percent":
        return percent(value)
    if kind == "energy":
        return energy(value)
    if kind == "count":
        return count(int(value))
    return amount(value) if abs(value) >= 1 else real(value)


def _between(change: Change) -> str:
    """The step from one number to the other: in points, in numbers, or in percent."""
    base, head = change.base, change.head
    if isinstance(base, str) or isinstance(head, str) or base is None or head is None:
        return ""
    step = head - base
    sign = "+" if step > 0 else MINUS
    if change.kind == "percent":
        return f"{sign}{abs(step):.2f} points"
    if change.kind == "count":
        return sign + count(int(abs(step)))
    return f"{sign}{100 * abs(step / base):.1f}{NARROW_SPACE}%" if base else ""


def _mark(change: Change) -> str:
    return {True: "✗ worse", False: "✓ better", None: ""}[change.worse]
