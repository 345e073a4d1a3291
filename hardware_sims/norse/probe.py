"""Whether the installed Norse makes of a NIR node what ``expressible.py`` says it makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import nir
import numpy as np
import torch
from numpy.typing import NDArray

from snn_export.hardware_sims.norse.cells import native_cell
from snn_export.hardware_sims.self_test import Probe
from snn_export.models import arithmetic
from snn_export.models.spec import Reset

DT = 1e-3
DV, DU = 1024, 2047
STEPS, NEURONS = 60, 16
FACTOR = 3.0
"""r of the LIF that is asked whether it is read."""
CLOSE = 1e-5
"""Membranes are float32 here and float64 in what they are compared with."""
FIX = "install a tested version: pip install 'norse==1.1.0'"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Case:
    """A node, how it resets, and its equations: u = alpha u + x ;  v = beta v + gain u."""

    node: nir.NIRNode
    reset: Reset
    alpha: float
    beta: float
    gain: float


def findings() -> Iterator[Probe]:
    """What Norse's import makes of neurons, and of r on a LIF."""
    yield _neurons()
    yield _r_of_a_lif()


def _neurons() -> Probe:
    wrong = [
        f"{type(case.node).__name__} resetting by {case.reset!r}: {difference}"
        for case in _cases() if (difference := _difference(case, _inputs()) or _at_threshold(case))
    ]  # fmt: skip
    if wrong:
        return Probe(
            "neurons", False, "; ".join(wrong), "graphs that run through Norse's own import fire otherwise than elsewhere", FIX
        )
    return Probe(
        "neurons", True, f"LIF, IF and CubaLIF as NIR states them: same spikes, membranes within {CLOSE:g}; > is strict",
        "a LIF, IF or CubaLIF that resets in the step of the spike runs through norse.torch.from_nir",
    )  # fmt: skip


def _r_of_a_lif() -> Probe:
    inputs = _inputs()
    ignored = _difference(_lif(r=FACTOR, gain=1.0), inputs)
    if not ignored:
        return Probe(
            "r of a LIF", True, f"ignored: r = {FACTOR:g} steps as r = 1",
            "what is exported here has r = 1 and fires alike; a file from elsewhere has its r folded into the weights, "
            "and is another network where Norse loads it by itself",
        )  # fmt: skip
    if not _difference(_lif(r=FACTOR, gain=FACTOR), inputs):
        return Probe(
            "r of a LIF", True, "read, which Norse 1.1.0 did not do",
            "nothing changes: r is folded into the weights here, and is 1 in what Norse is handed",
        )  # fmt: skip
    return Probe("r of a LIF", False, f"neither ignored nor read: {ignored}", "a LIF with r != 1 is some other neuron", FIX)


def _cases() -> Iterator[_Case]:
    one, kept = np.ones(NEURONS), 1.0 - DV / arithmetic.DECAY_ONE
    yield _lif(r=1.0, gain=1.0)
    yield _Case(nir.IF(one / DT, one, 0 * one), "zero", 0.0, 1.0, 1.0)
    synapse = arithmetic.alpha_from_integer(DU)
    for reset, r, w_in in (("zero", 1.0, 1.0), ("subtract", 2.0, 4.0)):
        taus = (arithmetic.tau_from_integer(DU + 1, DT), arithmetic.tau_from_integer(DV, DT))
        node = nir.CubaLIF(
            tau_syn=taus[0] * one, tau_mem=taus[1] * one, r=r * one, v_leak=0 * one, v_threshold=one, v_reset=0 * one,
            w_in=w_in * one,
        )  # fmt: skip
        yield _Case(node, "subtract" if reset == "subtract" else "zero", synapse, kept, (1.0 - synapse) * w_in * r * (1.0 - kept))


def _lif(r: float, gain: float) -> _Case:
    """A LIF with ``r`` in the file; ``gain`` is the r that its equations have."""
    one, kept = np.ones(NEURONS), 1.0 - DV / arithmetic.DECAY_ONE
    node = nir.LIF(arithmetic.tau_from_integer(DV, DT) * one, r * one, 0 * one, one, 0 * one)
    return _Case(node, "zero", 0.0, kept, gain * (1.0 - kept))


def _inputs() -> Array:
    """(T, N): membranes stay below the threshold in some steps and pass twice of it in others."""
    return np.random.default_rng(0).uniform(-1.0, 6.0, (STEPS, NEURONS))


def _difference(case: _Case, inputs: Array) -> str:
    """Empty where Norse fires in the same steps and its membranes are close, otherwise what differs first."""
    cell, u, v = native_cell(case.node, (NEURONS,), case.reset, DT), np.zeros(NEURONS), np.zeros(NEURONS)
    cell.begin((1, NEURONS))
    fired = 0
    with torch.no_grad():
        for step, x in enumerate(inputs):
            u, v = arithmetic.canonical_step(u, v, x, case.alpha, case.beta, case.gain, 0.0)
            spikes = arithmetic.fires(v, 1.0)
            subtracts = case.reset == "subtract"
            v = arithmetic.reset_by_subtraction(v, spikes, 1.0) if subtracts else arithmetic.reset_to_zero(v, spikes)
            fired += int(spikes.sum())
            got = cell.step(torch.from_numpy(x.astype(np.float32))[None])
            if not np.array_equal(got.spikes.numpy()[0] > 0, spikes):
                return f"spikes differ in step {step}"
            if not np.allclose(got.membrane.numpy()[0], v, rtol=CLOSE, atol=CLOSE):
                return f"membranes differ in step {step}"
    return "" if 0 < fired < inputs.size else "no neuron fired, or all did in every step"


def _at_threshold(case: _Case) -> str:
    """What is wrong where a membrane that equals the threshold fires: on an IF, whose membrane is its input without rounding."""
    if not isinstance(case.node, nir.IF):
        return ""
    cell = native_cell(case.node, (NEURONS,), case.reset, DT)
    cell.begin((1, NEURONS))
    with torch.no_grad():
        got = cell.step(torch.ones(1, NEURONS))
    return "fires at its threshold, not only above" if bool(got.spikes.any()) else ""
