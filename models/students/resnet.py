"""Spiking residual networks: currents added in front of a neuron, or, as an option, spikes added behind it."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from torch import nn

from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.residual import ResidualSum
from snn_export.models.students.student import SpikingStudent, StudentConfig
from snn_export.models.unroll import is_population

SMALL_IMAGE = 64
"""Images with no side longer than this keep their size in the stem; larger ones are brought to a quarter of it first."""
STEM_SHRINKS = 4


@dataclass(frozen=True)
class ResNetPlan:
    """What differs between the networks.

    stages: channels, in multiples of the width, and number of blocks; every stage but the first halves height and width.
    hidden: neurons of a hidden dense layer, in multiples of the width; 0 for none.
    large_stem: whether large images get the stem that brings them to a quarter of their size.
    threshold_norm: whether batch-norms start with a gain of the threshold (tdBN), divided by sqrt(2) where two currents meet.
    """

    stages: tuple[tuple[int, int], ...]
    hidden: int = 0
    large_stem: bool = True
    threshold_norm: bool = False


RESNET18 = ResNetPlan(((1, 2), (2, 2), (4, 2), (8, 2)))
RESNET19 = ResNetPlan(((2, 3), (4, 3), (8, 2)), hidden=4, large_stem=False, threshold_norm=True)


def build_resnet18(config: StudentConfig) -> SpikingStudent:
    """Four stages of two blocks, 64-128-256-512 channels for width 64, the average over space, one dense layer.

    A block is conv 3x3 - BN - LIF - conv 3x3 - BN, plus its input (through a 1x1 convolution - BN where the shape changes), then
    a LIF: currents are added. With ``config.residual`` "spikes" both paths end in a LIF of their own and the spikes are added,
    as in SEW-ResNet (Fang et al., Deep residual learning in spiking neural networks, NeurIPS 2021); see
    :func:`expensive_on_loihi`.

    The stem is conv 3x3 - BN - LIF for images with sides up to 64, else conv 7x7 with stride 2 - BN - LIF - average pool 2 (for
    which sides must be multiples of 4). Inputs (B, C, H, W). Stages are the last LIF of each of stage1 to stage4, e.g.
    "stage1.block2.lif2", or "stage1.block2.sum.main.lif2" where spikes are added (without the shortcut's).

    Source: He et al., Deep residual learning for image recognition, CVPR 2016; Hu et al., Advancing spiking neural networks
    toward deep residual learning, 2021.

    Raises:
        UserError: SNX012 for inputs of another shape, SNX301 where a decay does not fit 12 bits.
    """
    return _build(config, RESNET18)


def build_resnet19(config: StudentConfig) -> SpikingStudent:
    """The wide network for small images: stages of three, three and two blocks with 128-256-512 channels for width 64.

    Its stem has 64 channels, and a hidden dense layer of 256 neurons stands before the classes. Batch-norms start with a gain of
    the threshold, the last of each path of a sum with the threshold / sqrt(2). Blocks as in :func:`build_resnet18`. Inputs
    (B, C, H, W). Stages are the last LIF of each of stage1 to stage3.

    Source: Zheng et al., Going deeper with directly-trained larger spiking neural networks (tdBN), AAAI 2021, arXiv 2011.05280;
    the stem of 64 channels, which gives the 12.63 M parameters usually reported, follows Deng et al., Temporal efficient
    training, ICLR 2022. The hidden dense layer has a batch-norm here, which those networks lack.

    Raises:
        UserError: SNX012 for inputs of another shape, SNX301 where a decay does not fit 12 bits.
    """
    return _build(config, RESNET19)


def expensive_on_loihi(student: SpikingStudent) -> tuple[Diagnostic, ...]:
    """A warning (SNX283) where weight layers take sums of spikes, with what that costs; empty where only currents are added.

    A sum of n spike trains is a graded value. A chip either sends it as a message of several bits, or hears each train through a
    copy of the weights of its own; the export does the second, which is exact on every chip.
    """
    walk = _SpikeSums()
    walk.run("", student.layers, ())
    if not walk.found:
        return ()
    name, trains = max(walk.found.items(), key=lambda item: len(item[1]))
    return (
        Diagnostic(
            "SNX283", f"{len(walk.found)} weight layers take sums of spikes, '{name}' those of {', '.join(trains)}", where=name,
            why="a sum of spikes is graded: Loihi would carry it in messages of several bits, with an integer product per "
            f"synapse; the export gives each train its own copy of the weights, {walk.copied} weights in place of {walk.weights}",
            fix="build the student with residual='currents', which adds behind the synapses and costs nothing",
            severity="warning",
        ),
    )  # fmt: skip


@dataclass
class _SpikeSums:
    """Which weight layers take more than one spike train."""

    found: dict[str, tuple[str, ...]] = field(default_factory=dict)
    weights: int = 0
    copied: int = 0

    def run(self, name: str, layer: nn.Module, trains: tuple[str, ...]) -> tuple[str, ...]:
        """The populations whose spikes, added up, are what the layer puts out; none behind weights."""
        if isinstance(layer, nn.Sequential):
            for child_name, child in layer.named_children():
                trains = self.run(f"{name}.{child_name}" if name else child_name, child, trains)
            return trains
        if isinstance(layer, ResidualSum):
            main = self.run(f"{name}.main", layer.main, trains)
            return main + self.run(f"{name}.shortcut", layer.shortcut, trains)
        if is_population(layer):
            return (name,)
        if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            return trains
        self.weights += layer.weight.numel()
        self.copied += layer.weight.numel() * max(len(trains), 1)
        if len(trains) > 1:
            self.found[name] = trains
        return ()


def _build(config: StudentConfig, plan: ResNetPlan) -> SpikingStudent:
    large = _checked(config, plan)
    shrinks = STEM_SHRINKS if large else 1
    height, width = (side // shrinks for side in config.input_shape[1:])
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=_stem(config, plan, large))
    channels, stages = config.width, []
    for number, (multiple, blocks) in enumerate(plan.stages, 1):
        stage: OrderedDict[str, nn.Module] = OrderedDict()
        for block in range(1, blocks + 1):
            stride = 2 if number > 1 and block == 1 else 1
            stage[f"block{block}"] = _block(config, plan, (channels, multiple * config.width), stride)
            channels = multiple * config.width
            height, width = math.ceil(height / stride), math.ceil(width / stride)
        layers[f"stage{number}"] = nn.Sequential(stage)
        last = "lif2" if config.residual == "currents" else "sum.main.lif2"
        stages.append(f"stage{number}.block{blocks}.{last}")
    layers["pool"] = nn.AvgPool2d((height, width))
    layers["flatten"] = nn.Flatten()
    if plan.hidden:
        hidden = plan.hidden * config.width
        layers["dense1"] = nn.Linear(channels, hidden, bias=False)
        layers["norm1"] = _gain(nn.BatchNorm1d(hidden), config, plan)
        layers["lif1"] = config.population()
        channels = hidden
    layers["dense2" if plan.hidden else "dense"] = nn.Linear(channels, config.classes)
    layers["readout"] = Integrator()
    return SpikingStudent(config, nn.Sequential(layers), stages)


def _checked(config: StudentConfig, plan: ResNetPlan) -> bool:
    """Whether images of this shape take the stem for large ones."""
    shape = config.input_shape
    large = plan.large_stem and len(shape) == 3 and max(shape[1:]) > SMALL_IMAGE
    if len(shape) != 3 or (large and any(side % STEM_SHRINKS for side in shape[1:])):
        raise UserError(
            "SNX012", f"the {config.name} student cannot take inputs of shape {shape}", where="input_shape",
            why="it needs (channels, height, width), and brings sides to a quarter, through a 2x2 pool, where one exceeds 64",
            fix="pad or resize the images to multiples of 4, e.g. (3, 224, 224)",
        )  # fmt: skip
    return large


def _stem(config: StudentConfig, plan: ResNetPlan, large: bool) -> nn.Sequential:
    channels = config.input_shape[0]
    kernel, stride, padding = (7, 2, 3) if large else (3, 1, 1)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels, config.width, kernel, stride=stride, padding=padding, bias=False),
        norm=_gain(nn.BatchNorm2d(config.width), config, plan),
        lif=config.population(),
    )
    if large:
        layers["pool"] = nn.AvgPool2d(2)
    return nn.Sequential(layers)


def _block(config: StudentConfig, plan: ResNetPlan, channels: tuple[int, int], stride: int) -> nn.Sequential:
    """Two convolutions and a shortcut; ``channels`` at the input and at the output."""
    given, wanted = channels
    added = config.residual == "currents"
    main: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(given, wanted, 3, stride=stride, padding=1, bias=False),
        norm1=_gain(nn.BatchNorm2d(wanted), config, plan),
        lif1=config.population(),
        conv2=nn.Conv2d(wanted, wanted, 3, padding=1, bias=False),
        norm2=_gain(nn.BatchNorm2d(wanted), config, plan, summed=added),
    )
    projection: OrderedDict[str, nn.Module] = OrderedDict()
    if stride > 1 or given != wanted:
        projection["conv"] = nn.Conv2d(given, wanted, 1, stride=stride, bias=False)
        projection["norm"] = _gain(nn.BatchNorm2d(wanted), config, plan, summed=added)
    if not added:
        main["lif2"] = config.population()
        if projection:
            projection["lif"] = config.population()
    paths = ResidualSum(nn.Sequential(main), nn.Sequential(projection) if projection else None)
    block: OrderedDict[str, nn.Module] = OrderedDict(sum=paths)
    if added:
        block["lif2"] = config.population()
    return nn.Sequential(block)


def _gain(
    norm: nn.BatchNorm1d | nn.BatchNorm2d, config: StudentConfig, plan: ResNetPlan, *, summed: bool = False
) -> nn.BatchNorm1d | nn.BatchNorm2d:
    """The batch-norm with the gain it starts from; two currents of variance 1/2 add up to one of variance 1."""
    if plan.threshold_norm:
        nn.init.constant_(norm.weight, config.threshold / math.sqrt(2) if summed else config.threshold)
    return norm
