"""Real lava-dl netx on real Lava against the int64 interpreter: spikes, u and v of every population in every step, bit for bit.

What runs is a ``.net`` file: netx loads what ``export/netx_io.py`` wrote.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snn_export.export import interpreter, netx_io
from snn_export.export.deployment import Deployment
from snn_export.export.netx_layers import NetFile, NetLayer, NetNeuron
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
from snn_export.hardware_sims.netx.simulator import NetxSimulator, Program
from snn_export.hardware_sims.simulator import BackendError
from snn_export.hardware_sims.trace import Trace
from tests.builders import LayerPlan, Plan, deployment_from, even, random_inputs
from tests.netx_environment import require_netx
from tests.netx_networks import WISHES, as_deployment, random_net

pytestmark = pytest.mark.lava

EVERYTHING = ("spikes", "membrane", "current")
SAMPLES = 4
SEEDS = {"recurrent": 5, "host": 1, "dense": 3}
"""Networks in which every layer fires."""


@pytest.fixture(autouse=True)
def _netx() -> None:
    require_netx()


def netx(deployment: Deployment, inputs: np.ndarray, **options: object) -> Trace:
    simulator = NetxSimulator(time_limit=180.0, **options)  # type: ignore[arg-type]
    return simulator.run(simulator.compile(deployment), inputs, EVERYTHING)


def differences(deployment: Deployment, inputs: np.ndarray, trace: Trace) -> dict[str, int]:
    """Positions that differ by population; empty where netx and the interpreter agree on everything."""
    found = {}
    for name, want in interpreter.run(deployment, inputs, "int64").items():
        got = trace.layers[name]
        pairs = ((want.spikes, got.spikes), (want.membrane, got.membrane), (want.current, got.current))
        wrong = sum(int(np.count_nonzero(a != b)) for a, b in pairs)
        if wrong:
            found[name] = wrong
    return found


def loihi(deployment: Deployment, inputs: np.ndarray) -> Trace:
    simulator = LoihiSimulator()
    return simulator.run(simulator.compile(deployment), inputs, EVERYTHING)


def assert_same(first: Trace, second: Trace) -> None:
    """Two integer backends agree in every spike, membrane and current."""
    assert first.layers.keys() == second.layers.keys()
    for name, layer in first.layers.items():
        for what in EVERYTHING:
            assert np.array_equal(getattr(layer, what), getattr(second.layers[name], what)), (name, what)


def inputs_for(rng: np.random.Generator, deployment: Deployment) -> np.ndarray:
    if deployment.contract.encoder.kind == "bias":
        return rng.random((SAMPLES, *deployment.input_shape))
    return (rng.random((deployment.contract.steps, SAMPLES, *deployment.input_shape)) < 0.5).astype(float)


@pytest.mark.parametrize("wish", WISHES)
def test_netx_runs_what_was_written(wish: str, tmp_path: Path) -> None:
    rng = np.random.default_rng([SEEDS.get(wish, 0), len(wish)])
    deployment = as_deployment(random_net(rng, WISHES[wish]), tmp_path)
    inputs = inputs_for(rng, deployment)
    trace = netx(deployment, inputs)
    assert differences(deployment, inputs, trace) == {}
    assert sum(int(layer.counts.sum()) for layer in trace.layers.values()) >= 5
    assert_same(trace, loihi(deployment, inputs))


def test_graded_input_of_a_trained_network() -> None:
    """The layers of a quantised network, with its own names, scales and exponents, under direct encoding."""
    rng = np.random.default_rng(1)
    first, second = rng.integers(-200, 200, 4), 32 * rng.integers(-2, 3, 6)
    kernel, matrix = even(rng, (4, 2, 3, 2)), even(rng, (6, 4 * 4 * 4))
    layers = (
        LayerPlan("conv", kernel, dv=800, threshold=9000, bias=first, bias_exponent=6, stride=(2, 1)),
        LayerPlan("hidden", matrix, "conv", du=900, dv=500, threshold=2000, bias=second, bias_exponent=1),
        LayerPlan("readout", even(rng, (3, 6), 60) // 2 * 2, "hidden", dv=0),
    )  # fmt: skip
    deployment = deployment_from(Plan((2, 9, 5), layers, steps=7, low=-15, high=15))
    inputs = random_inputs(rng, deployment, 5)
    trace = netx(deployment, inputs)
    assert differences(deployment, inputs, trace) == {}
    assert_same(trace, loihi(deployment, inputs))
    assert trace.layers["conv"].counts.any() and trace.layers["hidden"].counts.any()
    assert trace.latency == {"conv": 1, "hidden": 2, "readout": 3}


def test_samples_do_not_hear_each_other(tmp_path: Path) -> None:
    """One run of all samples is what each of them gives alone, however they are separated and cut into runs."""
    deployment = as_deployment(random_net(np.random.default_rng(3), WISHES["mixed"]), tmp_path)
    inputs = inputs_for(np.random.default_rng(0), deployment)
    for options in ({"separation": "reset"}, {"separation": "clear"}, {"samples_per_run": 3}):
        assert differences(deployment, inputs, netx(deployment, inputs, **options)) == {}


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(("wish", "seed"), [("dense", 5), ("mixed", 1)])
def test_samples_shorter_than_the_network_is_deep(wish: str, seed: int, steps: int, tmp_path: Path) -> None:
    """Several samples are on their way through the layers at once; none of their steps may be lost."""
    deployment = as_deployment(random_net(np.random.default_rng(seed), replace(WISHES[wish], steps=steps)), tmp_path)
    assert max(deployment.contract.latency.values()) > steps
    inputs = inputs_for(np.random.default_rng(0), deployment)
    wanted = interpreter.run(deployment, inputs, "int64")
    assert all(layer.current.any() for layer in wanted.values())
    for separation in ("reset", "clear"):
        assert differences(deployment, inputs, netx(deployment, inputs, separation=separation)) == {}


def test_netx_own_reset_does_not_separate_a_recurrent_network(tmp_path: Path) -> None:
    """Why the worker clears what is in flight: with netx's reset alone, a sample begins with the last one's spikes."""
    deployment = as_deployment(random_net(np.random.default_rng(5), WISHES["recurrent with delays"]), tmp_path)
    inputs = np.ones((deployment.contract.steps, SAMPLES, *deployment.input_shape))
    assert differences(deployment, inputs, netx(deployment, inputs)) == {}
    assert differences(deployment, inputs, netx(deployment, inputs, separation="reset")) != {}


def test_a_bias_does_not_act_before_the_first_input_can_arrive(tmp_path: Path) -> None:
    """A neuron that fires by its bias alone would hear itself, and be heard late, from steps before its first one."""
    weight, bias = np.diag([254, -256, 100, 2]), np.array([90, 95, 100, 105])
    layer = NetLayer("dense_rec", (4,), weight, weight[::-1].copy(), bias=bias, neuron=NetNeuron(900, 700, 80))
    last = NetLayer("dense", (4,), weight, delay=np.array([3, 0, 1, 2]), bias=bias, neuron=NetNeuron(4096, 900, 85))
    deployment = as_deployment(NetFile((layer, replace(layer), last), 8), tmp_path)
    inputs = inputs_for(np.random.default_rng(0), deployment)
    assert differences(deployment, inputs, netx(deployment, inputs)) == {}


def test_intels_oxford_network_runs_as_recorded() -> None:
    folder = Path(os.environ.get("SNN_EXPORT_SHARED", Path(__file__).parents[3] / "shared")) / "data"
    if not (folder / "netx_oxford" / "network.net").exists():
        pytest.skip("lava-dl's Oxford network is not there; set SNN_EXPORT_SHARED to the folder that holds data/")
    with np.load(folder / "lava_dense_golden.npz", allow_pickle=False) as golden:
        inputs, spikes = golden["spikes_in"].T[:300, None].astype(float), golden["spikes_out"].T[:300, None]
    deployment = netx_io.read(folder / "netx_oxford" / "network.net", steps=len(inputs))
    trace = netx(deployment, inputs)
    assert differences(deployment, inputs, trace) == {}
    assert np.array_equal(spikes[1:], trace.layers["dense0"].spikes[:-1])


def test_a_file_that_holds_other_weights_is_found_by_the_worker(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    deployment = as_deployment(random_net(rng, WISHES["dense"]), tmp_path)
    simulator = NetxSimulator(time_limit=120.0, log_folder=tmp_path)
    program = simulator.compile(deployment)
    layer = program.net.layers[0]
    weight = layer.weight.copy()  # type: ignore[union-attr]
    weight[0, 0] += 2 if weight[0, 0] < 200 else -2
    changed = NetFile((type(layer)(**{**vars(layer), "weight": weight}), *program.net.layers[1:]), program.net.sample_steps)
    broken = Program(deployment, changed, program.request, program.arrays)
    with pytest.raises(BackendError, match="SNX422") as caught:
        simulator.run(broken, inputs_for(rng, deployment), ("spikes",))
    assert "weight is not the file's" in str(caught.value)


def test_only_what_was_asked_for_is_kept_and_fixed_point_models_ran(tmp_path: Path) -> None:
    deployment = as_deployment(random_net(np.random.default_rng(1), WISHES["dense"]), tmp_path)
    steps: list[tuple[int, int]] = []
    simulator = NetxSimulator(progress=lambda done, total: steps.append((done, total)))
    trace = simulator.run(simulator.compile(deployment), inputs_for(np.random.default_rng(0), deployment), ("membrane",))
    layer = trace.layers[deployment.layers[0]]
    assert layer.spikes is None and layer.current is None and layer.integer and layer.overflows is None
    assert trace.provenance["lava-dl"] == "0.6.0" and "floating_pt" not in trace.provenance["models"]
    assert "PyLifResetModelBitAcc" in trace.provenance["models"] and "PyNetworkModel" in trace.provenance["models"]
    assert steps and steps[-1][1] == deployment.contract.steps * SAMPLES + 3
