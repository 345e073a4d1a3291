"""Trace: what a run yields, the same for every backend.

Axes are always (time, batch, *features), T steps in local time: index 0 is the step in which the layer's first input can
arrive, and the steps that were removed to get there stand in ``latency``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snn_export.models.diagnostics import UserError
from snn_export.models.spec import ReadoutSpec

Record = Literal["spikes", "membrane", "current"]
SPIKES_ONLY: tuple[Record, ...] = ("spikes",)


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """One population's activity.

    Attributes:
        counts: (B, *features) int64, spikes per neuron over all steps.
        spikes: (T, B, *features) bool, or None where not recorded.
        membrane: (T, B, *features), v after the step's reset; integers for integer backends. None where not recorded.
        current: (T, B, *features), u after the step; integers for integer backends. None where not recorded.
        unit: real value of 1 in membrane and current; 1.0 for float backends.
        overflows: wraps of u and saturations of v, summed over time, batch and neurons; None where the backend cannot tell.
        latency: steps removed to reach local time.
        several: (T, B, *features) float64, spikes per step of neurons that emit more than one; None where ``spikes`` says it all.
    """

    counts: NDArray[np.int64]
    spikes: NDArray[np.bool_] | None = None
    membrane: NDArray[Any] | None = None
    current: NDArray[Any] | None = None
    unit: float = 1.0
    overflows: int | None = 0
    latency: int = 0
    several: NDArray[np.float64] | None = None

    @property
    def sent(self) -> NDArray[Any] | None:
        """What the next layers received: ``several`` where a neuron may emit more than one spike in a step, else ``spikes``."""
        return self.spikes if self.several is None else self.several

    @property
    def integer(self) -> bool:
        """True where membranes are integers and can be compared bit for bit."""
        return self.membrane is not None and self.membrane.dtype.kind == "i"


@dataclass(frozen=True, eq=False)
class Trace:
    """A run of a deployment on one backend.

    Attributes:
        backend: name of the simulator.
        layers: by population name, sources first.
        readout: (B, classes), what the readout rule ranks, in the backend's own units.
        predictions: (B,) int64, the class with the largest readout; ties go to the lowest index.
        ties: number of samples whose largest readout is shared.
        provenance: versions and settings that produced the trace.
    """

    backend: str
    layers: Mapping[str, LayerTrace]
    readout: NDArray[Any]
    predictions: NDArray[np.int64]
    ties: int
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def latency(self) -> dict[str, int]:
        """Steps removed per layer to reach local time."""
        return {name: layer.latency for name, layer in self.layers.items()}


def layer_trace(
    spikes: NDArray[np.bool_],
    membrane: NDArray[Any] | None,
    current: NDArray[Any] | None,
    record: Collection[Record],
    *,
    unit: float = 1.0,
    overflows: int | None = 0,
    latency: int = 0,
    several: NDArray[Any] | None = None,
) -> LayerTrace:
    """A LayerTrace that keeps only what was asked for; counts are always kept, and count every spike of ``several``."""
    return LayerTrace(
        counts=(spikes if several is None else several).sum(axis=0, dtype=np.int64),
        several=None if several is None or "spikes" not in record else several.astype(np.float64),
        spikes=spikes if "spikes" in record else None,
        membrane=membrane if "membrane" in record else None,
        current=current if "current" in record else None,
        unit=unit,
        overflows=overflows,
        latency=latency,
    )


def read_out(rule: ReadoutSpec, spikes: NDArray[np.bool_], membrane: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    """Apply a readout rule to a population's spikes and membranes, both (T, B, *features).

    Returns:
        readout (B, classes), predictions (B,), number of samples with a tie.
    """
    values = {
        "membrane_last": lambda: membrane[-1],
        "membrane_mean": lambda: membrane.mean(axis=0),
        "membrane_max": lambda: membrane.max(axis=0),
        "spike_count": lambda: spikes.sum(axis=0),
    }[rule.rule]()
    values = values.reshape(values.shape[0], -1)
    predictions = values.argmax(axis=1).astype(np.int64)
    ties = int(((values == values.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
    return values, predictions, ties


def check_record(record: Collection[str]) -> frozenset[Record]:
    """Validate what a caller asks to record. Raises SNX005 for an unknown name."""
    allowed: tuple[Record, ...] = ("spikes", "membrane", "current")
    unknown = sorted(set(record) - set(allowed))
    if unknown:
        raise UserError(
            "SNX005",
            f"cannot record {unknown[0]!r}",
            where="record",
            why=f"a trace holds {', '.join(allowed)}",
            fix="choose among these",
        )
    return frozenset(name for name in allowed if name in record)
