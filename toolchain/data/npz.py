"""A user's own data: one ``.npz`` file with x_train, y_train, x_test and y_test.

The file is not trusted. The array headers inside the archive are read first, so that a file which declares more data than the
limit, or arrays of Python objects, is refused before any memory is taken for it; nothing is ever unpickled.

What is accepted:

- x of shape (N, F), (N, H, W) or (N, C, H, W); (N, H, W) gets a channel axis and becomes (N, 1, H, W);
- x as floats, integers or bool; uint8 is scaled by 1/255 to [0, 1], everything else keeps its values;
- y as integers of shape (N,), 0..K-1, every class present in y_train.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from snn_export.data.dataset import DEFAULT_VALIDATION, Dataset, stratified_split
from snn_export.models.diagnostics import UserError

KEYS = ("x_train", "y_train", "x_test", "y_test")
DEFAULT_LIMIT_BYTES = 4 << 30

_CHUNK = 1 << 20
_SAVE_HINT = "numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...)"


@dataclass(frozen=True)
class _Header:
    """What the header of one array declares."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    data_offset: int

    @property
    def data_bytes(self) -> int:
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size


def load_npz(path: Path, seed: int, validation: float = DEFAULT_VALIDATION, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Dataset:
    """Load ``path``; ``validation`` of the training samples, every class in proportion, become the validation set by ``seed``.

    The declared input range is that of uint8 images, [0, 1], or the smallest and largest value of x_train. ``limit_bytes``
    bounds what the four arrays may take uncompressed.

    Raises:
        UserError: SNX110 no readable npz file, SNX111 missing arrays, SNX112 shape, SNX113 number of samples, SNX114 dtype,
            SNX115 NaN or infinity, SNX116 labels, SNX117 larger than the limit, SNX118 damaged or lying array.
    """
    arrays = _read_arrays(path, limit_bytes)
    notes: list[str] = []
    x_train, y_train, x_test, y_test = (arrays[key] for key in KEYS)
    _check_shapes(path, arrays)
    classes = _check_labels(path, y_train, y_test)
    is_uint8 = x_train.dtype == np.uint8
    if is_uint8:
        notes.append("uint8 inputs scaled by 1/255 to [0, 1]")
    if x_train.ndim == 3:
        notes.append("channel axis added: (N, H, W) became (N, 1, H, W)")
    inputs = _as_inputs(path, "x_train", x_train)
    labels = y_train.astype(np.int64)
    kept, held = stratified_split(labels, max(round(validation * len(labels)), 1), np.random.default_rng(seed))
    if not len(held):
        raise _error(
            path, "SNX113", "x_train is too small to hold out a validation set", "no class has a second sample",
            "give at least two training samples for some class",
        )  # fmt: skip
    low, high = (0.0, 1.0) if is_uint8 else (float(inputs.min()), float(inputs.max()))
    return Dataset(
        f"npz:{path.name}", inputs[kept], labels[kept], inputs[held], labels[held], _as_inputs(path, "x_test", x_test),
        y_test.astype(np.int64), classes=classes, input_low=low, input_high=high, notes=tuple(notes),
    )  # fmt: skip


# --- reading the archive ---------------------------------------------------------------------------------------------


def _read_arrays(path: Path, limit_bytes: int) -> dict[str, NDArray[Any]]:
    """The four arrays, after their headers were found acceptable."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = _find_members(path, archive)
            headers = {key: _read_header(path, archive, member) for key, member in members.items()}
            _check_dtypes(path, headers)
            _check_size(path, headers, limit_bytes)
            return {key: _read_data(path, archive, members[key], headers[key]) for key in KEYS}
    except zipfile.BadZipFile as error:
        raise _error(
            path, "SNX110", f"'{path.name}' is not an npz file", f"an npz file is a zip archive of arrays: {error}",
            f"write it with {_SAVE_HINT}",
        ) from error  # fmt: skip
    except OSError as error:
        raise _error(
            path, "SNX110", f"'{path.name}' cannot be read", error.strerror or str(error), "check the path behind npz:"
        ) from error


def _find_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Archive members of the four arrays; SNX111 names what is missing and what is there."""
    found = {info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")}
    missing = [key for key in KEYS if key not in found]
    if missing:
        others = ", ".join(sorted(found)[:20]) or "no arrays"
        raise _error(
            path, "SNX111", f"'{path.name}' has no {', '.join(missing)}", f"it holds {others}", f"write it with {_SAVE_HINT}"
        )
    return {key: found[key] for key in KEYS}


def _read_header(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Header:
    """Shape and dtype that the array declares, checked against the length of the archive member."""
    try:
        with archive.open(member) as stream:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            header = _Header(shape, dtype, fortran, stream.tell())
    except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, member, str(error)) from error
    if any(length < 0 for length in header.shape):
        raise _damaged(path, member, f"it declares the shape {header.shape}")
    if not header.dtype.hasobject and header.data_offset + header.data_bytes != member.file_size:
        raise _damaged(
            path, member, f"it declares {header.data_bytes} bytes of data and holds {member.file_size - header.data_offset}"
        )
    return header


def _read_data(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, header: _Header) -> NDArray[Any]:
    """The array itself, read in chunks into the memory its header declares, and its checksum verified."""
    data = bytearray(header.data_bytes)
    filled = 0
    try:
        with archive.open(member) as stream:
            stream.read(header.data_offset)
            while chunk := stream.read(_CHUNK):
                data[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
    except (zipfile.BadZipFile, EOFError, RuntimeError, zlib.error) as error:
        raise _damaged(path, member, str(error)) from error
    if filled != header.data_bytes or len(data) != header.data_bytes:
        raise _damaged(path, member, f"it ends after {filled} of {header.data_bytes} bytes")
    flat = np.frombuffer(data, dtype=header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


# --- checks ----------------------------------------------------------------------------------------------------------


def _check_dtypes(path: Path, headers: dict[str, _Header]) -> None:
    """Inputs are real numbers of one kind, labels integers. SNX114, SNX116."""
    for key in ("x_train", "x_test"):
        if headers[key].dtype.kind not in "fiub":
            raise _error(
                path, "SNX114", f"{key} has dtype {headers[key].dtype}", "inputs are real numbers; nothing is unpickled",
                f"convert it: {key}.astype(numpy.float32)",
            )  # fmt: skip
    if headers["x_train"].dtype != headers["x_test"].dtype:
        raise _error(
            path, "SNX114", f"x_train is {headers['x_train'].dtype} and x_test {headers['x_test'].dtype}",
            "uint8 is scaled by 1/255 and other types are not: the two would differ in scale", "give both the same dtype",
        )  # fmt: skip
    for key in ("y_train", "y_test"):
        if headers[key].dtype.kind not in "iu":
            raise _error(
                path, "SNX116", f"{key} has dtype {headers[key].dtype}", "labels are class indices 0..K-1",
                f"convert it: {key}.astype(numpy.int64), from one-hot rows by argmax(axis=1)",
            )  # fmt: skip


def _check_size(path: Path, headers: dict[str, _Header], limit_bytes: int) -> None:
    """SNX117 where the arrays would take more than the limit, here or as float32."""
    needed = sum(max(header.data_bytes, 4 * header.data_bytes // header.dtype.itemsize) for header in headers.values())
    if needed > limit_bytes:
        shapes = ", ".join(f"{key} {header.shape}" for key, header in headers.items())
        raise _error(
            path, "SNX117", f"the arrays would take {needed / 2**20:.0f} MiB; the limit is {limit_bytes / 2**20:.0f} MiB", shapes,
            "save fewer samples or smaller images",
        )  # fmt: skip


def _check_shapes(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Shapes fit each other (SNX112), and as many labels as inputs, at least one (SNX113)."""
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.ndim not in (2, 3, 4) or y.ndim != 1:
            raise _error(
                path, "SNX112", f"x_{part} has shape {x.shape} and y_{part} {y.shape}",
                "inputs are (N, F), (N, H, W) or (N, C, H, W), labels (N,)", "reshape them, samples first",
            )  # fmt: skip
        if part == "test" and len(x) == len(y) == 0:
            raise _error(path, "SNX501", "there are no test samples", "a verdict over nothing shows nothing", "give at least one")
        if len(x) != len(y) or x.size == 0:
            raise _error(
                path, "SNX113", f"x_{part} has shape {x.shape} and y_{part} has {len(y)} labels",
                "every input needs one label, and each part at least one sample", "save matching, non-empty arrays",
            )  # fmt: skip
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise _error(
            path, "SNX112", f"inputs are {arrays['x_train'].shape[1:]} in x_train and {arrays['x_test'].shape[1:]} in x_test",
            "one network reads both", "bring them to one shape",
        )  # fmt: skip


def _check_labels(path: Path, y_train: NDArray[Any], y_test: NDArray[Any]) -> int:
    """Number of classes K; SNX116 unless labels are 0..K-1, all present in training, K >= 2."""
    lowest, highest = min(int(y_train.min()), int(y_test.min())), int(y_train.max())
    present = np.unique(y_train)
    if lowest < 0:
        reason = f"the smallest label is {lowest}"
    elif highest + 1 != len(present):
        reason = f"y_train holds {len(present)} different labels, the largest is {highest}: some class has no sample"
    elif len(present) < 2:
        reason = "y_train holds a single class"
    elif int(y_test.max()) > highest:
        reason = f"y_test has label {int(y_test.max())}, y_train ends at {highest}"
    else:
        return highest + 1
    raise _error(
        path, "SNX116", "the labels are not classes 0..K-1", reason,
        "renumber them: classes, y = numpy.unique(labels, return_inverse=True)",
    )  # fmt: skip


def _as_inputs(path: Path, key: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Float32 inputs with a channel axis for images; SNX115 where a value is not finite in float32."""
    with np.errstate(over="ignore"):  # a value too large for float32 becomes inf, and is reported as such below
        inputs = values.astype(np.float32)
    if values.dtype == np.uint8:
        inputs /= np.float32(255)
    if not np.isfinite(inputs).all():
        sample = int(np.argwhere(~np.isfinite(inputs))[0][0])
        raise _error(
            path, "SNX115", f"{key} holds NaN or infinity, first in sample {sample}",
            "one such value turns every weight into NaN", "remove the sample or replace the value",
        )  # fmt: skip
    return np.ascontiguousarray(inputs[:, None] if inputs.ndim == 3 else inputs)


def _error(path: Path, code: str, what: str, why: str, fix: str) -> UserError:
    """A UserError about this file."""
    return UserError(code, what, where=str(path), why=why, fix=fix)


def _damaged(path: Path, member: zipfile.ZipInfo, why: str) -> UserError:
    """SNX118 for one array of the archive."""
    return _error(path, "SNX118", f"'{member.filename}' in '{path.name}' is damaged", why, f"write it again with {_SAVE_HINT}")
