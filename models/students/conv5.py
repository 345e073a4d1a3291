"""Five convolutions in three stages: the small student for colour images, e.g. CIFAR-10 on a laptop."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.students.student import SpikingStudent, StudentConfig

LAYERS = ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1))
"""Channels as multiples of the width, and stride, of each convolution: 32-32-64-64-128 for width 32."""


def build_conv5(config: StudentConfig) -> SpikingStudent:
    """Conv 3x3 - BN - LIF five times, strides 1, 2, 1, 2, 1, then the average over space, one dense layer, an integrator.

    Inputs (B, C, H, W) with H and W multiples of 4. Stages end where the resolution is about to change: lif1 (H x W), lif3
    (H/2 x W/2), lif5 (H/4 x W/4).

    Raises:
        UserError: SNX012 for inputs of another shape, SNX301 where dv does not fit 12 bits.
    """
    if len(config.input_shape) != 3 or config.input_shape[1] % 4 or config.input_shape[2] % 4:
        raise UserError(
            "SNX012", f"the conv5 student cannot take inputs of shape {config.input_shape}", where="input_shape",
            why="it needs (channels, height, width), and halves height and width twice",
            fix="pad or crop the images to multiples of 4, e.g. (3, 32, 32)",
        )  # fmt: skip
    channels, height, width = config.input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (multiple, stride) in enumerate(LAYERS, 1):
        wider = multiple * config.width
        layers[f"conv{number}"] = nn.Conv2d(channels, wider, 3, stride=stride, padding=1, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm2d(wider)
        layers[f"lif{number}"] = config.population()
        channels = wider
    layers["pool"] = nn.AvgPool2d((height // 4, width // 4))
    layers["flatten"] = nn.Flatten()
    layers["dense"] = nn.Linear(channels, config.classes)
    layers["readout"] = Integrator()
    return SpikingStudent(config, nn.Sequential(layers), stages=("lif1", "lif3", "lif5"))
