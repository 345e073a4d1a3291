"""A small convolutional student: two convolutions with batch-norm and LIF, one dense layer, an integrator."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.students.student import SpikingStudent, StudentConfig


def build_convnet(config: StudentConfig) -> SpikingStudent:
    """Conv 3x3 (width) - BN - LIF - average pool 2 - conv 3x3 (2 width) - BN - LIF - dense - integrator.

    Inputs (B, C, H, W) with even H and W. The pool follows the spikes and precedes ``conv2``, so that the export can absorb it
    into ``conv2`` exactly. Convolutions have no bias: the batch-norm behind them brings one.

    Raises:
        UserError: SNX012 where the input is no image with even sides, SNX301 where dv does not fit 12 bits.
    """
    if len(config.input_shape) != 3 or config.input_shape[1] % 2 or config.input_shape[2] % 2:
        raise UserError(
            "SNX012", f"the convnet student cannot take inputs of shape {config.input_shape}", where="input_shape",
            why="it needs (channels, height, width), and even sides: a 2x2 pool over an odd side cannot be absorbed exactly",
            fix="pad or crop the images to even sides, e.g. (1, 28, 28)",
        )  # fmt: skip
    channels, height, width = config.input_shape
    hidden = 2 * config.width
    return SpikingStudent(
        config,
        nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, config.width, 3, padding=1, bias=False),
                norm1=nn.BatchNorm2d(config.width),
                lif1=config.population(),
                pool1=nn.AvgPool2d(2),
                conv2=nn.Conv2d(config.width, hidden, 3, padding=1, bias=False),
                norm2=nn.BatchNorm2d(hidden),
                lif2=config.population(),
                flatten=nn.Flatten(),
                dense=nn.Linear(hidden * (height // 2) * (width // 2), config.classes),
                readout=Integrator(),
            )
        ),
        stages=("lif1", "lif2"),
    )
