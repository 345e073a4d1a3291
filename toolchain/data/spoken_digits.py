"""Spoken digits: recordings of the words zero to nine as features or spikes with a time axis.

Source: Z. Jackson, C. Souza, J. Flaks, Y. Pan, H. Nicolas and A. Thite, Free Spoken Digit Dataset, v1.0.8, 2018
(https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0): 3,000 recordings of six speakers at 8 kHz, in files named
``{digit}_{speaker}_{take}.wav``. By its own rule takes 0 to 4 are the test part.
"""

from __future__ import annotations

import re
import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_export.data.audio import log_mel, spikes_from_features
from snn_export.data.data_files import DEFAULT_LIMIT_BYTES, check_memory, damaged, data_folder, missing, unreadable
from snn_export.data.dataset import DEFAULT_VALIDATION, Dataset, assembled
from snn_export.models.diagnostics import UserError

CLASSES = 10
TEST_TAKES = 5
"""Takes below this number are the test part."""
DEFAULT_STEPS, DEFAULT_BANDS = 32, 32
MAX_FILE_BYTES = 4 << 20
"""Of one recording: four minutes at 8 kHz. A spoken digit takes less than three seconds."""

_NAME = re.compile(r"([0-9])_(.+)_([0-9]{1,6})\.wav", re.IGNORECASE)
_SOURCE = "https://github.com/Jakobovski/free-spoken-digit-dataset, folder recordings"


@dataclass(frozen=True, eq=False)
class Recording:
    """One utterance: ``pcm`` (samples,) mono at ``rate`` samples per second, the digit ``label`` and the number of the take."""

    pcm: NDArray[np.integer]
    rate: int
    label: int
    take: int


def spoken_digits(
    recordings: Iterable[Recording],
    seed: int,
    validation: float = DEFAULT_VALIDATION,
    *,
    steps: int = DEFAULT_STEPS,
    bands: int = DEFAULT_BANDS,
    threshold: float | None = None,
    where: str = "spoken digits",
) -> Dataset:
    """A data set of recordings, takes 0 to 4 of which are the test part, in the order given.

    Args:
        recordings: of any length; read one by one.
        seed: of the split into training and validation samples.
        validation: part of the training recordings that chooses the best epoch.
        steps: T, time steps that each recording is stretched to.
        bands: of the filter bank.
        threshold: None gives the loudness of each band, x float32 (N, T, bands) in [0, 1], which an encoder sends as graded
            spikes; a number gives send-on-delta spikes 0 and 1 of that step, (N, T, 2 bands), for chips without graded spikes.
        where: names the source in errors.

    Raises:
        UserError: SNX143, SNX145 as for :func:`snn_export.data.audio.log_mel`; SNX113, SNX116, SNX501.
    """
    inputs: list[NDArray[np.float32]] = []
    labels: list[int] = []
    takes: list[int] = []
    for recording in recordings:
        features = log_mel(recording.pcm, recording.rate, bands, steps)
        inputs.append(features if threshold is None else spikes_from_features(features, threshold))
        labels.append(recording.label)
        takes.append(recording.take)
    width = bands if threshold is None else 2 * bands
    x = np.stack(inputs) if inputs else np.zeros((0, steps, width), np.float32)
    y, test = np.array(labels, np.int64), np.array(takes, np.int64) < TEST_TAKES
    form = "loudness in [0, 1]" if threshold is None else f"spikes up and down at every change by {threshold:g}"
    notes = (f"takes below {TEST_TAKES} are the test set", f"{bands} mel bands, stretched to {steps} steps; {form}")
    return assembled(
        "spoken digits", (x[~test], y[~test]), (x[test], y[test]), seed=seed, validation=validation, where=where, classes=CLASSES,
        notes=notes, steps=steps,
    )  # fmt: skip


def load_spoken_digits(
    folder: Path,
    seed: int,
    validation: float = DEFAULT_VALIDATION,
    *,
    steps: int = DEFAULT_STEPS,
    bands: int = DEFAULT_BANDS,
    threshold: float | None = None,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> Dataset:
    """The WAV files in ``folder``, or in the folder ``recordings`` in it, as loudness or spikes; see :func:`spoken_digits`.

    Files of other names are left alone. A file is mono, of 16 bits, uncompressed.

    Raises:
        UserError: SNX133 no such files, SNX135 damaged, SNX136 too large, SNX143 of another kind, SNX113, SNX145.
    """
    place = data_folder(folder, "recordings", source=_SOURCE)
    paths = sorted(path for path in place.iterdir() if _NAME.fullmatch(path.name) and path.is_file())
    if not paths:
        raise missing(place, f"'{place.name}' has no files named like 7_jackson_32.wav", _SOURCE)
    check_memory(place, [(len(paths), steps, bands if threshold is None else 2 * bands)], limit_bytes)
    return spoken_digits(
        _recordings(paths), seed, validation, steps=steps, bands=bands, threshold=threshold, where=str(place)
    )  # fmt: skip


def _recordings(paths: Sequence[Path]) -> Iterable[Recording]:
    for path in paths:
        found = _NAME.fullmatch(path.name)
        if found is not None:
            yield Recording(*read_wav(path), label=int(found[1]), take=int(found[3]))


def read_wav(path: Path) -> tuple[NDArray[np.int16], int]:
    """(pcm int16 (samples,), rate) of a mono file of 16 bits, by the standard library.

    Raises:
        UserError: SNX133 unreadable, SNX135 damaged or cut short, SNX143 of another kind, or longer than a spoken digit.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise _kind(path, f"it has {size >> 20} MiB; a spoken digit takes less than {MAX_FILE_BYTES >> 20}")
        with wave.open(str(path), "rb") as stream:
            declared, rate = stream.getnframes(), stream.getframerate()
            if stream.getnchannels() != 1 or stream.getsampwidth() != 2:
                raise _kind(path, f"it has {stream.getnchannels()} channels of {8 * stream.getsampwidth()} bits")
            content = stream.readframes(min(declared, size))
    except (wave.Error, EOFError) as error:
        raise damaged(path, f"it is no uncompressed WAV file: {error}") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) != 2 * declared or not declared:
        raise damaged(path, f"it declares {declared} samples and holds {len(content) // 2}")
    return np.frombuffer(content, "<i2").astype(np.int16), rate


def _kind(path: Path, why: str) -> UserError:
    return UserError(
        "SNX143", f"'{path.name}' is no recording of a spoken digit", where=str(path), why=why,
        fix="convert it to one channel of 16 bits, for instance: sox IN.wav -b 16 -c 1 OUT.wav",
    )  # fmt: skip
