"""A data set split three ways, with a fingerprint of what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from snn_export.models.diagnostics import UserError

DEFAULT_VALIDATION = 0.12
"""Part of the training samples that chooses the best epoch, where nothing else is said."""


@dataclass(frozen=True)
class Samples:
    """One part of a data set: x float32 (N, *shape), or (N, T, *shape) with a time axis, y int64 (N,)."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Dataset:
    """Training, validation and test samples: x float32 (N, *shape), y int64 (N,) in 0..classes-1.

    ``steps`` is None where a sample is one input, shown in every time step. Where it is a number T, samples have a time axis:
    x is (N, T, *shape), step by step what a network with an encoder of kind "events" reads.

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
    steps: int | None = None
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        arrays = (self.x_train, self.y_train, self.x_val, self.y_val, self.x_test, self.y_test)
        object.__setattr__(self, "fingerprint", array_fingerprint(arrays))

    def signal(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Some of its inputs as simulators take them: time first, (T, N, *shape), where samples have a time axis."""
        return x if self.steps is None else np.ascontiguousarray(np.swapaxes(x, 0, 1))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input in one time step: without the samples' time axis, where they have one."""
        return self.x_train.shape[1:] if self.steps is None else self.x_train.shape[2:]

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


def assembled(
    name: str,
    training: tuple[NDArray[np.generic], NDArray[np.int64]],
    test: tuple[NDArray[np.generic], NDArray[np.int64]],
    *,
    seed: int,
    validation: float,
    where: str,
    classes: int,
    input_low: float = 0.0,
    input_high: float = 1.0,
    notes: tuple[str, ...] = (),
    steps: int | None = None,
) -> Dataset:
    """A Dataset of two official parts: ``validation`` of the training samples, every class in proportion, are cut off by seed.

    ``training`` and ``test`` are (x, y), y int64 (N,). uint8 inputs are pixels and become float32 in [0, 1] here, part by part,
    so that the whole is never held twice as floats; float32 inputs keep their values. ``where`` names the source in errors.

    Raises:
        UserError: SNX116 labels that are not 0..classes-1, SNX113 too few training samples, SNX501 no test sample.
    """
    (x, y), (x_test, y_test) = training, test
    if not len(y_test):
        raise UserError(
            "SNX501",
            "there are no test samples",
            where=where,
            why="a verdict over nothing shows nothing",
            fix="give at least one",
        )
    for part, labels in (("training", y), ("test", y_test)):
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise UserError(
                "SNX116", f"the {part} part has labels {int(labels.min())}..{int(labels.max())}", where=where,
                why=f"the {classes} classes are numbered 0..{classes - 1}", fix="get the files again from their source",
            )  # fmt: skip
    kept, held = stratified_split(y, max(round(validation * len(y)), 1), np.random.default_rng(seed))
    if not len(held):
        raise UserError(
            "SNX113", f"{len(y)} training samples are too few to hold out a validation set", where=where,
            why="no class has a second sample", fix="give at least two training samples for some class",
        )  # fmt: skip
    return Dataset(
        name, _inputs(x[kept]), y[kept], _inputs(x[held]), y[held], _inputs(x_test), y_test, classes=classes,
        input_low=input_low, input_high=input_high, notes=notes, steps=steps,
    )  # fmt: skip


def _inputs(x: NDArray[np.generic]) -> NDArray[np.float32]:
    """Float32 inputs; pixels (uint8) scaled by 1/255."""
    inputs = np.ascontiguousarray(x, np.float32)
    if x.dtype == np.uint8:
        inputs /= np.float32(255)  # a copy already: no second one is needed
    return inputs
