"""A task small enough to train in a test: noisy bars, horizontal or vertical, and networks of their size."""

from __future__ import annotations

import numpy as np
import torch

from snn_export.data.dataset import Samples

SHAPE = {"input_shape": (1, 4, 4), "classes": 2, "width": 4}


def bars(count: int, seed: int) -> Samples:
    """Noisy horizontal (0) and vertical (1) bars, 4x4."""
    rng = np.random.default_rng(seed)
    y = np.arange(count, dtype=np.int64) % 2
    x = rng.uniform(0, 0.4, (count, 1, 4, 4)).astype(np.float32)
    for sample, label, place in zip(x, y, rng.integers(1, 3, count), strict=True):
        sample[0, place, :] += 0.6 * (label == 0)
        sample[0, :, place] += 0.6 * (label == 1)
    return Samples(x, y)


TRAIN, VALIDATION = bars(80, 0), bars(30, 1)


def assert_equal_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
