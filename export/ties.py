"""Where floating point flips a spike: which differences between two float runs are explained by the rounding of a sum.

Two programs that add the same products in another order get membranes that differ in the last bits. Where one of them lies
above its threshold and the other below, a spike flips, and much of what follows differs. Such a flip is a TIE if the membrane
was closer to its threshold than the forward error bound of its sum; otherwise the programs compute something different.

Every layer is judged on its own: the interpreter is driven with the spikes the run itself recorded for the layers before (and,
in a loop, for the layer itself), and must arrive at what the run recorded for this one. A tie in one layer therefore excuses
nothing in the next, and within a layer it excuses the one neuron that flipped, from that step on. If every layer of both runs
is explained this way, all that differs between the two runs follows from the ties.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding, interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.gains import input_gains, membrane_bias, threshold_array
from snn_export.models import arithmetic

FLOAT32_ROUNDOFF = 2.0**-24
FLOAT64_ROUNDOFF = 2.0**-53


class Recorded(Protocol):
    """Spikes and membranes of one population, both (T, B, *features), real units."""

    @property
    def spikes(self) -> Any:
        """Boolean."""
        ...

    @property
    def sent(self) -> Any:
        """Spikes as the next layers receive them: ``spikes``, or counts where a neuron emits several in a step."""
        ...

    @property
    def membrane(self) -> Any:
        """After the step's reset."""
        ...


@dataclass(frozen=True)
class Fault:
    """The first thing in a sample that rounding does not explain; neuron is a flat index, values are spikes or membranes."""

    step: int
    neuron: int
    spike: bool
    expected: float
    got: float


@dataclass(frozen=True, eq=False)
class Explained:
    """One layer of a run against the interpreter on the run's own spikes; each (B,).

    tied: samples with a spike that flipped within the error bound. flips: neurons that first flipped outside it.
    beyond: membranes that differ by more than the bound, of neurons that had not flipped yet; NaN counts.
    difference: largest difference of a membrane before its neuron flipped. faults: by sample, what came first.
    """

    tied: NDArray[np.bool_]
    flips: NDArray[np.int64]
    beyond: NDArray[np.int64]
    difference: NDArray[np.float64]
    faults: Mapping[int, Fault]

    @property
    def faulty(self) -> NDArray[np.bool_]:
        """Samples with a spike that flipped outside the error bound."""
        return np.asarray(self.flips > 0)


def explain(
    deployment: Deployment, inputs: NDArray[Any], run: Mapping[str, Recorded], unit_roundoff: float
) -> dict[str, Explained]:
    """Judge every layer of a run by itself.

    Args:
        deployment: the float deployment that says what each layer computes; its sums give the bound.
        inputs: as :func:`snn_export.export.encoding.signal` takes them.
        run: by population, sources first.
        unit_roundoff: of the run's number format.
    """
    encoded = encoding.signal(deployment, inputs)
    signals: dict[str, NDArray[np.float64]] = {
        name: encoded for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Input)
    }
    signals |= {name: np.asarray(recorded.sent, np.float64) for name, recorded in run.items()}
    for name in deployment.layers:  # those the run does not know, such as relays that a pass put in
        if name not in signals:
            signals[name] = interpreter.run_population(deployment, name, signals).sent.astype(np.float64)
    found = {}
    for name, recorded in run.items():
        expected = interpreter.run_population(deployment, name, signals)
        # The interpreter rounds too, in float64.
        bound = interpreter.error_bound(deployment, name, signals, unit_roundoff) * (1.0 + FLOAT64_ROUNDOFF / unit_roundoff)
        flips = expected.sent != recorded.sent
        diverged = np.logical_or.accumulate(flips, axis=0)
        first = flips.copy()
        first[1:] &= ~diverged[:-1]
        near = _near_threshold(deployment, name, recorded, expected, bound)
        difference = np.where(diverged, 0.0, np.abs(expected.membrane - recorded.membrane))
        apart, wrong = ~(difference <= bound) & ~diverged, first & ~near
        largest = difference.max(axis=tuple(axis for axis in range(difference.ndim) if axis != 1), initial=0.0)
        faults = _faults(wrong, apart, expected, recorded)
        found[name] = Explained(_per_sample(first & near) > 0, _per_sample(wrong), _per_sample(apart), largest, faults)
    return found


def _faults(
    flips: NDArray[np.bool_], apart: NDArray[np.bool_], expected: interpreter.Activity, recorded: Recorded
) -> dict[int, Fault]:
    """The earliest fault of every sample that has one; of one step, the lowest neuron."""
    anything, found = flips | apart, dict[int, Fault]()
    for sample in np.flatnonzero(_per_sample(anything)):
        here = anything[:, sample].reshape(len(anything), -1)
        step = int(here.any(axis=1).argmax())
        neuron = int(here[step].argmax())
        spike = bool(flips[step, sample].flat[neuron])
        sides = (expected.sent, recorded.sent) if spike else (expected.membrane, recorded.membrane)
        values = [float(np.asarray(side)[step, sample].flat[neuron]) for side in sides]
        found[int(sample)] = Fault(step, neuron, spike, *values)
    return found


def _near_threshold(
    deployment: Deployment, name: str, recorded: Recorded, expected: interpreter.Activity, bound: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Where a flip lies within the bound of what was compared; (T, B, *features).

    The side that stayed silent was not reset: its membrane is what was compared with the threshold. A neuron that must pass
    twice its threshold after a membrane above it compares twice, and either comparison may have been the close one. Of several
    spikes in a step, a flip is one more or one fewer: every multiple of the threshold is compared with.
    """
    threshold = threshold_array(deployment.graph.nodes[name])
    if expected.several is not None:
        compared = _compared(deployment, name, expected)
        nearest = np.maximum(np.round(compared / threshold), 1.0) * threshold
        one_apart = np.abs(expected.several - np.asarray(recorded.sent, np.float64)) == 1.0
        return np.asarray((np.abs(compared - nearest) <= bound) & one_apart)
    silent = np.where(expected.spikes, recorded.membrane, expected.membrane)
    if not deployment.contract.neurons[name].double_to_refire:
        return np.asarray(np.abs(silent - threshold) <= bound)
    before = np.zeros_like(expected.membrane)
    before[1:] = expected.membrane[:-1]
    close_before = np.zeros(bound.shape, bool)
    close_before[1:] = np.abs(before[1:] - threshold) <= bound[:-1]
    raised = np.where(before > threshold, 2.0 * threshold, threshold)
    return np.asarray((np.abs(silent - raised) <= bound) | close_before)


def _compared(deployment: Deployment, name: str, found: interpreter.Activity) -> NDArray[np.float64]:
    """The membrane that met its threshold in each step, (T, B, *features): before a reset of the same step."""
    spec = deployment.contract.neurons[name]
    if spec.reset_delay or spec.reset == "none":
        return np.asarray(found.membrane, np.float64)
    before = np.zeros_like(found.membrane)
    before[1:] = found.membrane[:-1]
    for step in range(len(before)):
        if spec.resets_at(step):
            before[step] = 0.0
    gain, leak = input_gains(deployment, name)[1], membrane_bias(deployment, name)
    return np.asarray(arithmetic.integrate(before, spec.beta, gain * found.current + leak), np.float64)


def _per_sample(where: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count over time and neurons; (T, B, *features) -> (B,)."""
    axes = tuple(axis for axis in range(where.ndim) if axis != 1)
    return np.asarray(where.sum(axis=axes), np.int64)
