"""Features of stages as the terms compare them: which stages there are, and maps brought to one size."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from snn_export.models.diagnostics import UserError
from snn_export.training.pairing import Pairing, Shape, StagePair

MAP_AXES = 3
"""Of a feature map without the batch: channels, height, width."""


def is_map(shape: Shape) -> bool:
    """Whether ``shape``, without the batch, is (C, H, W) with more than one position."""
    return len(shape) == MAP_AXES and shape[1] * shape[2] > 1


def compared_stages(term: str, pairing: Pairing) -> tuple[tuple[StagePair, Shape], ...]:
    """Stages with a counterpart in the teacher, in order of flow, with the teacher's shape.

    Raises:
        UserError: SNX311 without a teacher whose layers can be tapped, SNX342 where no stage of the student has a counterpart.
    """
    pairing.teacher_network()
    found = tuple((stage, stage.teacher_shape) for stage in pairing.stages if stage.teacher_shape is not None)
    if not found:
        raise _unfit(
            term, "no stage of the student is compared with one of the teacher",
            "one of the two networks has no stages", "name layers of both with taps and teacher_taps",
        )  # fmt: skip
    return found


def stages_of_student(term: str, pairing: Pairing) -> tuple[StagePair, ...]:
    """Stages of the student in order of flow; UserError SNX342 where there are none."""
    if not pairing.stages:
        raise _unfit(term, "the model has no stages", "the term looks into the stages of a spiking student",
                     "train a SpikingStudent with it, or choose no_teacher or plain_kd")  # fmt: skip
    return pairing.stages


def check_maps(term: str, stage: StagePair, shape: Shape) -> None:
    """SNX342 unless both networks have feature maps here, of more than one position and of sizes that :func:`resized` joins."""
    if not (is_map(stage.shape) and is_map(shape)):
        raise _unfit(
            term, f"stage {stage.describe()} is no pair of feature maps",
            "the term compares where in an image the networks respond; features without height and width have one place alone",
            "name convolution stages with taps and teacher_taps, or choose a recipe that compares logits, e.g. plain_kd",
        )  # fmt: skip
    check_sizes(term, stage, shape)


def check_sizes(term: str, stage: StagePair, shape: Shape) -> None:
    """SNX342 where the features of a stage cannot be brought to the ones of ``shape``, the teacher's, by :func:`resized`."""
    supported = len(stage.shape) == len(shape) and len(shape) in (1, MAP_AXES)
    joined = all(mine % theirs == 0 or theirs % mine == 0 for mine, theirs in zip(stage.shape[1:], shape[1:], strict=False))
    if not (supported and joined):
        raise _unfit(
            term, f"stage {stage.describe()} cannot be compared",
            "maps (C, H, W) meet maps whose sides are integer multiples or fractions of their own; dense features (N,) meet "
            "dense features", "name layers of equal size with taps and teacher_taps",
        )  # fmt: skip


def resized(features: Tensor, size: Shape) -> Tensor:
    """Maps (B, C, H, W) at ``size`` (h, w): the mean over blocks where a side shrinks, repeated values where it grows.

    Sides are integer multiples of each other (:func:`check_sizes`). Dense features (B, N), with ``size`` (), come back as
    they are.
    """
    if not size or tuple(features.shape[2:]) == size:
        return features
    blocks = [max(mine // wanted, 1) for mine, wanted in zip(features.shape[2:], size, strict=True)]
    smaller = functional.avg_pool2d(features, blocks) if max(blocks) > 1 else features
    repeats = [wanted // mine for mine, wanted in zip(smaller.shape[2:], size, strict=True)]
    for axis, count in enumerate(repeats, 2):
        smaller = smaller.repeat_interleave(count, dim=axis) if count > 1 else smaller
    return smaller


class Aligned(nn.Module):
    """Brings a student's features to the teacher's shape: resized, then ``layers``."""

    def __init__(self, layers: nn.Module, size: Shape) -> None:
        super().__init__()
        self.layers = layers
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """(B, *student's shape) -> (B, *teacher's shape)."""
        forward: Callable[[Tensor], Tensor] = self.layers
        return forward(resized(features, self.size))


def _unfit(term: str, what: str, why: str, fix: str) -> UserError:
    return UserError("SNX342", f"the loss term '{term}' does not fit these networks: {what}", where=f"recipe, term {term}",
                     why=why, fix=fix)  # fmt: skip
