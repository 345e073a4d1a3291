"""``snn-export explain``."""

from __future__ import annotations

import sys

import click

from snn_export.commands.options import Format, format_option


@click.command("explain")
@click.argument("code", required=False)
@format_option
def command(code: str | None, output_format: Format) -> None:
    """Explain an error code.

    CODE is the SNX### of a message, e.g. SNX204. Without it, all codes are listed.
    """
    from snn_export.commands.output import print_json, print_table
    from snn_export.explanations import lookup

    if code is None:
        titles = {known: lookup.title(known) for known in lookup.all_codes()}
        if output_format == "json":
            print_json(titles)
        else:
            print_table(("Code", "Title"), titles.items())
        return
    found = lookup.normalised(code)
    text = lookup.page(found)
    if output_format == "json":
        print_json({"code": found, "title": lookup.title(found), "page": text})
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(text))
    else:
        click.echo(text, nl=False)
