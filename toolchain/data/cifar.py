"""CIFAR-10 and CIFAR-100 in their binary version: 60,000 colour images of 32x32 pixels.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, University of Toronto, 2009,
and the description of the binary version beside the data, https://www.cs.toronto.edu/~kriz/cifar.html.

A record is the label bytes (CIFAR-10: the class; CIFAR-100: the coarse class, then the fine one) and 3072 bytes of pixels: the
red, the green and the blue plane, row by row. The "python version" of the same data is pickled, and unpickling a file runs
whatever code the file asks for: it is not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_export.data.data_files import DEFAULT_LIMIT_BYTES, check_memory, data_folder, missing, read_records
from snn_export.data.dataset import DEFAULT_VALIDATION, Dataset, assembled
from snn_export.models.diagnostics import UserError

SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Version:
    """One of the two data sets on disk. ``label_bytes`` before the pixels of a record, the last of which is the class."""

    name: str
    classes: int
    label_bytes: int
    train_files: tuple[str, ...]
    test_file: str
    folder: str
    pickled_folder: str
    pickled_file: str
    archive: str

    @property
    def source(self) -> str:
        return f"the binary version, {self.archive}, of https://www.cs.toronto.edu/~kriz/cifar.html"


_CIFAR10 = _Version(
    "cifar10", 10, 1, tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin", "cifar-10-batches-bin",
    "cifar-10-batches-py", "data_batch_1", "cifar-10-binary.tar.gz",
)  # fmt: skip
_CIFAR100 = _Version(
    "cifar100", 100, 2, ("train.bin",), "test.bin", "cifar-100-binary", "cifar-100-python", "train", "cifar-100-binary.tar.gz"
)
_OFFICIAL = {"training": 50_000, "test": 10_000}


def load_cifar10(
    folder: Path, seed: int, validation: float = DEFAULT_VALIDATION, *, limit_bytes: int = DEFAULT_LIMIT_BYTES
) -> Dataset:
    """CIFAR-10 as float32 (N, 3, 32, 32) in [0, 1], from ``folder`` or the ``cifar-10-batches-bin`` in it.

    Raises:
        UserError: SNX133 files missing, SNX134 only the pickled version is there, SNX135 damaged, SNX136 too large, SNX113.
    """
    return _load(_CIFAR10, folder, seed, validation, limit_bytes)


def load_cifar100(
    folder: Path, seed: int, validation: float = DEFAULT_VALIDATION, *, limit_bytes: int = DEFAULT_LIMIT_BYTES
) -> Dataset:
    """CIFAR-100 with its 100 fine classes as float32 (N, 3, 32, 32) in [0, 1]; files and errors as for CIFAR-10."""
    return _load(_CIFAR100, folder, seed, validation, limit_bytes)


def _load(version: _Version, folder: Path, seed: int, validation: float, limit_bytes: int) -> Dataset:
    place = data_folder(folder, version.folder, source=version.source)
    _check_files(version, place)
    _check_size(version, place, limit_bytes)
    x, y = _read(version, [place / name for name in version.train_files])
    x_test, y_test = _read(version, [place / version.test_file])
    notes = tuple(
        f"{count:,} of the {_OFFICIAL[part]:,} official {part} images"
        for part, count in (("training", len(y)), ("test", len(y_test)))
        if count != _OFFICIAL[part]
    )
    return assembled(
        version.name, (x, y), (x_test, y_test), seed=seed, validation=validation, where=str(place), classes=version.classes,
        notes=notes,
    )  # fmt: skip


def _check_files(version: _Version, place: Path) -> None:
    """SNX133 where a file is missing; SNX134 where the pickled version is there in its place."""
    absent = [name for name in (*version.train_files, version.test_file) if not (place / name).is_file()]
    if not absent:
        return
    for candidate in (place / version.pickled_file, place / version.pickled_folder / version.pickled_file):
        if candidate.is_file():
            raise UserError(
                "SNX134", f"'{candidate.parent.name}' holds the pickled version of {version.name}", where=str(candidate.parent),
                why="unpickling runs whatever code a file asks for: no file is ever unpickled",
                fix=f"get {version.source}: the same images as plain bytes",
            )  # fmt: skip
    raise missing(place, f"'{place.name}' has no {', '.join(absent)}", version.source)


def _check_size(version: _Version, place: Path, limit_bytes: int) -> None:
    """SNX136 for files that would take more than the limit, all together, before any is read."""
    sizes = [(place / name).stat().st_size for name in (*version.train_files, version.test_file)]
    check_memory(place, [(sum(sizes),)], limit_bytes)


def _read(version: _Version, paths: Iterable[Path]) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Pixels uint8 (N, 3, 32, 32) and classes int64 (N,) of several files, in their order."""
    record = version.label_bytes + _PIXELS
    files = [np.frombuffer(read_records(path, record), np.uint8).reshape(-1, record) for path in paths]
    records = np.concatenate(files)
    return records[:, version.label_bytes :].reshape(-1, *SHAPE), records[:, version.label_bytes - 1].astype(np.int64)
