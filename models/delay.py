"""Axonal delay: spikes that arrive some steps later."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.weight_grid import DELAY_MAX


class Delay(nn.Module):
    """Let spikes through some steps later: y_i[t] = x_i[t - d_i], nothing before the first step.

    Shapes: x and y are (T, B, *features). d is one number of steps, or one per feature.

    NIR writes it as ``Delay`` in seconds; Loihi and Lava hold it at the synapses (``DelayDense``, 0..62 steps). It belongs in
    front of a weight layer: behind one with a bias it would have to delay the bias too, which no chip does.
    """

    def __init__(self, steps: int | Sequence[int] | Tensor) -> None:
        """Delay by ``steps``, one number or an array of the features' shape; UserError SNX214 outside 0..62."""
        super().__init__()
        found = torch.as_tensor(steps)
        whole = found.to(torch.int64)
        if found.is_complex() or not found.numel() or bool((whole != found).any()):
            raise _refuse(steps)
        if int(whole.min()) < 0 or int(whole.max()) > DELAY_MAX:
            raise _refuse(steps)
        self.steps: Tensor
        self.register_buffer("steps", whole)

    def forward(self, x: Tensor) -> Tensor:
        """Shift (T, B, *features) in time."""
        later = torch.zeros_like(x)
        delays = self.steps.expand(x.shape[2:])
        for delay in torch.unique(delays).tolist():
            if delay < len(x):
                moved = torch.zeros_like(x)
                moved[delay:] = x[: len(x) - delay]
                later = torch.where(delays == delay, moved, later)
        return later

    def extra_repr(self) -> str:
        """The delay, or its range."""
        least, most = int(self.steps.min()), int(self.steps.max())
        return f"steps={least}" if least == most else f"steps={least}..{most}"


def _refuse(steps: object) -> UserError:
    return UserError(
        "SNX214", f"a delay of {steps} steps", where="Delay(steps)",
        why=f"a chip delays spikes by whole steps, 0 to {DELAY_MAX} of them",
        fix=f"choose whole numbers in 0..{DELAY_MAX}",
    )  # fmt: skip
