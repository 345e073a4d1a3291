"""The ReLU networks of the shape of the spiking VGG students."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.teacher import Teacher, TeacherConfig

VGG9 = ((1, 1), (2, 2), (4, 4, 4))
"""Channels of the convolutions of each resolution, as multiples of the width."""
VGG9_HIDDEN = (16,)
"""Neurons of the hidden dense layers, as multiples of the width."""
VGG11 = ((1,), (2,), (4, 4), (8, 8), (8, 8))
VGG11_HIDDEN = (8, 8)


def build_vgg9(config: TeacherConfig) -> Teacher:
    """Conv 3x3 - BN - ReLU seven times in three resolutions, one hidden dense layer - BN - ReLU, one dense layer.

    Inputs (B, C, H, W) with H and W of at least 8, halved by average pools. Stages relu2, relu4, relu7 stand where those of the
    student do. UserError SNX012 for another shape.
    """
    return _build(config, VGG9, VGG9_HIDDEN)


def build_vgg11(config: TeacherConfig) -> Teacher:
    """Conv 3x3 - BN - ReLU eight times in five resolutions, two hidden dense layers - BN - ReLU, one dense layer.

    Inputs (B, C, H, W) with H and W of at least 32, halved by average pools. Stages relu1, relu2, relu4, relu6, relu8 stand where
    those of the student do. UserError SNX012 for another shape.

    Source: configuration A of Simonyan and Zisserman, ICLR 2015, with average pools and narrow dense layers.
    """
    return _build(config, VGG11, VGG11_HIDDEN)


def _build(config: TeacherConfig, resolutions: tuple[tuple[int, ...], ...], hidden: tuple[int, ...]) -> Teacher:
    shrinks = 2 ** len(resolutions)
    if len(config.input_shape) != 3 or min(config.input_shape[1:]) < shrinks:
        raise UserError(
            "SNX012", f"the {config.name} teacher cannot take inputs of shape {config.input_shape}", where="input_shape",
            why=f"it needs (channels, height, width) and halves height and width {len(resolutions)} times",
            fix="give images such as (3, 32, 32)",
        )  # fmt: skip
    channels, height, width = config.input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    stages, number = [], 0
    for resolution, multiples in enumerate(resolutions, 1):
        for multiple in multiples:
            number += 1
            layers[f"conv{number}"] = nn.Conv2d(channels, multiple * config.width, 3, padding=1, bias=False)
            channels = multiple * config.width
            layers[f"norm{number}"] = nn.BatchNorm2d(channels)
            layers[f"relu{number}"] = nn.ReLU()
        stages.append(f"relu{number}")
        layers[f"pool{resolution}"] = nn.AvgPool2d(2)
    layers["flatten"] = nn.Flatten()
    features = channels * (height // shrinks) * (width // shrinks)
    for multiple in hidden:
        number += 1
        layers[f"dense{number}"] = nn.Linear(features, multiple * config.width, bias=False)
        features = multiple * config.width
        layers[f"norm{number}"] = nn.BatchNorm1d(features)
        layers[f"relu{number}"] = nn.ReLU()
    layers[f"dense{number + 1}"] = nn.Linear(features, config.classes)
    return Teacher(config, nn.Sequential(layers), stages)
