"""Whether NeuroBench's environment is there: the test that needs it skips with the command that makes it, or fails if required.

``python tests/neurobench_environment.py`` makes it from ``tests/neurobench/requirements.txt``, beside the backends' environments.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from snn_export.hardware_sims import environments
from snn_export.models.diagnostics import UserError

NAME = "neurobench"
RECIPE = environments.Environment(
    NAME,
    Path(__file__).parent / NAME,
    pip_arguments=("--no-deps", "--only-binary", ":all:"),
    python=((3, 11), (3, 15)),
    shares=("torch", "snntorch", "numpy"),
    megabytes=20,
    licence="Apache-2.0",
)
COMMAND = f"python tests/{Path(__file__).name}"


def _known() -> Any:
    """Within it, the environment of NeuroBench is one of those that can be installed."""
    return mock.patch.object(environments, "BUILT_IN", {**environments.BUILT_IN, NAME: RECIPE})


def require_neurobench() -> Path:
    """Its Python; skips, or fails under ``SNN_EXPORT_REQUIRE_NEUROBENCH=1``, where it is missing."""
    import pytest

    try:
        with _known():
            return environments.interpreter(NAME)
    except UserError as error:
        message = f"{error.diagnostics[0].what}; fix: {COMMAND}"
    if os.environ.get("SNN_EXPORT_REQUIRE_NEUROBENCH") == "1":
        pytest.fail(message)
    pytest.skip(message)


def counted(python: Path, request: Path) -> dict[str, Any]:
    """What NeuroBench counts on the network and the inputs of a request; see ``tests/neurobench/worker.py``."""
    done = subprocess.run(
        [python, "-I", RECIPE.worker, request], capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"NeuroBench's worker broke:\n{done.stderr}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    with _known():
        environments.install(NAME, lambda line: print(line, file=sys.stderr))
