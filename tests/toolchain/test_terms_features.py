"""Loss terms that look at stages, against values computed by hand and on real networks."""

from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.teacher import Teacher, TeacherConfig
from snn_export.training.outputs import BatchOutputs
from snn_export.training.pairing import Pairing, StagePair, pair
from snn_export.training.term import LossTerm
from snn_export.training.terms.activation_map import ActivationMap, class_activation_map, map_divergence, scaled_to_batch
from snn_export.training.terms.attention_transfer import AttentionTransfer, attention_distance
from snn_export.training.terms.block_wise import BlockWise
from snn_export.training.terms.logits import cross_entropy, knowledge_distillation
from snn_export.training.terms.masked_features import MaskedFeatures, channel_mask, matched_range, squared_distance
from snn_export.training.terms.reliable_teacher import ReliableTeacher
from snn_export.training.terms.stage_features import resized

STAGE_TERMS: tuple[LossTerm, ...] = (
    BlockWise(), ActivationMap(), ActivationMap(form="code"), AttentionTransfer(), ReliableTeacher(), MaskedFeatures(),
)  # fmt: skip


def networks(classes: int = 3, steps: int = 2, teacher: str = "convnet", width: int = 5) -> tuple[SpikingStudent, Teacher]:
    student = build_student(
        "convnet", input_shape=(1, 8, 8), classes=classes, steps=steps, width=4, surrogate="sigmoid", slope=4.0
    )
    return student, build_teacher(teacher, input_shape=(1, 8, 8), classes=classes, width=width).eval().requires_grad_(False)


def dense_networks() -> tuple[SpikingStudent, Teacher]:
    student = build_student("convnet", input_shape=(1, 8, 8), classes=3, steps=2, width=4)
    config = student.config
    layers = OrderedDict(
        flatten=nn.Flatten(), hidden=nn.Linear(64, 6), lif1=config.population(), deeper=nn.Linear(6, 5), lif2=config.population(),
        dense=nn.Linear(5, 3), readout=student.layers.readout,
    )  # fmt: skip
    theirs = OrderedDict(
        flatten=nn.Flatten(),
        hidden=nn.Linear(64, 9),
        relu1=nn.ReLU(),
        deeper=nn.Linear(9, 7),
        relu2=nn.ReLU(),
        dense=nn.Linear(7, 3),
    )
    teacher = Teacher(TeacherConfig("dense", (1, 8, 8), 3), nn.Sequential(theirs)).eval().requires_grad_(False)
    return SpikingStudent(config, nn.Sequential(layers)), teacher


pytestmark = pytest.mark.usefixtures("one_thread")


def batch(
    student: SpikingStudent,
    teacher: Teacher,
    term: LossTerm,
    inputs: Tensor,
    mode: str = "bptt",
    teacher_taps: tuple[str, ...] = (),
) -> BatchOutputs:
    """What a training step would hand to the term."""
    pairing = pair(student, teacher, inputs[:1], classes=teacher.classes, teacher_taps=teacher_taps)
    names = tuple(stage.student for stage in pairing.stages)
    found = student.by_rates(inputs, names) if mode == "rate" else student.through_time(inputs, names)
    with torch.no_grad():
        logits, features = teacher.features(inputs, [stage.teacher or "" for stage in pairing.stages])
    return BatchOutputs(
        found.logits, torch.arange(len(inputs)) % teacher.classes, logits,
        taps=tuple(found.taps[name] for name in names),
        teacher_taps=tuple(features[stage.teacher or ""] for stage in pairing.stages),
        companion=term.companion(pairing), pairing=pairing,
    )  # fmt: skip


def assert_learns(outputs: BatchOutputs, term: LossTerm, student: nn.Module) -> None:
    """A finite loss with finite gradients for everything that learns."""
    loss = term(outputs)
    assert loss.shape == ()
    assert loss.isfinite()
    loss.backward()
    learning = [*student.parameters(), *([] if outputs.companion is None else outputs.companion.parameters())]
    gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("term", STAGE_TERMS, ids=repr)
@pytest.mark.parametrize("mode", ["bptt", "rate"])
@pytest.mark.parametrize(("samples", "steps", "classes"), [(6, 2, 3), (1, 2, 3), (6, 1, 2), (1, 4, 2)])
def test_every_term_learns_in_both_modes(term: LossTerm, mode: str, samples: int, steps: int, classes: int) -> None:
    student, teacher = networks(classes, steps)
    outputs = batch(student, teacher, term, torch.rand(samples, 1, 8, 8), mode)
    assert_learns(outputs, term, student)
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("term", STAGE_TERMS, ids=repr)
@pytest.mark.parametrize("silent", ["teacher", "student", "both"])
def test_silence_is_no_number_that_is_none(term: LossTerm, silent: str) -> None:
    student, teacher = networks()
    with torch.no_grad():
        if silent != "student":
            for parameter in teacher.parameters():
                parameter.zero_()
        if silent != "teacher":
            student.layers.norm1.bias.fill_(-50.0)
    outputs = batch(student, teacher, term, torch.rand(4, 1, 8, 8))
    if silent != "teacher":
        assert outputs.taps[0].abs().max() == 0
    if silent != "student":
        assert outputs.teacher_taps[0].abs().max() == 0
    assert_learns(outputs, term, student)


@pytest.mark.parametrize("term", [BlockWise(), ReliableTeacher(), MaskedFeatures()], ids=repr)
def test_dense_features_are_compared_too(term: LossTerm) -> None:
    student, teacher = dense_networks()
    assert_learns(batch(student, teacher, term, 3 * torch.rand(6, 1, 8, 8)), term, student)


@pytest.mark.parametrize("term", [ActivationMap(), AttentionTransfer()], ids=repr)
def test_terms_about_places_refuse_features_without_places(term: LossTerm) -> None:
    student, teacher = dense_networks()
    with pytest.raises(UserError, match="no pair of feature maps") as error:
        batch(student, teacher, term, torch.rand(2, 1, 8, 8))
    assert error.value.code == "SNX342"


@pytest.mark.parametrize("term", [BlockWise(), ActivationMap(), AttentionTransfer(), MaskedFeatures()], ids=repr)
def test_sizes_that_cannot_be_joined_are_refused(term: LossTerm) -> None:
    student, _ = networks()
    _, teacher = networks(teacher="conv5")
    stages = (StagePair("lif2", (8, 4, 4), "relu5", (20, 3, 3)),)
    with pytest.raises(UserError) as error:
        term.companion(Pairing(student, teacher, stages, 3, 2))
    assert error.value.code == "SNX342"
    assert term.name in str(error.value)


@pytest.mark.parametrize("term", [BlockWise(), ActivationMap(), AttentionTransfer(), MaskedFeatures()], ids=repr)
def test_a_teacher_without_layers_to_tap_is_refused(term: LossTerm) -> None:
    student, _ = networks()
    with pytest.raises(UserError) as error:
        term.companion(pair(student, None, torch.rand(1, 1, 8, 8), classes=3))
    assert error.value.code == "SNX311"


@pytest.mark.parametrize("term", [BlockWise(), ActivationMap(), AttentionTransfer(), MaskedFeatures()], ids=repr)
def test_maps_of_different_sizes_are_joined(term: LossTerm) -> None:
    student, _ = networks()
    _, teacher = networks(teacher="conv5")
    # The student's maps have sides 8 and 4, the teacher's 4 and 2.
    outputs = batch(student, teacher, term, torch.rand(4, 1, 8, 8), teacher_taps=("relu3", "relu5"))
    assert outputs.taps[-1].shape[2:] == (4, 4)
    assert outputs.teacher_taps[-1].shape[2:] == (2, 2)
    assert_learns(outputs, term, student)


def test_resizing_takes_means_of_blocks_and_repeats() -> None:
    maps = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    assert resized(maps, (1, 1)).tolist() == [[[[4.0]]]]
    assert resized(maps, (2, 1)).tolist() == [[[[2.0], [6.0]]]]
    assert resized(maps, (1, 4)).tolist() == [[[[3.0, 3.0, 5.0, 5.0]]]]
    dense = torch.rand(3, 4)
    assert resized(dense, ()) is dense


# --- block-wise ------------------------------------------------------------------------------------------------------


def test_block_wise_is_the_sum_over_stages_of_the_teachers_rest() -> None:
    student, teacher = networks()
    term = BlockWise(ce=0.7, kd=0.2, tau=2.0)
    outputs = batch(student, teacher, term, torch.rand(5, 1, 8, 8))
    found = term(outputs)
    assert outputs.companion is not None
    assert [*dict(outputs.companion.named_children())] == ["0", "1"]
    expected = torch.zeros(())
    for phi, tap, name in zip(outputs.companion.children(), outputs.taps, teacher.stages, strict=True):
        logits = teacher.onward(name, phi(tap))
        expected += 0.7 * cross_entropy(logits, outputs.labels)
        expected += 0.2 * knowledge_distillation(logits, outputs.of_teacher(), 2.0)
    torch.testing.assert_close(found, expected)


def test_block_wise_leaves_out_a_stage_with_nothing_behind_it() -> None:
    student, teacher = dense_networks()
    sample = torch.rand(1, 1, 8, 8)
    pairing = pair(student, teacher, sample, classes=3, taps=("lif1", "lif2"), teacher_taps=("relu1", "dense"))
    assert [*dict(BlockWise().companion(pairing).named_children())] == ["0"]
    pairing = pair(student, teacher, sample, classes=3, taps=("lif2",), teacher_taps=("dense",))
    with pytest.raises(UserError, match="ends where it is tapped") as error:
        BlockWise().companion(pairing)
    assert error.value.code == "SNX342"


def test_early_stages_get_gradients_through_the_teacher() -> None:
    student, teacher = networks()
    term = BlockWise()
    outputs = batch(student, teacher, term, torch.rand(5, 1, 8, 8))
    gradients = torch.autograd.grad(term(outputs), outputs.taps)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


# --- activation maps -------------------------------------------------------------------------------------------------


def test_activation_map_behind_an_average_and_a_linear_layer_is_the_weighted_sum_of_features() -> None:
    _, teacher = networks(teacher="conv5")
    inputs = torch.rand(6, 1, 8, 8)
    logits, taps = teacher.features(inputs, ["relu5"])
    features = taps["relu5"]
    weights = teacher.layers.dense.weight[logits.argmax(dim=1)]
    expected = torch.einsum("bd,bdhw->bhw", weights, features).relu()
    torch.testing.assert_close(class_activation_map(teacher, "relu5", features), expected, atol=1e-5, rtol=1e-4)


def test_activation_map_behind_a_dense_head_weighs_each_place() -> None:
    _, teacher = networks()
    inputs = torch.rand(3, 1, 8, 8)
    logits, taps = teacher.features(inputs, ["relu2"])
    weights = teacher.layers.dense.weight[logits.argmax(dim=1)].reshape(3, 10, 4, 4)
    expected = 16 * (weights * taps["relu2"]).sum(dim=1).relu()
    torch.testing.assert_close(class_activation_map(teacher, "relu2", taps["relu2"]), expected, atol=1e-5, rtol=1e-4)


def test_map_divergence_by_hand_and_unmoved_by_an_offset() -> None:
    # Two places at tau 2: teacher 2 ln 3 and 0, so 3/4 and 1/4; student 1/2 each.
    teacher = torch.tensor([[[2 * math.log(3), 0.0]]])
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert map_divergence(torch.zeros(1, 1, 2), teacher, 2.0).item() == pytest.approx(expected, rel=1e-5)
    assert map_divergence(torch.full((1, 1, 2), 3.0), teacher - 7, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_maps_are_scaled_over_the_whole_batch_in_the_code() -> None:
    maps = torch.tensor([[[1.0, 2.0]], [[3.0, 5.0]]])
    torch.testing.assert_close(scaled_to_batch(maps), torch.tensor([[[0.0, 1.0]], [[2.0, 4.0]]]) / 4.001)
    assert scaled_to_batch(torch.full((2, 3, 3), 4.0)).abs().max() == 0


def test_activation_map_counts_spikes_over_steps_and_channels() -> None:
    student, teacher = networks(steps=3)
    for form in ("paper", "code"):
        term = ActivationMap(form=form)
        outputs = batch(student, teacher, term, torch.rand(4, 1, 8, 8))
        counts = 3 * outputs.taps[-1].sum(dim=1)
        target = class_activation_map(teacher, "relu2", outputs.teacher_taps[-1])
        if form == "code":
            counts, target = (counts - counts.min()), (target - target.min())
            counts, target = counts / (counts.max() + 1e-3), target / (target.max() + 1e-3)
        mine, theirs = torch.log_softmax(counts.flatten(1) / 2, 1), torch.log_softmax(target.flatten(1) / 2, 1)
        expected = (theirs.exp() * (theirs - mine)).sum(1).mean() * (4 if form == "paper" else 1)
        torch.testing.assert_close(term(outputs), expected)


# --- attention -------------------------------------------------------------------------------------------------------


def test_attention_distance_by_hand() -> None:
    # Squares over channels: student (1, 0), teacher (9 + 16, 0) and then (0, 25): unit vectors equal, then orthogonal.
    student = torch.tensor([[[[1.0, 0.0]]]])
    same, other = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]]), torch.tensor([[[[0.0, 3.0]], [[0.0, 4.0]]]])
    assert attention_distance(student, same).item() == 0
    assert attention_distance(student, other).item() == pytest.approx(math.sqrt(2) / 2)
    # Squares (4, 1) and (1, 1).
    stronger, even = torch.tensor([[[[2.0, 1.0]]]]), torch.ones(1, 1, 1, 2)
    cosine = 5 / math.sqrt(17 * 2)
    assert attention_distance(stronger, even).item() == pytest.approx(math.sqrt(2 - 2 * cosine) / 2)
    both = attention_distance(torch.cat([student, student]), torch.cat([same, other]))
    assert both.item() == pytest.approx(math.sqrt(2) / 4)


def test_attention_ignores_scale_channel_order_and_repeated_channels() -> None:
    features, target = torch.rand(4, 3, 2, 2), torch.rand(4, 5, 2, 2)
    expected = attention_distance(features, target)
    torch.testing.assert_close(attention_distance(7 * features, 0.1 * target), expected)
    torch.testing.assert_close(attention_distance(features.flip(1), target.repeat(1, 2, 1, 1)), expected)


def test_attention_term_weighs_stages_by_their_places() -> None:
    student, teacher = networks()
    term = AttentionTransfer(beta=8.0)
    outputs = batch(student, teacher, term, torch.rand(4, 1, 8, 8))
    first, second = (attention_distance(*taps) for taps in zip(outputs.taps, outputs.teacher_taps, strict=True))
    torch.testing.assert_close(term(outputs), 8 * (first / 64 + second / 16))


# --- masked features -------------------------------------------------------------------------------------------------


def test_masks_drop_whole_channels_of_a_sample() -> None:
    torch.manual_seed(0)
    mask = channel_mask(torch.rand(100, 50, 2, 2), 0.85)
    assert mask.shape == (100, 50, 1, 1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask.mean().item() == pytest.approx(0.85, abs=0.02)
    assert channel_mask(torch.rand(3, 4), 1.0).tolist() == torch.ones(3, 4).tolist()


def test_teacher_is_brought_to_the_students_range() -> None:
    target = torch.tensor([[0.0, 8.0], [2.0, 4.0]])
    found = matched_range(target, torch.tensor([[0.25, 0.5], [0.1, 0.0]]))
    torch.testing.assert_close(found, target / 16)
    assert matched_range(torch.zeros(2, 2), torch.rand(2, 2)).abs().max() == 0


def test_squared_distance_is_a_sum_per_sample() -> None:
    features, target = torch.zeros(2, 3, 2), torch.ones(2, 3, 2)
    assert squared_distance(features, target).item() == 6


def test_masked_features_without_a_mask_by_its_parts() -> None:
    student, teacher = networks()
    term = MaskedFeatures(keep=1.0)
    outputs = batch(student, teacher, term, torch.rand(4, 1, 8, 8))
    assert outputs.companion is not None
    aligned = outputs.companion.get_submodule("align")(outputs.taps[-1])
    generated = outputs.companion.get_submodule("generate")(aligned)
    target = outputs.teacher_taps[-1] / outputs.teacher_taps[-1].max() * aligned.max()
    torch.testing.assert_close(term(outputs), ((generated - target) ** 2).sum() / 4)


# --- reliable teacher ------------------------------------------------------------------------------------------------


def test_branches_sit_on_all_stages_but_the_last() -> None:
    student = build_student("conv5", input_shape=(3, 8, 8), classes=4, width=4, steps=2)
    term = ReliableTeacher(alpha=0.5, beta=0.3, tau=3.0)
    inputs = torch.rand(6, 3, 8, 8)
    pairing = pair(student, None, inputs[:1], classes=4)
    companion = term.companion(pairing)
    found = student.through_time(inputs, student.stages)
    taps = tuple(found.taps[name] for name in student.stages)
    branches = [*companion.children()]
    assert [branch(tap).shape for branch, tap in zip(branches, taps, strict=False)] == [(6, 4), (6, 4)]
    outputs = BatchOutputs(found.logits, torch.arange(6) % 4, taps=taps, companion=companion.eval(), pairing=pairing)
    hard = sum(cross_entropy(branch(tap), outputs.labels) for branch, tap in zip(branches, taps, strict=False))
    without = ReliableTeacher(alpha=0.5, beta=0.0)(outputs)
    torch.testing.assert_close(without, 0.5 * torch.as_tensor(hard))
    assert term(outputs) >= without


def test_one_stage_has_no_branch() -> None:
    student, _ = networks()
    pairing = pair(student, None, torch.rand(1, 1, 8, 8), classes=3, taps=("lif2",))
    with pytest.raises(UserError) as error:
        ReliableTeacher().companion(pairing)
    assert error.value.code == "SNX342"
