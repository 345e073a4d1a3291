"""What a loss term may look at, for one batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.training.pairing import Pairing


@dataclass(frozen=True)
class BatchOutputs:
    """One batch, as the loss terms see it.

    logits (B, K) with gradient, the mean over the steps; labels (B,) int64, or (B, *shape) float for a regression.

    What else a term asked for by its ``needs`` (:class:`snn_export.training.term.Needs`), and None or empty otherwise:
    teacher_logits (B, K), detached; step_logits (T, B, K) with gradient; taps, firing rates (B, *features) with gradient, and
    teacher_taps (B, *features), detached: one per stage of ``pairing``; inputs (B, *shape). ``companion`` is what the term
    trains beside the student, ``pairing`` the two networks.
    """

    logits: Tensor
    labels: Tensor
    teacher_logits: Tensor | None = None
    step_logits: Tensor | None = None
    taps: tuple[Tensor, ...] = ()
    teacher_taps: tuple[Tensor, ...] = ()
    inputs: Tensor | None = None
    companion: nn.Module | None = None
    pairing: Pairing | None = None

    def of_teacher(self) -> Tensor:
        """The teacher's logits (B, K); UserError SNX311 where there is no teacher."""
        if self.teacher_logits is None:
            raise UserError(
                "SNX311", "a loss term compares with a teacher, and there is none", where="recipe",
                why="the term compares the student's logits with a teacher's",
                fix="train a teacher first, or choose the recipe no_teacher",
            )  # fmt: skip
        return self.teacher_logits

    def of_steps(self) -> Tensor:
        """The logits of every step (T, B, K); UserError SNX340 where the forward pass has no steps."""
        if self.step_logits is None:
            raise UserError(
                "SNX340", "a loss term compares single steps, and this forward pass has none", where="recipe",
                why="rate-based training computes one pass over mean rates in place of T steps",
                fix="train with forward_mode = bptt",
            )  # fmt: skip
        return self.step_logits

    def of_companion(self) -> nn.Module:
        """What the term trains beside the student; UserError SNX341 where it was not built."""
        if self.companion is None:
            raise UserError(
                "SNX341", "a loss term is used without its companion modules", where="recipe",
                why="the term trains layers of its own beside the student, which Objective builds once, before training",
                fix="call the term through snn_export.training.objective.Objective",
            )  # fmt: skip
        return self.companion

    def of_pairing(self) -> Pairing:
        """The two networks and their stages; UserError SNX341 as above."""
        if self.pairing is None:
            raise UserError(
                "SNX341", "a loss term is used without the networks it compares", where="recipe",
                why="the term looks at stages of student and teacher",
                fix="call it through snn_export.training.objective.Objective",
            )  # fmt: skip
        return self.pairing
