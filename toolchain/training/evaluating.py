"""A module in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module | None) -> Iterator[None]:
    """``module`` in evaluation mode within the block, and each of its parts in the mode it had behind it."""
    training = [] if module is None else [part for part in module.modules() if part.training]
    if module is not None:
        module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
