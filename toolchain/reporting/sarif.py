"""Findings of the design rules as SARIF 2.1.0, the form in which code scanning services take them.

Only what ``check`` and ``lint`` find: a rule that was broken has a place in a file. A measured difference has none; it stands in
the report. Rules carry the page that ``snn-export explain`` shows. Source: OASIS, Static Analysis Results Interchange Format
(SARIF) Version 2.1.0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from snn_export.exit_codes import worst_exit_code
from snn_export.explanations import lookup
from snn_export.models.diagnostics import Diagnostic, Severity
from snn_export.text_safety import printable

VERSION: Final = "2.1.0"
SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
TOOL: Final = "snn-export"
FINGERPRINT: Final = "snnExportFinding/v1"
"""Name of the fingerprint that tells findings apart from one run to the next: rule, file, place and what was found."""

_LEVELS: Final[dict[Severity, str]] = {"error": "error", "warning": "warning", "note": "note"}


def render(checked: Mapping[str, Sequence[Diagnostic]]) -> str:
    """Findings by the file they were found in as a SARIF log with one run. The same findings give the same text.

    Args:
        checked: findings by path as it was given; a file without any is listed as looked at.
    """
    return json.dumps(log(checked), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def log(checked: Mapping[str, Sequence[Diagnostic]]) -> dict[str, Any]:
    """The log as plain data."""
    found = [(path, item) for path, items in checked.items() for item in items]
    codes = sorted({item.code for _, item in found})
    places = {path: index for index, path in enumerate(checked)}
    code = worst_exit_code(item.exit_code for _, item in found if item.severity == "error")
    return {
        "$schema": SCHEMA,
        "version": VERSION,
        "runs": [
            {
                "tool": {"driver": {"name": TOOL, "version": version(TOOL), "rules": [_rule(name) for name in codes]}},
                "artifacts": [{"location": {"uri": uri_of(path)}} for path in checked],
                "results": [_result(item, path, codes.index(item.code), places[path]) for path, item in found],
                "invocations": [{"executionSuccessful": True, "exitCode": code}],
                "columnKind": "unicodeCodePoints",
            }
        ],
    }


def uri_of(path: str) -> str:
    """A path as SARIF locates files: relative ones stay relative, for the service to find them in the repository."""
    given = Path(path)
    return given.as_uri() if given.is_absolute() else quote(given.as_posix())


def _rule(code: str) -> dict[str, Any]:
    page = lookup.page(code)
    return {
        "id": code,
        "shortDescription": {"text": lookup.title(code)},
        "help": {"text": page, "markdown": page},
        "properties": {"tags": [lookup.FAMILIES[code[3]]]},
    }


def _result(item: Diagnostic, path: str, rule: int, artifact: int) -> dict[str, Any]:
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": uri_of(path), "index": artifact}}}
    place = printable(item.where)
    if item.where and item.where not in (path, Path(path).name):
        location["logicalLocations"] = [{"name": place}]
    text = f"{item.what}. {item.why}. Fix: {item.fix}"
    return {
        "ruleId": item.code,
        "ruleIndex": rule,
        "level": _LEVELS[item.severity],
        "message": {"text": printable(text)},
        "locations": [location],
        "partialFingerprints": {FINGERPRINT: _fingerprint(item, path)},
    }


def _fingerprint(item: Diagnostic, path: str) -> str:
    content = json.dumps([item.code, path, item.where, item.what])
    return hashlib.sha256(content.encode()).hexdigest()
