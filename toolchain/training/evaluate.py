"""Predictions and accuracy of a model on arrays, in chunks of bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from snn_export.data.dataset import Samples
from snn_export.models.diagnostics import UserError
from snn_export.training.evaluating import evaluating

Network = nn.Module
"""A network of any kind, named here for modules that do not import torch."""

CHUNK = 256
"""Samples per forward pass: bounds the memory, which for a student grows with T."""


def logits(model: nn.Module, x: NDArray[np.float32], chunk: int = CHUNK) -> NDArray[np.float32]:
    """Logits (N, K) of inputs (N, *shape), in evaluation mode and without gradient. The model's mode is restored."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with torch.no_grad(), evaluating(model):
        parts = [model(torch.tensor(x[start : start + chunk]).to(device)).cpu().numpy() for start in range(0, len(x), chunk)]
    return np.concatenate(parts)


def predictions(model: nn.Module, x: NDArray[np.float32], chunk: int = CHUNK) -> NDArray[np.int64]:
    """Predicted class (N,) of inputs (N, *shape); ties go to the lowest class."""
    classes: NDArray[np.int64] = np.argmax(logits(model, x, chunk), axis=1).astype(np.int64)
    return classes


def accuracy(model: nn.Module, samples: Samples, chunk: int = CHUNK) -> float:
    """Share of samples classified correctly, 0..1; UserError SNX312 where there are none."""
    if len(samples) == 0:
        raise UserError(
            "SNX312", "accuracy of no samples", where="samples", why="a share of nothing is not a number",
            fix="pass at least one sample",
        )  # fmt: skip
    return float(np.mean(predictions(model, samples.x, chunk) == samples.y))
