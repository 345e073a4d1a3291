"""The page that explains an error code."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from snn_export.models.diagnostics import UserError

_PAGE: Final = re.compile(r"(SNX\d{3})\.md")
FAMILIES: Final = {
    "0": "usage",
    "1": "files and data",
    "2": "expressibility",
    "3": "numerics",
    "4": "backends and chips",
    "5": "coverage",
}
"""What the first digit of a code says."""


def all_codes() -> tuple[str, ...]:
    """Every code that has a page, in order."""
    names = (_PAGE.fullmatch(entry.name) for entry in _folder().iterdir())
    return tuple(sorted(found[1] for found in names if found is not None))


def page(code: str) -> str:
    """The page of ``code`` as Markdown. Raises UserError SNX030 for a code without one."""
    known = all_codes()
    if code not in known:
        raise UserError("SNX030", f"there is no code {code}", where="explain", why=_why(code), fix=_closest(code, known))
    return (_folder() / f"{code}.md").read_text(encoding="utf-8")


def title(code: str) -> str:
    """Title of the page without the code. Raises UserError SNX030 for a code without a page."""
    return page(code).splitlines()[0].removeprefix(f"# {code}").strip()


def normalised(code: str) -> str:
    """``code`` as the pages write it: ``snx204``, ``204`` and ``SNX 204`` are ``SNX204``; anything else comes back as given."""
    digits = re.fullmatch(r"\s*(?:snx)?[\s-]*(\d{3})\s*", code, re.IGNORECASE)
    return f"SNX{digits[1]}" if digits else code


def _why(code: str) -> str:
    family = FAMILIES.get(code[3:4]) if re.fullmatch(r"SNX\d{3}", code) else None
    return (
        f"codes that start with {code[:4]} are about {family}, and none has this number"
        if family
        else "a code is SNX and three digits"
    )


def _closest(code: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(code.upper(), known, n=3, cutoff=0.5)
    return (f"did you mean {' or '.join(close)}? " if close else "") + "`snn-export explain` lists them all"


def _folder() -> Traversable:
    return files("snn_export.explanations") / "pages"
