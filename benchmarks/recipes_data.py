"""The data of the recipes benchmark: bundled digits, and two files that are no part of the project.

``SNN_EXPORT_BENCHMARK_DATA`` names the folder with ``cifar10_jpeg.npz`` and ``fsdd.npz``; without it, ``../shared/data`` beside
the repository is tried.

cifar10_jpeg.npz   CIFAR-10 (Krizhevsky, 2009), every image as a 32 x 32 JPEG: ``jpeg`` bytes end to end, ``offset`` (60001),
                   ``label``, ``train``. Accuracies are a little below those on the original images.
fsdd.npz           Free Spoken Digit Dataset (Jackson et al., CC BY-SA 4.0): ``pcm`` int16 end to end, ``offset``, ``label``,
                   ``take``, ``rate``. Takes 0 to 4 are the test set, as its authors split it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snn_export.data.dataset import Dataset, stratified_split

CIFAR_TRAIN, CIFAR_VALIDATION = 10_000, 2_000
FSDD_VALIDATION = 0.12
SPLIT_SEED = 0
"""One split for all rows: seeds of a row are those of weights and of the order of samples."""


def folder() -> Path:
    """Where the files are looked for."""
    return Path(os.environ.get("SNN_EXPORT_BENCHMARK_DATA", Path(__file__).parents[2] / "shared" / "data"))


def available(name: str) -> bool:
    """Whether the data set called ``name`` is here."""
    file = {"digits": None, "cifar10": "cifar10_jpeg.npz", "fsdd": "fsdd.npz"}[name]
    return file is None or (folder() / file).is_file()


def load(name: str) -> Dataset:
    """The data set: digits, cifar10 (10,000 training and 2,000 validation images, all 10,000 test images) or fsdd."""
    return {"digits": _digits, "cifar10": _cifar10, "fsdd": _fsdd}[name]()


def _digits() -> Dataset:
    from snn_export.data.digits import load_digits

    return load_digits(SPLIT_SEED)


def _cifar10() -> Dataset:
    with np.load(folder() / "cifar10_jpeg.npz", allow_pickle=False) as file:
        jpeg, offset, train = file["jpeg"], file["offset"], file["train"]
        labels = file["label"].astype(np.int64)

    def decoded(indices: NDArray[np.int64]) -> NDArray[np.float32]:
        pictures = (Image.open(io.BytesIO(jpeg[offset[i] : offset[i + 1]].tobytes())).convert("RGB") for i in indices)
        return np.stack([np.asarray(picture, np.float32).transpose(2, 0, 1) / 255 for picture in pictures])

    pool, test = np.flatnonzero(train), np.flatnonzero(~train)
    generator = np.random.default_rng(SPLIT_SEED)
    _, chosen = stratified_split(labels[pool], CIFAR_TRAIN + CIFAR_VALIDATION, generator)
    kept, held = stratified_split(labels[pool][chosen], CIFAR_VALIDATION, generator)
    parts = [pool[chosen][kept], pool[chosen][held], test]
    arrays = [array for part in parts for array in (decoded(part), labels[part])]
    return Dataset("cifar10", *arrays, 10, 0.0, 1.0)


def _fsdd() -> Dataset:
    from snn_export.data.spoken_digits import Recording, spoken_digits

    with np.load(folder() / "fsdd.npz", allow_pickle=False) as file:
        pcm, offset = file["pcm"], file["offset"]
        labels, takes, rate = file["label"], file["take"], int(file["rate"])
    recordings = (Recording(pcm[offset[i] : offset[i + 1]], rate, int(labels[i]), int(takes[i])) for i in range(len(labels)))
    # Send-on-delta spikes: graded loudness would need graded input events, which are whole numbers on a chip.
    return spoken_digits(recordings, SPLIT_SEED, FSDD_VALIDATION, threshold=0.1)
