from __future__ import annotations

import math

import pytest
import torch

from snn_export.models.diagnostics import UserError
from snn_export.training.objective import Objective
from snn_export.training.outputs import BatchOutputs
from snn_export.training.pairing import Pairing
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.terms.logits import KnowledgeDistillation, cross_entropy, knowledge_distillation


def test_distillation_against_a_value_computed_by_hand() -> None:
    # Teacher logits 4 ln 3 and 0 at tau 4: probabilities 3/4, 1/4. Student logits 0 and 0: 1/2, 1/2.
    # 16 * (3/4 ln(3/2) + 1/4 ln(1/2))
    teacher, student = torch.tensor([[4 * math.log(3), 0.0]]), torch.zeros(1, 2)
    expected = 16 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert knowledge_distillation(student, teacher, 4.0).item() == pytest.approx(expected, rel=1e-6)
    # The divergence is not symmetric: exchanged, 16 * (1/2 ln(2/3) + 1/2 ln 2).
    assert knowledge_distillation(teacher, student, 4.0).item() == pytest.approx(8 * math.log(4 / 3), rel=1e-6)


def test_distillation_is_the_mean_over_the_batch_and_zero_for_equal_logits() -> None:
    student, teacher = torch.randn(2, 5, 7)
    single = [knowledge_distillation(student[i : i + 1], teacher[i : i + 1], 2.0) for i in range(5)]
    torch.testing.assert_close(knowledge_distillation(student, teacher, 2.0), torch.stack(single).mean())
    assert knowledge_distillation(teacher, teacher, 4.0).item() == pytest.approx(0, abs=1e-5)


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = torch.randn(2, 3, 4, requires_grad=True)
    student, teacher = student.detach().requires_grad_(), teacher.detach().requires_grad_()
    knowledge_distillation(student, teacher, 4.0).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    assert cross_entropy(logits, torch.tensor([0, 1])).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_plain_kd_is_cross_entropy_plus_distillation_at_four() -> None:
    recipe = load_recipe("plain_kd")
    logits, teacher, labels = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    expected = cross_entropy(logits, labels) + knowledge_distillation(logits, teacher, 4.0)
    objective = Objective(recipe, Pairing(torch.nn.Identity(), None, (), classes=3, steps=1), seed=0)
    torch.testing.assert_close(objective(BatchOutputs(logits, labels, teacher)), expected)
    assert not list(objective.parameters())
    assert recipe.needs_teacher


def test_distillation_without_a_teacher_is_refused() -> None:
    with pytest.raises(UserError) as error:
        KnowledgeDistillation()(BatchOutputs(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)))
    assert error.value.code == "SNX311"
