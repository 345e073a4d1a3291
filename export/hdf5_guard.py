"""Is this HDF5 file safe to read? Asked before any array is taken into memory.

A file from somewhere else may link to other files, declare terabytes that compress to kilobytes, or nest without end. And the
HDF5 library itself may crash or run in circles on a damaged file, seen with six flipped bytes; no exception and no signal
handler ends that. So a file is read once, whole, by a process of its own with a time limit, before this one opens it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py

from snn_export.models.diagnostics import Diagnostic, UserError

PROBE_SECONDS = 20.0
PROBE_BYTES_PER_SECOND = 20 << 20
MAX_BYTES = 4 << 30
MAX_OBJECTS = 100_000
MAX_DEPTH = 16


def probe(path: Path, seconds: float = PROBE_SECONDS) -> None:
    """Read a file whole in a process of its own, for ``seconds`` at most and longer only as its size asks for.

    Raises:
        UserError: those of :func:`check`; SNX101 where the HDF5 library fails, crashes or does not end.
    """
    # The child inherits PYTHONPATH; -P keeps the current folder out of its imports.
    time_limit = seconds + path.stat().st_size / PROBE_BYTES_PER_SECOND
    command = [sys.executable, "-P", "-c", "from snn_export.export.hdf5_guard import main; main()", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=time_limit, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise _damaged(path, f"reading it does not end ({time_limit:g} s)") from error
    if done.returncode < 0:
        raise _damaged(path, f"the HDF5 library crashes on it (signal {-done.returncode})")
    if done.returncode:
        try:
            findings = tuple(Diagnostic(**finding) for finding in json.loads(done.stdout))
        except (ValueError, TypeError) as error:
            raise _damaged(path, (done.stderr.strip().splitlines() or ["it cannot be read"])[-1]) from error
        raise UserError.from_diagnostics(findings)


def main() -> None:
    """Body of the probing process: exit code 0, or findings as JSON on standard output and 1."""
    path = Path(sys.argv[1])
    try:
        with h5py.File(path, "r") as stream:
            check(path, stream)
            stream.visititems(_read_whole)
    except UserError as error:
        sys.stdout.write(json.dumps([finding.as_dict() for finding in error.diagnostics]))
        sys.exit(1)


def _read_whole(_: str, item: h5py.Group | h5py.Dataset) -> None:
    if isinstance(item, h5py.Dataset):
        item[()]


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


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        "SNX101", f"cannot read {path.name}", where=str(path), why=why, fix="the file is damaged: write it again from its source"
    )


def _unsafe(path: Path, where: str, what: str) -> UserError:
    return UserError(
        "SNX102",
        f"{path.name} is not read: {what}",
        where=f"{path}{where}",
        why="a network file holds plain arrays and text, nothing that reaches out of it",
        fix="write the file again with nir.write from the program it came from",
    )
