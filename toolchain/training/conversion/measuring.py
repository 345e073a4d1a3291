"""What the activations of a network are on some inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snn_export.models.teachers.teacher import Teacher
from snn_export.training.conversion.scaling import ACTIVATIONS, source_layers
from snn_export.training.evaluating import evaluating

Measured = TypeVar("Measured")


def measure(source: Teacher, inputs: Tensor, reduce: Callable[[Tensor], Measured]) -> dict[str, Measured]:
    """``reduce`` of every activation's output (B, *features), by name, from one pass in evaluation mode; no output is kept."""
    found: dict[str, Measured] = {}

    def listening(name: str, layer: nn.Module) -> RemovableHandle:
        def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            found[name] = reduce(output)

        return layer.register_forward_hook(hook)

    handles = [listening(name, layer) for name, layer in source_layers(source) if isinstance(layer, ACTIVATIONS)]
    try:
        with torch.no_grad(), evaluating(source):
            source(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def channel_means(values: Tensor) -> Tensor:
    """Mean per channel (C,) of (B, C, *space), or per feature of (B, C)."""
    return values.flatten(2).mean(dim=(0, 2)) if values.ndim > 2 else values.mean(dim=0)
