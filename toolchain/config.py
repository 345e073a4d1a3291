"""Reads the settings: flag before ``SNN_EXPORT_*`` before ``snn-export.toml`` before default, and where each one came from.

Everything that is wrong is told at once, each with its line, what was given and what is allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import ValidationError

from snn_export.config_schema import (
    BackendConfig,
    Config,
    Key,
    VerifyConfig,
    allowed_values,
    field_at,
    leaves,
    section_at,
    settings,
    to_toml,
    toml_value,
)
from snn_export.models import toml_text
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.toml_lines import line_of_keys

__all__ = ["DEFAULT_FILE", "BackendConfig", "Config", "Loaded", "load_config", "to_toml"]

DEFAULT_FILE: Final = "snn-export.toml"
_PREFIX: Final = "SNN_EXPORT_"
_RESERVED: Final = re.compile(
    r"SNN_EXPORT_(BENCHMARK_DATA|ENVS|SHARED|REQUIRE_[A-Z0-9]+(_[A-Z0-9]+)*|[A-Z0-9]+(_[A-Z0-9]+)*_PYTHON)"
)
"""Variables with a meaning of their own; none has the double underscore that separates section and key."""
_ALWAYS_RUN: Final = frozenset({"student", "reference"})
"""Backends that every ladder runs, whether ``verify.backends`` names them or not."""
_RUNGS: Final = _ALWAYS_RUN | {"folded", "quantised", "quantised_student"}
"""Rungs that a ladder may have without being asked."""

_EXAMPLES: Final = {
    "backends": "verify.backends.lava.required",
    "targets": "gates.targets.lava.accuracy",
    "layers": "gates.layers.lif1.spike_mismatch",
}
"""A setting in each kind of table whose names are the user's."""
_SHOWN: Final = 60
"""Characters of a wrong value that a message repeats."""


@dataclass(frozen=True)
class Loaded:
    """Settings and where they came from.

    Attributes:
        config: the settings.
        origin: by dotted key: ``flag``, ``environment SNN_EXPORT_...``, ``FILE:LINE`` or ``default``.
        file: that was read; None where there was none.
    """

    config: Config
    origin: Mapping[str, str]
    file: Path | None

    @property
    def folder(self) -> Path:
        """What relative paths in the settings are relative to: the folder of the file, or the current one."""
        return self.file.parent if self.file is not None else Path()


@dataclass
class _Draft:
    """Settings as they are collected: nested values, the origin of each, and what is wrong so far."""

    values: dict[str, Any] = field(default_factory=dict)
    origin: dict[Key, str] = field(default_factory=dict)
    findings: list[Diagnostic] = field(default_factory=list)

    def set(self, key: Key, value: object, origin: str) -> None:
        """Put one value in its place, unless a table is missing there because the file holds something else."""
        table = self.values
        for name in key[:-1]:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                return
        table[key[-1]] = value
        self.origin[key] = origin

    def value_of(self, key: Key, otherwise: object) -> object:
        """What stands at ``key``; ``otherwise`` where nothing does."""
        value: Any = self.values
        for name in key:
            if not isinstance(value, dict) or name not in value:
                return otherwise
            value = value[name]
        return value

    def origin_of(self, key: Key) -> str:
        """Origin of the setting or, failing that, of the table it stands in."""
        return next((self.origin[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self.origin), "default")


def load_config(
    path: Path | None,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    allow_missing: bool = False,
) -> Loaded:
    """Read the settings.

    Args:
        path: of the file; None means ``snn-export.toml`` in the current folder.
        overrides: values of flags as text by dotted key, e.g. ``{"model.steps": "4"}``.
        environ: environment; that of this process where None.
        allow_missing: with ``path`` None and no file there, go on with the defaults. A file that was named must exist.

    Raises:
        UserError: SNX020 no such file or not text, SNX021 not TOML; or, all at once, SNX022 unknown key, SNX023 a value that
            is not allowed, SNX024 unknown variable, SNX025 unknown backend, SNX026 a gate about what would not be run.
    """
    draft, file = _Draft(), path or Path(DEFAULT_FILE)
    found: Path | None = None if path is None and allow_missing and not file.exists() else file
    if found is not None:
        _take_file(draft, found)
    _add_default_backends(draft)
    _take_environment(draft, os.environ if environ is None else environ)
    _take_flags(draft, overrides or {})
    config = _validate(draft)
    draft.findings += _unknown_backends(draft)
    if config is not None:
        draft.findings += [*_idle_pairs(draft, config), *_idle_targets(draft, config)]
    if config is None or draft.findings:
        raise UserError.from_diagnostics(tuple(sorted(draft.findings, key=_line)))
    return Loaded(config, {".".join(key): draft.origin.get(key, "default") for key, _ in settings(config)}, found)


def _line(finding: Diagnostic) -> float:
    """Sorts findings as they stand in the file; those from flags and the environment come last."""
    line = re.search(r":(\d+)$", finding.where)
    return float(line[1]) if line else float("inf")


def _take_file(draft: _Draft, path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        write = "`snn-export init` writes one"
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(
            "SNX020", f"cannot read {path.name}", where=str(path), why=reason,
            fix=write if isinstance(error, FileNotFoundError) else f"check the path and its permissions; {write}",
        ) from error  # fmt: skip
    try:
        values = toml_text.parsed(text)
    except toml_text.UnreadableTomlError as error:
        raise _syntax_error(path, text, str(error)) from error
    draft.values = values
    draft.origin = {key: f"{path.name}:{line}" for key, line in line_of_keys(text).items()}
    for key, _ in leaves((), values):  # also those in inline tables, which have the line of their table
        draft.origin[key] = draft.origin_of(key)


def _syntax_error(path: Path, text: str, message: str) -> UserError:
    position = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = int(position[1]) if position and position[1] else text.count("\n") + 1
    lines = text.splitlines()
    given = lines[line - 1].strip() if line <= len(lines) else ""
    return UserError(
        "SNX021", f"{path.name} is not valid TOML", where=f"{path.name}:{line}" + (f": {given}" if given else ""),
        why=message[: position.start()] if position else message,
        fix='a setting is one line: name = value, with text in quotes, e.g. name = "digits"',
    )  # fmt: skip


def _add_default_backends(draft: _Draft) -> None:
    """Lay what the file says about a default backend over the default; leave alone what is no table, it is an error."""
    verify = draft.values.setdefault("verify", {})
    given = verify.setdefault("backends", {}) if isinstance(verify, dict) else None
    if isinstance(given, dict):
        defaults = {name: backend.model_dump() for name, backend in VerifyConfig().backends.items()}
        merged = {
            name: {**table, **given[name]} for name, table in defaults.items() if isinstance(given.setdefault(name, {}), dict)
        }
        verify["backends"] = {**merged, **{name: table for name, table in given.items() if name not in merged}}


def _take_environment(draft: _Draft, environ: Mapping[str, str]) -> None:
    for variable in sorted(environ):
        if not variable.startswith(_PREFIX) or _RESERVED.fullmatch(variable):
            continue
        key = tuple(variable.removeprefix(_PREFIX).lower().split("__"))
        if field_at(key) is None:
            draft.findings.append(_unknown_variable(variable))
        else:
            draft.set(key, _from_text(key, environ[variable]), f"environment {variable}")


def _take_flags(draft: _Draft, overrides: Mapping[str, str]) -> None:
    for dotted, text in overrides.items():
        key = tuple(dotted.split("."))
        if field_at(key) is None:
            draft.findings.append(_unknown_key(key, "flag"))
        else:
            draft.set(key, _from_text(key, text), "flag")


def _from_text(key: Key, text: str) -> object:
    """A value from a flag or variable: text where text is wanted, else TOML; ``none`` or nothing takes a setting back."""
    info = field_at(key)
    accepted = get_args(info.annotation) if info is not None else ()
    if info is None or info.annotation is str or any(isinstance(choice, str) for choice in accepted):
        return text
    if type(None) in accepted and text.strip().lower() in {"", "none"}:
        return None
    try:
        parsed = toml_text.parsed(f"value = {text}")
    except toml_text.UnreadableTomlError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _validate(draft: _Draft) -> Config | None:
    try:
        return Config.model_validate(draft.values)
    except ValidationError as error:
        seen: set[Key] = set()
        for detail in error.errors(include_url=False):
            key = tuple(part for part in detail["loc"] if isinstance(part, str))
            if key not in seen:
                seen.add(key)
                unknown = detail["type"] == "extra_forbidden"
                given = draft.value_of(key, detail["input"])
                draft.findings.append(_unknown_key(key, draft.origin_of(key)) if unknown else _not_allowed(draft, key, given))
    return None


def _not_allowed(draft: _Draft, key: Key, given: object) -> Diagnostic:
    info = field_at(key)
    if info is None:
        allowed, fix = "a table", f"write its settings on lines below [{'.'.join(key)}]"
    else:
        allowed, default = allowed_values(info), info.get_default(call_default_factory=True)
        fix = f"for example {key[-1]} = {toml_value(default)}" if default is not None else "give such a value, or leave it out"
        if info.examples:
            text = toml_value(info.examples[0])
            fix = f"write {key[-1]} = {text}; in a shell quote the whole: --set '{'.'.join(key)}={text}'"
    return Diagnostic(
        "SNX023", f"{'.'.join(key)} cannot be {_shown(given)}", where=draft.origin_of(key), why=f"it must be {allowed}", fix=fix
    )


def _shown(given: object) -> str:
    """A wrong value as the file would write it, cut short; its kind where it is none of a setting's kinds."""
    try:
        text = toml_value(given)
    except TypeError:
        return f"a {'table' if isinstance(given, dict) else type(given).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _unknown_key(key: Key, where: str) -> Diagnostic:
    depth = next(n for n in range(len(key) - 1, -1, -1) if section_at(key[:n]) is not None)
    parent, name = key[:depth], key[depth] if depth < len(key) else key[-1]
    section = section_at(parent)
    known = list(section.model_fields) if section is not None else []
    table = f"[{'.'.join(parent)}]" if parent else "the file"
    if name in known:
        return Diagnostic(
            "SNX022", f"{'.'.join(key)} is a table and has no value", where=where, why="only a setting in it can be set",
            fix=f"for example {_EXAMPLES.get(name, f'{name}.KEY')}",
        )  # fmt: skip
    close = get_close_matches(name, known, n=1)
    homes = (*_tables(), ("gates", "targets", "NAME"), ("gates", "layers", "NAME"))
    home = next((other for other in homes if name in _fields(other)), None)
    if close:
        hint = f"did you mean {close[0]}? "
    elif home is not None:
        hint = f"did you mean {name} in [{'.'.join(home)}]? "
    else:
        hint = ""
    return Diagnostic(
        "SNX022", f"unknown key {'.'.join(key)}", where=where, why=f"{table} has no {name}",
        fix=f"{hint}{table} knows {', '.join(known)}",
    )  # fmt: skip


def _unknown_variable(variable: str) -> Diagnostic:
    known = [_PREFIX + "__".join((*table, name)).upper() for table in _tables() for name in _fields(table)]
    close = get_close_matches(variable, known, n=1)
    return Diagnostic(
        "SNX024", f"unknown variable {variable}", where=f"environment {variable}",
        why="variables that start with SNN_EXPORT_ are settings, SNN_EXPORT_SECTION__KEY, and no setting has this name",
        fix=(f"did you mean {close[0]}? " if close else "") + f"otherwise: unset {variable}",
    )  # fmt: skip


def _tables() -> Iterator[Key]:
    """Every table that settings stand in, with the default backends."""
    yield from ((name,) for name in Config.model_fields)
    yield from (("verify", "backends", name) for name in VerifyConfig().backends)


def _fields(table: Key) -> Iterable[str]:
    section = section_at(table)
    return section.model_fields if section is not None else ()


def _unknown_backends(draft: _Draft) -> Iterator[Diagnostic]:
    """Backends that nobody registered. Looks at the raw values, so that a wrong type elsewhere does not hide them."""
    verify = draft.values.get("verify")
    if not isinstance(verify, dict):
        return
    backends, reference = verify.get("backends"), verify.get("reference")
    used: dict[str, Key] = {name: ("verify", "backends", name) for name in backends} if isinstance(backends, dict) else {}
    if isinstance(reference, str) and reference:
        used[reference] = ("verify", "reference")
    if used.keys() <= {*VerifyConfig().backends, str(reference)} and used.keys() <= {*_ALWAYS_RUN, *VerifyConfig().backends}:
        return
    from snn_export.hardware_sims.registry import locations  # late: it imports NumPy, and most files name known ones only

    known = locations()
    for name in sorted(_ALWAYS_RUN & (backends.keys() if isinstance(backends, dict) else set())):
        yield Diagnostic(
            "SNX025", f"{name} is no backend to add", where=draft.origin_of(("verify", "backends", name)),
            why="every ladder runs it already", fix=f"take [verify.backends.{name}] out",
        )  # fmt: skip
    for name in sorted(used.keys() - known.keys()):
        close = get_close_matches(name, known, n=1)
        fix = f"did you mean {close[0]}?" if close else "`snn-export backends list` shows them all"
        yield Diagnostic(
            "SNX025", f"no backend is called {name}", where=draft.origin_of(used[name]), fix=fix,
            why=f"known are {', '.join(sorted(known))}",
        )  # fmt: skip


def _idle_targets(draft: _Draft, config: Config) -> Iterator[Diagnostic]:
    """Gates for a rung that no run of these settings has: a mistyped name would be noticed only after training."""
    rungs = {*_RUNGS, *config.verify.backends, *(f"{name}_float" for name in config.verify.backends)}
    for name in config.gates.targets:
        if name in rungs:
            continue
        close = get_close_matches(name, rungs, n=1)
        yield Diagnostic(
            "SNX026", f"gates.targets.{name} names nothing that is run", where=draft.origin_of(("gates", "targets", name)),
            why=f"rungs and backends of these settings: {', '.join(sorted(rungs - {'student', 'reference'}))}",
            fix=f"did you mean {close[0]}?" if close else f"add [verify.backends.{name}], or take the table out",
        )  # fmt: skip


def _idle_pairs(draft: _Draft, config: Config) -> Iterator[Diagnostic]:
    """Pairs of ``gates.exact`` that would never be compared, or prove nothing."""
    run = set(config.verify.backends)
    where = draft.origin_of(("gates", "exact"))
    for pair in config.gates.exact:
        idle = [name for name in pair if name not in run]
        if idle:
            yield Diagnostic(
                "SNX026", f"gates.exact compares {pair[0]} with {pair[1]}, but {' and '.join(idle)} is not run", where=where,
                why=f"only backends of verify.backends can be held to bits: {', '.join(sorted(run))}",
                fix=f"add [verify.backends.{idle[0]}], or take the pair out",
            )  # fmt: skip
        elif pair[0] == pair[1]:
            yield Diagnostic(
                "SNX026", f"gates.exact compares {pair[0]} with itself", where=where,
                why="that would pass whatever the backend does", fix='name two backends, e.g. exact = [["loihi", "lava"]]',
            )  # fmt: skip
