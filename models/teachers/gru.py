"""A gated recurrent teacher for sequences: what a recurrent spiking student may learn from."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.teacher import Teacher, TeacherConfig


class MeanHiddenState(nn.Module):
    """A GRU, and the mean of its hidden state over time: (B, T, F) -> (B, H). (B, F) is a sequence of one step.

    The mean, not the last state: a spiking student's firing rate, which is compared with it, is a mean over time too.
    """

    def __init__(self, features: int, hidden: int) -> None:
        """``features`` F at the input, ``hidden`` H units."""
        super().__init__()
        self.gru = nn.GRU(features, hidden, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, H) of inputs (B, T, F) or (B, F)."""
        states, _ = self.gru(inputs if inputs.ndim == 3 else inputs.unsqueeze(1))
        found: Tensor = states.mean(dim=1)
        return found


def build_gru(config: TeacherConfig) -> Teacher:
    """A GRU of ``width`` units, the mean of its hidden state over time, one dense layer to the classes.

    Inputs (B, T, F) for the input_shape (F,). Stage: gru, (B, width), in -1..1. UserError SNX012 for another input_shape.

    Source: Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014.
    """
    if len(config.input_shape) != 1:
        raise UserError(
            "SNX012", f"the gru teacher cannot take inputs of shape {config.input_shape}", where="input_shape",
            why="it runs over a sequence of feature vectors", fix="give the shape of one step, e.g. input_shape = (700,)",
        )  # fmt: skip
    layers = OrderedDict(gru=MeanHiddenState(config.input_shape[0], config.width), dense=nn.Linear(config.width, config.classes))
    return Teacher(config, nn.Sequential(layers), stages=("gru",))
