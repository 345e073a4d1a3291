"""The ReLU network of the conv5 student's shape."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.teacher import Teacher, TeacherConfig

LAYERS = ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1))
"""Channels as multiples of the width, and stride, of each convolution."""


def build_conv5(config: TeacherConfig) -> Teacher:
    """Conv 3x3 - BN - ReLU five times, strides 1, 2, 1, 2, 1, then the average over space and one dense layer.

    Inputs (B, C, H, W) with H and W of at least 4. Stages relu1, relu3, relu5 stand where those of the student do.
    UserError SNX012 for another shape.
    """
    if len(config.input_shape) != 3 or min(config.input_shape[1:]) < 4:
        raise UserError(
            "SNX012", f"the conv5 teacher cannot take inputs of shape {config.input_shape}", where="input_shape",
            why="it needs (channels, height, width) and halves height and width twice", fix="give images such as (3, 32, 32)",
        )  # fmt: skip
    channels = config.input_shape[0]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (multiple, stride) in enumerate(LAYERS, 1):
        wider = multiple * config.width
        layers[f"conv{number}"] = nn.Conv2d(channels, wider, 3, stride=stride, padding=1, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm2d(wider)
        layers[f"relu{number}"] = nn.ReLU()
        channels = wider
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["dense"] = nn.Linear(channels, config.classes)
    return Teacher(config, nn.Sequential(layers), stages=("relu1", "relu3", "relu5"))
