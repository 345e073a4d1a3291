"""Verification of a deployment's file, outside the steps of a run."""

from __future__ import annotations

from pathlib import Path

from snn_export.config_schema import Config
from snn_export.pipeline.files import HTML_FILE, REPORT_FILE
from snn_export.pipeline.steps import Teller
from snn_export.pipeline.verification import forms_beside, verify_forms
from snn_export.pipeline.workspace import Workspace
from snn_export.reporting.html import write_html
from snn_export.reporting.json_file import write_report
from snn_export.reporting.report import Report


def verify_file(path: Path, config: Config, base: Path, workspace: Workspace, teller: Teller) -> tuple[Report, Path]:
    """Verify ``path`` and the earlier forms its lineage names; writes the report into the workspace's ``verify-<name>`` folder.

    Returns:
        The report and the path of its HTML page.
    """
    forms = forms_beside(path)
    with workspace.lock():
        report = verify_forms(forms, config, base, teller.line, workspace.root)
        folder = workspace.folder(f"verify-{path.stem}")
        folder.mkdir(parents=True, exist_ok=True)
        write_report(report, folder / REPORT_FILE)
        write_html(report, folder / HTML_FILE)
    return report, folder / HTML_FILE
