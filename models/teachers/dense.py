"""The ReLU network of the dense student's shape."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from snn_export.models.teachers.teacher import Teacher, TeacherConfig

HIDDEN_LAYERS = 2


def build_dense(config: TeacherConfig) -> Teacher:
    """Dense (width) - BN - ReLU twice, one dense layer to the classes.

    Inputs (B, F), or (B, C, H, W), which is flattened first. Stages relu1, relu2 stand where those of the student do.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(config.input_shape) > 1:
        layers["flatten"] = nn.Flatten()
    features = math.prod(config.input_shape)
    for number in range(1, HIDDEN_LAYERS + 1):
        layers[f"dense{number}"] = nn.Linear(features, config.width, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm1d(config.width)
        layers[f"relu{number}"] = nn.ReLU()
        features = config.width
    layers[f"dense{HIDDEN_LAYERS + 1}"] = nn.Linear(features, config.classes)
    return Teacher(config, nn.Sequential(layers))
