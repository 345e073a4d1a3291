"""CIFAR-10, CIFAR-100 and MNIST by the ``datasets`` library, which fetches them once and keeps them.

The library is optional and imported here alone. It reads the sets' Parquet files; no code of a repository is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.data.dataset import DEFAULT_VALIDATION, Dataset, assembled
from snn_export.models.diagnostics import UserError


@dataclass(frozen=True)
class _Hosted:
    """A data set on the hub: its repository, columns, and what an image is."""

    repository: str
    image: str
    label: str
    classes: int
    shape: tuple[int, int, int]

    @property
    def mode(self) -> str:
        """Pillow's name of the pixel format."""
        return "L" if self.shape[0] == 1 else "RGB"


HOSTED: Mapping[str, _Hosted] = {
    "cifar10": _Hosted("uoft-cs/cifar10", "img", "label", 10, (3, 32, 32)),
    "cifar100": _Hosted("uoft-cs/cifar100", "img", "fine_label", 100, (3, 32, 32)),
    "mnist": _Hosted("ylecun/mnist", "image", "label", 10, (1, 28, 28)),
}


def load_hub(name: str, seed: int, validation: float = DEFAULT_VALIDATION) -> Dataset:
    """One of ``HOSTED`` as float32 (N, C, H, W) in [0, 1]; its official training and test parts.

    The same images as from the files on disk: ``cifar10:hub`` and ``cifar10:FOLDER`` agree value for value.

    Raises:
        UserError: SNX140 without the library, SNX141 where it cannot give the data, SNX113, SNX116.
    """
    hosted = HOSTED[name]
    where = f"{name}:hub"
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "SNX140", f"'{where}' needs the package 'datasets'", where="data", why=str(error),
            fix=f"pip install 'snn-export[hub]', or name a folder that holds the files: {name}:FOLDER",
        ) from error  # fmt: skip
    try:
        loaded = datasets.load_dataset(hosted.repository)
        parts = [_arrays(hosted, loaded[part]) for part in ("train", "test")]
    except UserError:
        raise
    except Exception as error:  # the library raises whatever its transports and formats raise
        raise UserError(
            "SNX141", f"'{where}' could not be loaded", where=hosted.repository, why=f"{type(error).__name__}: {error}"[:400],
            fix=f"check the network and try again, or name a folder that holds the files: {name}:FOLDER",
        ) from error  # fmt: skip
    return assembled(name, *parts, seed=seed, validation=validation, where=where, classes=hosted.classes)


def _arrays(hosted: _Hosted, rows: Iterable[Mapping[str, Any]]) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Pixels uint8 (N, C, H, W) and labels int64 (N,) of one part."""
    channels, height, width = hosted.shape
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for row in rows:
        pixels = np.asarray(row[hosted.image].convert(hosted.mode), np.uint8).reshape(height, width, channels)
        images.append(pixels.transpose(2, 0, 1))
        labels.append(int(row[hosted.label]))
    return np.stack(images), np.array(labels, np.int64)
