"""Whether a mismatch is what the backend declares: its runs are held against the interpreter with the deviations switched on.

A package whose neurons fire at their threshold misses every check that meets one. Listing these checks would say nothing of what
they are there for; so such a mismatch counts as declared only where each run of the check equals the float64 interpreter on the
network with the backend's deviations, in every spike, membrane and current, and where these deviations change something in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.deviation import deviating
from snn_export.hardware_sims.conformance.trial import MEMBRANE_BOUND, Trial
from snn_export.hardware_sims.simulator import Deviating
from snn_export.hardware_sims.trace import Record, Trace, read_out

Array = NDArray[Any]


def declared(trial: Trial) -> str:
    """The deviations that are all that the runs of a check show, in one line; empty where they are not all, or change nothing."""
    backend = trial.simulator
    if not isinstance(backend, Deviating):
        return ""
    told, changes = dict[str, None](), False
    bound = MEMBRANE_BOUND[trial.capabilities.arithmetic]
    for deployment, inputs, record, trace in trial.runs:
        found = backend.deviations(deployment)
        try:
            expected = interpreter.run(deviating(deployment, found) if found else deployment, inputs)
        except ValueError:
            return ""  # it declares what is no deviation
        if not (_complete(trace, record) and _equal(trace, expected, bound) and _same_answer(deployment, trace, expected, bound)):
            return ""
        told |= dict.fromkeys(sentence for deviation in found.values() for sentence in deviation.told)
        changes |= bool(found) and _differs(expected, interpreter.run(deployment, inputs))
    return "; ".join(told) if changes else ""


def _equal(trace: Trace, expected: Mapping[str, interpreter.Activity], bound: float) -> bool:
    """Counts and spikes are the same, states within the bound of the arithmetic, everywhere and in everything recorded."""
    for name, activity in expected.items():
        layer = trace.layers[name]
        if not np.array_equal(layer.counts, np.sum(activity.sent, axis=0)):
            return False
        if layer.sent is not None and not np.array_equal(layer.sent, activity.sent):
            return False
        states = ((layer.membrane, activity.membrane), (layer.current, activity.current))
        if not all(found is None or _close(found * layer.unit, wanted, bound) for found, wanted in states):
            return False
    return True


def _complete(trace: Trace, record: Collection[Record]) -> bool:
    """Every layer holds what was asked for and nothing else, in the types of a float backend: a gap is no neuron's deviation."""
    kinds: Mapping[Record, str] = {"spikes": "b", "membrane": "f", "current": "f"}
    return all(
        layer.counts.dtype == np.int64
        and all(
            (getattr(layer, what) is None) == (what not in record)
            and (what not in record or np.asarray(getattr(layer, what)).dtype.kind == kind)
            for what, kind in kinds.items()
        )
        for layer in trace.layers.values()
    )


def _same_answer(deployment: Deployment, trace: Trace, expected: Mapping[str, interpreter.Activity], bound: float) -> bool:
    """Readout, predictions and ties are those of the model; the kit's networks leave no room for rounding there."""
    rule = deployment.contract.readout
    readout, predictions, ties = read_out(rule, expected[rule.node].sent, expected[rule.node].membrane)
    same = trace.ties == ties and np.array_equal(trace.predictions, predictions)
    return same and _close(np.asarray(trace.readout), readout, bound)


def _close(found: Array, wanted: Array, bound: float) -> bool:
    return bool(np.all(np.abs(found - wanted) <= bound * np.maximum(1.0, np.abs(wanted))))


def _differs(one: Mapping[str, interpreter.Activity], other: Mapping[str, interpreter.Activity]) -> bool:
    return any(
        not (np.array_equal(found.sent, other[name].sent) and np.array_equal(found.membrane, other[name].membrane))
        for name, found in one.items()
    )
