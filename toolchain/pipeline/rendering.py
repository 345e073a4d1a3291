"""Step "report": the renderings of a report, beside each other in the output folder."""

from __future__ import annotations

from snn_export.pipeline.files import HTML_FILE, REPORT_FILE
from snn_export.pipeline.steps import Context, StepResult
from snn_export.reporting.html import write_html
from snn_export.reporting.json_file import read_report, write_report


def render(context: Context) -> StepResult:
    """Write ``report.json`` and ``report.html``."""
    report = read_report(context.workspace.folder("verify") / REPORT_FILE)
    write_report(report, context.folder / REPORT_FILE)
    write_html(report, context.folder / HTML_FILE)
    return StepResult(f"{REPORT_FILE}, {HTML_FILE}")
