"""Two hidden dense layers of LIF neurons."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from snn_export.models.neurons.integrator import Integrator
from snn_export.models.students.student import SpikingStudent, StudentConfig

HIDDEN_LAYERS = 2


def build_dense(config: StudentConfig) -> SpikingStudent:
    """Dense (width) - BN - LIF twice, one dense layer to the classes, an integrator.

    Inputs (B, F), or (B, C, H, W), which is flattened first; with a time axis for events. Dense layers in front of a batch-norm
    have no bias: it brings one. Stages: lif1, lif2. UserError SNX301 where a decay does not fit 12 bits.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(config.input_shape) > 1:
        layers["flatten"] = nn.Flatten()
    features = math.prod(config.input_shape)
    for number in range(1, HIDDEN_LAYERS + 1):
        layers[f"dense{number}"] = nn.Linear(features, config.width, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm1d(config.width)
        layers[f"lif{number}"] = config.population()
        features = config.width
    layers[f"dense{HIDDEN_LAYERS + 1}"] = nn.Linear(features, config.classes)
    layers["readout"] = Integrator()
    return SpikingStudent(config, nn.Sequential(layers), stages=[f"lif{number}" for number in range(1, HIDDEN_LAYERS + 1)])
