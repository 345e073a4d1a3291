"""TOML of unknown origin: how much of it is read, and one kind of error for whatever is wrong with it."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 20
"""Settings and tables have a few kilobytes."""

MOST_PARTS = 64
"""Dots in one line. Keys of tens of thousands of parts take the parser minutes."""


class UnreadableTomlError(ValueError):
    """A file or text that cannot be taken; the message says why."""


def content(path: Path) -> bytes:
    """The bytes of a regular file of at most ``MOST_BYTES``; a pipe or a device is not waited for.

    Raises:
        UnreadableTomlError: for anything else, or what the system says.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableTomlError("it is a folder" if stat.S_ISDIR(found.st_mode) else "it is not a regular file")
        with path.open("rb") as stream:
            read = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise UnreadableTomlError(error.strerror or str(error)) from error
    if len(read) > MOST_BYTES:
        raise UnreadableTomlError(f"it has more than {MOST_BYTES} bytes")
    return read


def parsed(text: bytes | str) -> dict[str, Any]:
    """The values of a TOML document.

    Raises:
        UnreadableTomlError: where it is none, is not UTF-8, or is nested or written so that no reader copes.
    """
    try:
        document = text if isinstance(text, str) else text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableTomlError(f"it is not UTF-8 text: {error}") from error
    if any(line.count(".") > MOST_PARTS for line in document.splitlines()):
        raise UnreadableTomlError(f"a line has more than {MOST_PARTS} dots")
    try:
        return tomllib.loads(document)
    except RecursionError as error:
        raise UnreadableTomlError("it is nested too deeply") from error
    except ValueError as error:  # no TOML, or a number of more digits than Python reads
        raise UnreadableTomlError(str(error)) from error
