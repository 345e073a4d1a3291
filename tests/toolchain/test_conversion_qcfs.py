"""QCFS: staircases and firing rates are the same numbers, and thresholds move into weights without a trace."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.lif import Lif
from snn_export.models.surrogates import Surrogate
from snn_export.models.teachers.qcfs_activation import QcfsActivation
from snn_export.training.conversion.conversion import Conversion
from snn_export.training.conversion.max_norm import CONVERSION as MAX_NORM
from snn_export.training.conversion.qcfs import CONVERSION, Qcfs
from snn_export.training.conversion.scaling import source_layers
from tests.conversion_networks import SHAPE, digits, untrained

pytestmark = pytest.mark.usefixtures("one_thread")


def neuron(theta: float) -> Lif:
    return Lif(dv=0, threshold=theta, surrogate=Surrogate("triangle", 1.0), reset="subtract", initial=theta / 2)


@pytest.mark.parametrize("steps", [1, 4, 8, 32])
@pytest.mark.parametrize("theta", [1.0, 2.7])
def test_rates_under_a_constant_input_are_the_staircase_with_as_many_levels(steps: int, theta: float) -> None:
    x = (torch.rand(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(steps)) * 3 - 1) * theta
    spikes, _ = neuron(theta).run_steps(x.expand(steps, -1))
    expected = QcfsActivation(steps, theta).double()(x)
    assert torch.allclose(spikes.mean(dim=0) * theta, expected, atol=1e-6)
    assert len(expected.unique()) == steps + 1


def test_more_steps_than_levels_refine_the_staircase() -> None:
    x = torch.linspace(0, 1, 501, dtype=torch.float64) + 1e-4
    errors = [
        float((neuron(1.0).run_steps(x.expand(steps, -1))[0].mean(dim=0) - x.clamp(max=1)).abs().max()) for steps in (4, 16)
    ]
    assert errors[0] <= 1 / 8 + 1e-4
    assert errors[1] <= 1 / 32 + 1e-4


def test_only_ties_tell_a_strict_comparison_from_the_other() -> None:
    """X T + 1/2 a whole number: the staircase and a neuron that fires at its threshold round up, this program's rounds down."""
    steps = 4
    x = (torch.arange(1, steps + 1, dtype=torch.float64) - 0.5) / steps
    strict = neuron(1.0).run_steps(x.expand(steps, -1))[0].sum(dim=0)
    membrane, at_threshold = torch.full_like(x, 0.5), torch.zeros_like(x)
    for _ in range(steps):
        membrane = membrane + x
        fired = (membrane >= 1.0).double()
        membrane, at_threshold = membrane - fired, at_threshold + fired
    assert (QcfsActivation(steps, 1.0).double()(x) * steps).tolist() == [1, 2, 3, 4]
    assert at_threshold.tolist() == [1, 2, 3, 4]
    assert strict.tolist() == [0, 1, 2, 3]


def test_the_first_population_of_a_converted_network_fires_at_the_rates_of_its_staircase() -> None:
    conversion = replace(CONVERSION, method=Qcfs(levels=8))
    source = untrained(conversion)
    inputs = digits()
    student = conversion.convert(source, inputs, steps=8)
    rates = student.through_time(inputs, ("lif1",)).taps["lif1"]
    _, taps = source.features(inputs, ("relu1",))
    levels = taps["relu1"] / source.get_submodule("layers.relu1").threshold
    assert len(levels.unique()) > 4
    assert float(((rates - levels).abs() > 1e-5).double().mean()) < 1e-3  # those that rounding moved over an edge


def unscaled(source: nn.Sequential, inputs: Tensor, steps: int) -> tuple[list[Tensor], Tensor]:
    """The released form: every threshold its own, spikes of its size, batch-norm as it is; spikes per layer, summed logits."""
    membranes: dict[str, Tensor] = {}
    fired: dict[str, list[Tensor]] = {}
    logits = torch.zeros(())
    for _ in range(steps):
        value = inputs
        for name, layer in source.named_children():
            if isinstance(layer, QcfsActivation):
                theta = layer.threshold.item()
                membrane = membranes.get(name, torch.full_like(value, theta / 2)) + value
                spikes = (membrane > theta).to(value.dtype)
                membranes[name] = membrane - theta * spikes
                fired.setdefault(name, []).append(spikes)
                value = theta * spikes
            else:
                value = layer(value)
        logits = logits + value
    return [torch.stack(spikes) for spikes in fired.values()], logits


@pytest.mark.parametrize("name", ["convnet", "conv5", "vgg9", "dense"])
def test_thresholds_in_the_weights_change_no_spike(name: str) -> None:
    source = untrained(CONVERSION, name).double()
    inputs = digits(16).double()
    student = CONVERSION.convert(source, inputs, steps=6).double()
    # float32 rounds what the student's weights were stored in; taken again in float64
    student.load_state_dict(_in_float64(source, student.state_dict()))
    found: list[Tensor] = []

    def observe(_: str, spikes: Tensor | None, __: Tensor) -> None:
        found.extend([spikes] if spikes is not None else [])

    membranes = student.membranes(inputs, observe)
    with torch.no_grad():
        expected, logits = unscaled(source.layers, inputs, 6)
    assert len(found) == len(expected) >= 2
    for mine, theirs in zip(found, expected, strict=True):
        assert 0.02 < float(theirs.mean()) < 0.98
        assert torch.equal(mine, theirs)
    assert torch.allclose(membranes[-1], logits, atol=1e-9)


def _in_float64(source: nn.Module, converted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The scaled weights, computed here a second way: each tensor from the source's own and the thresholds around it."""
    found = dict(converted)
    behind, thresholds = 1.0, [layer.threshold.item() for _, layer in source_layers(source) if isinstance(layer, QcfsActivation)]
    ahead = [*thresholds, 1.0]
    for name, layer in source_layers(source):
        if isinstance(layer, QcfsActivation):
            behind = ahead.pop(0)
        elif isinstance(layer, (nn.Conv2d, nn.Linear)):
            found[f"layers.{name}.weight"] = layer.weight.detach() * behind / ahead[0]
            if layer.bias is not None:
                found[f"layers.{name}.bias"] = layer.bias.detach() / ahead[0]
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            found[f"layers.{name}.running_mean"] = layer.running_mean / ahead[0]
            found[f"layers.{name}.bias"] = layer.bias.detach() / ahead[0]
    for name, value in found.items():
        assert torch.allclose(value.double(), converted[name].double(), rtol=1e-5), name
    return found


def test_preparing_changes_the_copy_alone() -> None:
    from snn_export.models.teachers.registry import build_teacher

    teacher = build_teacher("conv5", input_shape=SHAPE, classes=10, width=2)
    prepared = CONVERSION.prepare_source(teacher)
    assert [type(layer) for name, layer in teacher.layers.named_children() if name.startswith("relu")] == [nn.ReLU] * 5
    assert all(isinstance(prepared.layers.get_submodule(f"relu{number}"), QcfsActivation) for number in range(1, 6))
    assert prepared.stages == teacher.stages
    assert sum(name.endswith("threshold") for name, _ in prepared.named_parameters()) == 5


@pytest.mark.parametrize(("conversion", "word"), [(MAX_NORM, "prepare_source"), (CONVERSION, "threshold")])
def test_a_source_without_learnt_thresholds_is_refused(conversion: Conversion, word: str) -> None:
    source = untrained(conversion)
    if conversion is CONVERSION:
        torch.nn.init.constant_(source.get_submodule("layers.relu2").threshold, -1.0)
    with pytest.raises(UserError) as caught:
        CONVERSION.convert(source, digits(), 4)
    assert [item.code for item in caught.value.diagnostics] == (["SNX353"] if conversion is CONVERSION else ["SNX351"] * 2)
    assert word in str(caught.value)
