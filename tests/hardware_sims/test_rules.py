"""Every design rule is seen to fire and to stay silent; what rules count and bound is held against brute force."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_export import library
from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.graph import weight_array
from snn_export.export.linear import apply
from snn_export.export.passes.quantize import Quantize
from snn_export.export.passes.rounding import InputRange
from snn_export.export.targets import MOST_CHIPS
from snn_export.hardware_sims.chips.chip_table import load_chip
from snn_export.hardware_sims.placement.placement import PlacementSettings, place
from snn_export.hardware_sims.rules.fan_in import busiest, fan_in
from snn_export.hardware_sims.rules.network import CHIP_TARGETS, Network, network
from snn_export.hardware_sims.rules.registry import EVERY, RULES, check
from snn_export.hardware_sims.rules.rule import DesignRule, Form
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec
from tests import networks
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, even, random_inputs
from tests.networks import conv_deployment
from tests.rule_networks import (
    CLEAN,
    LAYER,
    SECOND,
    Broken,
    dense,
    example_of,
    floats,
    in_form,
    in_many_formats,
    with_contract,
    with_node,
)

CASES = [(rule, code, form) for rule in RULES for code in rule.codes for form in rule.forms]


def name_of(value: object) -> str:
    return value.name if isinstance(value, DesignRule) else str(value)


def asked(example: Broken, rule: DesignRule, form: Form, made: Deployment) -> Network:
    """The network and target of an example, with its limits."""
    target = example.target or rule.targets[0]
    plain = network(in_form(made, form), target, example.chips)
    return plain if example.chip is None else Network(plain.deployment, target, example.chip, example.chips)


@pytest.mark.parametrize(("rule", "code", "form"), CASES, ids=name_of)
def test_every_rule_fires_with_each_of_its_codes(
    rule: DesignRule, code: str, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = example_of(rule, code, form)
    assert example is not None, f"tests/rule_networks.py has no network that breaks {rule.name} with {code}"
    made = example.make()
    if example.patch is not None:
        monkeypatch.setattr(*example.patch)
    found = [item for item in rule.ask(asked(example, rule, form, made)) if item.code == code]
    assert found
    for item in found:
        assert item.severity == rule.severity
        assert item.where and item.why and item.fix
        assert not re.search(r"\n|np\.", "".join((item.what, item.where, item.why, item.fix)))
        if rule.severity == "error":
            assert item.exit_code == (1 if code >= "SNX300" else 2 if code < "SNX200" else 3)


@pytest.mark.parametrize("rule", RULES, ids=name_of)
@pytest.mark.parametrize("make", CLEAN)
def test_every_rule_is_silent_about_a_clean_network(rule: DesignRule, make: Any) -> None:
    for form in rule.forms:
        for target in rule.targets:
            subject = network(in_form(make(), form), target)
            assert rule.applies(subject)
            assert rule.can_be_asked(subject)
            assert rule.ask(subject) == []


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_a_rule_says_what_it_states_and_where_each_limit_stands(rule: DesignRule) -> None:
    assert rule.states.endswith((".", "run."))
    for target in rule.targets:
        for limit in rule.codes.values():
            assert limit(target).text
            assert limit(target).source


def test_no_two_rules_bear_one_name() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert set(EVERY) == {target for rule in RULES for target in rule.targets}


@pytest.mark.parametrize(("rule", "code", "form"), CASES, ids=name_of)
def test_a_check_finds_only_codes_that_its_rules_state(
    rule: DesignRule, code: str, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is broken: what is documented is all that can be found."""
    example = example_of(rule, code, form)
    assert example is not None
    made = in_form(example.make(), form)
    if example.patch is not None:
        monkeypatch.setattr(*example.patch)
    target = example.target or rule.targets[0]
    stated = {code for rule in RULES if form in rule.forms and target in rule.targets for code in rule.codes}
    found = {item.code for item in check(made, target)}
    assert found <= stated
    if example.chip is None:
        assert code in found


def test_what_one_rule_finds_hides_nothing_from_the_others() -> None:
    made = dense(inputs=5000, weight=np.full((3, 5000), 3), before=70, bias=np.full(3, 5000), threshold=1 << 18)
    found = check(with_node(made, v_threshold=[1, 1, 2]), "loihi1")
    assert sorted(item.code for item in found) == ["SNX245", "SNX304", "SNX304", "SNX327", "SNX480"]


def large(**changes: Any) -> Deployment:
    """One neuron more than a Loihi 1 has compartments."""
    return deployment_from(Plan((4,), (LayerPlan("layer", np.full((1024 * 128 + 1, 4), 2), threshold=1, **changes),)))


def test_a_value_out_of_range_does_not_keep_cores_from_being_counted() -> None:
    bias = np.zeros(1024 * 128 + 1, np.int64)
    bias[7] = 5000
    found = check(large(bias=bias), "loihi1", chips=1)
    assert sorted(item.code for item in found) == ["SNX304", "SNX482"]
    assert sorted(item.code for item in check(large(bias=bias), "loihi1")) == ["SNX304", "SNX483"]


def test_what_one_layer_lacks_says_nothing_about_the_others() -> None:
    """Weights that no register holds in front; behind them too many formats, too many axons, and a threshold out of reach."""
    wide = np.tile([2, -4, 6], (5000, 1))
    many = replace(SECOND, weight=wide, more=in_many_formats(wide, "layer"))
    heard = LayerPlan("heard", np.full((2, 5000), 2), "second", threshold=1)
    behind = (many, heard, LayerPlan("dead", np.full((2, 2), 2), "heard"))
    made = dense(weight=np.array([[2, 3, -2, 2]] * 3), behind=behind)
    dead = made.replace(populations={**made.populations, "dead": replace(made.populations["dead"], threshold=131_071)})
    assert {(item.code, item.where.partition("[")[0]) for item in check(dead, "loihi1")} == {
        ("SNX304", "layer.weight"), ("SNX453", "second"), ("SNX480", "heard"), ("SNX484", "dead"),
    }  # fmt: skip


def test_every_layer_that_fits_no_core_is_told_once() -> None:
    both = dense(more=in_many_formats(LAYER.weight), behind=(replace(SECOND, more=in_many_formats(SECOND.weight, "layer")),))
    found = [(item.code, item.where.partition("[")[0]) for item in check(both, "loihi1")]
    assert found == [("SNX453", "layer"), ("SNX453", "second")]
    signs = np.tile([2, -2], (2, 2500))
    wide = dense(inputs=5000, weight=signs, more=in_many_formats(signs))
    assert [item.code for item in check(wide, "loihi1")] == ["SNX480", "SNX481"], "what a single neuron exceeds is told as such"


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (dense(before=70), "SNX327"),
        (floats(dense(before=70)), "SNX230"),
        (dense(weight=np.array([[2, 3, -2, 2]])), "SNX304"),
    ],
)
def test_what_no_field_of_memory_holds_no_register_holds_either(made: Deployment, code: str) -> None:
    """A placement refuses it with SNX458; a check has said so by the values."""
    assert [item.code for item in check(made, "loihi1")] == [code]
    with pytest.raises(UserError, match="SNX458"):
        place(made, load_chip("loihi1"))


def test_chips_are_counted_as_a_placement_counts_them() -> None:
    assert PlacementSettings().chips == MOST_CHIPS
    many = deployment_from(Plan((4,), (LayerPlan("layer", np.full((1024 * 128 + 1, 4), 2), threshold=1),)))
    (note,) = check(many, "loihi1")
    assert (note.code, note.severity) == ("SNX483", "note")
    assert "129 cores, which is 2 chips" in note.what
    (finding,) = check(many, "loihi1", chips=1)
    assert (finding.code, finding.where, finding.exit_code) == ("SNX482", "layer", 1)
    assert "--chips 2" in finding.fix
    assert check(many, "loihi2") == []


def test_cores_are_counted_by_neurons_where_these_alone_are_too_many() -> None:
    many = deployment_from(Plan((4,), (LayerPlan("layer", np.full((1024 * 128 + 1, 4), 2), threshold=1),)))
    (finding,) = check(many, "loihi1", chips=1)
    assert "at least 129 cores" in finding.what


def test_cores_are_counted_by_every_limit_as_a_placement_takes_them() -> None:
    """Delays of 62 steps leave room for 130 neurons on a core in place of 1,024."""
    weight = np.full((8, 1, 1, 1), 2)
    slow = LayerPlan("slow", np.eye(8, dtype=int)[:, :, None, None] * 2, "first", threshold=1, before=62)
    plan = Plan((1, 60, 60), (LayerPlan("first", weight, threshold=1), slow), 4)
    deployment = deployment_from(plan)
    taken = len(place(deployment, load_chip("loihi1"), settings=PlacementSettings(kicks=0)).cores)
    assert taken > 128 > 2 * 8 * 60 * 60 / 1024
    (finding,) = (item for item in check(deployment, "loihi1", chips=1) if item.code == "SNX482")
    assert f"takes {taken:,} cores, which is 2 chips" in finding.what


# --- fan-in against brute force --------------------------------------------------------------------------------------


def reached(deployment: Deployment, wire: Any) -> NDArray[np.bool_]:
    """(sources, targets): where one spike of each source neuron arrives."""
    size = int(np.prod(deployment.shapes[wire.source]))
    x = np.eye(size).reshape(size, *deployment.shapes[wire.source])
    for name in wire.connection.path:
        node = deployment.graph.nodes[name]
        if name == wire.weight:
            synapse = deployment.synapses.get(name)
            weight = weight_array(node) if synapse is None else synapse.weight
            x = apply(name, node, x, np.abs(weight).astype(float), np.zeros(len(weight)))
        else:
            x = apply(name, node, x)
    return np.asarray(x.reshape(size, -1) != 0)


def brute_force(deployment: Deployment, population: str) -> NDArray[np.int64]:
    """(neurons,): distinct source neurons of each neuron, biases of the current aside."""
    by_source: dict[str, Any] = {}
    for wire in deployment.wires[population]:
        by_source[wire.source] = by_source.get(wire.source, False) | reached(deployment, wire)
    return np.asarray(sum(found.sum(axis=0) for found in by_source.values()), np.int64)


@pytest.mark.parametrize("seed", range(12))
def test_fan_in_is_what_single_spikes_reach(seed: int) -> None:
    rng = np.random.default_rng(seed)
    deployment = conv_deployment(rng)
    for form in (deployment, floats(deployment)):
        for name in form.layers:
            for wire in form.wires[name]:
                assert np.array_equal(fan_in(form, wire), reached(form, wire).sum(axis=0))


def test_fan_in_of_one_dimension_and_of_single_factors() -> None:
    rng = np.random.default_rng(0)
    line = LayerPlan("line", even(rng, (4, 1, 3)), stride=(2,), padding=(2,), dilation=(2,), groups=2, threshold=1)
    factors = LayerPlan("factors", np.array([2, 0, -4, 6]).reshape(4, 1), "line", scale=True, threshold=1)
    deployment = deployment_from(Plan((2, 9), (line, factors)))
    for name in deployment.layers:
        (wire,) = deployment.wires[name]
        assert np.array_equal(fan_in(deployment, wire), reached(deployment, wire).sum(axis=0))
        assert busiest(deployment, name, None, 0).sources == brute_force(deployment, name).max()


@pytest.mark.parametrize("seed", range(6))
def test_layers_from_one_source_share_its_axons(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sparse = lambda *shape: even(rng, shape) * (rng.random(shape) < 0.6)
    layers = (
        LayerPlan("maps", sparse(3, 2, 3, 2), threshold=1, more=(
            SynapsePlan(sparse(3, 2, 3, 2)), SynapsePlan(sparse(3, 2, 3, 4), padding=(0, 1)))),
        LayerPlan("flat", sparse(5, 75), "maps", threshold=1, more=(
            SynapsePlan(sparse(5, 75), "maps"), SynapsePlan(sparse(5, 84)))),
    )  # fmt: skip
    deployment = deployment_from(Plan((2, 7, 6), layers))
    needs = network(deployment, "loihi1").sized
    for name in deployment.layers:
        exact = brute_force(deployment, name)
        found = busiest(deployment, name, needs[name], 0)
        assert found.sources == exact.max()
        assert exact[np.ravel_multi_index(found.index, deployment.shapes[name])] == exact.max()
        assert busiest(deployment, name, None, 10_000).sources >= exact.max()


def test_the_limit_of_axons_is_met_exactly() -> None:
    def codes(sources: int) -> list[str]:
        return [item.code for item in check(dense(inputs=sources, weight=np.full((2, sources), 2)), "loihi1")]

    assert codes(4096) == []
    assert codes(4097) == ["SNX480"]
    twice = SynapsePlan(np.full((2, 3000), 2))
    assert [item.code for item in check(dense(inputs=3000, weight=np.full((2, 3000), 2), more=(twice,)), "loihi1")] == []


def test_a_convolution_over_many_channels_names_layer_limit_value_and_fix() -> None:
    maps = LayerPlan("wide", np.full((4, 512, 3, 3), 2), padding=(1, 1), dv=2048, threshold=1)
    (finding,) = check(floats(deployment_from(Plan((512, 4, 4), (maps,)))), "loihi1")
    assert (finding.code, finding.where, finding.exit_code) == ("SNX480", "wide", 1)
    assert "4,608" in finding.what and "4,096" in finding.what
    assert "channels" in finding.fix


# --- dead layers against runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(16))
def test_a_layer_that_cannot_fire_never_fires(seed: int) -> None:
    rng = np.random.default_rng(seed)
    random = conv_deployment(rng)
    factor = int(rng.integers(1, 40))
    raised = {name: replace(plan, threshold=min(131_071, plan.threshold * factor)) for name, plan in random.populations.items()}
    deployment = random.replace(populations=raised)
    dead = {item.where for item in check(deployment, "loihi2") if item.code == "SNX484"}
    found = interpreter.run(deployment, random_inputs(rng, deployment, 16), "int64")
    assert not any(found[name].spikes.any() for name in dead)


@pytest.mark.parametrize(("threshold", "dead"), [(16 * 64 - 1, False), (16 * 64, True)])
def test_the_threshold_that_is_just_out_of_reach(threshold: int, dead: bool) -> None:
    """One step, four inputs of weight 4 and more: u is 16 << 6 at most, and fires above its threshold only."""
    plan = LayerPlan("layer", np.full((2, 4), 256 - 4 * 63), dv=0, threshold=threshold // 64, weight_exponent=0)
    deployment = deployment_from(Plan((4,), (plan,), steps=1))
    assert [item.code for item in check(deployment, "loihi2")] == (["SNX484"] if dead else [])


@pytest.mark.parametrize(("threshold", "dead"), [(7.9, False), (8.1, True)])
def test_the_threshold_that_is_just_out_of_reach_of_a_float_network(threshold: float, dead: bool) -> None:
    """One step, four inputs of weight 4, half of which a membrane with tau = 2 dt takes."""
    plan = LayerPlan("layer", np.full((2, 4), 4), dv=2048, threshold=1)
    deployment = with_node(floats(deployment_from(Plan((4,), (plan,), steps=1))), v_threshold=threshold)
    assert [item.code for item in check(deployment, "loihi2")] == (["SNX484"] if dead else [])
    fired = interpreter.run(deployment, np.ones((1, 4)), "float64")["layer"].spikes.any()
    assert fired != dead


def test_an_input_without_a_declared_range_may_reach_anything() -> None:
    deployment = with_node(floats(dense()), v_threshold=1e9)
    assert "SNX484" in {item.code for item in check(deployment, "loihi2")}
    unknown = with_contract(deployment, encoder=EncoderSpec("direct"))
    assert "SNX484" not in {item.code for item in check(unknown, "loihi2")}


# --- what the quantiser makes ----------------------------------------------------------------------------------------

NETS: tuple[tuple[Any, tuple[int, ...]], ...] = (
    (networks.dense_net, (4,)), (networks.conv_net, (2, 9, 7)), (networks.residual_net, (2, 8, 6)),
    (networks.recurrent_net, (7,)), (networks.delayed_net, (6,)),
)  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_quantize_makes_keeps_to_the_values_of_its_chip(data: st.DataObject) -> None:
    net, shape = data.draw(st.sampled_from(NETS))
    target = data.draw(st.sampled_from(CHIP_TARGETS))
    layers = net(data.draw(st.integers(0, 2**16)))
    size, high = 10 ** data.draw(st.floats(-2, 2)), data.draw(st.floats(0.01, 300))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.mul_(size)
    encoder = EncoderSpec("rate" if target == "loihi1" else data.draw(st.sampled_from(("rate", "direct"))), full_scale=high)
    rng = np.random.default_rng(0)
    prepared = library.prepared(networks.read(layers, shape, encoder=encoder), rng.uniform(0, high, (2, *shape)))
    bits, exponent = data.draw(st.integers(1, 8)), data.draw(st.sampled_from((None, 0, 4, 6, 7)))
    try:
        made = Quantize(target, networks.finest, InputRange(0.0, high), bits, exponent)(prepared)
    except UserError as error:
        assume(error.code not in ("SNX244", "SNX306", "SNX314"))  # no scale fits: refused, not wrong
        raise
    found = check(made, target)
    assert [item for item in found if item.severity == "error" or item.code == "SNX309"] == []


def test_a_library_call_takes_the_same_default() -> None:
    assert library.check.__defaults__ == ("loihi2", MOST_CHIPS)
