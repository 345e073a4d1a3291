"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

Format = Literal["human", "json"]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def format_option(command: Decorated) -> Decorated:
    """``--format human|json``, passed as ``output_format``."""
    return click.option(
        "--format", "output_format", type=click.Choice(["human", "json"]), default="human", show_default=True,
        help="How to write to standard output.",
    )(command)  # fmt: skip


def config_options(command: Decorated) -> Decorated:
    """``--config FILE``, passed as ``config_file``, and ``--set SECTION.KEY=VALUE``, passed as ``overrides``."""
    command = click.option(
        "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", callback=_overrides,
        help="Override a setting, e.g. --set model.steps=4. May be given several times.",
    )(command)  # fmt: skip
    return click.option(
        "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Settings [default: snn-export.toml]."
    )(command)


def _overrides(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or "." not in key:
            raise click.BadParameter(f"'{item}' is not SECTION.KEY=VALUE, e.g. model.steps=4")
        found[key.strip()] = value
    return found
