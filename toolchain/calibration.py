"""Measuring a quantised network against its float form on calibration data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.registry import simulator


def spike_score(deployment: Deployment, inputs: NDArray[Any]) -> Callable[[Deployment], float]:
    """A score for the quantiser: how far a candidate's integer run is from the float network; smaller is better.

        score = sum over spiking layers of (mismatched spikes / positions)
              + rms(readout difference) / rms(readout), real units, last step

    Spikes decide, because spikes are what the next layer and the chip see; the readout has none, so its membrane stands in.

    Args:
        deployment: the float network.
        inputs: calibration inputs, as the deployment takes them.
    """
    expected = interpreter.run(deployment, inputs)
    backend = simulator("loihi")
    readout = deployment.contract.readout.node
    target = expected[readout].membrane[-1]
    size = float(np.sqrt(np.mean(target**2))) or 1.0

    def score(candidate: Deployment) -> float:
        trace = backend.run(backend.compile(candidate), inputs, ("spikes", "membrane"))
        total = 0.0
        for name, layer in trace.layers.items():
            if deployment.contract.neurons[name].spiking:
                total += float(np.mean(np.asarray(layer.spikes) != expected[name].spikes))
        last = trace.layers[readout]
        got = np.asarray(last.membrane)[-1] * last.unit
        return total + float(np.sqrt(np.mean((got - target) ** 2))) / size

    return score
