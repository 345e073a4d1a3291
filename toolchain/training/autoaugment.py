"""AutoAugment's policy for CIFAR-10, on batches of float images in [0, 1].

Source: E. D. Cubuk, B. Zoph, D. Mané, V. Vasudevan and Q. V. Le, AutoAugment: Learning Augmentation Strategies from Data, CVPR
2019, appendix: 25 sub-policies of two operations, each with a probability and a magnitude 0..9. A sub-policy is drawn for every
image, then whether each of its operations is carried out, then the sign of those that have one.

Magnitude m means, after the paper's ranges: shear by 0.3 m/9; translation by 150/331 of the side times m/9, in whole pixels;
rotation by 30 degrees times m/9; colour, contrast, brightness and sharpness by the factor 1 + 0.9 m/9, sign drawn for all of
these; posterize keeps 8 - round(4 m/9) bits; solarize inverts values from 1 - m/9 on. The other operations have none. Pixels
that move in are grey, 128/255, near the mean of CIFAR-10.

The operations follow Pillow's of the same names; values stay real numbers but for posterize and equalize, which know 256 levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

FILL = 128 / 255
LEVELS = 256
_LUMA = (0.299, 0.587, 0.114)
_TRANSLATION = 150 / 331

Operation = tuple[str, float, int]
POLICY: tuple[tuple[Operation, Operation], ...] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)


def autoaugment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) in [0, 1], each under a sub-policy of its own; a new tensor.

    Five random numbers are drawn per image, whatever comes of them. Colour and contrast take the brightness of three channels
    as 0.299 R + 0.587 G + 0.114 B, of any other number as their mean.
    """
    batch = len(images)
    policy = torch.randint(0, len(POLICY), (batch,), generator=generator)
    chance = torch.rand((2, batch), generator=generator)
    sign = 2.0 * torch.randint(0, 2, (2, batch), generator=generator) - 1.0
    result = images.clone()
    for turn in (0, 1):
        probability = torch.tensor([pair[turn][1] for pair in POLICY])[policy]
        strength = torch.tensor([pair[turn][2] for pair in POLICY])[policy] / 9.0
        kind = torch.tensor([_NAMES.index(pair[turn][0]) for pair in POLICY])[policy]
        kind[chance[turn] >= probability] = -1
        for number, name in enumerate(_NAMES):
            chosen = torch.nonzero(kind == number).flatten()
            if len(chosen):
                signed = sign[turn, chosen] * strength[chosen] if name in _SIGNED else strength[chosen]
                result[chosen] = OPERATIONS[name](result[chosen], signed)
    return result


# --- geometry: images (n, C, H, W), amounts (n,) in -1..1, of the largest magnitude --------------------------------------


def shear_x(images: Tensor, amounts: Tensor) -> Tensor:
    """Rows slide by 0.3 amount times their distance from the first row."""
    return _moved(images, slide=(0.3 * amounts, torch.zeros_like(amounts)))


def shear_y(images: Tensor, amounts: Tensor) -> Tensor:
    """Columns slide by 0.3 amount times their distance from the first column."""
    return _moved(images, slide=(torch.zeros_like(amounts), 0.3 * amounts))


def translate_x(images: Tensor, amounts: Tensor) -> Tensor:
    """Columns move by 150/331 of the width times amount, towards zero to a whole number of pixels; right where positive."""
    return _moved(images, shift=((_TRANSLATION * images.shape[3] * amounts).trunc(), torch.zeros_like(amounts)))


def translate_y(images: Tensor, amounts: Tensor) -> Tensor:
    """Rows move by 150/331 of the height times amount, towards zero to a whole number of pixels; down where positive."""
    return _moved(images, shift=(torch.zeros_like(amounts), (_TRANSLATION * images.shape[2] * amounts).trunc()))


def rotate(images: Tensor, amounts: Tensor) -> Tensor:
    """Rotation about the middle by 30 degrees times amount, counter-clockwise where positive."""
    return _moved(images, angle=math.radians(30.0) * amounts)


def _moved(
    images: Tensor,
    *,
    slide: tuple[Tensor, Tensor] | None = None,
    shift: tuple[Tensor, Tensor] | None = None,
    angle: Tensor | None = None,
) -> Tensor:
    """The pixel at (x, y) comes from the nearest one at (x, y) under the inverse map; what lies outside is ``FILL``."""
    batch, channels, height, width = images.shape
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    source_x, source_y = x[None, None, :].expand(batch, height, width), y[None, :, None].expand(batch, height, width)
    if slide is not None:
        source_x, source_y = source_x + slide[0][:, None, None] * source_y, source_y + slide[1][:, None, None] * source_x
    if shift is not None:
        source_x, source_y = source_x - shift[0][:, None, None], source_y - shift[1][:, None, None]
    if angle is not None:
        cosine, sine = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
        right, down = source_x - width / 2, source_y - height / 2
        source_x, source_y = cosine * right - sine * down + width / 2, sine * right + cosine * down + height / 2
    column, row = source_x.floor().long(), source_y.floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).view(batch, 1, -1).expand(-1, channels, -1)
    found = images.flatten(2).gather(2, index).view_as(images)
    return torch.where(inside[:, None], found, torch.full((), FILL, dtype=images.dtype))


# --- colour: images (n, C, H, W), amounts (n,): the factor is 1 + 0.9 amount --------------------------------------------


def color(images: Tensor, amounts: Tensor) -> Tensor:
    """Between the grey image (factor 0) and beyond the image itself (factor 1)."""
    return _blended(_grey(images), images, amounts)


def contrast(images: Tensor, amounts: Tensor) -> Tensor:
    """Between the even image of its mean brightness, and beyond the image itself."""
    return _blended(_grey(images).mean(dim=(1, 2, 3), keepdim=True), images, amounts)


def brightness(images: Tensor, amounts: Tensor) -> Tensor:
    """Between black, and beyond the image itself."""
    return _blended(torch.zeros_like(images), images, amounts)


def sharpness(images: Tensor, amounts: Tensor) -> Tensor:
    """Between the image smoothed by (1 1 1; 1 5 1; 1 1 1)/13, borders kept, and beyond the image itself."""
    channels = images.shape[1]
    if min(images.shape[2:]) < 3:
        return images
    kernel = torch.ones(3, 3, dtype=images.dtype)
    kernel[1, 1] = 5.0
    smooth = images.clone()
    weight = (kernel / kernel.sum()).expand(channels, 1, 3, 3)
    smooth[:, :, 1:-1, 1:-1] = functional.conv2d(images, weight, groups=channels)
    return _blended(smooth, images, amounts)


def _blended(start: Tensor, images: Tensor, amounts: Tensor) -> Tensor:
    """Factor 0 gives ``start``, 1 the images, more goes beyond; clipped to [0, 1]."""
    factor = (1.0 + 0.9 * amounts)[:, None, None, None]
    return (start + factor * (images - start)).clamp(0.0, 1.0)


def _grey(images: Tensor) -> Tensor:
    """Brightness (n, 1, H, W)."""
    if images.shape[1] != len(_LUMA):
        return images.mean(dim=1, keepdim=True)
    return (images * images.new_tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True)


# --- tone: images (n, C, H, W), amounts (n,) in 0..1 ---------------------------------------------------------------------


def invert(images: Tensor, _: Tensor) -> Tensor:
    """1 - x."""
    return 1.0 - images


def solarize(images: Tensor, amounts: Tensor) -> Tensor:
    """Values from 1 - amount on are inverted."""
    return torch.where(images >= (1.0 - amounts)[:, None, None, None], 1.0 - images, images)


def posterize(images: Tensor, amounts: Tensor) -> Tensor:
    """The highest 8 - round(4 amount) bits of each of 256 levels."""
    dropped = 2.0 ** (4.0 * amounts).round()[:, None, None, None]
    return (_levels(images) / dropped).floor() * dropped / (LEVELS - 1)


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched so that its darkest value becomes 0 and its brightest 1; an even channel is left as it is."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (images - low) / spread.clamp_min(torch.finfo(images.dtype).tiny), images).clamp(0.0, 1.0)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Each channel's 256 levels spread so that they are used about equally often; one with a single step is left as it is.

    With counts h over the levels, step = (sum of h without the highest level in use) // 255, level k becomes
    (step // 2 + h_0 + ... + h_{k-1}) // step, at most 255.
    """
    batch, channels, height, width = images.shape
    levels = _levels(images).long().reshape(batch * channels, height * width)
    counts = torch.zeros(len(levels), LEVELS, dtype=torch.long).scatter_add_(1, levels, torch.ones_like(levels))
    highest = levels.amax(dim=1, keepdim=True)
    step = (height * width - counts.gather(1, highest)) // (LEVELS - 1)
    table = (step // 2 + counts.cumsum(dim=1) - counts) // step.clamp_min(1)
    spread = table.clamp(0, LEVELS - 1).gather(1, levels).to(images.dtype) / (LEVELS - 1)
    return torch.where(
        step[:, :, None, None] > 0, spread.view(-1, 1, height, width), images.reshape(-1, 1, height, width)
    ).view_as(images)


def _levels(images: Tensor) -> Tensor:
    """The nearest of 256 levels, 0..255."""
    return (images * (LEVELS - 1)).round().clamp(0, LEVELS - 1)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
    "rotate": rotate,
    "color": color,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "invert": invert,
    "solarize": solarize,
    "posterize": posterize,
    "autocontrast": autocontrast,
    "equalize": equalize,
}
_NAMES = tuple(OPERATIONS)
_SIGNED = frozenset(_NAMES[:9])
