"""Static bounds: what they call safe never overflows, what overflows was predicted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export.export import bounds, interpreter
from snn_export.export.deployment import Deployment
from snn_export.models.arithmetic import CURRENT_MAX, STATE_MAX, THRESHOLD_MAX
from snn_export.models.spec import NeuronSpec
from tests.builders import LayerPlan, Plan, deployment_from, random_inputs
from tests.export.test_interpreter_loops import looped
from tests.networks import conv_deployment


def single(weight: int, level: int, steps: int, threshold: int = THRESHOLD_MAX) -> Deployment:
    """One graded input of levels up to ``level`` through one weight into one neuron without leak."""
    layer = LayerPlan("n", np.full((1, 1), weight), threshold=threshold)
    return deployment_from(Plan((1,), (layer,), steps, 0, level))


def worst(deployment: Deployment) -> interpreter.Activity:
    """Every input at its highest level in every step."""
    return interpreter.run(deployment, np.full((1, *deployment.input_shape), deployment.contract.encoder.high), "int64")["n"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_no_run_exceeds_its_bounds(seed: int, loop: bool) -> None:
    rng = np.random.default_rng(seed)
    deployment = looped(rng) if loop else conv_deployment(rng, steps=6)
    inputs = rng.integers(0, 2, (9, 4, 2)) if loop else random_inputs(rng, deployment, 4)
    found = bounds.all_bounds(deployment)
    for name, activity in interpreter.run(deployment, inputs, "int64").items():
        if found[name].safe:
            assert activity.overflows == 0
            assert int(np.abs(activity.current).max(initial=0)) <= found[name].current
            assert int(np.abs(activity.membrane).max(initial=0)) <= found[name].membrane
        elif activity.overflows == 0:
            assert max(found[name].current, found[name].membrane) > STATE_MAX or found[name].readout_in_reach


@pytest.mark.parametrize(("level", "safe"), [(515, True), (517, False)])
def test_the_bound_of_u_is_tight_and_what_passes_it_wraps(level: int, safe: bool) -> None:
    """254 x level x 64 meets 2^23 between 516 and 517: the last safe level never wraps, one more does."""
    deployment = single(254, level, 3, threshold=1)
    assert (254 * level * 64 < CURRENT_MAX) == safe
    found = bounds.population_bounds(deployment, "n")
    assert found.safe == safe
    assert found.current == 254 * level * 64
    activity = worst(deployment)
    assert (activity.overflows > 0) != safe
    assert (int(activity.current.min()) < 0) != safe


@pytest.mark.parametrize(("steps", "safe"), [(63, True), (70, False)])
def test_the_bound_of_v_counts_the_steps_a_silent_neuron_integrates(steps: int, safe: bool) -> None:
    deployment = single(-254, 8, steps)
    found = bounds.population_bounds(deployment, "n")
    assert found.safe == safe == (254 * 8 * 64 * steps <= STATE_MAX)
    assert found.membrane == 254 * 8 * 64 * steps
    assert (worst(deployment).overflows > 0) != safe


def test_a_periodic_reset_shortens_what_can_add_up() -> None:
    deployment = single(-254, 8, 200)
    assert not bounds.population_bounds(deployment, "n").safe
    spec = NeuronSpec(0, reset_interval=50)
    shorter = deployment.replace(contract=deployment.contract.model_copy(update={"neurons": {"n": spec}}))
    assert bounds.population_bounds(shorter, "n").safe
    assert worst(shorter).overflows == 0


def test_a_finding_names_layer_neuron_bound_and_a_scale_that_mends_it() -> None:
    weight = np.array([[2], [254], [4]])
    plan = Plan((1,), (LayerPlan("n", weight, threshold=THRESHOLD_MAX),), 3, 0, 1000)
    (finding,) = bounds.overflow_findings(deployment_from(plan))
    assert finding.code == "SNX309"
    assert finding.severity == "warning"
    assert finding.where == "n[1]"
    assert f"{254 * 1000 * 64:,}" in finding.what
    scale = float(finding.fix.split("at most ")[1].split()[0])
    assert 254 * scale * 1000 * 64 < CURRENT_MAX
    assert bounds.overflow_findings(single(254, 100, 3)) == []


def test_a_readout_in_reach_of_its_threshold_is_not_safe() -> None:
    deployment = single(254, 500, 2)
    neurons = {"n": NeuronSpec(0, reset="none", spiking=False)}
    readout = deployment.replace(contract=deployment.contract.model_copy(update={"neurons": neurons}))
    found = bounds.population_bounds(readout, "n")
    assert found.readout_in_reach and not found.safe
    assert worst(readout).spikes.any()


@pytest.mark.parametrize("bias", [0, 40])
def test_an_always_on_current_counts(bias: int) -> None:
    deployment = single(254, 515, 3, threshold=1)
    synapse = replace(deployment.synapses["n.weight"], current_bias=np.array([20 * bias], np.int32))
    biased = deployment.replace(synapses={"n.weight": synapse})
    assert bounds.population_bounds(biased, "n").current == (254 * 515 + 20 * bias) * 64
    assert bounds.population_bounds(biased, "n").safe == (bias == 0)
    assert (worst(biased).overflows == 0) == (bias == 0)
