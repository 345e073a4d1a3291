"""Renderings that are kept as files: what a renderer writes today is compared with them byte for byte.

After a change that is meant, write them again and read what changed::

    SNX_GOLDEN=write python -m pytest tests/toolchain -k golden && git diff tests/fixtures/golden
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "fixtures" / "golden"
VARIABLE = "SNX_GOLDEN"


def check_golden(name: str, text: str) -> None:
    """Compare ``text`` with the file ``name``, or write the file where the environment asks for it."""
    path = FOLDER / name
    if os.environ.get(VARIABLE) == "write":
        path.write_text(text, encoding="utf-8", newline="\n")
    assert path.is_file(), f"{name} is missing: {VARIABLE}=write python -m pytest tests/toolchain -k golden"
    with path.open(encoding="utf-8", newline="") as file:
        assert text == file.read(), (
            f"{name} changed; if that is meant: {VARIABLE}=write python -m pytest tests/toolchain -k golden"
        )
