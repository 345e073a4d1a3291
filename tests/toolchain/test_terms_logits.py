"""Loss terms that look at logits alone, against values computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from snn_export.models.diagnostics import UserError
from snn_export.training.outputs import BatchOutputs
from snn_export.training.terms.head_tail_kl import HeadTailKl, head_mask, head_tail_divergence
from snn_export.training.terms.logits import KnowledgeDistillation, divergence, knowledge_distillation
from snn_export.training.terms.noise_smoothed_logits import NoiseSmoothedLogits, mixed_divergence, smoothed
from snn_export.training.terms.per_step import (
    DecoupledSteps,
    EntropyRegularisedSteps,
    step_cross_entropy,
    step_divergence,
    step_entropy,
)
from snn_export.training.terms.reliable_teacher import reliable_divergence, reliable_logits
from snn_export.training.terms.weighted_logits import WeightedLogits, learning_weights

LN3 = math.log(3)


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def logits_of(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_divergence_per_sample_is_distillation_before_the_mean() -> None:
    student, teacher = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    flat = knowledge_distillation(student.flatten(0, 1), teacher.flatten(0, 1), 2.0)
    torch.testing.assert_close(divergence(student, teacher, 2.0).mean(), flat)
    assert divergence(student, teacher, 2.0).shape == (3, 5)


def test_no_gradient_reaches_the_target_of_a_divergence() -> None:
    student, target = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    divergence(student, target, 2.0).sum().backward()
    assert target.grad is None
    assert student.grad is not None


# --- noise-smoothed logits -------------------------------------------------------------------------------------------


def test_smoothed_logits_by_hand() -> None:
    # Mean 1, standard deviation (unbiased) sqrt(2): z + 0.1 (1 + sqrt(2) n).
    found = smoothed(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, -2.0]]), 0.1)
    torch.testing.assert_close(found, torch.tensor([[0.1 + 0.1 * math.sqrt(2), 2.1 - 0.2 * math.sqrt(2)]]))


def test_mixed_probabilities_by_hand() -> None:
    # Logits (0, ln 3) at tau 1: (1/4, 3/4). Noise 0: the disturbed logits are equal, (1/2, 1/2). 0.9 and 0.1 of them.
    mixture = [0.9 * 0.25 + 0.05, 0.9 * 0.75 + 0.05]
    logits, zero = torch.tensor([[0.0, LN3]], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    found = mixed_divergence(logits, logits_of([0.5, 0.5]), zero, 0.1, 1.0)
    assert found.item() == pytest.approx(kl([0.5, 0.5], mixture))
    # Noise (2, 0) with variance ln^2 3 / 2: disturbed logits m + v (2, 0).
    disturbed = torch.softmax(torch.tensor([LN3**2, 0.0], dtype=torch.float64), 0).tolist()
    mixture = [0.5 * 0.25 + 0.5 * disturbed[0], 0.5 * 0.75 + 0.5 * disturbed[1]]
    found = mixed_divergence(logits, logits_of([0.5, 0.5]), torch.tensor([[2.0, 0.0]], dtype=torch.float64), 0.5, 1.0)
    assert found.item() == pytest.approx(kl([0.5, 0.5], mixture))


@pytest.mark.parametrize("form", ["paper", "code"])
def test_without_noise_it_is_plain_distillation(form: str) -> None:
    outputs = BatchOutputs(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), torch.randn(4, 3))
    term = NoiseSmoothedLogits(noise=0.0, tau=2.0, form=form)
    torch.testing.assert_close(term(outputs), KnowledgeDistillation(tau=2.0)(outputs))


@pytest.mark.parametrize("form", ["paper", "code"])
def test_noise_comes_from_the_seeded_state_and_changes_from_call_to_call(form: str) -> None:
    outputs = BatchOutputs(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), torch.randn(4, 3))
    term = NoiseSmoothedLogits(form=form)
    torch.manual_seed(3)
    first, second = term(outputs), term(outputs)
    torch.manual_seed(3)
    assert torch.equal(term(outputs), first)
    assert not torch.equal(second, first)


def test_the_mixture_survives_logits_far_apart() -> None:
    logits = torch.tensor([[0.0, 500.0]], requires_grad=True)
    found = mixed_divergence(logits, torch.tensor([[500.0, 0.0]]), torch.tensor([[0.3, 0.1]]), 0.1, 1.0)
    found.backward()
    assert found.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


# --- weighted distillation -------------------------------------------------------------------------------------------


def test_weighted_distillation_by_hand() -> None:
    # Student 1/2 for the label, teacher 3/4: CE ln 2 and ln 4/3.
    weight = 1 - math.exp(-math.log(2) / (math.log(4 / 3) + 1e-7))
    student, teacher, label = logits_of([0.5, 0.5]), logits_of([0.75, 0.25]), torch.tensor([0])
    assert learning_weights(student, teacher, label).item() == pytest.approx(weight)
    found = WeightedLogits(tau=1.0)(BatchOutputs(student, label, teacher))
    assert found.item() == pytest.approx(weight * kl([0.75, 0.25], [0.5, 0.5]))


def test_a_student_that_is_sure_and_right_has_nothing_to_learn() -> None:
    sure = torch.tensor([[60.0, 0.0]])
    assert learning_weights(sure, torch.zeros(1, 2), torch.tensor([0])).item() == 0
    assert learning_weights(torch.zeros(1, 2), sure, torch.tensor([0])).item() == pytest.approx(1)


# --- head and tail ---------------------------------------------------------------------------------------------------


def test_head_is_the_smallest_set_with_half_the_probability() -> None:
    found = head_mask(torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25], [0.05, 0.9, 0.03, 0.02]]), 0.5)
    assert found.tolist() == [[False, True, False, True], [True, True, False, False], [False, True, False, False]]


def test_head_tail_divergence_by_hand() -> None:
    teacher, student = [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]
    # The head is the first class: gaps 0.4 in the head, 0 + 0.4 in the tail.
    expected = 0.5 * kl(teacher, student) + 0.5 * kl(student, teacher)
    assert head_tail_divergence(logits_of(student), logits_of(teacher), 1.0).item() == pytest.approx(expected)
    # At share 0.9 the head is the first two: gaps 0.2 + 0.2 there, 0.4 in the tail.
    student = [0.4, 0.5, 0.1]
    expected = kl(teacher, student)
    assert head_tail_divergence(logits_of(student), logits_of(teacher), 1.0, 0.9).item() == pytest.approx(expected)


def test_head_tail_divergence_ignores_the_order_of_classes_and_vanishes_for_equals() -> None:
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64)
    order = torch.randperm(5)
    found = head_tail_divergence(student, teacher, 2.0)
    torch.testing.assert_close(head_tail_divergence(student[:, order], teacher[:, order], 2.0), found)
    equal = teacher.clone().requires_grad_()
    loss = head_tail_divergence(equal, teacher, 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert equal.grad is not None
    assert equal.grad.isfinite().all()


# --- single steps ----------------------------------------------------------------------------------------------------

STEPS = torch.stack([logits_of([0.5, 0.5]), logits_of([0.75, 0.25])])
"""Two steps, one sample, two classes."""


def test_losses_of_steps_by_hand() -> None:
    label, teacher = torch.tensor([1]), logits_of([0.5, 0.5])
    assert step_cross_entropy(STEPS, label).item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert step_divergence(STEPS, teacher, 1.0).item() == pytest.approx(kl([0.5, 0.5], [0.75, 0.25]) / 2)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert step_entropy(STEPS).item() == pytest.approx((math.log(2) + entropy) / 2)


def test_labels_meet_the_steps_of_their_own_sample() -> None:
    steps, labels = torch.randn(3, 4, 5), torch.tensor([0, 1, 2, 3])
    each = [torch.nn.functional.cross_entropy(step, labels) for step in steps]
    torch.testing.assert_close(step_cross_entropy(steps, labels), torch.stack(each).mean())


def test_entropy_regularised_steps_by_hand() -> None:
    label, teacher = torch.tensor([1]), logits_of([0.5, 0.5])
    outputs = BatchOutputs(STEPS.mean(dim=0), label, teacher, STEPS)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    expected = 0.7 * 1.5 * math.log(2) + 0.3 * kl([0.5, 0.5], [0.75, 0.25]) / 2 - 0.2 * (math.log(2) + entropy) / 2
    found = EntropyRegularisedSteps(alpha=0.3, gamma=0.2, tau=1.0)(outputs)
    assert found.item() == pytest.approx(expected)


def test_decoupled_steps_by_hand() -> None:
    label, teacher = torch.tensor([1]), logits_of([0.5, 0.5])
    outputs = BatchOutputs(STEPS.mean(dim=0), label, teacher, STEPS)
    # The mean of the logits (0, 0) and (ln 3, 0), up to a constant: (ln 3 / 2, 0), probabilities as sqrt(3) to 1.
    ensemble = [math.sqrt(3) / (1 + math.sqrt(3)), 1 / (1 + math.sqrt(3))]
    own = (kl(ensemble, [0.5, 0.5]) + kl(ensemble, [0.75, 0.25])) / 2
    expected = 1.5 * math.log(2) + 0.2 * kl([0.5, 0.5], [0.75, 0.25]) / 2 + 0.5 * own
    assert DecoupledSteps(tau=1.0)(outputs).item() == pytest.approx(expected)
    # No step is right about class 1 (ties go to class 0): no ensemble of the correct ones.
    expected = 1.5 * math.log(2) + 0.2 * kl([0.5, 0.5], [0.75, 0.25]) / 2
    assert DecoupledSteps(tau=1.0, ensemble="correct")(outputs).item() == pytest.approx(expected)
    # Both are right about class 0: the ensemble of all.
    outputs = BatchOutputs(STEPS.mean(dim=0), torch.tensor([0]), teacher, STEPS)
    assert DecoupledSteps(tau=1.0, ensemble="correct")(outputs).item() == pytest.approx(DecoupledSteps(tau=1.0)(outputs).item())


def test_one_step_is_its_own_ensemble() -> None:
    logits, teacher, labels = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0, 1, 2])
    outputs = BatchOutputs(logits, labels, teacher, logits.unsqueeze(0))
    expected = torch.nn.functional.cross_entropy(logits, labels) + 0.2 * knowledge_distillation(logits, teacher, 3.0)
    torch.testing.assert_close(DecoupledSteps()(outputs), expected)


@pytest.mark.parametrize("term", [EntropyRegularisedSteps(), DecoupledSteps()])
def test_losses_of_steps_refuse_a_pass_without_steps(term: EntropyRegularisedSteps | DecoupledSteps) -> None:
    with pytest.raises(UserError) as error:
        term(BatchOutputs(torch.zeros(1, 2), torch.tensor([0]), torch.zeros(1, 2)))
    assert error.value.code == "SNX340"


# --- reliable teacher ------------------------------------------------------------------------------------------------


def test_reliable_teacher_by_hand() -> None:
    heads = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[4.0, 0.0], [3.0, 0.0]], [[0.0, 9.0], [5.0, 0.0]]])
    target, known = reliable_logits(heads.requires_grad_(), torch.tensor([0, 1]))
    assert not target.requires_grad
    assert target.tolist() == [[3.0, 0.0], [0.0, 1.0]]
    assert known.tolist() == [True, True]


def test_samples_without_a_reliable_teacher_are_left_out() -> None:
    heads = torch.stack([logits_of([0.75, 0.25], [0.9, 0.1]), logits_of([0.5, 0.5], [0.8, 0.2])])
    labels = torch.tensor([0, 1])
    _, known = reliable_logits(heads, labels)
    assert known.tolist() == [True, False]
    # Sample 0: both heads are right (ties go to class 0), so the mean of (ln 3, 0) and (0, 0).
    ensemble = [math.sqrt(3) / (1 + math.sqrt(3)), 1 / (1 + math.sqrt(3))]
    expected = kl(ensemble, [0.75, 0.25]) + kl(ensemble, [0.5, 0.5])
    assert reliable_divergence(heads, labels, 1.0).item() == pytest.approx(expected)


def test_nobody_reliable_is_exactly_nothing() -> None:
    heads = torch.tensor([[[2.0, 0.0]], [[1.0, 0.0]]], requires_grad=True)
    found = reliable_divergence(heads, torch.tensor([1]), 3.0)
    found.backward()
    assert found.item() == 0.0
    assert heads.grad is not None
    assert heads.grad.tolist() == [[[0.0, 0.0]], [[0.0, 0.0]]]


def test_no_gradient_reaches_the_reliable_teacher() -> None:
    # One head alone teaches itself: it is where it should be.
    heads = torch.randn(1, 6, 3, requires_grad=True)
    reliable_divergence(heads, heads.detach()[0].argmax(dim=1), 3.0).backward()
    assert heads.grad is not None
    torch.testing.assert_close(heads.grad, torch.zeros_like(heads.grad), atol=1e-6, rtol=0)


# --- ranges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: KnowledgeDistillation(tau=0.0), lambda: NoiseSmoothedLogits(noise=1.5), lambda: NoiseSmoothedLogits(form="note"),
        lambda: HeadTailKl(share=0.0), lambda: WeightedLogits(tau=-1.0), lambda: EntropyRegularisedSteps(alpha=1.1),
        lambda: DecoupledSteps(beta=math.inf), lambda: DecoupledSteps(tau=math.nan), lambda: DecoupledSteps(ensemble="some"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UserError) as error:
        make()
    assert error.value.code == "SNX345"
