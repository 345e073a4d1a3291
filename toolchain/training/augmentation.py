"""Random shifts of images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def random_shift(images: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Shift each image by up to ``max_shift`` pixels per axis, zeros moving in.

    ``images`` (B, C, H, W); any other rank, or ``max_shift`` 0, is returned as it came. All randomness is from ``generator``.
    """
    if images.ndim != 4 or max_shift == 0:
        return images
    batch, channels, height, width = images.shape
    padded = functional.pad(images, (max_shift,) * 4)
    offsets = torch.randint(0, 2 * max_shift + 1, (2, batch), generator=generator)
    rows = (offsets[0, :, None] + torch.arange(height))[:, None, :, None]
    columns = (offsets[1, :, None] + torch.arange(width))[:, None, None, :]
    samples = torch.arange(batch)[:, None, None, None]
    return padded[samples, torch.arange(channels)[None, :, None, None], rows, columns]
