"""One training step as a module: everything that learns, behind one ``forward``, so that it can be run on many devices."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.students.student import SpikingStudent, StudentOutputs
from snn_export.models.teachers.teacher import TeacherNetwork
from snn_export.training.objective import Objective
from snn_export.training.outputs import BatchOutputs
from snn_export.training.recipe import ForwardMode, Recipe


class Learner(nn.Module):
    """A model and what its recipe trains beside it. The teacher is no part of it: it does not learn and is not saved."""

    def __init__(self, model: nn.Module, objective: Objective, teacher: nn.Module | None) -> None:
        """Join the parts; UserError SNX340, SNX343 as :func:`check_passes`."""
        super().__init__()
        self.model = model
        self.objective = objective
        self._teacher = (teacher,)  # in a tuple, so that torch does not count it as a part
        self._taps = tuple(stage.student for stage in objective.pairing.stages)
        self._teacher_taps = tuple(stage.teacher for stage in objective.pairing.stages if stage.teacher is not None)
        check_passes(model, objective.recipe)
        _check_teacher(objective)

    def forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of one batch, a scalar, and the logits (B, K), detached."""
        needs = self.objective.recipe.needs
        found = self._student(inputs)
        teacher_logits, teacher_taps = self._ask_teacher(inputs)
        outputs = BatchOutputs(
            found.logits,
            labels,
            teacher_logits=teacher_logits,
            step_logits=found.step_logits if needs.steps else None,
            taps=tuple(found.taps[name] for name in self._taps) if needs.taps else (),
            teacher_taps=teacher_taps,
            inputs=inputs if needs.inputs else None,
        )
        loss: Tensor = self.objective(outputs)
        return loss, found.logits.detach()

    @property
    def gradient_scale(self) -> float:
        """What the gradient is multiplied with: 1 / T in the rate mode, where the recipe says so."""
        recipe = self.objective.recipe
        scaled = recipe.forward_mode is ForwardMode.RATE and recipe.scale_gradient
        return 1.0 / self.objective.pairing.steps if scaled else 1.0

    def _student(self, inputs: Tensor) -> StudentOutputs:
        recipe, model = self.objective.recipe, self.model
        taps = self._taps if recipe.needs.taps else ()
        if not isinstance(model, SpikingStudent):
            return StudentOutputs(model(inputs), {})
        if recipe.forward_mode is ForwardMode.RATE:
            return model.by_rates(inputs, taps, recipe.slopes)
        return model.through_time(inputs, taps)

    @torch.no_grad()
    def _ask_teacher(self, inputs: Tensor) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        """Logits and stage features of the teacher, where the recipe wants any."""
        needs = self.objective.recipe.needs
        (teacher,) = self._teacher
        if teacher is None:
            return None, ()
        if needs.teacher_taps:
            logits, taps = cast(TeacherNetwork, teacher).features(inputs, self._teacher_taps)
            return logits, tuple(taps[name] for name in self._teacher_taps)
        return (teacher(inputs), ()) if needs.teacher else (None, ())


def _check_teacher(objective: Objective) -> None:
    """SNX347 where rates would run through a max-pool of the teacher."""
    recipe, teacher = objective.recipe, objective.pairing.teacher
    if teacher is None or recipe.forward_mode is not ForwardMode.RATE or not recipe.needs.onward:
        return
    if teacher.nonlinear_operations:
        names = ", ".join(teacher.nonlinear_operations)
        raise UserError(
            "SNX347", f"recipe '{recipe.name}' would send rates through max-pooling of the teacher: {names}", where="teacher",
            why="the largest of mean rates is not the mean of what max-pooling makes of the steps: the hybrid would be no "
            "network that spikes could come from",
            fix="replace its max-pooling by average pooling and train or export it again; or choose a recipe that looks at the "
            "teacher's logits alone (plain_kd), or forward_mode = bptt",
        )  # fmt: skip


def check_passes(model: nn.Module, recipe: Recipe) -> None:
    """Refuse a recipe that asks for more than the forward passes of ``model`` give.

    Raises:
        UserError: SNX340 where a term compares steps and the mode has none, SNX343 where the model has logits alone and the
            recipe looks at steps, stages or rates.
    """
    recipe.check_mode()
    asked = [name for name in ("steps", "taps") if getattr(recipe.needs, name)]
    asked += ["rates"] if recipe.forward_mode is ForwardMode.RATE else []
    if asked and not isinstance(model, SpikingStudent):
        raise UserError(
            "SNX343", f"recipe '{recipe.name}' cannot train a {type(model).__name__}", where=f"recipe, {asked[0]}",
            why="it looks into the steps, stages or rates of a spiking student, and this model has logits alone",
            fix="train a SpikingStudent with it; for other models use no_teacher or plain_kd with forward_mode = bptt",
        )  # fmt: skip
