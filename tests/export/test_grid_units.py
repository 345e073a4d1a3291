"""Grid units say the integers and nothing else: the same spikes as the quantised deployment, membranes times its scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_export.export import encoding, interpreter
from snn_export.export.grid import is_filtered
from snn_export.export.grid_units import in_grid_units
from snn_export.export.ties import FLOAT64_ROUNDOFF, explain
from snn_export.models.diagnostics import UserError
from tests.builders import LayerPlan, Plan, deployment_from, even
from tests.networks import conv_net, dense_net, quantised, read, recurrent_net, uniform


@pytest.mark.parametrize(("build", "shape"), [(dense_net, (4,)), (conv_net, (2, 9, 7)), (recurrent_net, (7,))])
def test_the_integers_are_all_there_is(build: object, shape: tuple[int, ...]) -> None:
    deployment = quantised(read(build(), shape, steps=12))  # type: ignore[operator]
    placed, inputs = in_grid_units(deployment), uniform(np.random.default_rng(0), 16, *shape)
    assert not placed.quantised
    for name, synapse in deployment.synapses.items():
        np.testing.assert_array_equal(
            placed.graph.nodes[name].weight, synapse.weight.astype(float) * 2.0**synapse.weight_exponent
        )
    expected = interpreter.run(deployment, inputs)
    found = interpreter.run(placed, encoding.levels(deployment, inputs))
    tied = [layer.tied for layer in explain(placed, encoding.levels(deployment, inputs), found, FLOAT64_ROUNDOFF).values()]
    assert not np.any(tied)
    for name, activity in expected.items():
        scale = deployment.populations[name].scale
        np.testing.assert_array_equal(found[name].spikes, activity.spikes)
        np.testing.assert_allclose(found[name].membrane / scale, activity.membrane, rtol=1e-9, atol=1e-9)
        biased = 0 if is_filtered(deployment, name) else deployment.bias(name) / 64
        np.testing.assert_allclose((found[name].current - biased) / scale, activity.current, rtol=1e-9, atol=1e-9)
        assert activity.spikes.any() == deployment.contract.neurons[name].spiking


def test_without_a_grid_there_are_no_grid_units() -> None:
    with pytest.raises(UserError) as caught:
        in_grid_units(read(dense_net(), (4,)))
    assert caught.value.code == "SNX302"


def test_what_no_node_says_is_refused_all_at_once() -> None:
    rng = np.random.default_rng(0)
    scaled = LayerPlan("a", np.full(5, 2), scale=True, du=100, dv=0, threshold=9)
    plan = Plan((5,), (scaled, LayerPlan("b", even(rng, (3, 5)), "a")))
    deployment = deployment_from(plan)
    synapse = replace(deployment.synapses["a.weight"], bias_mantissa=np.ones(5, np.int16))
    with pytest.raises(UserError) as caught:
        in_grid_units(deployment.replace(synapses={**deployment.synapses, "a.weight": synapse}))
    assert [(item.code, item.where) for item in caught.value.diagnostics] == [("SNX215", "a"), ("SNX201", "a.weight")]
