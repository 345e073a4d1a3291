"""Verification of one deployment on several backends, without a pipeline around it: the library's ``verify``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.encoding import signal
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.simulator import Simulator
from snn_export.models.diagnostics import UserError
from snn_export.reporting.report import Report
from snn_export.verification import assemble, deviations
from snn_export.verification.compare import Kind, Tolerance
from snn_export.verification.gates import Criteria
from snn_export.verification.ladder import Link, Rung, run_ladder
from snn_export.verification.observe import ActivityObserver, RasterObserver


def verify_backends(
    deployment: Deployment,
    inputs: NDArray[Any],
    labels: NDArray[Any] | None,
    reference: str,
    targets: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    *,
    accuracy_drop: float,
    tolerance: Tolerance,
    exact: bool = False,
) -> Report:
    """Compare each target with the reference; see :func:`snn_export.verify`.

    exact: every target must agree bit for bit, not only where both compute the same integers.

    Raises:
        UserError: SNX007 for no target, a target named twice or labels that do not fit; inputs as in
            :func:`snn_export.export.encoding.signal`.
    """
    names = [reference, *targets]
    if not targets or len(set(names)) != len(names):
        raise UserError(
            "SNX007", f"cannot compare {reference!r} with {list(targets)}", where="verify(targets=...)",
            why="a verdict needs a reference and at least one other backend, each named once", fix="for example targets=['lava']",
        )  # fmt: skip
    samples = signal(deployment, inputs).shape[1]
    classes = int(np.prod(deployment.shapes[deployment.contract.readout.node]))
    truth = None if labels is None else _checked_labels(labels, samples, classes)
    backends = {name: simulator(name, **options.get(name, {})) for name in names}
    asked = {
        name: Rung(name, name, deployment, backend, backend.capabilities().description) for name, backend in backends.items()
    }
    rungs, links = [asked[reference]], list[Link]()
    for name in targets:
        model = deviations.model_of(asked[name])
        rungs += [asked[name]] if model is None else [model, asked[name]]
        kind = link_kind(backends[reference], backends[name], deployment)
        links += [Link(reference, name, kind)] if model is None else deviations.links(asked[reference], model, asked[name])
    activity = ActivityObserver(reference)
    raster = RasterObserver(reference, tuple(reversed(targets)), deployment)
    ladder = run_ladder(rungs, links, np.asarray(inputs), truth, observers=(activity, raster))
    criteria = Criteria(
        exact=tuple((reference, name) for name in targets if exact or Link(reference, name, "exact") in links),
        accuracy=() if truth is None else tuple((reference, name, accuracy_drop) for name in targets),
        overflows=("loihi", 0) if "loihi" in names else None,
        tolerance=tolerance,
    )
    around = assemble.Surroundings(
        network=" -> ".join(deployment.layers),
        dataset="inputs given by the caller",
        reference=reference,
        inputs=np.asarray(inputs),
        activity=activity.result(deployment),
        rasters=raster.rasters,
    )
    return assemble.report(deployment, ladder, criteria, around)


def link_kind(reference: Simulator, target: Simulator, deployment: Deployment) -> Kind:
    """What two backends may be expected to share: bits, real numbers, or only the network."""
    arithmetic = {backend.capabilities().arithmetic_on(deployment) for backend in (reference, target)}
    if arithmetic == {"loihi_integer"}:
        return "exact"
    return "float" if arithmetic <= {"float32", "float64"} and not deployment.quantised else "approximate"


def _checked_labels(labels: NDArray[Any], samples: int, classes: int) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.dtype.kind in "iu" and array.size and not 0 <= int(array.min()) <= int(array.max()) < classes:
        raise UserError(
            "SNX007", f"labels lie in {array.min()}..{array.max()}", where="verify(labels=...)",
            why=f"the readout has {classes} neurons, classes 0..{classes - 1}", fix="pass class indices",
        )  # fmt: skip
    if array.shape != (samples,) or array.dtype.kind not in "iu":
        raise UserError(
            "SNX007", f"labels have shape {array.shape} and dtype {array.dtype}", where="verify(labels=...)",
            why=f"there are {samples} samples, each with one class index", fix="pass integer labels of shape (B,)",
        )  # fmt: skip
    return array.astype(np.int64)
