"""What a person is told when a command fails, and the exit code that goes with it."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from snn_export.exit_codes import worst_exit_code
from snn_export.models.diagnostics import EXIT_BACKEND, EXIT_BUG, EXIT_INTERRUPTED, EXIT_USAGE, Diagnostic, UserError
from snn_export.text_safety import printable

if TYPE_CHECKING:
    from snn_export.hardware_sims.simulator import BackendError

OUTPUT_KEY: Final = "snn_export.output"
"""Where a command notes its output folder: ``ctx.meta[OUTPUT_KEY] = Path(...)``. A traceback is saved there."""

USAGE_CODE: Final = "SNX031"
_COLOURS: Final = {"error": "red", "warning": "yellow", "note": "cyan"}


def tell(error: BaseException, context: click.Context | None = None) -> int:
    """Tell what went wrong on stderr and return the exit code.

    ``context`` is the click context the command ran in, for the folder a traceback is saved to. An exception that nobody
    expected is a bug: its traceback goes to a file, and the file is named.
    """
    if isinstance(error, UserError):
        show(error.diagnostics)
        return worst_exit_code(diagnostic.exit_code for diagnostic in error.diagnostics)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        click.echo("\ninterrupted: what was finished is kept; run again to continue", err=True)
        return EXIT_INTERRUPTED
    if isinstance(error, click.ClickException):
        return _tell_usage(error)
    broken = _backend_error(error)
    if broken is not None:
        show([broken.diagnostic])
        if broken.log:
            click.echo(f"  log:   {printable(broken.log)}", err=True)
        return EXIT_BACKEND
    _tell_bug(error, context)
    return EXIT_BUG


def show(diagnostics: Iterable[Diagnostic]) -> None:
    """Print findings to stderr; in colour only on a terminal and without NO_COLOR."""
    found = tuple(diagnostics)
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        _show_in_colour(found)
    else:
        for diagnostic in found:
            click.echo(_heading(diagnostic) + printable(_body(diagnostic)), err=True)


def _heading(diagnostic: Diagnostic) -> str:
    return f"{diagnostic.severity} {diagnostic.code}: "


def _body(diagnostic: Diagnostic) -> str:
    return "\n".join((
        diagnostic.what,
        f"  where: {diagnostic.where}",
        f"  why:   {diagnostic.why}",
        f"  fix:   {diagnostic.fix}",
        f"  more:  snn-export explain {diagnostic.code}",
    ))  # fmt: skip


def _show_in_colour(diagnostics: tuple[Diagnostic, ...]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    for diagnostic in diagnostics:
        first, _, rest = printable(_body(diagnostic)).partition("\n")
        heading = Text(_heading(diagnostic), style=f"bold {_COLOURS[diagnostic.severity]}")
        console.print(heading.append(first, style="bold not dim default"), soft_wrap=True)
        console.print(Text(rest), soft_wrap=True)


def _tell_usage(error: click.ClickException) -> int:
    """A command line click could not read. Without any argument it is the help that was asked for."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return EXIT_USAGE
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "snn-export"
    usage = " ".join(context.command.collect_usage_pieces(context)) if context else ""
    why = f"the usage is: {command} {usage}".rstrip()
    show([Diagnostic(USAGE_CODE, error.format_message(), where="command line", why=why, fix=f"{command} --help")])
    return EXIT_USAGE


def _backend_error(error: BaseException) -> BackendError | None:
    """``error`` if it is a BackendError. Where its module was never imported, it cannot be one."""
    module = sys.modules.get("snn_export.hardware_sims.simulator")
    return error if module is not None and isinstance(error, module.BackendError) else None


def _tell_bug(error: BaseException, context: click.Context | None) -> None:
    report = _bug_report(error)
    folder = context.meta.get(OUTPUT_KEY) if context else None
    saved = _save(report, folder) if folder is not None and Path(folder).is_dir() else None
    saved = saved or _save(report, Path(tempfile.gettempdir()))
    click.echo(f"this is a bug in snn-export: {type(error).__name__}: {printable(str(error))}", err=True)
    if saved is not None:
        click.echo(
            f"  traceback: {saved}\n  fix:       report it with that file; it holds the command line and versions", err=True
        )
    else:
        click.echo(f"  the traceback could not be saved, so here it is:\n{report}", err=True)


def _bug_report(error: BaseException) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        ours = version("snn-export")
    except PackageNotFoundError:
        ours = "not installed"
    return "\n".join((
        f"snn-export {ours}, Python {platform.python_version()}, {platform.platform()}",
        f"command line: {sys.argv!r}",
        "",
        "".join(traceback.format_exception(error)),
    ))  # fmt: skip


def _save(report: str, folder: Path) -> Path | None:
    """A new file in ``folder`` under a name of its own; None where that is not possible."""
    try:
        number, name = tempfile.mkstemp(prefix="snn-export-crash-", suffix=".txt", dir=folder)
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(report)
    except OSError:
        return None
    return Path(name)
