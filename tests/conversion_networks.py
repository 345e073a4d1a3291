"""Small teachers with statistics and thresholds of their own, for tests of conversions."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from snn_export.data.registry import load_dataset
from snn_export.models.teachers.qcfs_activation import QcfsActivation
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.teacher import Teacher
from snn_export.training.conversion.conversion import Conversion

SHAPE = (1, 8, 8)


@cache
def digits(count: int = 64) -> Tensor:
    """Training digits, (count, 1, 8, 8)."""
    return torch.tensor(load_dataset("digits", 0).x_train[:count])


def untrained(conversion: Conversion, name: str = "convnet", width: int = 4, seed: int = 1) -> Teacher:
    """A prepared source that was shown the digits, every norm and staircase with numbers of its own, in evaluation mode."""
    source = conversion.prepare_source(build_teacher(name, seed=seed, input_shape=SHAPE, classes=10, width=width))
    generator = torch.Generator().manual_seed(seed)
    source.train()
    norms = [layer for layer in source.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]
    with torch.no_grad():
        for layer in source.modules():
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                layer.momentum = 1.0  # one pass is enough
                layer.weight.uniform_(0.5, 2.0, generator=generator)
                layer.bias.uniform_(-0.2, 0.8, generator=generator)
            if isinstance(layer, QcfsActivation):
                layer.threshold.uniform_(1.0, 3.0, generator=generator)
        source(digits(128))
        for norm in norms:
            norm.momentum = 0.1
    return source.eval()
