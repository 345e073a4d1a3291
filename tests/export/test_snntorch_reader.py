"""A module is read as it stands or refused with the reason; nothing is dropped on the way."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
import snntorch
import torch
from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.recurrent import Recurrent
from tests.networks import conv_net, leaky, named, read


def refused(layers: nn.Sequential, shape: tuple[int, ...], code: str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(layers, shape, **options)
    assert caught.value.code == code
    return str(caught.value)


def snn(**options: Any) -> snntorch.Leaky:
    return snntorch.Leaky(**{"beta": 0.875, "reset_mechanism": "zero", "reset_delay": False, **options})


def with_neuron(neuron: nn.Module) -> nn.Sequential:
    return named(fc=nn.Linear(4, 3), lif=neuron, out=nn.Linear(3, 2), readout=Integrator())


def test_parameters_neurons_and_readout_are_read() -> None:
    layers = conv_net()
    deployment = read(layers, (2, 9, 7), steps=5, rule="membrane_max", dt=2e-3)
    conv = layers.get_submodule("conv2")
    np.testing.assert_array_equal(deployment.graph.nodes["conv2"].weight, conv.weight.detach().numpy())
    assert deployment.contract.neurons["lif1"].dv == 900
    assert deployment.contract.steps == 5
    assert deployment.contract.readout.rule == "membrane_max"
    assert deployment.contract.latency == {"lif1": 1, "lif2": 2, "readout": 3}
    np.testing.assert_allclose(deployment.graph.nodes["lif1"].tau, 2e-3 * 4096 / 900)
    assert deployment.graph.nodes["lif1"].v_threshold.shape == deployment.shapes["lif1"]


@pytest.mark.parametrize(
    "module",
    [nn.ReLU(), nn.MaxPool2d(2), nn.Sigmoid(), nn.LayerNorm(3), snntorch.Lapicque(0.5), snntorch.Alpha(0.5, 0.4)],
)
def test_unknown_module_is_refused_by_name(module: nn.Module) -> None:
    text = refused(with_neuron(module), (4,), "SNX210")
    assert type(module).__name__ in text
    assert "lif" in text


def test_subclass_of_a_known_module_is_refused() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    refused(named(fc=Doubled(4, 2), readout=Integrator()), (4,), "SNX210")


def test_skipped_modules_leave_no_node() -> None:
    layers = named(fc=nn.Linear(4, 2), drop=nn.Dropout(0.5), same=nn.Identity(), readout=Integrator())
    assert set(read(layers, (4,)).graph.nodes) == {"input", "fc", "readout", "output"}


def test_decay_off_the_grid_is_refused_with_the_nearest_one() -> None:
    text = refused(with_neuron(snn(beta=0.9)), (4,), "SNX241")
    assert "1 - 410/4096" in text
    assert f"{1 - 410 / 4096:.8g}" in text
    deployment = read(with_neuron(snn(beta=0.9)), (4,), round_decays=True)
    assert deployment.contract.neurons["lif"].dv == 410
    assert "round_decays" in deployment.contract.lineage.passes


@pytest.mark.parametrize("dv", [1, 2, 409, 4094, 4095])
def test_every_decay_on_the_grid_is_read_back(dv: int) -> None:
    assert read(with_neuron(snn(beta=1 - dv / 4096)), (4,)).contract.neurons["lif"].dv == dv


def test_no_leak_is_an_integrate_and_fire_node() -> None:
    assert isinstance(read(with_neuron(snn(beta=1.0)), (4,)).graph.nodes["lif"], nir.IF)


@pytest.mark.parametrize("options", [{"round_decays": False}, {"round_decays": True}])
def test_neuron_without_memory_has_no_place_on_the_chip(options: dict[str, bool]) -> None:
    refused(with_neuron(snn(beta=0.0)), (4,), "SNX241", **options)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"beta": torch.full((3,), 0.875)}, "a beta per neuron"),
        ({"threshold": torch.full((3,), 1.0)}, "a threshold per neuron"),
        ({"threshold": 0.0}, "threshold 0"), ({"threshold": -1.0}, "threshold -1"),
        ({"inhibition": True}, "inhibition"), ({"graded_spikes_factor": 2.0}, "graded_spikes_factor"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Inhibition")
def test_neuron_settings_without_an_exact_rule_are_refused(options: dict[str, Any], what: str) -> None:
    assert what in refused(with_neuron(snn(**options)), (4,), "SNX211")


def test_late_and_subtractive_resets_are_read_as_they_are() -> None:
    spec = read(with_neuron(snn(reset_mechanism="subtract", reset_delay=True)), (4,)).contract.neurons["lif"]
    assert (spec.reset, spec.reset_delay) == ("subtract", 1)
    spec = read(with_neuron(snn(reset_mechanism="none", reset_delay=True)), (4,)).contract.neurons["lif"]
    assert (spec.reset, spec.reset_delay) == ("none", 0)
    spec = read(with_neuron(snn(reset_mechanism="subtract")), (4,)).contract.neurons["lif"]
    assert (spec.reset, spec.reset_delay, spec.double_to_refire, spec.microcode) == ("subtract", 0, True, False)


def test_only_leaky_keeps_the_input_of_a_late_reset_to_zero() -> None:
    kinds = {
        False: (snn(reset_delay=True), Recurrent(snn(reset_delay=True), nn.Linear(3, 3))),
        True: (
            snntorch.Synaptic(alpha=0.5, beta=0.5, reset_mechanism="zero"),
            snntorch.RLeaky(beta=0.5, linear_features=3, reset_mechanism="zero"),
            snntorch.RSynaptic(alpha=0.5, beta=0.5, linear_features=3, reset_mechanism="zero"),
        ),
    }
    for clears, neurons in kinds.items():
        for neuron in neurons:
            assert read(with_neuron(neuron), (4,)).contract.neurons["lif"].clears_input == clears


@pytest.mark.parametrize(
    "layers",
    [
        lambda: named(flat=nn.Flatten(), bn=nn.BatchNorm1d(4), fc=nn.Linear(4, 2), readout=Integrator()),
        lambda: named(fc=nn.Linear(4, 3), lif=leaky(), bn=nn.BatchNorm1d(3), out=nn.Linear(3, 2), readout=Integrator()),
        lambda: named(fc=nn.Linear(4, 3), bn=nn.BatchNorm1d(3), bn2=nn.BatchNorm1d(3), readout=Integrator()),
        lambda: named(fc=nn.Linear(4, 3), bn=nn.BatchNorm1d(3, track_running_stats=False), readout=Integrator()),
        lambda: named(fc=nn.Linear(4, 3), bn=nn.BatchNorm1d(5), readout=Integrator()),
    ],
)
def test_batch_norm_that_cannot_be_folded_is_refused(layers: Any) -> None:
    assert "bn" in refused(layers(), (4,), "SNX240")


@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d(2, ceil_mode=True), nn.AvgPool2d(2, count_include_pad=False), nn.AvgPool2d(2, divisor_override=3)]
)
def test_pool_options_that_nir_cannot_hold_are_refused(pool: nn.Module) -> None:
    layers = named(pool=pool, conv=nn.Conv2d(1, 1, 1), lif=leaky(), flat=nn.Flatten(), fc=nn.Linear(9, 2), readout=Integrator())
    assert "pool" in refused(layers, (1, 6, 6), "SNX210")


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_padding_other_than_zeros_is_refused(mode: Any) -> None:
    layers = named(
        conv=nn.Conv2d(1, 1, 3, padding=1, padding_mode=mode), flat=nn.Flatten(), fc=nn.Linear(16, 2), readout=Integrator()
    )
    refused(layers, (1, 4, 4), "SNX210")


@pytest.mark.parametrize("name", ["input", "output", "a/b"])
def test_names_that_the_file_needs_are_reserved(name: str) -> None:
    assert name in refused(named(**{name: nn.Linear(4, 2), "readout": Integrator()}), (4,), "SNX210")


@pytest.mark.parametrize("arguments", [(1, -1), (-3, -1), (1, 2), (2, 3), (-2, -1)])
def test_flatten_means_what_torch_means(arguments: tuple[int, int]) -> None:
    layers = named(flat=nn.Flatten(*arguments), more=nn.Flatten(), fc=nn.Linear(24, 2), readout=Integrator())
    expected = nn.Flatten(*arguments)(torch.zeros(1, 2, 3, 4)).shape[1:]
    assert read(layers, (2, 3, 4)).shapes["flat"] == tuple(expected)


@pytest.mark.parametrize("start", [0, -4])
def test_flatten_over_the_batch_is_refused(start: int) -> None:
    refused(named(flat=nn.Flatten(start), fc=nn.Linear(24, 2), readout=Integrator()), (2, 3, 4), "SNX210")


def test_module_in_two_places_is_refused_not_dropped() -> None:
    shared = leaky()
    layers = named(fc=nn.Linear(4, 4), a=shared, fc2=nn.Linear(4, 4), b=shared, out=nn.Linear(4, 2), readout=Integrator())
    refused(layers, (4,), "SNX210")


def test_network_without_a_population_at_its_end_is_refused() -> None:
    assert "fc" in refused(named(fc=nn.Linear(4, 2)), (4,), "SNX210")


def test_readout_in_the_middle_is_refused() -> None:
    layers = named(fc=nn.Linear(4, 3), early=Integrator(), out=nn.Linear(3, 2), readout=Integrator())
    assert "early" in refused(layers, (4,), "SNX210")


@pytest.mark.parametrize("options", [{"steps": 0}, {"dt": 0.0}, {"dt": -1.0}, {"dt": float("nan")}])
def test_contract_that_cannot_be_run_is_refused(options: dict[str, Any]) -> None:
    refused(with_neuron(leaky()), (4,), "SNX109", **options)


def test_input_shape_that_does_not_fit_is_refused() -> None:
    refused(with_neuron(leaky()), (5,), "SNX206")
