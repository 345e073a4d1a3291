"""A trace recorded from Lava, published with lava-dl's tests: 256 neurons, 2,000 steps."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
from tests.builders import LayerPlan, Plan, deployment_from

FOLDER = Path(os.environ.get("SNN_EXPORT_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    path = FOLDER / "data" / "lava_dense_golden.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not there; set SNN_EXPORT_SHARED to the folder that holds data/{path.name}")
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


@pytest.fixture(scope="module")
def deployment(golden: dict[str, np.ndarray]) -> Deployment:
    layer = LayerPlan("layer", golden["weight"].astype(np.int64), dv=415, threshold=6)
    return deployment_from(Plan((200,), (layer,), steps=golden["spikes_in"].shape[1], events=True))


@pytest.mark.parametrize("backend", ["interpreter", "loihi"])
def test_no_spike_differs_from_the_recording(backend: str, golden: dict[str, np.ndarray], deployment: Deployment) -> None:
    inputs = golden["spikes_in"].T[:, None].astype(np.float64)
    if backend == "interpreter":
        spikes = interpreter.run(deployment, inputs, "int64")["layer"].spikes
    else:
        simulator = LoihiSimulator()
        spikes = simulator.run(simulator.compile(deployment), inputs, ("spikes",)).layers["layer"].spikes
    recorded = golden["spikes_out"].T[:, None]
    local = spikes[:-1]  # the recording starts a synapse's step before the first input arrives
    assert recorded.size == 512_000 and recorded.sum() > 1000
    assert np.count_nonzero(recorded[0]) + np.count_nonzero(recorded[1:] != local) == 0


def test_the_synaptic_sums_are_the_recorded_ones(golden: dict[str, np.ndarray], deployment: Deployment) -> None:
    inputs = golden["spikes_in"].T[:, None].astype(np.int64)
    sums = interpreter.synaptic_drive(deployment, "layer", {"input": inputs})
    assert np.array_equal(sums[:-1, 0].T, golden["current"][:, 1:])
