"""Calibration: thresholds of least squared error for T steps, then biases that make every channel's mean right.

Source: Li, Deng, Dong, Gong and Gu, A free lunch from ANN: towards efficient, accurate spiking neural networks calibration,
ICML 2021, and its released code: the light pipeline. The half step that is added to every bias is from Deng and Gu, Optimal
conversion of conventional artificial neural networks to spiking neural networks, ICLR 2021.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.teacher import Teacher
from snn_export.models.unroll import unroll
from snn_export.training.conversion.conversion import Conversion
from snn_export.training.conversion.measuring import channel_means, measure
from snn_export.training.conversion.scaling import ACTIVATIONS, NORMS, WEIGHTS, pair_layers
from snn_export.training.settings import TrainingSettings

CANDIDATES = 95
"""Thresholds tried: the largest activation times 1.00, 0.99, ... 0.06."""
_MOST_VALUES = 1 << 20
"""Activations a threshold is chosen on; of more, an even selection."""
_STEPS_AT_ONCE = 1024
"""Samples times steps that go through a layer together: bounds the memory."""


@dataclass(frozen=True)
class Calibration:
    """Least-error thresholds, a half step in every bias where ``shift``, and ``bias_correction``. One network per T.

    threshold   minimises sum (clip(floor(x T / theta), 0, T) theta / T - x)^2 over the activations x
    shift       bias += theta / 2T: over T steps half a threshold, so that rates are rounded, not cut off
    correction  layer by layer in order: bias += mean(activation) - theta mean(spikes), per channel, over the inputs

    All of it ends up in weights and biases, so the result begins with a membrane of zero and can be deployed as it stands. The
    advanced pipeline's other half, an initial membrane T (mean difference) per neuron, is left out: neither a student's record
    nor a chip holds one membrane per neuron. Nor are weights calibrated: the released code finds no use for it on CIFAR.
    """

    shift: bool = True
    bias_correction: bool = True

    @property
    def initial(self) -> float:
        """Zero: the half threshold is in the biases."""
        return 0.0

    @property
    def depends_on_steps(self) -> bool:
        """True: thresholds and biases are made for one T."""
        return True

    def prepare(self, teacher: Teacher) -> Teacher:
        """A copy of ``teacher``: an ordinary ReLU network is what this method converts."""
        return copy.deepcopy(teacher)

    def thresholds(self, source: Teacher, inputs: Tensor, steps: int) -> Mapping[str, float]:
        """Of least squared error on ``inputs``; 0 for a layer that is silent on all of them."""
        return measure(source, inputs, lambda values: least_error_threshold(values, steps))

    def correct(self, student: SpikingStudent, source: Teacher, inputs: Tensor, thresholds: Mapping[str, float]) -> None:
        """Shift and correct the biases."""
        segments, steps = _segments(student, source), student.config.steps
        if self.shift:
            for segment in segments:
                segment.bias.add_(0.5 / steps)
        if self.bias_correction:
            wanted = measure(source, inputs, channel_means)
            means = {name: mean.cpu() / thresholds[name] for name, mean in wanted.items()}
            _correct_biases(segments, inputs.cpu(), steps, means)


@dataclass(frozen=True)
class _Segment:
    """Layers up to and with a population, the name of the source's activation, and the bias (C,) that reaches its channels."""

    layers: nn.Sequential
    activation: str
    bias: Tensor

    def fire(self, inputs: Tensor, steps: int, *, constant: bool) -> Tensor:
        """Spikes (T, B, *features) as bytes, of inputs (B, *shape), or of spikes (T, B, *features)."""
        heard: list[Tensor] = []
        values = inputs if constant else inputs.to(self.bias.dtype)
        unroll(self.layers, values, steps, constant=constant, listen=lambda _, spikes: heard.append(spikes.to(torch.uint8)))
        return heard[0]


def _segments(student: SpikingStudent, source: Teacher) -> list[_Segment]:
    """The student cut behind every population, in order of flow; UserError SNX352 where one has no bias in front of it."""
    found: list[_Segment] = []
    layers: list[nn.Module] = []
    bias: Tensor | None = None
    for pair in pair_layers(student, source):
        layers.append(pair.student)
        if isinstance(pair.student, (*WEIGHTS, *NORMS)):
            bias = pair.student.bias
        elif isinstance(pair.source, ACTIVATIONS):
            if bias is None:
                raise UserError(
                    "SNX352", f"no bias stands in front of '{pair.name}'", where="convert(source)",
                    why="calibration corrects biases", fix="use a network with a batch-norm or a bias in front of every ReLU",
                )  # fmt: skip
            found.append(_Segment(nn.Sequential(*layers, Integrator()), pair.name, bias))
            layers = []
    return found


def _correct_biases(segments: Sequence[_Segment], inputs: Tensor, steps: int, means: Mapping[str, Tensor]) -> None:
    """Make the mean rates those of the activations, segment by segment; what comes behind hears the corrected spikes."""
    heard = list(torch.split(inputs, max(1, _STEPS_AT_ONCE // steps)))
    for index, segment in enumerate(segments):
        fired = [segment.fire(part, steps, constant=index == 0) for part in heard]
        rates = sum(channel_means(spikes.float().mean(dim=0)) * spikes.shape[1] for spikes in fired) / len(inputs)
        segment.bias.add_(means[segment.activation] - rates)
        heard = [segment.fire(part, steps, constant=index == 0) for part in heard]


def least_error_threshold(values: Tensor, steps: int) -> float:
    """The threshold whose T-step staircase is nearest to ``values`` (any shape) in the mean of squares; 0 where none is positive.

    Candidates are the largest value times 1.00, 0.99, ... 0.06, as in the released code.
    """
    active = values[values > 0]  # the others are met exactly by every threshold
    if not active.numel():
        return 0.0
    largest = active.max()
    chosen = active[:: -(-active.numel() // _MOST_VALUES)]
    errors = []
    for index in range(CANDIDATES):
        threshold = largest * (1.0 - 0.01 * index)
        staircase = (chosen * (steps / threshold)).clamp_(0.0, steps).floor_() * (threshold / steps)
        errors.append(float((staircase - chosen).square_().mean()))
    return float(largest) * (1.0 - 0.01 * int(torch.tensor(errors).argmin()))


CONVERSION = Conversion(
    name="calibration",
    method=Calibration(),
    citation="Li et al., A free lunch from ANN: towards efficient, accurate spiking neural networks calibration, ICML 2021",
    settings=TrainingSettings(
        epochs=300, batch_size=128, learning_rate=0.1, weight_decay=5e-4, optimizer="sgd", momentum=0.9, schedule="cosine",
        augmentation=("crop", "flip", "autoaugment", "cutout"),
    ),
    summary="thresholds of least error for T steps, then biases corrected per channel, of an ordinary ReLU network",
    inferred=(
        "thresholds are chosen on all calibration inputs at once; the released code averages over batches",
        "the readout's bias is not corrected, as in the released code",
    ),
    published="CIFAR-10, VGG-16: 93.71 % at T = 32 with the advanced pipeline, as the QCFS paper lists it",
)  # fmt: skip
