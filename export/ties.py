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


@dataclass(frozen=True, eq=False)
class Explained:
    """One layer of a run against the interpreter on the run's own spikes; each (B,).

    tied: samples with a spike that flipped within the error bound. faulty: samples with one that flipped outside it.
    beyond: membranes that differ by more than the bound, of neurons that had not flipped yet; NaN counts.
    """

    tied: NDArray[np.bool_]
    faulty: NDArray[np.bool_]
    beyond: NDArray[np.int64]


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
        apart = ~(np.abs(expected.membrane - recorded.membrane) <= bound) & ~diverged
        found[name] = Explained(_per_sample(first & near) > 0, _per_sample(first & ~near) > 0, _per_sample(apart))
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
