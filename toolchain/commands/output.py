"""How commands write to standard output: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from snn_export.text_safety import printable

_PIPED_WIDTH = 1000


def print_json(content: object) -> None:
    """Write ``content`` as JSON with sorted keys. Raises ValueError for infinity and NaN, TypeError for what JSON cannot hold."""
    click.echo(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False))


def print_table(headings: Sequence[str | Column], rows: Iterable[Sequence[str | Text]], width: int | None = None) -> None:
    """Write a table: ``width`` columns wide, else within the terminal's width, or unbroken where the output is no terminal."""
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    if width is None and not console.is_terminal:
        console.width = _PIPED_WIDTH
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
