"""QCFS: the source learns with a staircase in place of every ReLU, whose steps are the firing rates it will have.

Source: Bu, Fang, Ding, Dai, Yu and Huang, ICLR 2022, and its released code.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.qcfs_activation import QcfsActivation
from snn_export.models.teachers.teacher import Teacher
from snn_export.training.conversion.conversion import Conversion
from snn_export.training.conversion.scaling import activation_names, source_layers
from snn_export.training.settings import TrainingSettings


@dataclass(frozen=True)
class Qcfs:
    """Staircases of ``levels`` steps that begin at ``initial_threshold``; neurons that begin at half their threshold.

    What the initial membrane does: with a constant input x the number of spikes in T steps is the number of whole thresholds in
    T x + theta/2, between 0 and T. That is x T / theta, *rounded*, where a neuron that begins at zero rounds down and so is wrong
    by half a step on average. With T = L this is the staircase that was learnt. In deeper layers inputs vary from step to step,
    and what comes too early or too late is the error that is left.

    The released code fires at u >= theta, this program's neurons at u > theta: different only where x T / theta + 1/2 is a whole
    number exactly, which weights in floating point do not make, but a hand-built network may.

    Raises:
        UserError: SNX354 for less than one level, or an initial threshold that is not positive and finite.
    """

    levels: int = 4
    initial_threshold: float = 2.0
    """The released code begins at 8.0 and has 300 epochs to come down. On the digits (conv5, width 16, L = 4, 20 epochs, three
    seeds) 8.0 leads to 92.0 % at T = 4, 4.0 to 95.0 %, 2.0 to 98.1 %, 1.0 to 98.5 %; sources 97.9, 98.6, 98.8, 98.4 %, and
    99.0 % for ReLUs. So 2.0: the strongest baseline among those whose source loses nothing."""

    def __post_init__(self) -> None:
        QcfsActivation(self.levels, self.initial_threshold)

    @property
    def initial(self) -> float:
        """Half a threshold."""
        return 0.5

    @property
    def depends_on_steps(self) -> bool:
        """False: one network for every T."""
        return False

    def prepare(self, teacher: Teacher) -> Teacher:
        """A copy of ``teacher`` with a staircase in place of every ReLU, under its name."""
        prepared = copy.deepcopy(teacher)
        for name in activation_names(prepared):
            outer, _, last = name.rpartition(".")
            parent = prepared.layers.get_submodule(outer)
            if isinstance(parent.get_submodule(last), nn.ReLU):
                setattr(parent, last, QcfsActivation(self.levels, self.initial_threshold))
        return prepared

    def thresholds(self, source: Teacher, inputs: Tensor, steps: int) -> Mapping[str, float]:
        """Those that were learnt; UserError SNX351 for a ReLU."""
        del inputs, steps
        found: dict[str, float] = {}
        wrong = []
        for name, layer in source_layers(source):
            if isinstance(layer, QcfsActivation):
                found[name] = layer.threshold.item()
            elif isinstance(layer, nn.ReLU):
                wrong.append(Diagnostic(
                    "SNX351", f"layer '{name}' is a ReLU, not a staircase", f"layers.{name}",
                    "QCFS converts a network that was trained with its own activation and learnt its thresholds",
                    "train what prepare_source(teacher) returns, or convert this network with max_norm or calibration",
                ))  # fmt: skip
        if wrong:
            raise UserError.from_diagnostics(tuple(wrong))
        return found

    def correct(self, student: SpikingStudent, source: Teacher, inputs: Tensor, thresholds: Mapping[str, float]) -> None:
        """Nothing more to do."""


CONVERSION = Conversion(
    name="qcfs",
    method=Qcfs(),
    citation="Bu et al., Optimal ANN-SNN conversion for high-accuracy and ultra-low-latency spiking neural networks, ICLR 2022",
    settings=TrainingSettings(
        epochs=300, batch_size=200, learning_rate=0.1, weight_decay=5e-4, optimizer="sgd", momentum=0.9, schedule="cosine",
        augmentation=("crop", "flip", "autoaugment", "cutout"),
    ),
    summary="train with quantised ReLUs of learnt height, run with integrate-and-fire neurons that begin at half their threshold",
    inferred=(
        "the released code also decays thresholds, biases and batch-norm; here weight decay acts on weights alone",
        "thresholds begin at 2.0, not at the released code's 8.0, which short trainings do not recover from",
        "L = 4, the released value for VGG-16 on CIFAR-10; 8 for other networks: Qcfs(levels=8)",
    ),
    published=(
        "CIFAR-10, VGG-16 (source 95.52 %): 91.2 % at T = 2, 93.96 at 4, 94.95 at 8, 95.40 at 16; "
        "CIFAR-100 (source 77.15 %): 71.8 % at T = 8, 75.7 at 16, 76.9 at 32"
    ),
)  # fmt: skip
