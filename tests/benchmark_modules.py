"""The modules of ``benchmarks/``, which are no part of the installed program, as modules."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / "benchmarks"


def benchmark(name: str) -> ModuleType:
    """``benchmarks/<name>.py``. The repository's root stays off the import path: its folders are named like our packages."""
    if "benchmarks" not in sys.modules:
        package = ModuleType("benchmarks")
        package.__path__ = [str(FOLDER)]
        sys.modules["benchmarks"] = package
    return importlib.import_module(f"benchmarks.{name}")
