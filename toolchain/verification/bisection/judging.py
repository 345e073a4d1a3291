"""Whether two runs of one case part, and where first.

Two integer backends must agree in every spike, membrane and current, bit for bit. Two float backends part where a flip or a
membrane is not explained by the rounding of a sum (``export/ties.py``). An integer backend and a float one compute different
numbers on purpose: everything differs between them, and the smallest network on which it does says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.export.interpreter import error_bound
from snn_export.export.ties import FLOAT32_ROUNDOFF, Explained, explain
from snn_export.hardware_sims.simulator import Simulator
from snn_export.hardware_sims.trace import LayerTrace, Record, Trace
from snn_export.models.diagnostics import UserError
from snn_export.verification.compare import INTERPRETER
from snn_export.verification.float_runs import in_floats
from snn_export.verification.layer_tally import first_place

Judgement = Literal["bits", "rounding"]
"""bits: integers, every bit counts. rounding: floats, what a sum's rounding explains does not."""
RECORDS: Mapping[Judgement, tuple[Record, ...]] = {
    "bits": ("spikes", "membrane", "current"),
    "rounding": ("spikes", "membrane"),
}


class IncomparableError(Exception):
    """Two traces that do not show the same layers in the same shapes."""


@dataclass(frozen=True)
class Difference:
    """Where two runs of a sample part first. ``neuron`` counts a layer's neurons in C order; values in the trace's own units."""

    layer: str
    sample: int
    step: int
    neuron: int
    kind: Literal["spike", "membrane", "current"]
    expected: float
    got: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.layer}, step {self.step}, neuron {self.neuron} of sample {self.sample}: "
            f"{self.kind} {self.expected:g} expected, {self.got:g} got"
        )


@dataclass(frozen=True)
class Compared:
    """How much was compared: samples, values of spikes and of membranes. ``spikes``: of the two runs, added up."""

    samples: int = 0
    positions: int = 0
    membranes: int = 0
    spikes: int = 0

    def __add__(self, other: Compared) -> Compared:
        return Compared(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


def judgement(reference: Simulator, target: Simulator, deployment: Deployment) -> Judgement:
    """How two backends are compared on a deployment.

    Raises:
        UserError: SNX510 where they compute different numbers.
    """
    kinds = {backend.name: backend.capabilities().arithmetic_on(deployment) for backend in (reference, target)}
    found = set(kinds.values())
    if found == {"loihi_integer"}:
        return "bits"
    if found <= {"float32", "float64"}:
        return "rounding"
    told = ", ".join(f"{name} computes in {kind}" for name, kind in kinds.items())
    raise UserError(
        "SNX510", f"{reference.name} and {target.name} do not compute the same numbers", where=f"{reference.name}, {target.name}",
        why=f"{told}: they part everywhere, and the smallest network on which they do would show no fault",
        fix="compare two integer backends (loihi and lava), or two float ones (reference and norse) on the float network",
    )  # fmt: skip


def compared(first: Trace, second: Trace) -> Compared:
    """What two traces share.

    Raises:
        IncomparableError: where a layer of one is missing in the other or has another shape.
    """
    if not first.layers or first.layers.keys() != second.layers.keys():
        raise IncomparableError(f"layers {', '.join(first.layers) or 'none'} and {', '.join(second.layers) or 'none'}")
    positions = membranes = spikes = 0
    for name, layer in first.layers.items():
        other = second.layers[name]
        if layer.sent is None or other.sent is None or layer.sent.shape != other.sent.shape:
            raise IncomparableError(f"spikes of {name}: {_told(layer.sent)} and {_told(other.sent)}")
        positions += layer.sent.size
        spikes += int(layer.counts.sum() + other.counts.sum())
        if layer.membrane is not None and other.membrane is not None:
            if layer.membrane.shape != layer.sent.shape or other.membrane.shape != layer.sent.shape:
                raise IncomparableError(f"membranes of {name}: {layer.membrane.shape} and {other.membrane.shape}")
            membranes += layer.membrane.size
    return Compared(len(first.predictions), positions, membranes, spikes)


def _told(values: NDArray[Any] | None) -> str:
    return "not recorded" if values is None else f"shape {values.shape}"


def differences(
    how: Judgement, deployment: Deployment, inputs: NDArray[Any], first: Trace, second: Trace
) -> tuple[Difference, ...]:
    """Where each sample parts first, the earliest layer first, then the earliest step; empty where all agree.

    Of populations that hear each other the one with the earliest step is the first; of equals the one further to the front.

    Args:
        how: from :func:`judgement`.
        deployment: what was run.
        inputs: on what.
        first: run of the reference.
        second: run of the target, comparable (:func:`compared`).
    """
    unexplained = {} if how == "bits" else _unexplained(deployment, inputs, first, second)
    found: list[tuple[int, Difference]] = []
    done: set[int] = set()
    for number, stage in enumerate(deployment.stages):
        here: dict[int, Difference] = {}
        for name in stage:
            layers = (first.layers[name], second.layers[name])
            wrong = _bits(name, *layers) if how == "bits" else _beyond_rounding(name, *layers, unexplained[name])
            for item in wrong:
                if item.sample not in here or item.step < here[item.sample].step:
                    here[item.sample] = item
        found += [(number, item) for sample, item in here.items() if sample not in done]
        done |= here.keys()
    return tuple(item for _, item in sorted(found, key=lambda pair: (pair[0], pair[1].step, pair[1].sample)))


def _bits(name: str, expected: LayerTrace, got: LayerTrace) -> Iterator[Difference]:
    """First position of each sample in which a spike, a membrane or a current differs."""
    pairs = [("spike", expected.sent, got.sent), ("membrane", expected.membrane, got.membrane)]
    if expected.current is not None and got.current is not None:
        pairs.append(("current", expected.current, got.current))
    shown = [(kind, np.asarray(a), np.asarray(b)) for kind, a, b in pairs if a is not None and b is not None]
    differs = [_flat(a != b) for _, a, b in shown]
    anywhere = np.logical_or.reduce(differs)
    for sample in np.flatnonzero(anywhere.any(axis=(0, 2))):
        step, neuron = first_place(anywhere[:, sample])
        place = next(number for number, where in enumerate(differs) if where[step, sample, neuron])
        kind, a, b = shown[place]
        yield _difference(name, kind, a, b, int(sample), step, neuron)


def _beyond_rounding(
    name: str, expected: LayerTrace, got: LayerTrace, bound: tuple[NDArray[np.bool_], Any]
) -> Iterator[Difference]:
    """First flip of each sample that rounding does not explain, or its first membrane beyond the bound."""
    samples, limit = bound
    a, b = np.asarray(expected.sent), np.asarray(got.sent)
    v, w = np.asarray(expected.membrane) * expected.unit, np.asarray(got.membrane) * got.unit
    flips, apart = _flat(a != b), _flat(~(np.abs(v - w) <= 2.0 * limit))
    for sample in np.flatnonzero(samples):
        where, kind = (flips, "spike") if flips[:, sample].any() else (apart, "membrane")
        if where[:, sample].any():  # otherwise both runs leave the contract in the same way, and do not part
            step, neuron = first_place(where[:, sample])
            shown = (a, b) if kind == "spike" else (v, w)
            yield _difference(name, kind, shown[0], shown[1], int(sample), step, neuron)


def _unexplained(
    deployment: Deployment, inputs: NDArray[Any], *traces: Trace
) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    """By layer: samples in which a run does what rounding does not explain, and the bound on a membrane's rounding."""
    found: dict[str, tuple[NDArray[np.bool_], NDArray[np.float64]]] = {}
    for trace in traces:
        run = in_floats(deployment, inputs, trace)
        network = run.deployment
        signals = {name: np.asarray(layer.sent, np.float64) for name, layer in run.layers.items()}
        encoded = encoding.signal(network, run.inputs)
        signals |= {name: encoded for name, node in network.graph.nodes.items() if isinstance(node, nir.Input)}
        judged: Mapping[str, Explained] = {}
        if trace.backend != INTERPRETER:  # what it would be judged by
            judged = explain(network, run.inputs, run.layers, FLOAT32_ROUNDOFF)
        for name in run.layers:
            bad = judged[name].faulty | (judged[name].beyond > 0) if name in judged else np.zeros(len(trace.predictions), bool)
            limit = error_bound(network, name, signals, FLOAT32_ROUNDOFF) / run.scales[name]
            before = found.get(name)
            found[name] = (bad, limit) if before is None else (before[0] | bad, np.maximum(before[1], limit))
    return found


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    """(T, B, *features) -> (T, B, neurons)."""
    return values.reshape(*values.shape[:2], -1)


def _difference(name: str, kind: Any, a: NDArray[Any], b: NDArray[Any], sample: int, step: int, neuron: int) -> Difference:
    expected, got = (float(_flat(values)[step, sample, neuron]) for values in (a, b))
    return Difference(name, sample, step, neuron, kind, expected, got)
