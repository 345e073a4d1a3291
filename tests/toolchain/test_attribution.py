"""Where changed spikes come from: planted causes are named, with the layer, and the suggested fix does what it says."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import snn_export
from snn_export import library
from snn_export.data.digits import load_digits
from snn_export.export import effects, grid, interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.effects import BIASES, DECAYS, INPUT, OVERFLOW, RESET, TAU, THRESHOLDS, TRUNCATION, WEIGHTS, Switches
from snn_export.export.graph import replace_nodes
from snn_export.export.populations import with_constants
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec
from snn_export.reporting.report import Attribution, Effect, EffectOnLayer
from snn_export.verification.attribution import attribute
from snn_export.verification.attribution_runs import Place, first_difference
from snn_export.verification.attribution_words import FLOAT_ROUNDING, Together, sentence
from tests.builders import LayerPlan, Plan, deployment_from
from tests.conftest import FinishedRun
from tests.effect_networks import float_form, on_scales, sensitive_net, with_population
from tests.export.test_interpreter import with_spec
from tests.networks import read, recurrent_net

Array = NDArray[Any]
SMALL = 500_000
"""Bytes for a handful of samples."""
GRID = EncoderSpec(gain=15.0, low=0, high=15)


def on_levels(samples: int = 40, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 16, (samples, 8)) / 15


def floats(dv: int = 300, steps: int = 24, **options: Any) -> Deployment:
    return library.prepared(read(sensitive_net(dv=dv, **options), (8,), steps), on_levels(8))


@dataclass(frozen=True, eq=False)
class Planted:
    """A pair with one cause, the same after what the fix says was done, and inputs."""

    before: tuple[Deployment, Deployment]
    after: tuple[Deployment, Deployment]
    inputs: Array
    cause: str
    layer: str
    told: str
    fix: str


def scales_of(quantised: Deployment) -> dict[str, float]:
    return {name: population.scale for name, population in quantised.populations.items()}


@functools.cache
def fine() -> tuple[Deployment, Deployment]:
    """A network whose every number lies on a fine grid: only what a test plants changes it."""
    quantised = library.quantize(floats(), on_levels(), input_range=(0, 1))
    return float_form(quantised), quantised


def coarse_weights() -> Planted:
    network = floats()
    pair = tuple(library.quantize(network, on_levels(), weight_bits=bits, input_range=(0, 1)) for bits in (4, 8))
    return Planted((network, pair[0]), (network, pair[1]), on_levels(), WEIGHTS, "lif1", "(4 bits)", "quantize.weight_bits = 8")


def coarse_decays() -> Planted:
    """beta 0.926758 is held as 3686/4096; trained with that decay, the network has the drive it had."""
    network, quantised = fine()
    held = with_population(quantised, "lif2", dv=410)
    node, spec = network.graph.nodes["lif2"], replace(network.contract.neurons["lif2"], dv=410)
    node = with_constants(node, tau=np.full_like(node.tau, 1e-3 * 4096 / 410), r=node.r * 300 / 410)
    contract = network.contract.model_copy(update={"neurons": {**network.contract.neurons, "lif2": spec}})
    retrained = network.replace(graph=replace_nodes(network.graph, {"lif2": node}), contract=contract)
    told = "beta 0.926758 is held as 3686/4096"
    return Planted((network, held), (retrained, held), on_levels(), DECAYS, "lif2", told, "model.dv = 410")


def coarse_thresholds() -> Planted:
    """A threshold of 9.45 units is held as 9; neurons without leak, so nothing is truncated."""
    network = float_form(on_scales(floats(dv=0), 20.0, GRID))
    nodes = {"lif1": grid._placed(network.graph.nodes["lif1"], threshold=9.45 / 20)}
    network = network.replace(graph=replace_nodes(network.graph, nodes))
    again = library.quantize(network, on_levels(), input_range=(0, 1))
    told = "the threshold 0.4725 is held as 9 units of 0.05: 4.76 % too low"
    return Planted(
        (network, on_scales(network, 20.0, GRID)), (network, again), on_levels(), THRESHOLDS, "lif1", told, "quantise the float"
    )


def coarse_biases() -> Planted:
    network, quantised = fine()
    forced = on_scales(network, scales_of(quantised), GRID, exponent=7)
    free = on_scales(network, scales_of(quantised), GRID)
    fix = "leave quantize.bias_exponent unset"
    return Planted((network, forced), (network, free), on_levels(), BIASES, "lif2", "(exponent 7)", fix)


def coarse_inputs() -> Planted:
    quantised = on_scales(fine()[0], scales_of(fine()[1]), EncoderSpec(gain=7.0, low=0, high=7))
    network, inputs = float_form(quantised), np.random.default_rng(0).uniform(0, 1, (40, 8))
    again = library.quantize(network, inputs, input_as_bias=True)
    fix = "quantize.input_as_bias = true"
    return Planted((network, quantised), (network, again), inputs, INPUT, "lif1", "0..7 in steps of 0.1429", fix)


def clipped_inputs() -> Planted:
    network, quantised = fine()
    inputs = on_levels() * 2
    again = library.quantize(network, inputs, input_range=(0, 2))
    return Planted((network, quantised), (network, again), inputs, INPUT, "lif1", "outside its range", "input_range=(low, high)")


def lost_fractions() -> Planted:
    """A slow leak on a tiny scale: what truncation takes in a step is of the leak's own size."""
    quantised = on_scales(floats(dv=20, steps=100), 6.0, GRID)
    network = float_form(quantised)
    again = library.quantize(network, on_levels(), input_range=(0, 1))
    told = "a step loses up to 0.0026, 0.52 % of its threshold"
    return Planted((network, quantised), (network, again), on_levels(), TRUNCATION, "lif1", told, "the scale of lif1 is 6")


def full_registers() -> Planted:
    """Sums of up to 20 million in registers that wrap at 8."""
    rng = np.random.default_rng(1)
    layers = (
        LayerPlan("a", 2 * rng.integers(40, 128, (12, 6)), dv=60, threshold=120_000),
        LayerPlan("b", 2 * rng.integers(-40, 100, (8, 12)), "a", dv=60, threshold=1500),
    )
    quantised = deployment_from(Plan((6,), layers, steps=20, high=255))
    network, inputs = float_form(quantised), rng.integers(0, 256, (30, 6)).astype(np.float64)
    again = library.quantize(network, inputs, input_range=(0, 255))
    return Planted((network, quantised), (network, again), inputs, OVERFLOW, "a", "24 bits", "proven not to overflow")


def another_reset() -> Planted:
    network, quantised = fine()
    told = "the float network resets by subtraction, the integer one to zero"
    other = with_spec(network, reset="subtract")
    return Planted((other, quantised), (network, quantised), on_levels(), RESET, "lif1", told, 'model.reset = "zero"')


PLANTED = (
    coarse_weights, coarse_decays, coarse_thresholds, coarse_biases, coarse_inputs, clipped_inputs, lost_fractions,
    full_registers, another_reset,
)  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_cause_is_named_with_its_layer_and_the_fix_removes_most_of_it(plant: Any) -> None:
    planted: Planted = plant()
    found = attribute(*planted.before, planted.inputs)
    assert (found.cause, found.layer) == (planted.cause, planted.layer)
    assert found.changed > 0
    assert found.remainder == 0
    cause = next(effect for effect in found.effects if effect.name == planted.cause)
    assert cause.removed is not None
    assert cause.removed >= 0.5
    assert f"{int(100 * cause.removed)} % of the" in found.sentence
    assert planted.cause.capitalize() in found.sentence
    assert f"in {planted.layer} alone" in found.sentence
    assert planted.told in found.sentence
    assert planted.fix in found.fix
    fixed = attribute(*planted.after, planted.inputs)
    assert fixed.changed < 0.5 * found.changed
    increments_add_up(found)


def increments_add_up(found: Attribution) -> None:
    assert sum(effect.forward for effect in found.effects) == found.changed
    assert sum(effect.backward for effect in found.effects) == found.changed
    assert all(effect.interaction == effect.forward - effect.backward for effect in found.effects)
    if found.effects:
        assert found.effects[-1].forward_by_layer == found.changed_by_layer
        assert found.effects[0].backward == found.changed - found.effects[0].without
        assert found.effects[-1].forward == found.changed - found.effects[-1].without
    assert {effect.name for effect in found.effects} & {item.name for item in found.left_out} == set()
    assert {effect.name for effect in found.effects} | {item.name for item in found.left_out} == {*effects.ORDER, FLOAT_ROUNDING}


@functools.cache
def interacting() -> tuple[Deployment, Deployment, Array]:
    """Few input levels and few weight bits: either alone changes about as much as both together."""
    network, inputs = floats(), np.random.default_rng(2).uniform(0, 1, (40, 8))
    quantised = library.quantize(network, on_levels(), weight_bits=5, input_range=(0, 1))
    return network, on_scales(network, scales_of(quantised), EncoderSpec(gain=7.0, low=0, high=7), bits=5), inputs


def test_effects_that_work_together_are_told_together() -> None:
    network, quantised, inputs = interacting()
    found = attribute(network, quantised, inputs)
    increments_add_up(found)
    assert found.cause is None
    assert found.layer is None
    assert all(not effect.layers for effect in found.effects)
    assert max(abs(effect.interaction) for effect in found.effects) > 0.1 * found.changed
    assert found.sentence.startswith("No single effect is the cause of the ")
    assert "without weight rounding and input rounding together, 99 %" in found.sentence
    assert "quantize.weight_bits = 8" in found.fix
    assert "quantize.input_as_bias = true" in found.fix
    assert "; and " in found.fix
    fixed = attribute(network, library.quantize(network, on_levels(), input_as_bias=True), inputs)
    assert fixed.changed < 0.5 * found.changed


def test_an_effect_that_undoes_others_removes_less_than_nothing() -> None:
    """A threshold that is rounded down, and a truncation that takes a little from every membrane: each hides the other."""
    network = float_form(on_scales(floats(dv=40, steps=60), 12.0, GRID))
    nodes = {"lif1": grid._placed(network.graph.nodes["lif1"], threshold=6.06 / 12)}
    network = network.replace(graph=replace_nodes(network.graph, nodes))
    found = {effect.name: effect for effect in attribute(network, on_scales(network, 12.0, GRID), on_levels()).effects}
    assert (found[TRUNCATION].removed or 0.0) < -0.05
    assert found[TRUNCATION].forward < 0 < found[TRUNCATION].backward


def row(name: str, removed: float) -> Effect:
    left = round(100 - 100 * removed)
    return Effect(
        name=name, told="told", forward=0, backward=0, interaction=0, without=left, removed=removed, explains_first=False
    )  # fmt: skip


def test_sentences() -> None:
    rows = (row(WEIGHTS, 0.139), row(TRUNCATION, -0.08), row(INPUT, 0.02))
    few = Together((WEIGHTS, INPUT), 0.305)
    assert sentence(rows, 100, None, None, few) == (
        "No single effect is the cause of the 100 changed spikes: without weight rounding alone, 13 % disappear; without weight "
        "rounding and input rounding together, 30 %, and no few of them explain half; part of the change is undone by state "
        "truncation (8 % more change without it)."
    )
    cause = row(WEIGHTS, 0.827).model_copy(update={"layers": (EffectOnLayer(layer="lif2", changed=39, told="4 bits"),)})
    assert sentence((cause,), 100, WEIGHTS, "lif2") == (
        "Weight rounding is the cause: without it alone, 82 % of the 100 changed spikes disappear, and without it in lif2 alone, "
        "61 %; 4 bits."
    )
    assert "no single layer accounts for it" in sentence((cause,), 100, WEIGHTS, None)


def test_what_is_left_without_an_effect_is_a_run_without_it() -> None:
    """The figures against the interpreter on networks made by hand: no weight rounding, and no integer state."""
    network, quantised, inputs = interacting()
    found = {effect.name: effect for effect in attribute(network, quantised, inputs).effects}
    expected = interpreter.run(network, inputs)

    def changed(got: dict[str, interpreter.Activity]) -> int:
        return sum(int(np.count_nonzero(got[name].spikes != expected[name].spikes)) for name in expected)

    snapped = quantised.contract.encoder.values(inputs)
    assert found[INPUT].forward == changed(interpreter.run(network, snapped))
    assert found[TRUNCATION].without == changed(interpreter.run(quantised, inputs))
    last = next(reversed(found.values()))
    assert last.name == TRUNCATION
    assert sum(last.forward_by_layer) == changed(interpreter.run(quantised, inputs, "int64"))


def test_the_first_divergence_and_what_explains_it() -> None:
    network, quantised, inputs = interacting()
    found = attribute(network, quantised, inputs)
    forms = effects.forms_of(network, quantised)
    one, other = interpreter.run(network, inputs), interpreter.run(quantised, inputs, "int64")
    layers = [name for name in network.layers if network.contract.neurons[name].spiking]
    places = [
        (sample, step, layer, neuron)
        for layer, name in enumerate(layers)
        for step, sample, neuron in np.argwhere(one[name].spikes != other[name].spikes)
    ]
    sample, step, layer, neuron = min(places)
    full = frozenset(effects.ORDER)
    for effect in found.effects:
        without = effects.run(forms, forms.encoded(inputs), Switches(full - {effect.name}))[layers[layer]].spikes
        assert effect.explains_first == (without[step, sample, neuron] == one[layers[layer]].spikes[step, sample, neuron])
    assert any(effect.explains_first for effect in found.effects)


def test_the_first_divergence_is_the_earliest_of_the_lowest_sample() -> None:
    """Not the first layer's, nor the earliest step of any sample; arrays (T, B, neurons)."""
    expected = [np.zeros((5, 3, 4), bool), np.ones((5, 3, 2), bool)]
    got = [layer.copy() for layer in expected]
    got[0][0, 2, 0] = got[0][4, 1, 0] = True
    got[1][3, 1, 1] = got[1][3, 1, 0] = False
    assert first_difference(expected, got, 7) == Place(sample=8, step=3, layer=1, neuron=0, expected=1.0)
    got[0][3, 1, 3] = True
    assert first_difference(expected, got, 7) == Place(sample=8, step=3, layer=0, neuron=3, expected=0.0)
    assert first_difference(expected, expected, 7) is None


def test_the_result_does_not_depend_on_how_samples_are_cut() -> None:
    network, quantised, inputs = interacting()
    labels = np.arange(40) % 4
    whole = attribute(network, quantised, inputs, labels)
    assert attribute(network, quantised, inputs, labels, chunk_bytes=SMALL) == whole
    drawn = library.prepared(read(sensitive_net(), (8,), 12, encoder=EncoderSpec("rate", seed=5)), inputs)
    rate = library.quantize(drawn, inputs, weight_bits=4)
    assert attribute(drawn, rate, inputs, chunk_bytes=SMALL) == attribute(drawn, rate, inputs)
    assert attribute(drawn, rate, inputs, samples=7) == attribute(drawn, rate, inputs[:7])


def test_accuracy_is_that_of_the_simulators() -> None:
    network, quantised, inputs = interacting()
    labels = np.arange(40) % 4
    found = attribute(network, quantised, inputs, labels)
    got = snn_export.simulate(quantised, inputs).predictions
    assert found.effects[-1].accuracy == 100 * float(np.mean(got == labels))
    assert 0 < found.effects[-1].accuracy < 100
    assert all(effect.accuracy is None for effect in attribute(network, quantised, inputs).effects)
    with pytest.raises(UserError) as caught:
        attribute(network, quantised, inputs, labels[:3])
    assert caught.value.code == "SNX007"


def test_a_backend_that_differs_from_all_effects_together_is_told() -> None:
    network, quantised, inputs = interacting()
    trace = snn_export.simulate(quantised, inputs[:20])
    assert attribute(network, quantised, inputs, integer_trace=trace).remainder == 0
    spikes = trace.layers["lif2"].spikes
    assert spikes is not None
    spikes[3, 2, 1] ^= True
    found = attribute(network, quantised, inputs, integer_trace=trace, target="chip", chunk_bytes=SMALL)
    assert found.remainder == 1
    assert "1 spikes of chip differ" in found.sentence


def test_equal_networks_have_nothing_to_attribute() -> None:
    network, quantised = fine()
    found = attribute(network, quantised, on_levels())
    assert found.changed == 0
    assert found.cause is None
    assert found.fix == ""
    assert all(effect.removed is None and not effect.explains_first for effect in found.effects)
    assert "no spike changes" in found.sentence


def test_the_float_networks_own_rounding_is_a_row_of_its_own() -> None:
    """Every number on the grid, sums that meet their thresholds, scales that are no power of two: the last bit decides."""
    quantised = on_scales(floats(dv=0), {"lif1": 61.7, "lif2": 7.3, "readout": 7.3}, GRID)
    network = float_form(quantised)
    found = attribute(network, quantised, on_levels(60), samples=60)
    assert found.changed > 0
    assert [effect.name for effect in found.effects] == [FLOAT_ROUNDING]
    assert (found.cause, found.effects[0].without, found.effects[0].forward) == (FLOAT_ROUNDING, 0, found.changed)
    assert found.effects[0].explains_first
    assert "the integers are exact there" in found.fix
    increments_add_up(found)


def test_loops_and_filters_have_causes_too() -> None:
    inputs = np.random.default_rng(0).uniform(0, 1, (20, 7))
    network = library.prepared(read(recurrent_net(0), (7,), 16), inputs)
    found = attribute(network, library.quantize(network, inputs, weight_bits=3), inputs)
    assert (found.cause, found.layer) == (WEIGHTS, "hidden")
    assert found.remainder == 0
    increments_add_up(found)
    both = attribute(network, library.quantize(network, inputs, weight_bits=4), inputs)
    assert both.cause is None
    assert "round the data to the encoder's steps" in both.fix  # a host's sums would bypass the filter of the first layer


def test_effects_that_cannot_differ_are_left_out_with_a_reason() -> None:
    network, quantised, inputs = interacting()
    left_out = {item.name: item.why for item in attribute(network, quantised, inputs).left_out}
    assert {TAU, DECAYS, OVERFLOW, RESET, FLOAT_ROUNDING} < set(left_out)
    assert all(left_out.values())


def test_digits_with_four_bits(finished_run: FinishedRun) -> None:
    """The student of a real run: weights are the cause, and eight bits remove most of the change."""
    data = load_digits(0)
    network = snn_export.load(finished_run.folder / "export" / "float.nir")

    def attributed(bits: int) -> Attribution:
        quantised = snn_export.quantize(network, data.train.x[:64], weight_bits=bits, input_range=(0, 1))
        return attribute(network, quantised, data.test.x, data.test.y, samples=16)

    found = {bits: attributed(bits) for bits in (4, 8)}
    increments_add_up(found[4])
    assert found[4].cause == WEIGHTS
    assert found[4].remainder == 0
    assert "set quantize.weight_bits = 8" in found[4].fix
    assert found[8].changed < 0.5 * found[4].changed
