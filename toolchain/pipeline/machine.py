"""What may differ between two runs of the same inputs: times and the machine. Kept out of the report, in ``run.json``."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from snn_export.pipeline.steps import STEP_NAMES
from snn_export.pipeline.workspace import Workspace
from snn_export.reporting.json_file import write_text


def write_run_facts(workspace: Workspace, path: Path, seconds: float, steps_run: int) -> None:
    """Write ``run.json``: when, where, and how long each step took."""
    records = {name: workspace.record(name) for name in STEP_NAMES}
    facts = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "steps_run": steps_run,
        "step_seconds": {name: round(record.seconds, 3) for name, record in records.items() if record is not None},
        "python": sys.version.split()[0],
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0)),
    }
    write_text(path, json.dumps(facts, indent=2, sort_keys=True) + "\n")
