"""From snnTorch modules to real Lava: a residual network, and a recurrent one with filtered currents and biases.

The float network is compared with the modules it was read from; its quantised form with the quantised PyTorch student, the
integer simulator and Lava: every spike, membrane and current of every layer, all samples in one stream.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

import snn_export
from snn_export.export import bounds
from snn_export.export.deployment import Deployment
from snn_export.export.interpreter import run
from snn_export.hardware_sims.trace import Trace
from tests.builders import LayerPlan, Plan, deployment_from
from tests.lava_environment import require_lava
from tests.networks import recurrent_net, residual_net

SAMPLES, STEPS = 17, 8
EVERYTHING = ("spikes", "membrane", "current")


def inputs_for(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(5).uniform(0.0, 1.0, (SAMPLES, *shape))


def mismatches(one: Trace, other: Trace) -> int:
    """Differing values over all layers; a layer that one side lacks is a KeyError."""
    assert set(one.layers) == set(other.layers)
    total = 0
    for name, layer in one.layers.items():
        for what in EVERYTHING:
            first, second = getattr(layer, what), getattr(other.layers[name], what)
            assert first.shape == second.shape and first.shape[:2] == (STEPS, SAMPLES)
            total += int(np.count_nonzero(first != second))
    return total


@pytest.fixture(params=["residual", "recurrent"])
def network(request: pytest.FixtureRequest) -> tuple[nn.Sequential, Deployment, np.ndarray]:
    """Modules, their float deployment, and samples."""
    make: Callable[[], nn.Sequential] = {"residual": residual_net, "recurrent": recurrent_net}[request.param]
    shape = {"residual": RESIDUAL_SHAPE, "recurrent": RECURRENT_SHAPE}[request.param]
    modules, inputs = make(), inputs_for(shape)
    return modules, snn_export.from_snntorch(modules, shape, STEPS, inputs), inputs


RESIDUAL_SHAPE: tuple[int, ...] = (2, 8, 6)
RECURRENT_SHAPE: tuple[int, ...] = (7,)


def test_the_float_form_repeats_the_modules_it_was_read_from(network: tuple[nn.Sequential, Deployment, np.ndarray]) -> None:
    modules, deployment, inputs = network
    report = snn_export.verify(
        deployment, inputs, reference="student", targets=["reference"], options={"student": {"layers": modules}}
    )
    assert report.passed
    assert {layer.verdict for c in report.comparisons for layer in c.layers} <= {"EXACT", "TIE"}


@pytest.mark.lava
def test_quantised_student_simulator_and_lava_agree_in_everything(
    network: tuple[nn.Sequential, Deployment, np.ndarray],
) -> None:
    require_lava()
    _, deployment, inputs = network
    quantised = snn_export.quantize(deployment, inputs)
    loihi = snn_export.simulate(quantised, inputs, "loihi", EVERYTHING)
    assert all(layer.counts.sum() > 0 for name, layer in loihi.layers.items() if deployment.contract.neurons[name].spiking)
    assert sum(layer.overflows or 0 for layer in loihi.layers.values()) == 0
    for backend in ("quantised_student", "lava"):
        assert mismatches(loihi, snn_export.simulate(quantised, inputs, backend, EVERYTHING)) == 0, backend


@pytest.mark.lava
@pytest.mark.parametrize(("level", "safe"), [(515, True), (517, False)])
def test_an_overflow_is_predicted_and_happens_on_lava_too(level: int, safe: bool) -> None:
    """254 x level x 64 meets 2^23 between 516 and 517."""
    require_lava()
    deployment = deployment_from(Plan((1,), (LayerPlan("n", np.full((1, 1), 254), threshold=1),), STEPS, 0, level))
    findings = bounds.overflow_findings(deployment)
    assert [item.where for item in findings] == ([] if safe else ["n[0]"])
    inputs = np.full((SAMPLES, 1), float(level))
    loihi, lava = (snn_export.simulate(deployment, inputs, name, EVERYTHING) for name in ("loihi", "lava"))
    assert mismatches(loihi, lava) == 0
    assert (loihi.layers["n"].overflows == 0) == safe == (run(deployment, inputs, "int64")["n"].overflows == 0)
    assert (int(np.asarray(lava.layers["n"].current).min()) < 0) != safe
