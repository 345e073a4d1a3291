"""Event-camera recordings through ``tonic``: N-MNIST, DVS Gesture and CIFAR10-DVS.

tonic is optional and imported here alone; it is under the GNU General Public License 3, which is why it is no dependency of
this package. It knows the files' formats; the binning is ours (``event_frames.py``). It is never let download: the files must
lie there already.

Sources: G. Orchard et al., Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades, Frontiers in
Neuroscience 9, 2015. A. Amir et al., A Low Power, Fully Event-Based Gesture Recognition System, CVPR 2017. H. Li et al.,
CIFAR10-DVS: An Event-Stream Dataset for Object Classification, Frontiers in Neuroscience 11, 2017.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from snn_export.data.data_files import DEFAULT_LIMIT_BYTES, check_memory, damaged, data_folder, missing
from snn_export.data.dataset import DEFAULT_VALIDATION, Dataset, assembled
from snn_export.data.event_frames import bins_of_recording, outside, spike_frames
from snn_export.models.diagnostics import UserError

DEFAULT_STEPS = 10
_POLARITIES = 2


@dataclass(frozen=True)
class Camera:
    """A recorded data set: tonic's name of it, what its sensor has, and where its files are to be had.

    ``parts``: folders of the training and the test part as the archives unpack them; empty where there is one part only, of
    which the last tenth of every class is then the test set. ``size``: side of the frames where nothing else is asked for.
    """

    name: str
    tonic_name: str
    suffix: str
    sensor: int
    size: int
    classes: int
    parts: tuple[str, ...]
    source: str


NMNIST = Camera(
    "nmnist", "NMNIST", ".bin", 34, 34, 10, ("Train", "Test"), "https://www.garrickorchard.com/datasets/n-mnist"
)  # fmt: skip
DVS_GESTURE = Camera(
    "dvsgesture", "DVSGesture", ".npy", 128, 32, 11, ("ibmGestureTrain", "ibmGestureTest"),
    "https://figshare.com/ndownloader/files/38022171 and 38020584: DVS Gesture cut into samples, as tonic reads it",
)  # fmt: skip
CIFAR10_DVS = Camera(
    "cifar10dvs", "CIFAR10DVS", ".aedat4", 128, 48, 10, (),
    "https://figshare.com/ndownloader/files/38023437: CIFAR10-DVS as .aedat4 in one folder per class, as tonic reads it",
)  # fmt: skip


def load_events(
    camera: Camera,
    folder: Path,
    seed: int,
    validation: float = DEFAULT_VALIDATION,
    *,
    steps: int = DEFAULT_STEPS,
    size: int | None = None,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> Dataset:
    """Recordings as float32 (N, T, 2, H, W) of 0 and 1, channel 0 for OFF events and 1 for ON events.

    Every recording is cut into ``steps`` bins of equal length between its first and its last event. ``size`` is the side H = W
    of the frames: a pixel of the sensor falls on pixel * size // sensor.

    Raises:
        UserError: SNX133 files missing, SNX135 a recording that cannot be read, SNX136 more than ``limit_bytes``, SNX140
            without tonic, SNX142 a frame larger than the sensor, SNX113.
    """
    side = camera.size if size is None else size
    if not 1 <= side <= camera.sensor or steps < 1:
        raise UserError(
            "SNX142", f"{steps} frames of {side}x{side} pixels cannot be made of {camera.name}", where=str(folder),
            why=f"its sensor has {camera.sensor}x{camera.sensor} pixels, and nothing lies between two of them",
            fix=f"choose ?size= in 1..{camera.sensor} and ?steps= of 1 or more",
        )  # fmt: skip
    place = data_folder(folder, camera.tonic_name, source=camera.source)
    parts = [_recordings(camera, place, part) for part in camera.parts or ("",)]
    check_memory(place, [(len(part.paths), steps, _POLARITIES, side, side) for part in parts], limit_bytes)
    frames = [_frames(camera, part, steps, side) for part in parts]
    labels = [part.labels for part in parts]
    lost = sum(count for _, count in frames)
    notes = [f"{steps} bins of equal length per recording, {side}x{side} pixels; a cell is 1 where an event fell"]
    if not camera.parts:
        notes.append("no official test part: the last tenth of every class is the test set")
    if lost:
        notes.append(f"{lost} events outside the sensor were left out")
    training, test = _two_parts([x for x, _ in frames], labels)
    return assembled(
        camera.name, training, test, seed=seed, validation=validation, where=str(place), classes=camera.classes,
        notes=tuple(notes), steps=steps,
    )  # fmt: skip


@dataclass(frozen=True)
class _Recordings:
    """One part: tonic's data set, and the order its samples are taken in."""

    samples: Any
    order: tuple[int, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]


def _recordings(camera: Camera, place: Path, part: str) -> _Recordings:
    """What tonic finds of one part, in the order of the file names: folders list their files in any order."""
    if not any((place / part).rglob(f"*{camera.suffix}")):
        raise missing(place / part, f"there are no {camera.suffix} files in '{(place / part).name}'", camera.source)
    arguments = {"train": part == camera.parts[0]} if camera.parts else {}
    try:
        samples = _offline(camera, place)(str(place), **arguments)
        paths = [Path(path) for path in samples.data]
        labels = np.array(samples.targets, np.int64)
    except (ValueError, KeyError, IndexError) as error:
        raise damaged(place / part, f"a folder or file has a name that {camera.name} does not have: {error}") from error
    order = sorted(range(len(paths)), key=lambda index: (labels[index], _natural(paths[index])))
    return _Recordings(samples, tuple(order), tuple(paths[index] for index in order), labels[order])


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorting key under which ``cat_9`` comes before ``cat_10``."""
    return [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in re.split(r"([0-9]+)", path.as_posix())]


def _frames(camera: Camera, part: _Recordings, steps: int, side: int) -> tuple[NDArray[np.float32], int]:
    """Frames (N, T, 2, side, side), and the number of events outside the sensor."""
    frames = np.zeros((len(part.paths), steps, _POLARITIES, side, side), np.float32)
    lost = 0
    for row, (index, path) in enumerate(zip(part.order, part.paths, strict=True)):
        try:
            events, _ = part.samples[index]
            axes = {name: np.asarray(events[name]).astype(np.int64) for name in "txyp"}
            bins = bins_of_recording(axes["t"], steps)
        except Exception as error:  # tonic and its decoders raise whatever a damaged file leads them to
            raise damaged(path, f"it cannot be read as a recording: {type(error).__name__}: {error}"[:400]) from error
        sensor = (steps, _POLARITIES, camera.sensor, camera.sensor)
        inside = ~outside(bins, (axes["p"], axes["y"], axes["x"]), sensor)
        lost += int((~inside).sum())
        y, x = (axes[name][inside] * side // camera.sensor for name in "yx")
        frames[row] = spike_frames(bins[inside], (axes["p"][inside], y, x), frames.shape[1:])
    return frames, lost


Part = tuple[NDArray[np.generic], NDArray[np.int64]]


def _two_parts(x: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.int64]]) -> tuple[Part, Part]:
    """(training, test): the two official parts, or the last tenth of every class of the only one as the test set."""
    if len(x) == 2:
        return (x[0], labels[0]), (x[1], labels[1])
    rows = [np.flatnonzero(labels[0] == label) for label in np.unique(labels[0])]
    test = np.sort(np.concatenate([chosen[len(chosen) - max(len(chosen) // 10, 1) :] for chosen in rows]))
    train = np.setdiff1d(np.arange(len(labels[0])), test, assume_unique=True)
    return (x[0][train], labels[0][train]), (x[0][test], labels[0][test])


def _offline(camera: Camera, place: Path) -> Any:
    """The class that tonic has for these recordings, told that the files are in ``place`` and unable to fetch any. SNX140."""
    try:
        import numpy.lib.recfunctions  # noqa: F401  # tonic uses it and does not import it
        import tonic.datasets

        if camera.suffix == ".aedat4":
            import aedat  # noqa: F401  # tonic imports it when it reads the first file
    except ImportError as error:
        raise UserError(
            "SNX140", f"'{camera.name}' needs the package '{error.name or 'tonic'}'", where="data", why=str(error),
            fix="pip install 'snn-export[events]'; tonic, which it installs, is under the GPL 3",
        ) from error  # fmt: skip

    def found_here(self: Any) -> bool:
        self.location_on_system = str(place)
        return True

    def refuse(self: Any) -> NoReturn:
        raise missing(place, f"tonic finds no {camera.name} in '{place.name}'", camera.source)

    base = getattr(tonic.datasets, camera.tonic_name)
    return type(camera.tonic_name, (base,), {"_check_exists": found_here, "download": refuse})
