"""Inputs for a network that comes without any: the corners of what its encoder takes, then random samples; always the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.trace import SPIKES_ONLY
from snn_export.models.diagnostics import UserError

KINDS = ("maximum", "dense", "sparse", "single", "zero", "minimum")
"""What the first samples are; after them dense, sparse and single take turns. ``minimum`` where values may be below zero."""
SAMPLES = 32
"""How many there are if nobody says."""
DENSE, SPARSE = 0.5, 0.1
"""Part of the features that are not zero in a random sample of spikes, and in a sparse sample of any kind."""
PROBED = 8
"""Samples that choose the range of a network which declares none."""
SCALES = (1.0, 4.0, 16.0, 64.0, 256.0)
"""Ranges that are tried then."""
_HALVINGS = 40


def example_inputs(deployment: Deployment, samples: int = SAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """Inputs of the range that a network declares, (B, *shape), or (T, B, *shape) for events, real units.

    Every value lies in the range: a level of the encoder's grid where there is one, spikes of 0 and 1 for an encoder of events
    that declares no levels, 0 to full_scale under rate encoding. A sample depends on the seed and its own index alone, so more
    samples begin with the same ones. A direct float network declares no range: 0 to the first of ``SCALES`` at which every
    spiking layer fires on the reference, or the most of them. Where a host computes the first layer, the range is halved until
    its biases fit their registers.

    Args:
        deployment: float or quantised.
        samples: B.
        seed: of the random ones.

    Raises:
        UserError: SNX501 for no sample.
    """
    if samples < 1:
        raise UserError(
            "SNX501", f"{samples} samples are no samples", where="samples", why="a run over nothing shows nothing",
            fix="ask for one at least",
        )  # fmt: skip
    encoder = deployment.contract.encoder
    if encoder.kind == "rate":
        return _samples(deployment, samples, seed, (0.0, encoder.full_scale), None)
    if encoder.gain is not None:
        return _samples(deployment, samples, seed, (encoder.low, encoder.high), encoder.gain)
    if encoder.kind == "events":
        return _samples(deployment, samples, seed, (0, 1), 1.0)
    if encoder.kind == "bias":
        return _fitting(deployment, _samples(deployment, samples, seed, (0.0, 1.0), None))
    return _samples(deployment, samples, seed, (0.0, _lively(deployment, seed)), None)


def _samples(
    deployment: Deployment, samples: int, seed: int, span: tuple[float, float], gain: float | None
) -> NDArray[np.float64]:
    """All samples; ``span`` in levels of the grid with a gain, in real units without."""
    over_time = deployment.contract.encoder.kind == "events"
    shape = (deployment.contract.steps, *deployment.input_shape) if over_time else deployment.input_shape
    kinds = [kind for kind in KINDS if kind != "minimum" or span[0] < 0]
    made = [
        _sample(kinds[index] if index < len(kinds) else KINDS[1 + (index - len(kinds)) % 3], default_rng([seed, index]), shape,
                span, gain is not None, over_time)
        for index in range(samples)
    ]  # fmt: skip
    return np.stack(made, axis=1 if over_time else 0) / (gain or 1.0)


def _sample(
    kind: str, rng: Generator, shape: tuple[int, ...], span: tuple[float, float], whole: bool, over_time: bool
) -> NDArray[np.float64]:
    """One sample. ``whole``: of whole levels; ``over_time``: the first axis is time, and a single feature is on in all steps."""
    low, high = span
    if kind == "zero":
        return np.zeros(shape)
    if kind in ("maximum", "minimum"):
        return np.full(shape, float(high if kind == "maximum" else low))
    if kind == "single":
        features = shape[1:] if over_time else shape
        one = np.zeros(int(np.prod(features)))
        one[rng.integers(one.size)] = high if high > 0 else low
        return np.array(np.broadcast_to(one.reshape(features), shape))
    binary = whole and low == 0 and high == 1
    values = rng.uniform(low, high, shape)
    if whole:
        values = np.ones(shape) if binary else rng.integers(int(low), int(high) + 1, shape).astype(np.float64)
    kept = rng.random(shape) < (SPARSE if kind == "sparse" else DENSE if binary else 1.0)
    if not kept.any():
        kept.flat[rng.integers(kept.size)] = True  # a sample of few features that loses them all is one without input
    return np.where(kept, values, 0.0)


def _lively(deployment: Deployment, seed: int) -> float:
    """The smallest scale at which the most spiking layers fire."""
    reference = simulator("reference")
    program = reference.compile(deployment)
    spiking = [name for name in deployment.layers if deployment.contract.neurons[name].spiking]
    best, most = SCALES[0], -1
    for scale in SCALES:
        trace = reference.run(program, _samples(deployment, PROBED, seed, (0.0, scale), None), SPIKES_ONLY)
        firing = sum(bool(trace.layers[name].counts.any()) for name in spiking)
        if firing > most:
            best, most = scale, firing
        if firing == len(spiking):
            break
    return best


def _fitting(deployment: Deployment, inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Halved until the host's biases fit."""
    if not deployment.quantised:
        return inputs
    for _ in range(_HALVINGS):
        try:
            encoding.host_bias(deployment, inputs)
        except UserError as error:
            if error.code != "SNX308":
                raise
            inputs = inputs / 2
        else:
            break
    return inputs
