"""What the quantiser puts on the grid fits the chip, cannot overflow, and says the same in integers and in real units."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from snn_export.export import bounds, grid, interpreter
from snn_export.export.chips import LOIHI2
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.passes.quantize import Quantize, input_grids
from snn_export.export.passes.rounding import GridRules, InputRange, scale_limits
from snn_export.hardware_sims.loihi import rules
from snn_export.models import arithmetic
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.spec import EncoderSpec
from tests.builders import Plan, deployment_from, random_dense, random_inputs
from tests.networks import conv_deployment, conv_net, dense_net, finest, leaky, named, quantised, read, uniform


def scaled_net(weight: float, bias: float, threshold: float, features: int = 4) -> Deployment:
    """One hidden layer whose largest weight and bias are exactly these; the readout is small."""
    torch.manual_seed(0)
    layers = named(fc=nn.Linear(features, 6), lif=leaky(512, threshold), out=nn.Linear(6, 3), readout=Integrator())
    with torch.no_grad():
        fc = layers.get_submodule("fc")
        fc.weight.mul_(weight / fc.weight.abs().max())
        fc.bias.mul_(bias / fc.bias.abs().max())
    return read(layers, (features,))


def assert_fits(deployment: Deployment, step: int = 2) -> None:
    for synapse in deployment.synapses.values():
        assert synapse.weight.min() >= -256
        assert synapse.weight.max() <= 256 - step
        assert not np.any(synapse.weight % step)
        if synapse.bias_mantissa is not None:
            assert np.abs(synapse.bias_mantissa.astype(int)).max() <= 4095
    for population in deployment.populations.values():
        assert 0 <= population.threshold <= arithmetic.THRESHOLD_MAX
        assert 0 <= population.bias_exponent <= 7
    assert rules.check(deployment) == []
    assert all(found.safe for found in bounds.all_bounds(deployment).values())


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize(("net", "shape"), [(dense_net, (4,)), (conv_net, (2, 9, 7))])
def test_integers_fit_the_chip(net: Any, shape: tuple[int, ...], bits: int) -> None:
    deployment = quantised(read(net(), shape), -1.0, 1.0, bits)
    assert_fits(deployment, 1 << (9 - bits))
    assert len(np.unique(np.concatenate([s.weight.ravel() for s in deployment.synapses.values()]))) <= (1 << bits) + 1


@pytest.mark.parametrize(
    ("weight", "bias", "threshold", "limit"),
    [
        (1.0, 0.01, 0.5, "weight (8 bits)"), (0.02, 0.001, 50.0, "threshold (17 bits)"),
        (0.02, 3.0, 10.0, "bias (13-bit mantissa, exponent 7)"),
    ],
)  # fmt: skip
def test_every_register_can_be_the_binding_limit(weight: float, bias: float, threshold: float, limit: str) -> None:
    fewest_levels = lambda d: 1e9 * d.contract.encoder.bits + finest(d)
    deployment = quantised(scaled_net(weight, bias, threshold), score=fewest_levels)
    assert deployment.contract.quantisation.binding["lif"] == limit
    assert_fits(deployment)
    synapse, population = deployment.synapses["fc"], deployment.populations["lif"]
    reached = {
        "weight (8 bits)": np.abs(synapse.weight).max() >= 252,
        "threshold (17 bits)": population.threshold >= 131_000,
        "bias (13-bit mantissa, exponent 7)": np.abs(synapse.bias_mantissa).max() >= 4090 and population.bias_exponent == 7,
    }
    assert reached[limit]


@pytest.mark.parametrize(("features", "high"), [(784, 1.0), (3072, 1.0), (784, 255.0)])
def test_network_that_would_overflow_gets_a_smaller_scale(features: int, high: float) -> None:
    """Weights of full size would carry u and v far out of 24 bits; the scale goes as low as it has to."""
    torch.manual_seed(0)
    layers = named(fc=nn.Linear(features, 8), lif=leaky(256, 0.5), out=nn.Linear(8, 3), readout=Integrator())
    float_one = read(layers, (features,))
    best_bits = lambda d: -float(d.contract.encoder.bits)
    deployment = quantised(float_one, 0.0, high, score=best_bits)
    assert_fits(deployment)
    assert "24 bits" in deployment.contract.quantisation.binding["lif"]
    assert np.abs(deployment.synapses["fc"].weight).max() < 254
    inputs = uniform(np.random.default_rng(0), 3, features, high=high)
    assert all(activity.overflows == 0 for activity in interpreter.run(deployment, inputs, "int64").values())


def test_finer_input_is_passed_over_where_it_leaves_no_weights() -> None:
    """A thousand times too many inputs for 8-bit levels: fewer levels are chosen instead of giving up."""
    torch.manual_seed(0)
    layers = named(fc=nn.Linear(20_000, 2, bias=False), lif=leaky(4, 0.5), out=nn.Linear(2, 2), readout=Integrator())
    with torch.no_grad():
        layers.get_submodule("fc").weight.fill_(0.01)
    deployment = quantised(read(layers, (20_000,)), score=lambda d: -float(d.contract.encoder.bits))
    assert 1 <= deployment.contract.encoder.bits < 8
    assert np.any(deployment.synapses["fc"].weight)


@st.composite
def deployments(draw: st.DrawFn) -> tuple[Deployment, np.random.Generator]:
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    high = draw(st.sampled_from([1, 7, 255]))
    low = draw(st.sampled_from([0, -high]))
    steps = draw(st.integers(1, 12))
    if draw(st.booleans()):
        return conv_deployment(rng, steps=steps, high=high, low=low), rng
    layers = (random_dense(rng, "a", "input", (5, 4)), random_dense(rng, "b", "a", (4, 3)))
    return deployment_from(Plan((5,), layers, steps, low, high, events=draw(st.booleans()))), rng


@settings(max_examples=100, deadline=None)
@given(case=deployments())
def test_no_input_of_the_declared_range_passes_the_bounds(case: tuple[Deployment, np.random.Generator]) -> None:
    deployment, rng = case
    found = bounds.all_bounds(deployment)
    inputs = random_inputs(rng, deployment, 4)
    encoder = deployment.contract.encoder
    inputs[..., :2] = np.where(inputs[..., :2] > 0, encoder.high, encoder.low)  # the bounds belong to extreme inputs
    for name, activity in interpreter.run(deployment, inputs, "int64").items():
        if not found[name].safe:
            continue
        assert activity.overflows == 0
        assert np.abs(activity.current).max() <= found[name].current
        assert np.abs(activity.membrane).max() <= found[name].membrane


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), du=st.integers(0, 4095), dv=st.integers(0, 4095), steps=st.integers(1, 30))
def test_bounds_are_reached_by_the_worst_input(seed: int, du: int, dv: int, steps: int) -> None:
    """Not only an upper limit: the input that each weight's sign asks for comes close to it, so it refuses nothing for free."""
    rng = np.random.default_rng(seed)
    layer = replace(
        random_dense(rng, "a", "input", (6, 1), reach=20), du=du, dv=dv, bias=None, weight_exponent=0,
        threshold=arithmetic.THRESHOLD_MAX,
    )  # fmt: skip
    deployment = deployment_from(Plan((6,), (layer,), steps, 0, 3))
    low, high = bounds.sums(deployment, "a")
    weight = layer.weight[0]
    assert high[0] == 3 * weight[weight > 0].sum()
    assert low[0] == 3 * weight[weight < 0].sum()
    found, worst = bounds.all_bounds(deployment)["a"], np.where(weight < 0, 3.0, 0.0)[None]
    run = interpreter.run(deployment, worst, "int64")["a"]
    if found.safe:
        assert np.abs(run.membrane).max() <= found.membrane
    if found.safe and steps == 1 and -low[0] >= high[0]:
        assert found.membrane >= -run.membrane[0, 0, 0] == -64 * low[0]


def test_readout_that_could_fire_is_not_safe() -> None:
    found = bounds.PopulationBounds(current=100, membrane=(131071 << 6) + 1, readout_in_reach=True)
    assert not found.safe
    assert bounds.PopulationBounds(100, (1 << 23) - 1, False).safe
    assert not bounds.PopulationBounds(100, 1 << 23, False).safe
    assert not bounds.PopulationBounds(1 << 23, 100, False).safe


def test_long_runs_of_a_readout_lower_its_scale() -> None:
    layers = named(fc=nn.Linear(4, 3), readout=Integrator())
    short, long = (quantised(read(layers, (4,), steps)) for steps in (1, 5000))
    assert long.populations["readout"].scale < short.populations["readout"].scale
    assert_fits(long)


@pytest.mark.parametrize(("net", "shape"), [(dense_net, (4,)), (conv_net, (2, 9, 7))])
def test_nir_parameters_are_the_real_values_of_the_integers(net: Any, shape: tuple[int, ...]) -> None:
    float_one = read(net(), shape)
    deployment = quantised(float_one, -1.0, 1.0)
    grid.check_agreement(deployment)
    gain = deployment.contract.encoder.gain
    for name, (population, graded) in grid.synapse_targets(deployment).items():
        scale = deployment.populations[population].scale
        # snnTorch's units: the reader's neurons have unit gain, so a weight is its integer over the scale
        expected = deployment.synapses[name].weight * (gain if graded else 1.0) / scale
        np.testing.assert_allclose(deployment.graph.nodes[name].weight, expected, rtol=1e-12)
        error = np.abs(deployment.graph.nodes[name].weight - float_one.graph.nodes[name].weight)
        assert error.max() <= (gain if graded else 1.0) / scale * (1 + 1e-9)  # half a step of 2
    for name, population in deployment.populations.items():
        if deployment.contract.neurons[name].spiking:
            np.testing.assert_allclose(deployment.graph.nodes[name].v_threshold, population.threshold / population.scale)


def test_float_run_of_the_quantised_graph_in_real_units_is_its_integer_parameters() -> None:
    """Another reader of the NIR file, which sees no integers, runs the same network up to the truncation of decays."""
    deployment = quantised(read(dense_net(), (4,)))
    encoder = deployment.contract.encoder
    inputs = encoder.values(uniform(np.random.default_rng(0), 20, 4))
    contract = deployment.contract.model_copy(update={"quantisation": None, "encoder": EncoderSpec()})
    as_floats = deployment.replace(contract=contract, synapses={}, populations={})
    first, second = interpreter.run(as_floats, inputs), interpreter.run(deployment, inputs)
    for name, activity in first.items():
        np.testing.assert_array_equal(activity.spikes, second[name].spikes)
        np.testing.assert_allclose(activity.membrane, second[name].membrane, atol=1e-9)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (-0.3, 2.0), (0.0, 255.0), (-7.0, 0.0), (0.0, 1e-6)])
def test_input_grids_cover_the_declared_range(low: float, high: float) -> None:
    grids = list(input_grids(EncoderSpec(), InputRange(low, high), LOIHI2.graded_input_bits))
    assert grids
    for encoder in grids:
        assert encoder.low <= 0 <= encoder.high
        assert max(encoder.high, -encoder.low) <= 255
        ends = encoder.levels(np.array([low, high]))
        assert ends.tolist() == [round(low * encoder.gain), round(high * encoder.gain)]


def test_signed_inputs_keep_their_sign() -> None:
    deployment = quantised(read(dense_net(), (4,)), -2.0, 1.0)
    encoder = deployment.contract.encoder
    assert encoder.low < 0 < encoder.high
    assert encoder.levels(np.array([-2.0, -99.0])).tolist() == [encoder.low, encoder.low]


def refused(code: str, deployment: Deployment, target: Any = "loihi2", bits: int = 8, low: float = 0, high: float = 1) -> str:
    with pytest.raises(UserError) as caught:
        Quantize(target, lambda _: 0.0, InputRange(low, high), bits)(deployment)
    assert caught.value.code == code
    return str(caught.value)


@pytest.mark.parametrize("bits", [0, -1, 9])
def test_weight_bits_out_of_range(bits: int) -> None:
    refused("SNX307", read(dense_net(), (4,)), bits=bits)


@pytest.mark.parametrize(("low", "high"), [(0, float("inf")), (float("nan"), 1), (0, float("nan")), (float("-inf"), 0)])
@pytest.mark.parametrize("kind", ["direct", "events"])
def test_input_range_without_a_grid(low: float, high: float, kind: Any) -> None:
    refused("SNX306", read(dense_net(), (4,), encoder=EncoderSpec(kind)), low=low, high=high)


def test_empty_input_range_is_refused() -> None:
    refused("SNX306", read(dense_net(), (4,)), low=0, high=0)


def test_weights_that_vanish_beside_a_huge_bias_are_refused() -> None:
    assert "lif" in refused("SNX306", scaled_net(1e-6, 100.0, 1.0))


def test_quantising_twice_is_refused() -> None:
    refused("SNX246", quantised(read(dense_net(), (4,))))


def test_graded_input_needs_the_second_chip() -> None:
    refused("SNX247", read(dense_net(), (4,)), target="loihi1")
    events = read(dense_net(), (4,), encoder=EncoderSpec("events"))
    assert Quantize("loihi1", lambda _: 0.0, InputRange(0, 1))(events).contract.encoder == EncoderSpec("events", 1.0, 0, 1)


@pytest.mark.parametrize(("reset", "target"), [("subtract", "loihi1"), ("none", "loihi1"), ("none", "loihi2")])
def test_other_resets_are_refused(reset: str, target: str) -> None:
    events = EncoderSpec("events")
    assert "lif1" in refused("SNX203", read(dense_net(0, reset), (4,), encoder=events), target=target)


def test_programmable_neurons_reset_by_subtraction() -> None:
    deployment = quantised(read(dense_net(0, "subtract"), (4,)))
    assert deployment.contract.neurons["lif1"].microcode
    assert all(found.safe for found in bounds.all_bounds(deployment).values())


def test_pooling_must_be_absorbed_first() -> None:
    layers = named(
        conv=nn.Conv2d(1, 2, 3), lif=leaky(), pool=nn.AvgPool2d(2), flat=nn.Flatten(), fc=nn.Linear(8, 2), out=Integrator()
    )
    assert "pool" in refused("SNX209", read(layers, (1, 6, 6)))


def test_two_thresholds_or_gains_in_a_population_are_refused() -> None:
    deployment = read(dense_net(), (4,))
    node = deployment.graph.nodes["lif1"]
    ramp = 1 + np.arange(6) / 6
    for code, changed in (
        ("SNX245", nir.LIF(node.tau, node.r, node.v_leak, node.v_threshold * ramp, node.v_reset)),
        ("SNX244", nir.LIF(node.tau, node.r * ramp, node.v_leak, node.v_threshold, node.v_reset)),
    ):
        refused(code, deployment.replace(graph=replace_nodes(deployment.graph, {"lif1": changed})))


def filtered_net(v_leak: float = 0.0) -> Deployment:
    """``dense_net`` with a synaptic filter in front of its first neurons."""
    deployment = read(dense_net(), (4,))
    node, spec = deployment.graph.nodes["lif1"], replace(deployment.contract.neurons["lif1"], du=1023)
    filtered = nir.CubaLIF(
        tau_syn=np.full(6, 4e-3), tau_mem=node.tau, r=node.r, v_leak=node.v_leak + v_leak, v_threshold=node.v_threshold,
        v_reset=node.v_reset, w_in=np.full(6, 4.0),
    )  # fmt: skip
    contract = deployment.contract.model_copy(update={"neurons": {**deployment.contract.neurons, "lif1": spec}})
    return deployment.replace(graph=replace_nodes(deployment.graph, {"lif1": filtered}), contract=contract)


def test_bias_into_a_filtered_current_becomes_an_always_on_current() -> None:
    float_one = filtered_net()
    deployment = quantised(float_one)
    synapse, scale = deployment.synapses["fc1"], deployment.populations["lif1"].scale
    assert synapse.bias_mantissa is None
    assert synapse.current_bias is not None
    assert not np.any(synapse.current_bias % 2)
    gain = grid.input_gain(float_one, "lif1")
    np.testing.assert_allclose(synapse.current_bias / scale, float_one.graph.nodes["fc1"].bias * gain, atol=1.01 / scale)
    grid.check_agreement(deployment)
    inputs = uniform(np.random.default_rng(0), 30, 4)
    first, second = interpreter.run(float_one, inputs)["lif1"], interpreter.run(deployment, inputs, "int64")["lif1"]
    assert first.spikes.any()
    assert np.mean(first.spikes != second.spikes) < 0.02


def test_membrane_with_another_rest_is_refused() -> None:
    assert "lif1" in refused("SNX201", filtered_net(v_leak=0.1))


def one_signed_net(sign: int) -> Deployment:
    torch.manual_seed(0)
    layers = named(fc=nn.Linear(4, 6), lif=leaky(512, 0.5), out=nn.Linear(6, 3), readout=Integrator())
    with torch.no_grad():
        layers.get_submodule("out").weight.abs_().mul_(sign)
    return read(layers, (4,))


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("sign", [1, -1])
def test_layers_of_one_sign_keep_their_bit(sign: int, bits: int) -> None:
    deployment = quantised(one_signed_net(sign), weight_bits=bits)
    weight = sign * deployment.synapses["out"].weight.astype(int)
    step = 1 << (8 - bits)
    assert weight.min() >= 0
    assert weight.max() == 256 - step
    assert not np.any(weight % step)
    assert bits == 1 or np.any(weight % (2 * step)), "the bit that a sign would take is in use"
    assert deployment.synapses["out"].sign_mode == ("excitatory" if sign > 0 else "inhibitory")


def two_ways_net() -> Deployment:
    """A residual connection: small weights and an identity into one population."""
    float_one = read(named(fc=nn.Linear(4, 4, bias=False), lif=leaky(512, 0.5), readout_fc=nn.Linear(4, 3), r=Integrator()), (4,))
    rng, nodes = np.random.default_rng(0), dict(float_one.graph.nodes)
    nodes["fc"] = nir.Linear(weight=0.02 * rng.uniform(-1, 1, (4, 4)) / grid.input_gain(float_one, "lif"))
    nodes["skip"] = nir.Scale(scale=np.ones(4) / grid.input_gain(float_one, "lif"))
    edges = [*float_one.graph.edges, ("input", "skip"), ("skip", "lif")]
    return float_one.replace(graph=nir.NIRGraph(nodes, edges, type_check=False))


def test_large_and_small_weights_share_a_scale_without_wasting_bits() -> None:
    """The identity is fifty times the other weights: it takes an exponent, and both use their whole range."""
    deployment = quantised(two_ways_net(), score=lambda d: 1e9 * d.contract.encoder.bits + finest(d))
    small, identity = deployment.synapses["fc"], deployment.synapses["skip"]
    assert (small.weight_exponent, identity.weight_exponent) == (0, 6)
    assert np.abs(small.weight).max() > 250
    assert len(set(identity.weight.tolist())) == 1
    value = (int(identity.weight[0]) << 6) * deployment.contract.encoder.gain / deployment.populations["lif"].scale
    assert abs(value - 1) < 0.005
    grid.check_agreement(deployment)


def test_a_convolution_has_no_exponent_and_limits_the_scale() -> None:
    """Lava's Conv ignores its exponent: the smaller weights of the other way lose bits instead."""
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 1, 2, bias=False)
    layers = named(conv=conv, lif=leaky(512, 0.5), flatten=nn.Flatten(), fc=nn.Linear(6, 3), readout=Integrator())
    float_one = read(layers, (1, 4, 3))
    gain = grid.input_gain(float_one, "lif")
    nodes = {**float_one.graph.nodes, "conv": replace_weight(float_one, "conv", 1.0 / gain)}
    flat = nir.Flatten({"input": np.array([1, 4, 3])}, 0, -1)
    nodes |= {"flat": flat, "side": nir.Linear(weight=np.full((6, 12), 0.02 / gain))}
    edges = [*float_one.graph.edges, ("input", "flat"), ("flat", "side"), ("side", "lif")]
    deployment = quantised(float_one.replace(graph=nir.NIRGraph(nodes, edges, type_check=False)))
    assert deployment.synapses["conv"].weight_exponent == deployment.synapses["side"].weight_exponent == 0
    assert np.abs(deployment.synapses["conv"].weight).max() <= 256
    assert np.abs(deployment.synapses["side"].weight).max() <= 6


def replace_weight(deployment: Deployment, name: str, largest: float) -> nir.NIRNode:
    node = deployment.graph.nodes[name]
    return grid.with_parameters(node, node.weight * largest / np.abs(node.weight).max(), node.bias)


@pytest.mark.parametrize("exponent", [0, 6, 7])
def test_one_bias_exponent_for_all_populations(exponent: int) -> None:
    deployment = Quantize("loihi2", finest, InputRange(0, 1), bias_exponent=exponent)(read(dense_net(), (4,)))
    assert {p.bias_exponent for p in deployment.populations.values()} == {exponent}
    assert_fits(deployment)
    if exponent == 0:
        assert "bias (13-bit mantissa, exponent 0)" in deployment.contract.quantisation.binding.values()


@pytest.mark.parametrize("exponent", [-1, 8])
def test_bias_exponent_out_of_range(exponent: int) -> None:
    with pytest.raises(UserError) as caught:
        Quantize("loihi2", finest, InputRange(0, 1), bias_exponent=exponent)(read(dense_net(), (4,)))
    assert caught.value.code == "SNX314"


def test_few_bits_may_clip_the_largest_weights() -> None:
    """One weight ten times the others: a score that looks at the others lets it be clipped, and it is."""
    float_one = scaled_net(1.0, 0.01, 1.0)
    weight = float_one.graph.nodes["fc"].weight
    weight[0, 0] = 3 * np.abs(weight).max()
    others = np.ones(weight.shape, bool)
    others[0, 0] = False

    def score(candidate: Deployment) -> float:
        return float(np.abs(candidate.graph.nodes["fc"].weight - weight)[others].mean())

    deployment = quantised(float_one, weight_bits=4, score=score)
    rules_of_four_bits = GridRules(4, None, InputRange(0, 1))
    limits = scale_limits(float_one, deployment.contract.encoder, "lif", rules_of_four_bits)
    assert deployment.populations["lif"].scale > 1.2 * limits["weight (4 bits)"]
    assert abs(deployment.graph.nodes["fc"].weight[0, 0] / weight[0, 0]) < 0.9
    assert_fits(deployment, 32)


def test_the_host_takes_the_input_of_a_chip_without_graded_spikes() -> None:
    float_one = read(dense_net(), (4,), encoder=EncoderSpec("bias"))
    deployment = Quantize("loihi1", finest, InputRange(0, 1))(float_one)
    assert "fc1" not in deployment.synapses
    assert deployment.contract.quantisation.binding["lif1"].startswith("bias")
    corners = np.stack([np.zeros(4), np.ones(4), *np.eye(4), *(1 - np.eye(4))])
    assert interpreter.run(deployment, corners, "int64")["lif1"].overflows == 0  # no input of the range leaves the register
    inputs = uniform(np.random.default_rng(0), 40, 4)
    first, second = interpreter.run(float_one, inputs), interpreter.run(deployment, inputs, "int64")
    assert np.mean(first["lif1"].spikes != second["lif1"].spikes) < 0.02


def test_rate_encoding_needs_one_bit_spikes_only() -> None:
    deployment = Quantize("loihi1", finest, InputRange(0, 1))(read(dense_net(), (4,), encoder=EncoderSpec("rate", seed=7)))
    assert deployment.contract.encoder == EncoderSpec("rate", seed=7)
    assert deployment.contract.encoder.binary


def test_decay_that_tau_does_not_say_is_refused() -> None:
    deployment = read(dense_net(), (4,))
    specs = {**deployment.contract.neurons, "lif1": replace(deployment.contract.neurons["lif1"], dv=701)}
    refused("SNX107", deployment.replace(contract=deployment.contract.model_copy(update={"neurons": specs})))
