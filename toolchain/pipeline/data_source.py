"""The data set a config names, found relative to the config file and identified by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from snn_export.data.dataset import Dataset
from snn_export.data.registry import Source, load_dataset, parse
from snn_export.export.nir_io import file_digest

SMALL_FOLDER_BYTES = 64 << 20
"""Folders up to this size are identified by the bytes of their files; larger ones by sizes and times, see below."""


def resolved(source: str, base: Path) -> str:
    """``npz:data.npz`` or ``cifar10:data`` with its path taken relative to the config file's folder."""
    return str(_resolved(source, base))


def told(source: str) -> str:
    """``source`` for a report: the name of the file or folder, without where on this machine it lies."""
    parsed = parse(source)
    return str(replace(parsed, place=Path(parsed.place).name)) if parsed.is_path else source


def source_fingerprint(source: str, base: Path) -> str:
    """What identifies the data without loading it.

    A file: its SHA-256. A folder: the SHA-256 over the sorted names, relative to the folder, and sizes of all files in it, and
    for each the digest of its bytes where the folder has no more than 64 MiB, the time of its last change where it has more
    (a copied folder then counts as another one). A bundled or hosted set, or a path that is not there: the source itself.
    """
    parsed = _resolved(source, base)
    path = Path(parsed.place)
    if parsed.is_path and path.is_file():
        return file_digest(path)
    return _folder_digest(path) if parsed.is_path and path.is_dir() else source


def dataset(source: str, base: Path, seed: int, validation: float) -> Dataset:
    """Load and split. Raises the data layer's UserErrors (SNX011, SNX110 to SNX118, SNX133 to SNX145)."""
    return load_dataset(resolved(source, base), seed, validation)


def _resolved(source: str, base: Path) -> Source:
    parsed = parse(source)
    return replace(parsed, place=str(base / Path(parsed.place).expanduser())) if parsed.is_path else parsed


def _folder_digest(folder: Path) -> str:
    files = [(path.relative_to(folder).as_posix(), path, path.stat()) for path in _files(folder)]
    small = sum(found.st_size for _, _, found in files) <= SMALL_FOLDER_BYTES
    digest = hashlib.sha256()
    for name, path, found in sorted(files, key=lambda entry: entry[0]):
        content = file_digest(path) if small else str(found.st_mtime_ns)
        digest.update(f"{name}\0{found.st_size}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, in linked folders as well: the loaders read those too. No folder twice."""
    seen: set[str] = set()
    for parent, inner, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        yield from (path for path in (Path(parent) / name for name in names) if path.is_file())
