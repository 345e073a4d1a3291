"""A small convolutional ReLU teacher, layer for layer the shape of the convnet student but wider."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.teacher import Teacher, TeacherConfig


def build_convnet(config: TeacherConfig) -> Teacher:
    """Conv 3x3 (width) - BN - ReLU - average pool 2 - conv 3x3 (2 width) - BN - ReLU - dense.

    Inputs (B, C, H, W) with H and W of at least 2. UserError SNX012 for another shape.
    """
    if len(config.input_shape) != 3 or min(config.input_shape[1:]) < 2:
        raise UserError(
            "SNX012", f"the convnet teacher cannot take inputs of shape {config.input_shape}", where="input_shape",
            why="it needs (channels, height, width) with room for one 2x2 pool", fix="give images such as (1, 8, 8)",
        )  # fmt: skip
    channels, height, width = config.input_shape
    hidden = 2 * config.width
    return Teacher(
        config,
        nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, config.width, 3, padding=1, bias=False),
                norm1=nn.BatchNorm2d(config.width),
                relu1=nn.ReLU(),
                pool1=nn.AvgPool2d(2),
                conv2=nn.Conv2d(config.width, hidden, 3, padding=1, bias=False),
                norm2=nn.BatchNorm2d(hidden),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                dense=nn.Linear(hidden * (height // 2) * (width // 2), config.classes),
            )
        ),
    )
