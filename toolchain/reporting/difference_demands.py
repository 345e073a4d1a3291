"""Demands of the first report that the second does not make any more, or makes with a wider limit.

A gate that is gone cannot fail, and a limit that was raised hides what it was there to show. Both read as "nothing got worse"
unless somebody says so.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from snn_export.reporting.report import Report

_LEAST: Final = frozenset({"accuracy", "teacher_accuracy", "student_accuracy", "rate_min", "accuracy_significance"})
"""Limits that ask for less the lower they are; all others the higher they are."""
_AGREEMENTS: Final = ("exact", "rounding", "within")
"""Strictest first."""

Key = tuple[str, ...]
Values = Mapping[Key, Any]


def gone(base: Report, head: Report) -> Iterator[str]:
    """Gates that passed and are not asked any more. One that failed may be gone because its cause is."""
    there = {gate.name for gate in head.gates}
    yield from (f"gate not asked any more: {gate.name}" for gate in base.gates
                if gate.passed and not gate.skipped and gate.name not in there)  # fmt: skip


def looser(base: Report, head: Report) -> Iterator[str]:
    """Settings under which less is demanded than before; nothing where one of the reports has no settings."""
    before, after = _values(base), _values(head)
    if not before or not after:
        return
    for key in dict.fromkeys((*before, *after)):
        old = before[key] if key in before else _general(key, before)
        new = after[key] if key in after else _general(key, after)
        if _asks_less(key, old, new):
            yield f"{'.'.join(key)} asks for less: {_told(old)} before, {_told(new)} now"


def _values(report: Report) -> Values:
    """Gates, and whether backends are required, by key; empty where the settings cannot be read."""
    try:
        found = dict(_leaves((), tomllib.loads(report.settings)))
    except (tomllib.TOMLDecodeError, RecursionError):  # no TOML, or nested beyond what can be read
        return {}
    return {key: value for key, value in found.items() if key[0] == "gates" or _is_required(key)}


def _leaves(prefix: Key, table: Mapping[str, Any]) -> Iterator[tuple[Key, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves((*prefix, name), value)
        else:
            yield (*prefix, name), value


def _is_required(key: Key) -> bool:
    return key[:2] == ("verify", "backends") and key[-1] == "required"


def _general(key: Key, values: Values) -> Any:
    """What holds where a layer or a target states nothing of its own; None: nothing is demanded."""
    name, wider = key[-1], list[Key]()
    if key[:2] == ("gates", "targets") and len(key) == 6:
        wider = [("gates", "layers", key[4], name), (*key[:3], name)]
    if key[0] == "gates" and len(key) > 2:
        wider.append(("gates", name))
    return next((values[other] for other in wider if other in values), None)


def _asks_less(key: Key, old: Any, new: Any) -> bool:
    name = key[-1]
    if _is_required(key):
        return old is True and new is False  # a backend that is gone altogether is one that is not compared any more
    if name == "accuracy_significance" and old is None:
        return new is not None  # until now any loss counted
    if old is None or old == new:
        return False
    if new is None:
        return name != "accuracy_significance"
    if isinstance(old, list) and isinstance(new, list):
        return any(pair not in new for pair in old)
    if old in _AGREEMENTS and new in _AGREEMENTS:
        return _AGREEMENTS.index(new) > _AGREEMENTS.index(old)
    if isinstance(old, int | float) and isinstance(new, int | float):
        return new < old if name in _LEAST else new > old
    return False


def _told(value: Any) -> str:
    return "nothing" if value is None else f"{value}"
