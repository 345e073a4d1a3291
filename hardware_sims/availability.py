"""Whether a backend that lives in an environment of its own can run here."""

from __future__ import annotations

from pathlib import Path

from snn_export.hardware_sims import environments
from snn_export.hardware_sims.simulator import Availability
from snn_export.models.diagnostics import UserError


def environment_availability(backend: str, python: Path | None = None) -> Availability:
    """Whether the environment is there and complete; reads its stamp, starts nothing.

    Args:
        backend: that has an environment.
        python: interpreter that is used in its place, of which nothing is known.
    """
    if python is not None:
        return Availability(True)
    try:
        environments.interpreter(backend)
    except UserError as error:
        found = error.diagnostics[0]
        return Availability(False, reason=found.what, fix=found.fix)
    return Availability(True, versions=environments.versions(backend))
