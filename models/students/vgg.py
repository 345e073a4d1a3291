"""Spiking VGG networks: stacks of 3x3 convolutions with average pooling between the resolutions."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.students.student import SpikingStudent, StudentConfig


@dataclass(frozen=True)
class VggPlan:
    """Channels of the convolutions of each resolution, and neurons of the hidden dense layers, all in multiples of the width."""

    resolutions: tuple[tuple[int, ...], ...]
    hidden: tuple[int, ...]


VGG9 = VggPlan(((1, 1), (2, 2), (4, 4, 4)), hidden=(16,))
VGG11 = VggPlan(((1,), (2,), (4, 4), (8, 8), (8, 8)), hidden=(8, 8))


def build_vgg9(config: StudentConfig) -> SpikingStudent:
    """Seven convolutions in three resolutions, one hidden dense layer, one dense layer to the classes.

    64-64-P-128-128-P-256-256-256-P-1024-K for width 64, P a 2x2 average pool; every convolution and the hidden layer with
    batch-norm and LIF. Inputs (B, C, H, W) with H and W multiples of 8. Stages: lif2 (H x W), lif4 (H/2), lif7 (H/4).

    Source: Lee et al., Enabling spike-based backpropagation for training deep neural network architectures, Frontiers in
    Neuroscience 14:119, 2020, which has dropout in place of batch-norm.

    Raises:
        UserError: SNX012 for inputs of another shape, SNX301 where a decay does not fit 12 bits.
    """
    return _build(config, VGG9)


def build_vgg11(config: StudentConfig) -> SpikingStudent:
    """Eight convolutions in five resolutions, two hidden dense layers, one dense layer to the classes.

    64-P-128-P-256-256-P-512-512-P-512-512-P-512-512-K for width 64, otherwise as :func:`build_vgg9`. Inputs (B, C, H, W) with H
    and W multiples of 32. Stages: lif1, lif2, lif4, lif6, lif8.

    Source: configuration A of Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition, ICLR
    2015, with the narrow dense layers that are usual for 32x32 images (512 in place of 4096).

    Raises:
        UserError: SNX012 for inputs of another shape, SNX301 where a decay does not fit 12 bits.
    """
    return _build(config, VGG11)


def _build(config: StudentConfig, plan: VggPlan) -> SpikingStudent:
    """Pools follow spikes and precede weights, and sides are even where they are halved: the export absorbs them exactly."""
    shrinks = 2 ** len(plan.resolutions)
    if len(config.input_shape) != 3 or any(side % shrinks for side in config.input_shape[1:]):
        raise UserError(
            "SNX012", f"the {config.name} student cannot take inputs of shape {config.input_shape}", where="input_shape",
            why=f"it needs (channels, height, width), and halves height and width {len(plan.resolutions)} times: a 2x2 pool over "
            "an odd side cannot be absorbed exactly",
            fix=f"pad or resize the images to multiples of {shrinks}, e.g. (3, 32, 32)",
        )  # fmt: skip
    channels, height, width = config.input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    stages, number = [], 0
    for resolution, multiples in enumerate(plan.resolutions, 1):
        for multiple in multiples:
            number += 1
            layers[f"conv{number}"] = nn.Conv2d(channels, multiple * config.width, 3, padding=1, bias=False)
            channels = multiple * config.width
            layers[f"norm{number}"] = nn.BatchNorm2d(channels)
            layers[f"lif{number}"] = config.population()
        stages.append(f"lif{number}")
        layers[f"pool{resolution}"] = nn.AvgPool2d(2)
    layers["flatten"] = nn.Flatten()
    features = channels * (height // shrinks) * (width // shrinks)
    for multiple in plan.hidden:
        number += 1
        layers[f"dense{number}"] = nn.Linear(features, multiple * config.width, bias=False)
        features = multiple * config.width
        layers[f"norm{number}"] = nn.BatchNorm1d(features)
        layers[f"lif{number}"] = config.population()
    layers[f"dense{number + 1}"] = nn.Linear(features, config.classes)
    layers["readout"] = Integrator()
    return SpikingStudent(config, nn.Sequential(layers), stages)
