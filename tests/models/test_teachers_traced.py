"""Teachers from torch modules: stages that are found, taps that are named, the rest of the network run on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.stages import checked_taps, describe_taps
from snn_export.models.teachers.teacher import TeacherNetwork
from snn_export.models.teachers.traced import teacher_from_module

SHAPE = (2, 8, 8)


class Functional(nn.Module):
    """Shared and in-place activations, a sum, functions, and sizes taken from the data."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.dense = nn.Linear(6 * 16, 5)

    def forward(self, inputs: Tensor, flag: bool = True) -> Tensor:
        batch, channels = inputs.size(0), inputs.shape[1]
        hidden = self.relu(self.first(inputs))
        branch = self.second(hidden)
        branch += hidden
        hidden = functional.relu(branch, inplace=True)
        hidden = functional.max_pool2d(hidden, channels)
        hidden = self.relu(self.third(hidden)) * self.scale
        if flag:
            hidden = hidden.clamp_(0, 4)
        return self.dense(hidden.view(batch, -1))


def seeded(network: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return network()


def test_a_traced_network_computes_what_the_module_computes() -> None:
    network = seeded(Functional).eval()
    inputs = torch.rand(4, *SHAPE)
    expected = network(inputs)
    teacher = teacher_from_module(network, input_shape=SHAPE, classes=5)
    assert isinstance(teacher, TeacherNetwork)
    assert teacher.untraceable is None
    torch.testing.assert_close(teacher(inputs), expected)
    assert not teacher.training
    shapes = {tap.name: tap.shape for tap in describe_taps(teacher) if tap.is_stage}
    assert list(shapes.values()) == [(4, 8, 8), (6, 4, 4)]
    assert teacher.stages == tuple(shapes)
    assert teacher.nonlinear_operations == ("max_pool2d",)


def test_taps_keep_their_values_where_the_module_works_in_place() -> None:
    network = seeded(Functional).eval()
    inputs = torch.rand(2, *SHAPE)
    raw = network.first(inputs).clone()
    teacher = teacher_from_module(network, input_shape=SHAPE, classes=5)
    features = teacher.features(inputs, ["first", "relu"])[1]
    torch.testing.assert_close(features["first"], raw)
    assert bool((features["first"] < 0).any())
    torch.testing.assert_close(features["relu"], raw.clamp(min=0))


def test_onward_from_the_stages_and_sizes_of_the_batch() -> None:
    teacher = teacher_from_module(seeded(Functional), input_shape=SHAPE, classes=5)
    inputs = torch.rand(7, *SHAPE)
    logits, features = teacher.features(inputs, teacher.stages)
    for tap in teacher.stages:
        entry = features[tap].detach().requires_grad_()
        torch.testing.assert_close(teacher.onward(tap, entry), logits)
        assert torch.autograd.grad(teacher.onward(tap, entry).sum(), entry)[0].shape == entry.shape
    with pytest.raises(UserError, match="'relu'") as error:  # the sum needs it too
        teacher.onward("second", teacher.features(inputs, ["second"])[1]["second"])
    assert error.value.code == "SNX275"


def test_weights_that_change_count_and_a_copy_is_its_own() -> None:
    network = seeded(Functional)
    teacher = teacher_from_module(network, input_shape=SHAPE, classes=5)
    other = copy.deepcopy(teacher)
    inputs = torch.rand(2, *SHAPE)
    expected = teacher(inputs)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(other(inputs), torch.zeros(2, 5))
    torch.testing.assert_close(teacher(inputs), expected)
    other.load_state_dict(teacher.state_dict())
    torch.testing.assert_close(other(inputs), expected)


class Branching(nn.Module):
    """Decides by the values of the data."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dense(inputs) if inputs.sum() > 0 else self.dense(-inputs)


class Noisy(Branching):
    """Gives another answer at each call."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dense(inputs) + torch.rand(3)


class Overwriting(Branching):
    """Relies on a value that was overwritten."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.dense(inputs)
        logits.mul_(2)
        return logits


@pytest.mark.parametrize("network", [Branching, Noisy, Overwriting])
def test_a_module_that_cannot_be_taken_apart_still_gives_logits(network: type[nn.Module]) -> None:
    module = seeded(network)
    teacher = teacher_from_module(module, input_shape=(4,), classes=3)
    inputs = torch.rand(2, 4)
    if network is not Noisy:
        assert torch.equal(teacher(inputs), module(inputs))
    assert teacher.stages == ()
    assert describe_taps(teacher) == []
    for ask in (lambda: teacher.features(inputs, ["dense"]), lambda: teacher.onward("dense", inputs)):
        with pytest.raises(UserError) as error:
            ask()
        assert error.value.code == "SNX274"
        assert teacher.untraceable in str(error.value)
    with pytest.raises(UserError) as error:
        checked_taps(teacher)
    assert error.value.code == "SNX276"


class Constant(Branching):
    """Makes a tensor of its own on the way."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dense(inputs) * torch.tensor([1.0, 2.0, 3.0])


def test_a_tensor_that_forward_makes_is_a_constant() -> None:
    module = seeded(Constant)
    teacher = teacher_from_module(module, input_shape=(4,), classes=3)
    inputs = torch.rand(2, 4)
    assert teacher.untraceable is None
    assert torch.equal(teacher(inputs), module(inputs))


class Pair(Branching):
    """Returns more than logits."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.dense(inputs), inputs


@pytest.mark.parametrize("network", [Pair, lambda: nn.Linear(4, 7), nn.Identity])
def test_a_module_without_the_right_logits(network: type[nn.Module]) -> None:
    with pytest.raises(UserError) as error:
        teacher_from_module(network(), input_shape=(4,), classes=3)
    assert error.value.code == "SNX153"


def stages(network: nn.Module, shape: tuple[int, ...], classes: int) -> tuple[str, ...]:
    return teacher_from_module(network, input_shape=shape, classes=classes).stages


def test_stages_of_dense_networks_are_their_activations() -> None:
    dense = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))
    assert stages(dense, SHAPE, 3) == ("2", "4")
    assert stages(nn.Sequential(nn.Flatten(), nn.Linear(128, 3)), SHAPE, 3) == ()


def test_stages_of_images_end_before_the_head() -> None:
    def head(channels: int) -> list[nn.Module]:
        return [
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, 8, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8, 8),
            nn.ReLU(),
            nn.Linear(8, 3),
        ]

    convolutions = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)]
    assert stages(nn.Sequential(*convolutions, *head(4)), SHAPE, 3) == ("3",)
    without = [nn.Conv2d(2, 4, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)]
    assert stages(nn.Sequential(*without), SHAPE, 3) == ("0", "1")
    single = [nn.Conv2d(2, 4, 8), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3)]
    assert stages(nn.Sequential(*single), SHAPE, 3) == ("1",)


def test_stages_are_in_the_order_of_the_flow_where_a_resolution_returns() -> None:
    layers = [nn.ReLU(), nn.AvgPool2d(2), nn.ReLU(), nn.Upsample(scale_factor=2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)]
    assert stages(nn.Sequential(*layers), SHAPE, 3) == ("2", "4")


def test_one_dimensional_networks_have_stages_too() -> None:
    network = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
    )
    assert stages(network, (2, 10), 3) == ("1", "4")


def test_layers_of_a_built_teacher_are_described_without_a_trace() -> None:
    teacher = build_teacher("convnet", input_shape=(1, 8, 8), classes=3, width=4).train()
    before = copy.deepcopy(teacher.state_dict())
    found = {tap.name: tap for tap in describe_taps(teacher)}
    assert found["relu2"].shape == (8, 4, 4)
    assert found["conv1"].operation == "Conv"
    assert [name for name, tap in found.items() if tap.is_stage] == list(teacher.stages)
    assert all(module.training for module in teacher.modules())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert checked_taps(teacher, ["relu1"]) == ("relu1",)
    with pytest.raises(UserError, match="did you mean 'relu1'"):
        checked_taps(teacher, ["relu_1"])


def test_a_long_network_is_answered_with_its_stages_and_the_closest_layer() -> None:
    layers = [layer for _ in range(30) for layer in (nn.Linear(4, 4), nn.Tanh())]
    teacher = teacher_from_module(nn.Sequential(*layers, nn.Linear(4, 3)), input_shape=(4,), classes=3)
    with pytest.raises(UserError) as error:
        teacher.step("59.")
    assert "did you mean '59'" in str(error.value)
    assert "'58'" not in str(error.value)
