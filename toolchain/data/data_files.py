"""Files of a data folder: found, measured and read no further than they may be.

Nothing in a data folder is trusted: sizes are looked at before memory is taken, compressed files are unpacked up to a bound,
and nothing is ever unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from snn_export.models.diagnostics import UserError

DEFAULT_LIMIT_BYTES = 8 << 30
"""What the arrays of a data set may take as float32. Tiny ImageNet takes 5.0 GiB."""


def data_folder(folder: Path, *inner: str, source: str) -> Path:
    """``folder``, or the first of the folders ``inner`` in it that is there: what an archive unpacks to. SNX133 without any."""
    for candidate in (*(folder / name for name in inner), folder):
        if candidate.is_dir():
            return candidate
    raise missing(folder, f"there is no folder '{folder.name}'", source)


def missing(where: Path, what: str, source: str) -> UserError:
    """SNX133: files that are not there; ``source`` says where they are to be had."""
    return UserError(
        "SNX133", what, where=str(where), why="data sets are read from files that lie there already: nothing is downloaded",
        fix=f"unpack the files there; they come from {source}",
    )  # fmt: skip


def damaged(path: Path, why: str) -> UserError:
    """SNX135 for one file."""
    return UserError(
        "SNX135", f"'{path.name}' is not what its name says", where=str(path), why=why,
        fix="get it again from its source and compare its checksum",
    )  # fmt: skip


def check_memory(where: Path, shapes: Iterable[tuple[int, ...]], limit_bytes: int) -> None:
    """SNX136 where float32 arrays of these shapes would take more than the limit. Call it before they exist."""
    needed = 4 * sum(math.prod(shape) for shape in shapes)
    if needed > limit_bytes:
        gib = math.ceil(needed / 2**30)
        raise UserError(
            "SNX136", f"the data would take {needed / 2**30:.1f} GiB; the limit is {limit_bytes / 2**30:.1f} GiB",
            where=str(where), why="all samples are held in memory, four bytes a value",
            fix=f"make the inputs smaller (?size=, ?steps=), or allow it with ?limit={gib} where the machine has that much",
        )  # fmt: skip


def read_records(path: Path, record: int) -> bytes:
    """All bytes of a file of whole records of ``record`` bytes, at least one; its size was found acceptable before. SNX135."""
    try:
        size = path.stat().st_size
        if size == 0 or size % record:
            raise damaged(path, f"it has {size} bytes, and a record has {record}: it was cut short or is of another format")
        with path.open("rb") as stream:
            content = stream.read(size)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) != size:
        raise damaged(path, f"it ended after {len(content)} of {size} bytes")
    return content


def unreadable(path: Path, error: OSError) -> UserError:
    """SNX133 for a file that the operating system does not give."""
    return UserError(
        "SNX133",
        f"'{path.name}' cannot be read",
        where=str(path),
        why=error.strerror or str(error),
        fix="check path and permissions",
    )
