"""Exit codes of the command line, and which one wins when a command has several reasons to fail."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from snn_export.models.diagnostics import (
    EXIT_BACKEND,
    EXIT_BUG,
    EXIT_GATE,
    EXIT_INEXPRESSIBLE,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_COMPARED,
    EXIT_USAGE,
)

EXIT_OK: Final = 0
EXIT_BROKEN_PIPE: Final = 141
"""The reader of standard output went away (128 + SIGPIPE, as the shell reports it): no verdict was delivered, so not 0."""

PRECEDENCE: Final = (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    EXIT_BACKEND,
    EXIT_INEXPRESSIBLE,
    EXIT_NOTHING_COMPARED,
    EXIT_GATE,
    EXIT_OK,
)
"""Worst first: 70 > 130 > 2 > 4 > 3 > 5 > 1 > 0."""


def worst_exit_code(codes: Iterable[int]) -> int:
    """The code that a command with all these causes ends with; 0 for no cause. Raises ValueError for a code not in the table."""
    causes = set(codes)
    unknown = causes.difference(PRECEDENCE)
    if unknown:
        raise ValueError(f"not exit codes of a command: {sorted(unknown)}")
    return next((code for code in PRECEDENCE if code in causes), EXIT_OK)
