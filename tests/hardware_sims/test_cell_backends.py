"""What every cell backend is held to: the contract's network but for what it declares, on all the ways to run it.

A new one is a row in ``tests/cell_backends.py``. What its package makes of single nodes, and what it declares for which reset,
stands in a test file of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

from snn_export.export.graph import replace_nodes
from snn_export.export.passes.reset_periodically import ResetPeriodically
from snn_export.export.populations import with_constants
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.conformance.kit import run_kit
from snn_export.hardware_sims.isolated.backend import CellBackend
from snn_export.hardware_sims.registry import locations
from snn_export.hardware_sims.simulator import Deviating, Simulator
from tests.cell_backends import NETWORKS, ROWS, WAYS, assert_is, backend, declared, kinds, require, run
from tests.networks import conv_net, dense_net, quantised, read, recurrent_net, uniform
from tests.torch_graphs import assert_runs_its_integers, with_spec

pytestmark = pytest.mark.usefixtures("one_thread", "workers_end")


def test_every_cell_backend_has_its_row() -> None:
    places = {name: locations()[name].partition(":") for name in environments.BUILT_IN}
    kinds_of = {name: getattr(import_module(module), kind) for name, (module, _, kind) in places.items()}
    assert {name for name, kind in kinds_of.items() if issubclass(kind, CellBackend)} == set(ROWS)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("name", "way"), WAYS)
def test_networks_differ_from_the_contract_in_nothing_but_what_is_declared(name: str, way: str, network: str) -> None:
    require(name)
    build, shape = NETWORKS[network]
    several = "several_spikes" in ROWS[name].options[way]
    deployment = with_spec(read(build(), shape, steps=12), reset="subtract" if several else "zero")
    inputs = uniform(default_rng(1), 16, *shape, low=-0.5, high=2.0).astype(np.float32)
    trace = assert_is(name, way, deployment, inputs)
    assert any(layer.several is not None for layer in trace.layers.values()) == several, "only with the option, and then indeed"
    assert set(kinds(backend(name, way), deployment).values()) <= {"native", "rewritten", "emulated"}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_periodic_resets_clear_u_and_v(name: str, reset: str) -> None:
    require(name)
    deployment = with_spec(ResetPeriodically(4, {"hidden": 1})(read(recurrent_net(), (7,), steps=10)), reset=reset)
    assert_is(name, "as shipped", deployment, uniform(default_rng(3), 8, 7, high=2.0))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(("reset", "delay"), [("zero", 0), ("subtract", 0), ("subtract", 1)])
def test_a_neuron_whose_threshold_is_infinite_integrates_and_never_fires(name: str, reset: str, delay: int) -> None:
    require(name)
    deployment = with_spec(read(dense_net(), (4,), steps=8), reset=reset, reset_delay=delay)
    node = deployment.graph.nodes["lif1"]
    each = np.where(np.arange(6) % 3 == 0, np.inf, np.asarray(node.v_threshold) * np.ones(6))
    never = with_constants(node, v_threshold=each)
    deployment = deployment.replace(graph=replace_nodes(deployment.graph, {"lif1": never}))
    trace = assert_is(name, "as shipped", deployment, uniform(default_rng(6), 16, 4, low=0.0, high=3.0))
    layer = trace.layers["lif1"]
    assert layer.counts[:, [1, 2, 4, 5]].any() and not layer.counts[:, [0, 3]].any()


@pytest.mark.parametrize("name", ROWS)
def test_samples_beyond_one_chunk_do_not_hear_each_other(name: str) -> None:
    """130 samples are two chunks of different size."""
    require(name)
    deployment = read(dense_net(), (4,), steps=12)
    inputs = uniform(default_rng(5), 130, 4, low=-0.5, high=2.0).astype(np.float32)
    trace = assert_is(name, "as shipped", deployment, inputs)
    alone = run(backend(name), deployment, inputs[129:])
    for layer, found in alone.layers.items():
        np.testing.assert_array_equal(found.counts[0], trace.layers[layer].counts[129])


@pytest.mark.parametrize("name", ROWS)
def test_a_quantised_deployment_runs_its_integers_and_says_so(name: str) -> None:
    require(name)
    row = ROWS[name]
    build, shape = (conv_net, (2, 9, 7)) if row.reset == "zero" else (lambda: dense_net(reset="subtract"), (4,))
    deployment = quantised(read(build(), shape))
    made = backend(name, row.faithful)
    assert made.deviations(deployment) == {} and declared(made, deployment).firing == {}
    trace = assert_runs_its_integers(made, deployment, uniform(default_rng(0), 12, *shape))
    assert "no truncation" in trace.provenance[f"{name} state"]
    assert f"{name} {trace.provenance[name]}" == row.package
    assert f"{name} deviations" not in trace.provenance


@pytest.mark.parametrize("name", ROWS)
def test_the_installed_neurons_are_what_the_worker_takes_them_for(name: str) -> None:
    require(name)
    (probe,) = backend(name).self_test()
    assert probe.as_expected, probe.seen
    assert ROWS[name].package in probe.seen


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), WAYS)
def test_it_passes_the_kit_but_for_what_it_declares(name: str, way: str) -> None:
    require(name)
    found = run_kit(backend(name, way))
    assert found.passed, found.summary()
    assert {item.stage for item in found.outcomes} <= {"passed", "mismatch", "not applicable"}, "nothing refused, nothing broken"


@pytest.mark.parametrize("name", ROWS)
def test_without_its_environment_it_says_how_to_get_it_and_imports_nothing(name: str, tmp_path: Path) -> None:
    module, _, kind = locations()[name].partition(":")
    program = (
        "import sys\n"
        f"from {module} import {kind} as S\n"
        "backend = S(); found = backend.availability()\n"
        "assert backend.capabilities().isolated\n"
        f"assert not found.ok and found.fix == 'snn-export backends install {name}', found\n"
        f"assert not set({ROWS[name].imports!r}) & set(sys.modules)\n"
    )
    clean = {key: value for key, value in os.environ.items() if key != environments.override_variable(name)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "SNN_EXPORT_ENVS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert isinstance(backend(name), Simulator) and isinstance(backend(name), Deviating)
