"""What a pass is, and how a claim of exactness is checked right after it ran.

EXACT means equal in real arithmetic. On float graphs the float64 interpreter runs both deployments on calibration data: all
spikes equal, membranes within 1e-9 of the threshold. A spike that flips is accepted only as a TIE: its membrane was closer to
the threshold than the forward error bound of its sum (``export/ties.py``). On integer graphs everything is compared bit for
bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.gains import threshold_array
from snn_export.export.graph import latencies
from snn_export.export.populations import uniform_groups
from snn_export.export.ties import FLOAT64_ROUNDOFF, explain
from snn_export.models.diagnostics import UserError

Exactness = Literal["EXACT", "APPROXIMATE"]
MEMBRANE_TOLERANCE = 1e-9


class Pass(Protocol):
    """A rewrite of a deployment. Immutable, callable; ``exactness`` is a claim that :func:`run_passes` checks."""

    name: ClassVar[str]
    exactness: ClassVar[Exactness]

    def __call__(self, deployment: Deployment) -> Deployment:
        """A new deployment."""
        ...


@dataclass(frozen=True)
class Exact:
    """Outcome of a comparison of two deployments.

    ties: samples whose first difference lay within the error bound. fault: the first layer that is neither equal nor tied.
    """

    ties: int
    membrane_difference: float
    fault: str | None = None
    detail: str = ""


def with_graph(deployment: Deployment, graph: nir.NIRGraph, **changes: Any) -> Deployment:
    """The deployment on a rewritten graph, with the latencies that graph has.

    Args:
        deployment: the old one.
        graph: the new graph.
        changes: ``neurons`` and ``origin`` of the contract, where populations came or went; else fields of the deployment.

    Raises:
        UserError: SNX207 for a loop that is too fast for a chip.
    """
    contract: dict[str, Any] = {key: changes.pop(key) for key in ("neurons", "origin", "readout") if key in changes}
    contract["latency"] = latencies(graph, deployment.contract.dt)
    return deployment.replace(graph=graph, contract=deployment.contract.model_copy(update=contract), **changes)


def run_passes(deployment: Deployment, passes: Sequence[Pass], calibration: NDArray[Any]) -> Deployment:
    """Run passes in order; a pass that claims EXACT is checked on calibration inputs before the next one starts.

    Raises:
        UserError: SNX303 where a claim does not hold, with the layer and the size of the difference.
    """
    for step in passes:
        after = step(deployment)
        if after is deployment:
            continue  # nothing to do, so nothing was done
        if step.exactness == "EXACT":
            outcome = compare_exactly(deployment, after, calibration)
            if outcome.fault is not None:
                raise UserError(
                    "SNX303",
                    f"the pass {step.name} changed the network at {outcome.fault}",
                    where=outcome.fault,
                    why=f"it claims to be exact, and {outcome.detail}",
                    fix="leave the pass out and report this network: the pass is wrong for it",
                )
        lineage = after.contract.lineage
        lineage = lineage.model_copy(
            update={"passes": (*lineage.passes, step.name), "parents": (*lineage.parents, deployment.fingerprint)}
        )
        deployment = after.replace(contract=after.contract.model_copy(update={"lineage": lineage}))
    return deployment


def compare_exactly(before: Deployment, after: Deployment, inputs: NDArray[Any]) -> Exact:
    """Compare all populations of two deployments on inputs; see the module's docstring for what counts as equal.

    A population that is new in ``after`` stands for the one its origin names: a part of it, in the order of
    :func:`snn_export.export.populations.uniform_groups`, or a relay that repeats its spikes.
    """
    integer = before.quantised and after.quantised
    first = interpreter.run(before, inputs, "int64" if integer else "float64")
    second = interpreter.run(after, inputs, "int64" if integer else "float64")
    expected, gone = _placed(before, after, first)
    if gone:
        return Exact(0, 0.0, gone[0], "the population is gone")
    if integer:
        for name, activity in expected.items():
            if not (
                np.array_equal(activity.spikes, second[name].spikes) and np.array_equal(activity.membrane, second[name].membrane)
            ):
                return Exact(0, 0.0, name, "integers differ")
        return Exact(0, 0.0)
    explained = explain(after, inputs, expected, FLOAT64_ROUNDOFF)
    tied = np.logical_or.reduce([layer.tied for layer in explained.values()])
    largest = 0.0
    for name, activity in expected.items():
        if explained[name].faulty.any():
            return Exact(
                0, 0.0, name, f"spikes of {int(explained[name].faulty.sum())} samples differ beyond the rounding of a sum"
            )
        threshold = float(np.max(threshold_array(after.graph.nodes[name])))
        threshold = threshold if np.isfinite(threshold) else 1.0
        # A membrane far below its threshold is a sum of large numbers, and rounds like one.
        size = np.maximum(threshold, np.abs(activity.membrane))
        difference = (np.abs(activity.membrane - second[name].membrane) / size)[:, ~tied]
        largest = max(largest, float(difference.max(initial=0.0)))
        if not largest <= MEMBRANE_TOLERANCE:
            return Exact(0, largest, name, f"membranes differ by {largest:.3g} of the threshold")
    return Exact(int(tied.sum()), largest)


def _placed(
    before: Deployment, after: Deployment, activities: Mapping[str, interpreter.Activity]
) -> tuple[dict[str, interpreter.Activity], list[str]]:
    """What the populations of ``after`` must do, sources first, and the populations of ``before`` that stand nowhere."""
    expected: dict[str, interpreter.Activity] = {}
    parts: dict[str, list[str]] = {}
    for part, origin in after.contract.origin.items():
        parts.setdefault(origin, []).append(part)
    left = {name: int(np.prod(before.shapes[name])) for name in activities}
    for name in after.layers:
        shape, source = after.shapes[name], name
        if name not in activities:
            origin = after.contract.origin.get(name, name)
            related = [n for n in activities if before.contract.origin.get(n, n) == origin]
            # A relay of a part bears the part's name; the origin of both is the whole.
            source = max((n for n in related if name.startswith(f"{n}.")), key=len, default=related[0] if related else name)
        if source not in activities:
            return {}, [name]
        activity = activities[source]
        if source == name:
            expected[name] = activity
            left[source] = 0
        elif int(np.prod(shape)) == int(np.prod(before.shapes[source])):
            # A relay: it fires whenever its source does, and its membrane is reset each time.
            spikes = activity.spikes.reshape(*activity.spikes.shape[:2], *shape)
            expected[name] = interpreter.Activity(spikes, activity.current * 0, activity.membrane * 0)
        else:
            groups = uniform_groups(before.graph.nodes[source], before.shapes[source])
            place = parts[after.contract.origin.get(name, name)].index(name)
            index = groups[place] if place < len(groups) else np.arange(0)
            if len(index) != np.prod(shape):
                return {}, [name]
            expected[name] = _part(activity, index, shape)
            left[source] -= len(index)
    return expected, [name for name, count in left.items() if count]


def _part(activity: interpreter.Activity, index: NDArray[np.int64], shape: tuple[int, ...]) -> interpreter.Activity:
    def take(values: NDArray[Any]) -> NDArray[Any]:
        return values.reshape(*values.shape[:2], -1)[..., index].reshape(*values.shape[:2], *shape)

    return interpreter.Activity(take(activity.spikes), take(activity.current), take(activity.membrane))
