"""Whether the netx environment is there: tests that need it skip with the command that makes it, or fail where it is required."""

from __future__ import annotations

import os

import pytest

from snn_export.hardware_sims.netx.simulator import NetxSimulator


def require_netx() -> None:
    """Skip, or fail under ``SNN_EXPORT_REQUIRE_NETX=1``, where the netx environment is missing."""
    found = NetxSimulator().availability()
    if found.ok:
        return
    message = f"{found.reason}; fix: {found.fix}"
    if os.environ.get("SNN_EXPORT_REQUIRE_NETX") == "1":
        pytest.fail(message)
    pytest.skip(message)
