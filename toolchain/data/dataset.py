"""A data set split three ways, with a fingerprint of what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DEFAULT_VALIDATION = 0.12
"""Part of the training samples that chooses the best epoch, where nothing else is said."""


@dataclass(frozen=True)
class Samples:
    """One part of a data set: x float32 (N, *shape), y int64 (N,)."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test samples: x float32 (N, *shape), y int64 (N,) in 0..classes-1.

    ``train`` and ``validation`` are what training may see: its functions take these two, never a Dataset. ``test`` is for the
    verification step alone, which reads it once.

    ``input_low``, ``input_high`` is the declared range of the inputs; encoders and overflow bounds rely on it, so it is never
    measured on test data. ``fingerprint`` is the SHA-256 of all arrays; ``notes`` says what was done to the data on the way in.
    """

    name: str
    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_val: NDArray[np.float32]
    y_val: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    classes: int
    input_low: float
    input_high: float
    notes: tuple[str, ...] = ()
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        arrays = (self.x_train, self.y_train, self.x_val, self.y_val, self.x_test, self.y_test)
        object.__setattr__(self, "fingerprint", array_fingerprint(arrays))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.x_train.shape[1:]

    @property
    def train(self) -> Samples:
        """What weights are fitted to."""
        return Samples(self.x_train, self.y_train)

    @property
    def validation(self) -> Samples:
        """What the best epoch and the calibration are chosen on."""
        return Samples(self.x_val, self.y_val)

    @property
    def test(self) -> Samples:
        """What accuracy is reported on; for the verification step only."""
        return Samples(self.x_test, self.y_test)


def array_fingerprint(arrays: Iterable[NDArray[np.generic]]) -> str:
    """SHA-256 over dtype, shape and bytes of each array in order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def stratified_split(
    labels: NDArray[np.int64], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (kept, held out) with ``count`` samples held out, every class in proportion; both sorted.

    Places go to the classes by largest remainder (ties: the lower class), so the total is exact. ``count`` is at most
    len(labels) minus the number of classes present: every class keeps a sample.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    count = min(count, len(labels) - len(classes))
    shares = count * (sizes - 1) / max(int(np.sum(sizes - 1)), 1)
    places = np.floor(shares).astype(np.int64)
    by_remainder = np.argsort(places - shares, kind="stable")
    places[by_remainder[: count - int(places.sum())]] += 1
    held = [
        rng.permutation(np.flatnonzero(labels == label))[:places_of] for label, places_of in zip(classes, places, strict=True)
    ]
    held_out = np.sort(np.concatenate(held)) if held else np.empty(0, np.int64)
    kept = np.setdiff1d(np.arange(len(labels)), held_out, assume_unique=True)
    return kept, held_out
