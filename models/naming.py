"""Look-up by name with a suggestion for a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def suggestion(name: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: the closest known one, and all of them. For the ``fix`` of a UserError."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    listed = f"choose one of: {', '.join(names)}"
    return f"did you mean '{close[0]}'? {listed}" if close else listed
