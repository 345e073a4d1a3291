"""Whether the Lava environment is there: tests that need it skip with the command that makes it, or fail where it is required."""

from __future__ import annotations

import os

import pytest

from snn_export.hardware_sims.lava.simulator import LavaSimulator


def require_lava() -> None:
    """Skip, or fail under ``SNN_EXPORT_REQUIRE_LAVA=1``, where the Lava environment is missing."""
    found = LavaSimulator().availability()
    if found.ok:
        return
    message = f"{found.reason}; fix: {found.fix}"
    if os.environ.get("SNN_EXPORT_REQUIRE_LAVA") == "1":
        pytest.fail(message)
    pytest.skip(message)
