"""Convolutions over time: a feed-forward teacher for sequences."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.teacher import Teacher, TeacherConfig

KERNEL = 5
"""Steps that one convolution sees."""


class TimeLast(nn.Module):
    """(B, T, F) as (B, F, T), what convolutions over time take. (B, F) is a sequence of one step."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The time axis moved behind the features."""
        return inputs.transpose(1, 2) if inputs.ndim == 3 else inputs.unsqueeze(2)


class MeanOverTime(nn.Module):
    """(B, F, T) -> (B, F)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The mean over the last axis."""
        return inputs.mean(dim=-1)


def build_conv1d(config: TeacherConfig) -> Teacher:
    """Conv over 5 steps (width) - BN - ReLU twice, the mean over time, one dense layer to the classes.

    Inputs (B, T, F) for the input_shape (F,). Stage: mean, (B, width), never negative. UserError SNX012 for another input_shape.
    """
    if len(config.input_shape) != 1:
        raise UserError(
            "SNX012", f"the conv1d teacher cannot take inputs of shape {config.input_shape}", where="input_shape",
            why="it runs over a sequence of feature vectors", fix="give the shape of one step, e.g. input_shape = (700,)",
        )  # fmt: skip
    layers: OrderedDict[str, nn.Module] = OrderedDict(order=TimeLast())
    channels = config.input_shape[0]
    for number in (1, 2):
        layers[f"conv{number}"] = nn.Conv1d(channels, config.width, KERNEL, padding=KERNEL // 2, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm1d(config.width)
        layers[f"relu{number}"] = nn.ReLU()
        channels = config.width
    layers["mean"] = MeanOverTime()
    layers["dense"] = nn.Linear(channels, config.classes)
    return Teacher(config, nn.Sequential(layers), stages=("mean",))
