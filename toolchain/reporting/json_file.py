"""``report.json``: a report written and read back. The schema stands beside this file as ``report.schema.json``."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.reporting.report import SCHEMA_VERSION, Report

SCHEMA_FILE = Path(__file__).with_name("report.schema.json")
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FINDINGS_SHOWN = 10
LARGEST = 64 << 20
"""Bytes of a report that is read; those of large networks take a few million."""
LARGEST_INTEGER = 10**18


def schema() -> dict[str, Any]:
    """JSON schema of ``report.json``, generated from :class:`Report`."""
    return {"$schema": _DIALECT, **Report.model_json_schema(mode="serialization")}


def schema_text() -> str:
    """The schema as it stands in the repository, byte for byte."""
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


def report_text(report: Report) -> str:
    """``report`` as JSON: sorted keys, two spaces, a newline at the end. The same report gives the same text.

    Raises:
        UserError: SNX131, a number is not finite (JSON has no way to write it).
    """
    content = report.model_dump(mode="python")
    found = _not_finite(content)
    if found is not None:
        raise UserError(
            "SNX131",
            "the report holds a number that is not finite",
            where=found,
            why="JSON cannot hold infinity or NaN, and a verdict on such a number would mean nothing",
            fix="look for an overflow or a division by zero in what this field is computed from: a layer's data or a cost table",
        )
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write_report(report: Report, path: Path) -> None:
    """Write ``report`` to ``path``, whole or not at all.

    Raises:
        UserError: SNX131 a number is not finite, SNX132 the file cannot be written.
    """
    write_text(path, report_text(report))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name in the same folder, then rename. Raises UserError SNX132."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as handle:
            handle.write(text)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(
            "SNX132",
            f"cannot write {path.name}",
            where=str(path),
            why=error.strerror or str(error),
            fix="name a folder that you may write to and that has space left",
        ) from error


def read_report(path: Path) -> Report:
    """Read a report back. Raises UserError SNX130 naming every field that is wrong."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= LARGEST else b""
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error), "give the path of a report.json") from error
    if size > LARGEST:
        raise _unreadable(path, f"it has {size} bytes, a report has at most {LARGEST}", "give the path of a report.json")
    try:
        report = Report.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise _invalid(path, error) from error
    found = _not_finite(report.model_dump(mode="python"))
    if found is not None:
        raise _unreadable(f"{path}, {found}", "the number is not finite", "write the report again with snn-export verify")
    return report


def _invalid(path: Path, error: ValidationError) -> UserError:
    findings = error.errors(include_url=False)
    version = [finding for finding in findings if finding["loc"] == ("schema_version",)]
    if version:
        why = f"its schema_version is {version[0]['input']!r}, this program reads version {SCHEMA_VERSION}"
        return _unreadable(f"{path}, schema_version", why, "write the report again with this version: snn-export verify")
    diagnostics = tuple(
        Diagnostic(
            "SNX130",
            f"{path.name} is not a report",
            f"{path}, {_dotted(finding['loc'])}" if finding["loc"] else str(path),
            finding["msg"],
            "write the report again with snn-export verify; a report is not meant to be edited",
        )
        for finding in findings[:_FINDINGS_SHOWN]
    )
    return UserError.from_diagnostics(diagnostics)


def _unreadable(where: object, why: str, fix: str) -> UserError:
    return UserError("SNX130", "the report cannot be read", where=str(where), why=why, fix=fix)


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _not_finite(node: object, path: str = "") -> str | None:
    """Path of the first number that is infinite or NaN, or an integer that no float holds; or None."""
    if isinstance(node, int):
        return None if abs(node) <= LARGEST_INTEGER else path
    if isinstance(node, float):
        return None if math.isfinite(node) else path
    if isinstance(node, dict):
        items = [(str(key), node[key]) for key in sorted(node)]
    elif isinstance(node, list | tuple):
        items = [(str(index), item) for index, item in enumerate(node)]
    else:
        return None
    for name, item in items:
        found = _not_finite(item, f"{path}.{name}" if path else name)
        if found is not None:
            return found
    return None
