"""MNIST in its IDX files, plain or packed by gzip: 70,000 handwritten digits of 28x28 grey pixels.

Source: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-Based Learning Applied to Document Recognition, Proceedings of
the IEEE 86(11), 1998. Any data set in the same four files (Fashion-MNIST, KMNIST) is read as well.

IDX: two zero bytes, the type (8: unsigned bytes), the number of axes, the length of each axis as a big-endian 32-bit integer,
and the values in C order.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from snn_export.data.data_files import DEFAULT_LIMIT_BYTES, check_memory, damaged, data_folder, missing, unreadable
from snn_export.data.dataset import DEFAULT_VALIDATION, Dataset, assembled

CLASSES = 10
_SOURCE = "https://yann.lecun.com/exdb/mnist, or a copy of its four .gz files"
_UNSIGNED_BYTES = 8
_CHUNK = 1 << 20


def load_mnist(
    folder: Path, seed: int, validation: float = DEFAULT_VALIDATION, *, limit_bytes: int = DEFAULT_LIMIT_BYTES
) -> Dataset:
    """MNIST as float32 (N, 1, H, W) in [0, 1], from the four IDX files in ``folder``.

    Raises:
        UserError: SNX133 files missing, SNX135 damaged, SNX136 larger than ``limit_bytes`` as float32, SNX113, SNX116.
    """
    place = data_folder(folder, source=_SOURCE)
    x, y = _part(place, "train", limit_bytes)
    x_test, y_test = _part(place, "t10k", limit_bytes)
    if x.shape[2:] != x_test.shape[2:]:
        raise damaged(place, f"training images are {x.shape[2:]} pixels and test images {x_test.shape[2:]}")
    check_memory(place, [x.shape, x_test.shape], limit_bytes)
    return assembled(
        "mnist", (x, y), (x_test, y_test), seed=seed, validation=validation, where=str(place), classes=CLASSES
    )  # fmt: skip


def _part(place: Path, part: str, limit_bytes: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Images uint8 (N, 1, H, W) and labels int64 (N,) of one part."""
    images_path, labels_path = _find(place, f"{part}-images", 3), _find(place, f"{part}-labels", 1)
    images, labels = read_idx(images_path, 3, limit_bytes), read_idx(labels_path, 1, limit_bytes)
    if len(images) != len(labels):
        raise damaged(labels_path, f"it has {len(labels)} labels for {len(images)} images")
    return images[:, None], labels.astype(np.int64)


def _find(place: Path, stem: str, axes: int) -> Path:
    """The file under one of the names it is known by."""
    names = [f"{stem}{separator}idx{axes}-ubyte{packed}" for packed in ("", ".gz") for separator in "-."]
    for name in names:
        if (place / name).is_file():
            return place / name
    raise missing(place, f"'{place.name}' has no {names[0]} and no {names[2]}", _SOURCE)


def read_idx(path: Path, axes: int, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> NDArray[np.uint8]:
    """An array of unsigned bytes with so many axes from an IDX file; packed where its name ends in ``.gz``.

    The header is read first: memory is taken for what it declares, if the limit allows that, and no byte more is unpacked.

    Raises:
        UserError: SNX133 unreadable, SNX135 no such file or of another length than its header says, SNX136 too large.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            return _read_idx(path, stream, axes, limit_bytes)  # type: ignore[arg-type]  # gzip streams are read like files
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise damaged(path, str(error)) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _read_idx(path: Path, stream: BinaryIO, axes: int, limit_bytes: int) -> NDArray[np.uint8]:
    header = stream.read(4 + 4 * axes)
    expected = bytes((0, 0, _UNSIGNED_BYTES, axes))
    if len(header) < 4 + 4 * axes or header[:4] != expected:
        raise damaged(path, f"it begins with the bytes {header[:4].hex()}, an IDX file of {axes} axes with {expected.hex()}")
    shape = struct.unpack(f">{axes}I", header[4:])
    check_memory(path, [shape], limit_bytes)
    if math.prod(shape) == 0:
        raise damaged(path, f"it declares the shape {shape}: nothing")
    data = bytearray()
    while len(data) < math.prod(shape) and (chunk := stream.read(min(_CHUNK, math.prod(shape) - len(data)))):
        data += chunk
    if len(data) < math.prod(shape) or stream.read(1):
        raise damaged(path, f"it declares the shape {shape} and holds {'more' if len(data) == math.prod(shape) else len(data)}")
    return np.frombuffer(data, np.uint8).reshape(shape)
