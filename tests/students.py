"""What tests do with students of any name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snn_export.models.students.student import SpikingStudent


def lively(student: SpikingStudent, inputs: Tensor) -> SpikingStudent:
    """In evaluation mode, with the batch statistics it would have learnt: without them deep layers never fire."""
    for module in student.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = None
    with torch.no_grad():
        student.train()(inputs)
    return student.eval()


def without_gradient(module: nn.Module) -> list[str]:
    """Parameters that learnt nothing from the last backward pass."""
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
