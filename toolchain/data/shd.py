"""The Spiking Heidelberg Digits: spoken digits in German and English as spikes of 700 cochlear channels, 20 classes.

Source: B. Cramer, Y. Stradmann, J. Schemmel and F. Zenke, The Heidelberg Spiking Data Sets for the Systematic Evaluation of
Spiking Neural Networks, IEEE Transactions on Neural Networks and Learning Systems 33(7), 2022; https://zenkelab.org/datasets.

``shd_train.h5`` and ``shd_test.h5`` hold, per recording, ``spikes/times`` (seconds) and ``spikes/units`` (channels 0..699) as
arrays of their own length, and ``labels`` (0..9 English, 10..19 German). They are read with h5py alone.

The HDF5 library itself may crash or run in circles on a damaged file, which no exception handler ends: a process of its own
reads the files whole, under a time limit, before this one opens them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from snn_export.data.data_files import DEFAULT_LIMIT_BYTES, check_memory, damaged, data_folder, missing
from snn_export.data.dataset import DEFAULT_VALIDATION, Dataset, assembled
from snn_export.data.event_frames import bins_of_clock, outside, spike_frames

CHANNELS, CLASSES = 700, 20
SECONDS = 1.4
"""All recordings are shorter; the longest ends after 1.37 s."""
DEFAULT_STEPS = 100
PROBE_SECONDS = 60.0
PROBE_BYTES_PER_SECOND = 5 << 20
_SOURCE = "https://zenkelab.org/datasets: shd_train.h5.gz and shd_test.h5.gz, unpacked"


def load_shd(
    folder: Path,
    seed: int,
    validation: float = DEFAULT_VALIDATION,
    *,
    steps: int = DEFAULT_STEPS,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> Dataset:
    """SHD as float32 (N, T, 700) of 0 and 1: ``steps`` bins of a clock that runs from 0 to 1.4 s for every recording.

    Raises:
        UserError: SNX133 files missing, SNX135 not in the published form, SNX136 more than ``limit_bytes``, SNX113, SNX116.
    """
    place = data_folder(folder, source=_SOURCE)
    paths = [place / f"shd_{part}.h5" for part in ("train", "test")]
    for path in paths:
        if not path.is_file():
            raise missing(place, f"'{place.name}' has no {path.name}", _SOURCE)
    _probe(paths, limit_bytes)
    check_memory(place, [(_recordings(path), steps, CHANNELS) for path in paths], limit_bytes)
    (x, y, lost), (x_test, y_test, lost_test) = (_read(path, steps) for path in paths)
    notes = [f"{steps} bins of {1000 * SECONDS / steps:g} ms; a cell is 1 where a channel fired in a bin"]
    if lost + lost_test:
        notes.append(f"{lost + lost_test} spikes after {SECONDS} s or of no channel were left out")
    return assembled(
        "shd", (x, y), (x_test, y_test), seed=seed, validation=validation, where=str(place), classes=CLASSES, notes=tuple(notes),
        steps=steps,
    )  # fmt: skip


def _probe(paths: Sequence[Path], limit_bytes: int) -> None:
    """Let another process read the files. SNX135 where that process dies or does not end; its exceptions come up here again."""
    body = "import sys; from snn_export.data.shd import read_through; read_through(sys.argv[1:])"
    command = [sys.executable, "-P", "-c", body, str(limit_bytes), *map(str, paths)]
    seconds = PROBE_SECONDS + sum(path.stat().st_size for path in paths) / PROBE_BYTES_PER_SECOND
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise damaged(paths[0].parent, f"reading its files does not end ({seconds:g} s)") from error
    if done.returncode < 0:
        raise damaged(paths[0].parent, f"the HDF5 library crashes on its files (signal {-done.returncode})")


def read_through(arguments: Sequence[str]) -> None:
    """Body of the probing process: the limit in bytes and the files. What is too large is not read: it is refused later."""
    limit_bytes, *paths = arguments
    for path in map(Path, paths):
        check_memory(path, [(_recordings(path), CHANNELS)], int(limit_bytes))
        with h5py.File(path, "r") as stream:
            for array in _arrays(path, stream):
                for index in range(array.shape[0]):
                    array[index]


def _recordings(path: Path) -> int:
    """Number of recordings that a file declares, after its arrays were found to be of the published form."""
    try:
        with h5py.File(path, "r") as stream:
            arrays = _arrays(path, stream)
            return int(arrays[2].shape[0])
    except (OSError, KeyError, RuntimeError) as error:
        raise damaged(path, f"it cannot be read as HDF5: {error}") from error


def _arrays(path: Path, stream: h5py.File) -> tuple[h5py.Dataset, h5py.Dataset, h5py.Dataset]:
    """Times, units and labels: one entry per recording, stored in the file itself. SNX135."""
    arrays = []
    for name in ("spikes/times", "spikes/units", "labels"):
        link, item = stream.get(name, getlink=True), stream.get(name)
        if not isinstance(item, h5py.Dataset) or not isinstance(link, h5py.HardLink) or item.is_virtual or item.external:
            raise damaged(path, f"it has no array '{name}' of its own")
        element: Any = item.dtype if name == "labels" else h5py.check_vlen_dtype(item.dtype)
        kinds = "f" if name == "spikes/times" else "iu"
        if item.ndim != 1 or element is None or np.dtype(element).kind not in kinds:
            raise damaged(path, f"'{name}' has shape {item.shape} and type {item.dtype}")
        arrays.append(item)
    times, units, labels = arrays
    if not times.shape == units.shape == labels.shape:
        raise damaged(path, f"it has {times.shape[0]} lists of times, {units.shape[0]} of units and {labels.shape[0]} labels")
    return times, units, labels


def _read(path: Path, steps: int) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    """Frames (N, T, 700), labels (N,) and the number of spikes left out, one recording in memory at a time."""
    lost = 0
    try:
        with h5py.File(path, "r") as stream:
            times, units, labels = _arrays(path, stream)
            frames = np.zeros((labels.shape[0], steps, CHANNELS), np.float32)
            for index in range(len(frames)):
                when, where = np.asarray(times[index]), np.asarray(units[index]).astype(np.int64)
                if len(when) != len(where):
                    raise damaged(path, f"recording {index} has {len(when)} times and {len(where)} units")
                bins = bins_of_clock(when, steps, SECONDS)
                lost += int(outside(bins, (where,), frames.shape[1:]).sum())
                frames[index] = spike_frames(bins, (where,), frames.shape[1:])
            return frames, np.asarray(labels[()]).astype(np.int64), lost
    except (OSError, KeyError, RuntimeError) as error:
        raise damaged(path, f"it cannot be read as HDF5: {error}") from error
