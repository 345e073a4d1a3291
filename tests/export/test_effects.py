"""Effects between a float network and its integer form: both ends, and single steps of the way, against other programs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_export import library
from snn_export.export import effects, grid, interpreter
from snn_export.export.deployment import Deployment, Firing
from snn_export.export.effects import (
    BIASES,
    DECAYS,
    FIRE,
    INPUT,
    LATENCY,
    ORDER,
    OVERFLOW,
    RESET,
    TAU,
    THRESHOLDS,
    TRUNCATION,
    WEIGHTS,
    Forms,
    Switches,
)
from snn_export.export.graph import replace_nodes
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec
from tests.builders import Plan, deployment_from, random_dense, random_inputs
from tests.effect_networks import disturbed, float_form, on_scales, overflows, with_population
from tests.export.test_interpreter import with_spec
from tests.export.test_interpreter_loops import looped
from tests.networks import conv_net, delayed_net, dense_net, quantised, read, recurrent_net, residual_net, uniform

Array = NDArray[Any]
ALL, NONE = Switches(frozenset(ORDER)), Switches(frozenset())
NETS = (
    (dense_net, (4,)), (conv_net, (2, 9, 7)), (residual_net, (2, 8, 6)), (recurrent_net, (7,)), (delayed_net, (6,)),
)  # fmt: skip


def pair(net: Any, shape: tuple[int, ...], seed: int, bits: int = 5) -> tuple[Forms, Array]:
    rng = np.random.default_rng(seed)
    inputs = uniform(rng, 6, *shape)
    floats = library.prepared(read(net(seed), shape), inputs)
    return effects.forms_of(floats, quantised(floats, weight_bits=bits)), inputs


def run(forms: Forms, inputs: Array, *on: str, spared: str = "", layer: str = "") -> dict[str, interpreter.Activity]:
    return effects.run(forms, forms.encoded(inputs), Switches(frozenset(on), spared, layer))


def assert_integers(forms: Forms, inputs: Array) -> int:
    """All effects together are the int64 interpreter; returns the overflow events seen."""
    found, expected = effects.run(forms, forms.encoded(inputs), ALL), interpreter.run(forms.integers, inputs, "int64")
    for name, activity in expected.items():
        for what in ("spikes", "membrane", "current", "overflows"):
            np.testing.assert_array_equal(getattr(found[name], what), getattr(activity, what), f"{what} of {name}")
    return sum(activity.overflows for activity in expected.values())


def assert_floats(forms: Forms, inputs: Array) -> None:
    """No effect at all is the float64 interpreter of the float network."""
    found, expected = effects.run(forms, forms.encoded(inputs), NONE), interpreter.run(forms.floats, inputs)
    for name, activity in expected.items():
        np.testing.assert_array_equal(found[name].sent, activity.sent, name)
        size = max(1.0, float(np.abs(activity.membrane).max()))
        assert np.abs(found[name].membrane / forms.units[name] - activity.membrane).max() < 1e-9 * size


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("net", "shape"), NETS)
def test_no_effect_is_the_float_network_and_all_effects_are_the_integer_one(net: Any, shape: tuple[int, ...], seed: int) -> None:
    forms, inputs = pair(net, shape, seed)
    assert_integers(forms, inputs)
    assert_floats(forms, inputs)
    one, other = interpreter.run(forms.floats, inputs), interpreter.run(forms.integers, inputs, "int64")
    assert any(np.any(one[name].spikes != other[name].spikes) for name in one)


@st.composite
def dense_plans(draw: st.DrawFn) -> Plan:
    """Small networks of which many wrap and saturate; every neuron leaks, or its float form would have no gain."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layers = [random_dense(rng, "a", "input", (5, 4)), random_dense(rng, "b", "a", (4, 3))]
    layers = [replace(layer, dv=max(1, layer.dv), threshold=max(1, layer.threshold)) for layer in layers]
    return Plan((5,), tuple(layers), steps=draw(st.integers(1, 12)), high=draw(st.sampled_from([1, 15, 255])))


@settings(max_examples=60, deadline=None)
@given(plan=dense_plans(), seed=st.integers(0, 1000))
def test_both_ends_of_random_integer_networks(plan: Plan, seed: int) -> None:
    rng = np.random.default_rng(seed)
    integers = deployment_from(plan)
    forms = effects.forms_of(disturbed(rng, float_form(integers)), integers)
    inputs = random_inputs(rng, integers, 5) + rng.uniform(-0.4, 0.4, (5, 5))
    assert not assert_integers(forms, inputs) or overflows(integers)
    assert_floats(forms, inputs)


def test_random_integer_networks_do_overflow() -> None:
    """Or the ends above would say nothing about wrap and saturation."""
    rng, events = np.random.default_rng(0), 0
    for _ in range(20):
        layer = replace(random_dense(rng, "a", "input", (5, 4)), dv=50, du=60, threshold=100_000)
        integers = deployment_from(Plan((5,), (layer,), steps=12, high=255))
        events += assert_integers(effects.forms_of(float_form(integers), integers), random_inputs(rng, integers, 5))
    assert events > 100


@pytest.mark.parametrize("seed", range(6))
def test_both_ends_with_loops_delays_and_biases_of_the_current(seed: int) -> None:
    rng = np.random.default_rng(seed)
    integers = looped(rng)
    forms = effects.forms_of(disturbed(rng, float_form(integers)), integers)
    inputs = random_inputs(rng, integers, 4)
    assert_integers(forms, inputs)
    assert_floats(forms, inputs)


@pytest.mark.parametrize(
    ("reset", "encoder", "as_bias"),
    [("subtract", EncoderSpec(), False), ("zero", EncoderSpec("rate", seed=3), False), ("zero", EncoderSpec(), True)],
)
def test_both_ends_of_other_resets_and_encoders(reset: str, encoder: EncoderSpec, as_bias: bool) -> None:
    inputs = uniform(np.random.default_rng(0), 8, 4)
    floats = library.prepared(read(dense_net(1, reset), (4,), encoder=encoder), inputs)
    forms = effects.forms_of(floats, library.quantize(floats, inputs, weight_bits=4, input_as_bias=as_bias))
    assert_integers(forms, inputs)
    assert_floats(forms, inputs)


@pytest.mark.parametrize(
    "late",
    [
        {"reset_delay": 1}, {"reset_delay": 1, "clears_input": True}, {"reset": "subtract", "reset_delay": 1},
        {"reset": "subtract", "double_to_refire": True}, {"reset": "subtract"}, {"reset": "none"},
    ],
)  # fmt: skip
def test_a_float_network_that_resets_otherwise(late: dict[str, Any]) -> None:
    """The chip resets to zero at once; the float network as it does, and the rule is an effect of its own."""
    forms, inputs = pair(dense_net, (4,), 2)
    floats = with_spec(forms.floats, **late)
    other = effects.forms_of(floats, forms.integers)
    assert_floats(other, inputs)
    assert_integers(other, inputs)
    assert RESET in effects.constant(forms)
    assert RESET not in effects.constant(other)
    given, expected = run(other, inputs, RESET), interpreter.run(forms.floats, inputs)
    assert all(np.array_equal(given[name].spikes, expected[name].spikes) for name in expected)


@pytest.mark.parametrize("firing", [Firing(at_threshold=True), Firing(several=True)])
def test_a_float_network_that_fires_otherwise(firing: Firing) -> None:
    forms, inputs = pair(dense_net, (4,), 0)
    other = effects.forms_of(with_spec(forms.floats, reset="subtract").replace(firing={"lif1": firing}), forms.integers)
    assert_floats(other, inputs * 3)
    assert_integers(other, inputs * 3)
    assert FIRE not in effects.constant(other)


def with_real(forms: Forms, *fields: str) -> Deployment:
    """The float network with some fields of its nodes as the integers hold them."""
    nodes = {}
    for name, node in forms.floats.graph.nodes.items():
        held = forms.integers.graph.nodes[name]
        if "weight" in fields and hasattr(node, "weight"):
            nodes[name] = grid.with_parameters(node, held.weight, getattr(node, "bias", None))
        if "bias" in fields and getattr(node, "bias", None) is not None:
            nodes[name] = grid.with_parameters(node, node.weight, held.bias)
        if "threshold" in fields and forms.floats.contract.neurons.get(name) and forms.floats.contract.neurons[name].spiking:
            nodes[name] = grid._placed(node, threshold=grid.threshold_of(held))
    return forms.floats.replace(graph=replace_nodes(forms.floats.graph, nodes))


@pytest.mark.parametrize(("effect", "field"), [(WEIGHTS, "weight"), (BIASES, "bias"), (THRESHOLDS, "threshold")])
@pytest.mark.parametrize(("net", "shape"), NETS[:2])
def test_one_rounding_alone_is_the_float_network_with_these_parameters(
    net: Any, shape: tuple[int, ...], effect: str, field: str
) -> None:
    fine, inputs = pair(net, shape, 3)
    scales = EncoderSpec(gain=15.0, low=0, high=15)
    forms = effects.forms_of(fine.floats, on_scales(fine.floats, 8.3, scales, exponent=7 if effect == BIASES else None))
    given, expected = run(forms, inputs, effect), interpreter.run(with_real(forms, field), inputs)
    before = effects.run(forms, forms.encoded(inputs), NONE)
    assert all(np.array_equal(given[name].spikes, expected[name].spikes) for name in expected)
    assert any(np.any(given[name].spikes != before[name].spikes) for name in given)


def test_rounded_inputs_alone_are_the_float_network_on_the_levels() -> None:
    forms, inputs = pair(dense_net, (4,), 1)
    snapped = forms.integers.contract.encoder.values(inputs)
    assert np.abs(snapped - inputs).max() > 0
    given, expected = run(forms, inputs, INPUT), interpreter.run(forms.floats, snapped)
    assert all(np.array_equal(given[name].spikes, expected[name].spikes) for name in expected)


@pytest.mark.parametrize(("net", "shape"), NETS)
def test_all_but_the_state_is_the_quantised_rung(net: Any, shape: tuple[int, ...]) -> None:
    """Integer parameters with float states are what the reference runs on a quantised network."""
    forms, inputs = pair(net, shape, 4)
    given = run(forms, inputs, *set(ORDER) - {TRUNCATION, OVERFLOW, FIRE})
    expected = interpreter.run(forms.integers, inputs)
    for name, activity in expected.items():
        np.testing.assert_array_equal(given[name].spikes, activity.spikes, name)
        np.testing.assert_allclose(given[name].membrane / forms.units[name], activity.membrane, atol=1e-9)


def test_coarser_decays_are_an_effect_of_their_own() -> None:
    """Off, the chip steps with the float network's beta; on, with the one its registers hold."""
    forms, inputs = pair(dense_net, (4,), 0, bits=8)
    coarse = effects.forms_of(forms.floats, with_population(forms.integers, "lif1", dv=1024))
    assert DECAYS in effects.constant(forms)
    assert DECAYS not in effects.constant(coarse)
    assert_integers(coarse, inputs)
    given = run(coarse, inputs, *set(ORDER) - {DECAYS})
    expected = interpreter.run(forms.integers, inputs, "int64")
    assert all(np.array_equal(given[name].membrane, expected[name].membrane) for name in expected)


def test_a_spared_layer_is_the_only_one_that_changes() -> None:
    forms, inputs = pair(dense_net, (4,), 0, bits=3)
    full, spared = run(forms, inputs, *ORDER), run(forms, inputs, *ORDER, spared=WEIGHTS, layer="lif2")
    assert np.array_equal(full["lif1"].membrane, spared["lif1"].membrane)
    assert not np.array_equal(full["lif2"].membrane, spared["lif2"].membrane)
    signals = {"lif1": full["lif1"].spikes.astype(np.float64)}
    alone = interpreter.synaptic_drive(forms.floats, "lif2", signals)
    assert alone.any()
    first = run(forms, inputs, *ORDER, spared=WEIGHTS, layer="lif1")
    off = run(forms, inputs, *set(ORDER) - {WEIGHTS})
    assert np.array_equal(first["lif1"].membrane, off["lif1"].membrane)
    raw = run(forms, inputs, *ORDER, spared=INPUT, layer="lif1")
    assert np.array_equal(raw["lif1"].membrane, run(forms, inputs, *set(ORDER) - {INPUT})["lif1"].membrane)


def test_other_delays_are_an_effect_of_their_own() -> None:
    forms, inputs = pair(delayed_net, (6,), 1)
    name = next(name for name, node in forms.floats.graph.nodes.items() if isinstance(node, nir.Delay))
    node = forms.floats.graph.nodes[name]
    slower = forms.floats.replace(graph=replace_nodes(forms.floats.graph, {name: nir.Delay(np.asarray(node.delay) + 1e-3)}))
    other = effects.forms_of(slower, forms.integers)
    assert LATENCY in effects.constant(forms)
    assert LATENCY not in effects.constant(other)
    assert_integers(other, inputs)
    assert_floats(other, inputs)


def test_a_state_that_does_not_decay_loses_nothing() -> None:
    """With float weights a state is no whole number; without a product there is nothing to truncate."""
    inputs = uniform(np.random.default_rng(0), 4, 4)
    floats = library.prepared(read(dense_net(0), (4,)), inputs)
    neurons = {name: replace(spec, dv=0) for name, spec in floats.contract.neurons.items()}
    nodes = {
        name: nir.IF(np.full(floats.shapes[name], 1e3), floats.graph.nodes[name].v_threshold)
        for name in floats.layers
        if neurons[name].spiking
    }
    floats = floats.replace(
        graph=replace_nodes(floats.graph, nodes), contract=floats.contract.model_copy(update={"neurons": neurons})
    )
    forms = effects.forms_of(floats, on_scales(floats, 20.0, EncoderSpec(gain=15.0, low=0, high=15)))
    with_it, without = run(forms, inputs, TRUNCATION), run(forms, inputs)
    assert all(np.array_equal(with_it[name].membrane, without[name].membrane) for name in without)
    assert TRUNCATION in effects.constant(forms)
    assert_integers(forms, inputs)


def test_what_cannot_change_anything_is_told_with_its_reason() -> None:
    forms, inputs = pair(dense_net, (4,), 0)
    found = effects.constant(forms)
    assert set(found) == {TAU, DECAYS, OVERFLOW, RESET, LATENCY, FIRE}
    assert "contract" in found[TAU]
    assert "24 bits" in found[OVERFLOW]
    assert INPUT in effects.constant(forms, rounded=False)
    same = effects.forms_of(float_form(forms.integers), forms.integers)
    assert set(ORDER) - set(effects.constant(same)) == {INPUT, TRUNCATION}
    assert "no biases" not in effects.constant(same)[BIASES]
    assert_integers(same, inputs)


@pytest.mark.parametrize("what", ["quantised", "steps", "layers", "shape", "weights"])
def test_networks_that_are_not_two_forms_of_one_are_refused(what: str) -> None:
    forms, _ = pair(dense_net, (4,), 0)
    other = {
        "quantised": lambda: forms.integers,
        "steps": lambda: read(dense_net(0), (4,), 9),
        "layers": lambda: pair(delayed_net, (6,), 0)[0].floats,
        "shape": lambda: read(dense_net(0), (4,)).replace(graph=pair(recurrent_net, (7,), 0)[0].floats.graph),
        "weights": lambda: forms.floats,
    }[what]
    if what == "weights":
        with pytest.raises(UserError) as caught:
            effects.forms_of(forms.floats, forms.floats)
        assert caught.value.code == "SNX302"
        return
    with pytest.raises(UserError) as caught:
        effects.forms_of(other(), forms.integers)
    assert caught.value.code == "SNX505"


def test_an_input_behind_a_synaptic_filter_cannot_become_a_bias() -> None:
    """A host that computes the first layer adds its sums to the membrane, where the float network filters them."""
    inputs = uniform(np.random.default_rng(0), 8, 7)
    floats = library.prepared(read(recurrent_net(0), (7,)), inputs)
    with pytest.raises(UserError) as caught:
        library.quantize(floats, inputs, input_as_bias=True)
    assert [item.code for item in caught.value.diagnostics] == ["SNX278"]
    assert caught.value.diagnostics[0].where == "hidden"
    assert "SNX278" in {item.code for item in library.check(library.with_input_as_bias(floats), "loihi1")}
    assert "SNX278" not in {item.code for item in library.check(floats, "loihi2")}
