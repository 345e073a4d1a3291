"""Random changes of training images, named, composed in order, and drawn from one generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion
from snn_export.training.autoaugment import autoaugment


@dataclass(frozen=True)
class Augmentation:
    """Steps by name, carried out in their order, and their sizes in pixels.

    shift        each image by up to ``max_shift`` per axis, zeros moving in
    crop         padded by ``padding`` zeros on every side, a window of the old size cut out
    flip         left to right, every second image on average
    autoaugment  the policy for CIFAR-10 (``autoaugment.py``)
    cutout       ``holes`` squares of side ``hole_length`` set to 0; None: half the shorter side, 16 on images of 32 pixels

    The usual order is crop, flip, autoaugment, cutout.

    Raises:
        UserError: SNX144 for an unknown step or a size out of range.
    """

    steps: tuple[str, ...] = ()
    max_shift: int = 1
    padding: int = 4
    holes: int = 1
    hole_length: int | None = None

    def __post_init__(self) -> None:
        for step in self.steps:
            if step not in STEPS:
                raise UserError(
                    "SNX144", f"there is no augmentation called '{step}'", where="augmentation",
                    why="an augmentation is one of the steps that this program has", fix=suggestion(step, STEPS),
                )  # fmt: skip
        sizes = {"max_shift": self.max_shift, "padding": self.padding, "holes": self.holes, "hole_length": self.hole_length}
        wrong = [f"{name} = {size}" for name, size in sizes.items() if size is not None and size < 0]
        if wrong:
            raise UserError(
                "SNX144", f"an augmentation with {', '.join(wrong)}", where="augmentation",
                why="sizes are numbers of pixels or holes, 0 or more", fix="choose 0 to leave a step without effect",
            )  # fmt: skip

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, C, H, W) after all steps; anything of another rank is returned as it came.

        All randomness is from ``generator``. Values in [0, 1] stay there. The argument is never changed.
        """
        if images.ndim != 4:
            return images
        for step in self.steps:
            images = STEPS[step](self, images, generator)
        return images


def augment(images: Tensor, steps: tuple[str, ...], generator: torch.Generator, *, max_shift: int = 1) -> Tensor:
    """:class:`Augmentation` with the usual sizes, in one call. Raises UserError SNX144 for an unknown step."""
    return Augmentation(steps, max_shift=max_shift)(images, generator)


def random_shift(images: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Shift each image by up to ``max_shift`` pixels per axis, zeros moving in.

    ``images`` (B, C, H, W); any other rank, or ``max_shift`` 0, is returned as it came. All randomness is from ``generator``.
    """
    if images.ndim != 4 or max_shift == 0:
        return images
    batch, _, height, width = images.shape
    windows = functional.pad(images, (max_shift,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    offsets = torch.randint(0, 2 * max_shift + 1, (2, batch), generator=generator)
    return windows[torch.arange(batch), :, offsets[0], offsets[1]]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W), each mirrored left to right with probability 1/2."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def cutout(images: Tensor, generator: torch.Generator, *, holes: int = 1, length: int = 16, fill: float = 0.0) -> Tensor:
    """Images (B, C, H, W) with ``holes`` squares of side ``length`` set to ``fill``.

    A centre may lie anywhere in the image, so that squares are cut off at its edge: rows c - length // 2 up to, but not with,
    c + length - length // 2. Source: T. DeVries and G. W. Taylor, Improved Regularization of Convolutional Neural Networks with
    Cutout, arXiv:1708.04552, 2017.
    """
    batch, _, height, width = images.shape
    keep = torch.ones(batch, height, width, dtype=torch.bool)
    for _ in range(holes):
        hit = []
        for size in (height, width):
            first = torch.randint(0, size, (batch, 1), generator=generator) - length // 2
            place = torch.arange(size)
            hit.append((place >= first) & (place < first + length))
        keep &= ~(hit[0][:, :, None] & hit[1][:, None, :])
    return torch.where(keep[:, None], images, torch.full((), fill, dtype=images.dtype))


def _cutout(how: Augmentation, images: Tensor, generator: torch.Generator) -> Tensor:
    length = min(images.shape[2:]) // 2 if how.hole_length is None else how.hole_length
    return cutout(images, generator, holes=how.holes, length=length)


STEPS: Mapping[str, Callable[[Augmentation, Tensor, torch.Generator], Tensor]] = {
    "shift": lambda how, images, generator: random_shift(images, how.max_shift, generator),
    "crop": lambda how, images, generator: random_shift(images, how.padding, generator),  # a window of a padded image
    "flip": lambda how, images, generator: random_flip(images, generator),
    "autoaugment": lambda how, images, generator: autoaugment(images, generator),
    "cutout": _cutout,
}
"""What a recipe or a config may name."""
