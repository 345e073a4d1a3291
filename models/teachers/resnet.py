"""Residual ReLU networks: the shapes of the spiking ResNet students."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.teacher import Teacher, TeacherConfig

SMALL_IMAGE = 64
"""Images with no side longer than this keep their size in the stem of ResNet-18."""
RESNET18 = ((1, 2), (2, 2), (4, 2), (8, 2))
"""Channels of each stage as multiples of the width, and its number of blocks."""
RESNET19 = ((2, 3), (4, 3), (8, 2))
RESNET19_HIDDEN = 4


class BasicBlock(nn.Module):
    """relu(BN(conv(relu(BN(conv(x))))) + shortcut(x)), maps of (B, C, H, W) to (B, C', H/stride, W/stride).

    The shortcut is x itself, or a 1x1 convolution - BN where the shape changes.

    Source: He et al., Deep residual learning for image recognition, CVPR 2016.
    """

    def __init__(self, given: int, wanted: int, stride: int) -> None:
        """``given`` channels at the input, ``wanted`` at the output."""
        super().__init__()
        self.main = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(given, wanted, 3, stride=stride, padding=1, bias=False),
                norm1=nn.BatchNorm2d(wanted),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(wanted, wanted, 3, padding=1, bias=False),
                norm2=nn.BatchNorm2d(wanted),
            )
        )
        projection = OrderedDict(conv=nn.Conv2d(given, wanted, 1, stride=stride, bias=False), norm=nn.BatchNorm2d(wanted))
        self.shortcut = nn.Sequential(projection if stride > 1 or given != wanted else OrderedDict())

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps behind the second ReLU."""
        return torch.relu(self.main(inputs) + self.shortcut(inputs))


def build_resnet18(config: TeacherConfig) -> Teacher:
    """Four stages of two blocks, 64-128-256-512 channels for width 64, the average over space, one dense layer.

    Stem: conv 3x3 - BN - ReLU for images with sides up to 64, else conv 7x7 with stride 2 - BN - ReLU - *average* pool 2, so that
    a spiking student can have the same. Inputs (B, C, H, W) with H and W of at least 4. Stages: stage1 to stage4. UserError
    SNX012 for another shape.

    Source: He et al., CVPR 2016.
    """
    return _build(config, RESNET18, hidden=0, large_stem=True)


def build_resnet19(config: TeacherConfig) -> Teacher:
    """Stages of three, three and two blocks, 128-256-512 channels for width 64 behind a stem of 64, a hidden dense layer of 256.

    Inputs (B, C, H, W) with H and W of at least 4. Stages: stage1 to stage3. UserError SNX012 for another shape.

    Source: the ReLU form of Zheng et al., Going deeper with directly-trained larger spiking neural networks, AAAI 2021.
    """
    return _build(config, RESNET19, hidden=RESNET19_HIDDEN, large_stem=False)


def _build(config: TeacherConfig, stages: tuple[tuple[int, int], ...], *, hidden: int, large_stem: bool) -> Teacher:
    if len(config.input_shape) != 3 or min(config.input_shape[1:]) < 4:
        raise UserError(
            "SNX012", f"the {config.name} teacher cannot take inputs of shape {config.input_shape}", where="input_shape",
            why="it needs (channels, height, width) with room to halve height and width", fix="give images such as (3, 32, 32)",
        )  # fmt: skip
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=_stem(config, large=large_stem and max(config.input_shape[1:]) > SMALL_IMAGE)
    )
    channels = config.width
    for number, (multiple, blocks) in enumerate(stages, 1):
        stage: OrderedDict[str, nn.Module] = OrderedDict()
        for block in range(1, blocks + 1):
            stage[f"block{block}"] = BasicBlock(channels, multiple * config.width, 2 if number > 1 and block == 1 else 1)
            channels = multiple * config.width
        layers[f"stage{number}"] = nn.Sequential(stage)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    if hidden:
        layers["dense1"] = nn.Linear(channels, hidden * config.width, bias=False)
        layers["norm1"] = nn.BatchNorm1d(hidden * config.width)
        layers["relu1"] = nn.ReLU()
        channels = hidden * config.width
    layers["dense2" if hidden else "dense"] = nn.Linear(channels, config.classes)
    return Teacher(config, nn.Sequential(layers), stages=[f"stage{number}" for number in range(1, len(stages) + 1)])


def _stem(config: TeacherConfig, *, large: bool) -> nn.Sequential:
    kernel, stride, padding = (7, 2, 3) if large else (3, 1, 1)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(config.input_shape[0], config.width, kernel, stride=stride, padding=padding, bias=False),
        norm=nn.BatchNorm2d(config.width),
        relu=nn.ReLU(),
    )
    if large:
        layers["pool"] = nn.AvgPool2d(2)
    return nn.Sequential(layers)
