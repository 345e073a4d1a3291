"""Max-norm and calibration, and what every conversion refuses."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.students.registry import build_student
from snn_export.models.students.student import SpikingStudent, StudentConfig
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.teacher import Teacher, TeacherConfig
from snn_export.training.checkpoint import load_model, save_model
from snn_export.training.conversion.calibration import CONVERSION as CALIBRATION
from snn_export.training.conversion.calibration import Calibration, least_error_threshold
from snn_export.training.conversion.conversion import Conversion
from snn_export.training.conversion.max_norm import CONVERSION as MAX_NORM
from snn_export.training.conversion.max_norm import MaxNorm
from snn_export.training.conversion.measuring import channel_means, measure
from snn_export.training.conversion.qcfs import Qcfs
from snn_export.training.conversion.registry import CONVERSIONS, load_conversion
from snn_export.training.conversion.scaling import pair_layers
from tests.conversion_networks import SHAPE, digits, untrained

pytestmark = pytest.mark.usefixtures("one_thread")


LARGEST = replace(MAX_NORM, method=MaxNorm(100.0))


def codes(caught: pytest.ExceptionInfo[UserError]) -> list[str]:
    return [item.code for item in caught.value.diagnostics]


# --- max-norm --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["convnet", "conv5"])
def test_with_many_steps_max_norm_comes_to_the_logits_of_its_source(name: str) -> None:
    source, inputs = untrained(LARGEST, name), digits()
    expected = source(inputs).detach()
    far, near = ((LARGEST.convert(source, inputs, steps)(inputs) - expected).abs().mean() for steps in (16, 512))
    assert near < 0.05 * expected.std()
    assert near < far / 4


def test_percentiles_count_activations_above_zero() -> None:
    source, inputs = untrained(MAX_NORM), digits()
    _, taps = source.features(inputs, ("relu1",))
    active = taps["relu1"][taps["relu1"] > 0]
    largest = MaxNorm(100.0).thresholds(source, inputs, 4)["relu1"]
    middle = MaxNorm(50.0).thresholds(source, inputs, 4)["relu1"]
    assert largest == active.max().item()
    assert float((active < middle).double().mean()) <= 0.5 <= float((active <= middle).double().mean())


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.1, float("nan")])
def test_a_percentile_out_of_range_is_refused(percentile: float) -> None:
    with pytest.raises(UserError) as caught:
        MaxNorm(percentile)
    assert codes(caught) == ["SNX354"]


# --- calibration -----------------------------------------------------------------------------------------------------


def test_the_threshold_of_least_error_drops_a_rare_large_activation() -> None:
    levels = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).repeat(1000)
    assert least_error_threshold(levels + 1e-4, 4) == pytest.approx(1.0, abs=0.02)
    assert least_error_threshold(torch.cat((levels, torch.tensor([2.0]))), 4) == pytest.approx(1.0, abs=0.021)
    assert least_error_threshold(torch.tensor([-1.0, 0.0]), 4) == 0.0


def test_the_threshold_of_least_error_is_the_best_of_its_candidates() -> None:
    values = torch.rand(3000, generator=torch.Generator().manual_seed(0)) ** 3
    found = least_error_threshold(values, 4)

    def error(threshold: float) -> float:
        return float((((values * 4 / threshold).floor().clamp(0, 4) * threshold / 4 - values) ** 2).mean())

    assert error(found) <= min(error(float(values.max()) * share / 100) for share in range(6, 101)) * (1 + 1e-4)


def mean_errors(source: Teacher, inputs: Tensor, method: Calibration, steps: int) -> list[float]:
    """Difference of channel means per activation, in units of the threshold."""
    student = replace(CALIBRATION, method=method).convert(source, inputs, steps)
    thresholds = method.thresholds(source, inputs, steps)
    wanted = measure(source, inputs, channel_means)
    rates = student.through_time(inputs, tuple(student.stages)).taps
    pairs = zip(wanted, student.stages, strict=True)
    return [float((channel_means(rates[name]) - wanted[theirs] / thresholds[theirs]).abs().mean()) for theirs, name in pairs]


def test_corrected_biases_bring_the_mean_rates_to_the_mean_activations() -> None:
    source, inputs = untrained(CALIBRATION), digits()
    with torch.no_grad():
        plain = mean_errors(source, inputs, Calibration(shift=False, bias_correction=False), 4)
        shifted = mean_errors(source, inputs, Calibration(bias_correction=False), 4)
        corrected = mean_errors(source, inputs, Calibration(), 4)
    assert all(after < before for before, after in zip(plain, shifted, strict=True))
    assert corrected[-1] < 0.7 * shifted[-1]
    assert all(after < before / 4 for before, after in zip(plain, corrected, strict=True))


def test_the_shift_is_half_a_threshold_over_all_steps() -> None:
    source, inputs = untrained(CALIBRATION), digits(8)
    plain, shifted = (
        replace(CALIBRATION, method=Calibration(shift=shift, bias_correction=False)).convert(source, inputs, 5).state_dict()
        for shift in (False, True)
    )
    changed = {name: float((shifted[name] - plain[name]).mean()) for name in plain if not torch.equal(plain[name], shifted[name])}
    assert changed == pytest.approx({"layers.norm1.bias": 0.1, "layers.norm2.bias": 0.1})


def test_without_a_bias_there_is_nothing_to_correct() -> None:
    config = StudentConfig("dense", (4,), 2, reset="subtract", dv=0)
    first, second, last = nn.Linear(4, 3), nn.Linear(3, 3, bias=False), nn.Linear(3, 2)
    student = SpikingStudent(config, nn.Sequential(OrderedDict(
        first=first, lif1=config.population(), second=second, lif2=config.population(), last=last, readout=Integrator()
    )))  # fmt: skip
    relus = OrderedDict(first=first, relu1=nn.ReLU(), second=second, relu2=nn.ReLU(), last=last)
    source = Teacher(TeacherConfig("dense", (4,), 2), nn.Sequential(relus))
    with pytest.raises(UserError) as caught:
        Calibration().correct(student, source, torch.rand(4, 4), {"relu1": 1.0, "relu2": 1.0})
    assert codes(caught) == ["SNX352"]
    assert "no bias stands in front of 'relu2'" in str(caught.value)


# --- what all of them share ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_converted_network_is_a_student_that_its_checkpoint_builds_again(name: str, tmp_path: Path) -> None:
    conversion = load_conversion(name)
    source, inputs = untrained(conversion), digits()
    before = {key: value.clone() for key, value in source.state_dict().items()}
    source.train()
    student = conversion.convert(source, inputs, 4)
    assert source.training
    assert not student.training
    assert all(torch.equal(value, before[key]) for key, value in source.state_dict().items())
    assert (student.config.dv, student.config.reset, student.config.threshold) == (0, "subtract", 1.0)
    assert student.config.initial == (0.5 if name == "qcfs" else 0.0)
    save_model(tmp_path / "student.safetensors", student)
    again = load_model(tmp_path / "student.safetensors")
    assert torch.equal(again(inputs), student(inputs))


@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_conversion_says_where_it_comes_from(name: str) -> None:
    conversion = load_conversion(name)
    assert conversion.name == name
    assert conversion.citation
    assert conversion.summary
    assert conversion.published
    assert conversion.describe().startswith(f"{name}: ")


def test_an_unknown_conversion_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UserError) as caught:
        load_conversion("maxnorm")
    assert codes(caught) == ["SNX355"]
    assert "max_norm" in caught.value.diagnostics[0].fix


def other(*layers: nn.Module, name: str = "convnet") -> Teacher:
    named = OrderedDict((f"layer{number}", layer) for number, layer in enumerate(layers))
    return Teacher(TeacherConfig(name, SHAPE, 10, 4), nn.Sequential(named), stages=("layer0",))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.conv(x)
        return found


REST = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))


@pytest.mark.parametrize(
    ("layers", "expected", "words"),
    [
        ((nn.MaxPool2d(2), nn.LeakyReLU(), *REST), ["SNX351", "SNX351"], "average pooling"),
        ((nn.AdaptiveMaxPool2d(1), *REST), ["SNX351"], "AvgPool2d"),
        ((nn.AdaptiveAvgPool2d(2), *REST), ["SNX351"], "AdaptiveAvgPool2d(1)"),
        ((Block(), *REST), ["SNX351"], "shortcut"),
        ((*REST[:2], nn.AvgPool2d(1), nn.ReLU(), *REST[2:]), ["SNX351"], "layer3"),
    ],
)
@pytest.mark.parametrize("step", ["prepare", "convert"])
def test_layers_without_a_firing_rate_are_refused_by_name(
    layers: tuple[nn.Module, ...], expected: list[str], words: str, step: str
) -> None:
    with pytest.raises(UserError) as caught:
        MAX_NORM.prepare_source(other(*layers)) if step == "prepare" else MAX_NORM.convert(other(*layers), digits(4), 4)
    assert codes(caught) == expected
    assert words in str(caught.value)


def test_shortcuts_are_refused_block_by_block() -> None:
    with pytest.raises(UserError) as caught:
        MAX_NORM.prepare_source(build_teacher("resnet18", input_shape=(1, 8, 8), classes=10, width=2))
    assert codes(caught) == ["SNX351"] * 8
    assert "stage1.block1" in str(caught.value)


def test_a_teacher_without_a_student_of_its_name_or_layers_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        MAX_NORM.prepare_source(other(*REST, name="mine"))
    assert codes(caught) == ["SNX352"]
    with pytest.raises(UserError) as caught:
        MAX_NORM.prepare_source(nn.Sequential(*REST))  # type: ignore[arg-type]
    assert codes(caught) == ["SNX352"]
    with pytest.raises(UserError) as caught:
        MAX_NORM.convert(other(*REST), digits(4), 4)
    assert codes(caught) == ["SNX352"]
    assert "layer0 is Conv2d" in str(caught.value)


def test_blocks_of_layers_and_layers_that_do_nothing_are_looked_through() -> None:
    source, inputs = untrained(MAX_NORM), digits(16)
    parts = dict(source.layers.named_children())
    names = list(parts)
    block = nn.Sequential(OrderedDict((name, parts[name]) for name in names[:4]))
    rest = OrderedDict((name, parts[name]) for name in names[4:])
    nested = Teacher(source.config, nn.Sequential(OrderedDict(block=block, nothing=nn.Dropout(0.5), **rest)), ("block",))
    assert torch.equal(MAX_NORM.convert(nested, inputs, 8)(inputs), MAX_NORM.convert(source, inputs, 8)(inputs))


def test_a_pool_of_another_size_is_no_average_of_everything() -> None:
    source = untrained(MAX_NORM, "conv5")
    larger = build_student("conv5", input_shape=(1, 16, 16), classes=10, width=4)
    with pytest.raises(UserError) as caught:
        pair_layers(larger, source)
    assert codes(caught) == ["SNX352"]
    assert "pool is AdaptiveAvgPool2d" in str(caught.value)
    assert len(pair_layers(build_student("conv5", input_shape=SHAPE, classes=10, width=4), source)) == 18


@pytest.mark.parametrize("conversion", [MAX_NORM, CALIBRATION])
def test_a_silent_layer_has_no_threshold(conversion: Conversion) -> None:
    source = untrained(conversion)
    nn.init.constant_(source.get_submodule("layers.norm2").bias, -100.0)
    with pytest.raises(UserError) as caught:
        conversion.convert(source, digits(), 4)
    assert codes(caught) == ["SNX353"]
    assert "relu2" in str(caught.value)


@pytest.mark.parametrize(
    "inputs", [torch.zeros(0, 1, 8, 8), torch.zeros(4, 8, 8), torch.zeros(4, 3, 8, 8), torch.full((2, 1, 8, 8), torch.nan)]
)
def test_calibration_inputs_that_tell_nothing_are_refused(inputs: Tensor) -> None:
    with pytest.raises(UserError) as caught:
        CALIBRATION.convert(build_teacher("convnet", input_shape=SHAPE, classes=10), inputs, 4)
    assert codes(caught) == ["SNX356"]


def test_steps_below_one_and_no_levels_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        MAX_NORM.convert(untrained(MAX_NORM), digits(4), 0)
    assert codes(caught) == ["SNX012"]
    with pytest.raises(UserError) as caught:
        Qcfs(levels=0)
    assert codes(caught) == ["SNX354"]
