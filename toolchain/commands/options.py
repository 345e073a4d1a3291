"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

Format = Literal["human", "json"]
FindingsFormat = Literal["human", "json", "sarif"]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def format_option(command: Decorated) -> Decorated:
    """``--format human|json``, passed as ``output_format``."""
    return click.option(
        "--format", "output_format", type=click.Choice(["human", "json"]), default="human", show_default=True,
        help="How to write to standard output.",
    )(command)  # fmt: skip


def findings_format_option(command: Decorated) -> Decorated:
    """``--format human|json|sarif`` of a command that lists findings in files, passed as ``output_format``."""
    return click.option(
        "--format", "output_format", type=click.Choice(["human", "json", "sarif"]), default="human", show_default=True,
        help="How to write to standard output; sarif is what code scanning services read.",
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


def scale_options(command: Decorated) -> Decorated:
    """``--workers N`` and ``--scheduler ADDRESS``, passed as ``workers`` and ``scheduler``; see :func:`scaled`."""
    command = click.option(
        "--scheduler", metavar="ADDRESS", help="Use the workers of this running Dask scheduler, e.g. tcp://host:8786."
    )(command)
    return click.option(
        "--workers", type=click.IntRange(min=0), metavar="N",
        help="Share the test samples among N processes; 0: as many as help [default], 1: this one alone.",
    )(command)  # fmt: skip


def scaled(overrides: dict[str, str], workers: int | None, scheduler: str | None) -> dict[str, str]:
    """Overrides with what :func:`scale_options` were given."""
    given = {"verify.workers": None if workers is None else str(workers), "verify.scheduler": scheduler}
    return {**overrides, **{key: value for key, value in given.items() if value is not None}}


def _overrides(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or "." not in key:
            raise click.BadParameter(f"'{item}' is not SECTION.KEY=VALUE, e.g. model.steps=4")
        found[key.strip()] = value
    return found
