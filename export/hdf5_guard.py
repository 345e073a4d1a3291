"""Is this HDF5 file safe to read? Asked before any array is taken into memory.

A file from somewhere else may link to other files, declare terabytes that compress to kilobytes, or nest without end.
"""

from __future__ import annotations

from pathlib import Path

import h5py

from snn_export.models.diagnostics import UserError

MAX_BYTES = 4 << 30
MAX_OBJECTS = 100_000
MAX_DEPTH = 16


def check(path: Path, root: h5py.Group, max_bytes: int = MAX_BYTES) -> None:
    """Walk all objects and refuse what is dangerous.

    Raises:
        UserError: SNX102 links or storage outside the file, object types that are not text, too deep or too many objects;
            SNX103 arrays that add up to more than ``max_bytes``.
    """
    total, count = 0, 0
    pending: list[tuple[h5py.Group, str, int]] = [(root, "", 0)]
    while pending:
        group, prefix, depth = pending.pop()
        for key in group:
            where = f"{prefix}/{key}"
            count += 1
            if count > MAX_OBJECTS or depth > MAX_DEPTH:
                raise _unsafe(path, where, f"it holds more than {MAX_OBJECTS} objects or nests deeper than {MAX_DEPTH}")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise _unsafe(path, where, "it is a link to somewhere else")
            item = group[key]
            if isinstance(item, h5py.Group):
                pending.append((item, where, depth + 1))
                continue
            total += _dataset_bytes(path, where, item)
            if total > max_bytes:
                raise UserError(
                    "SNX103",
                    f"{path.name} declares more than {max_bytes >> 20} MiB of arrays",
                    where=f"{path}{where}",
                    why="memory is taken only for files of a size that a network can have",
                    fix="if the file is yours and right, split the network",
                )


def _dataset_bytes(path: Path, where: str, item: object) -> int:
    if not isinstance(item, h5py.Dataset):
        raise _unsafe(path, where, "it is neither a group nor an array")
    if item.is_virtual or item.external:
        raise _unsafe(path, where, "its data lies in another file")
    if item.dtype.kind == "O" and h5py.check_string_dtype(item.dtype) is None:
        raise _unsafe(path, where, "it holds objects")
    return int((item.size or 0) * max(1, item.dtype.itemsize))


def _unsafe(path: Path, where: str, what: str) -> UserError:
    return UserError(
        "SNX102",
        f"{path.name} is not read: {what}",
        where=f"{path}{where}",
        why="a network file holds plain arrays and text, nothing that reaches out of it",
        fix="write the file again with nir.write from the program it came from",
    )
