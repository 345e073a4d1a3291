"""Checks of a term's own numbers, so that a mistyped one is refused where the term is made and not after an epoch."""

from __future__ import annotations

import math
from collections.abc import Collection

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion


def check_range(term: str, name: str, value: float, least: float, most: float = math.inf, *, open_end: bool = False) -> None:
    """SNX345 unless ``least <= value <= most`` (``least < value`` with ``open_end``); not-a-number is never inside."""
    inside = (least < value if open_end else least <= value) and value <= most
    if not inside or math.isinf(value):
        above = f"{'above' if open_end else 'at least'} {least:g}"
        raise UserError(
            "SNX345", f"the loss term '{term}' cannot take {name} = {value}", where=f"{term}.{name}",
            why=f"{name} is finite, {above}" + (f" and at most {most:g}" if math.isfinite(most) else ""),
            fix=f"leave {name} out to use the published value",
        )  # fmt: skip


def check_choice(term: str, name: str, value: str, allowed: Collection[str]) -> None:
    """SNX345 unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise UserError(
            "SNX345", f"the loss term '{term}' cannot take {name} = {value!r}", where=f"{term}.{name}",
            why=f"{name} is one of {', '.join(allowed)}", fix=suggestion(str(value), allowed),
        )  # fmt: skip
