"""The library's functions, as ``import snn_export`` offers them. Each one is a short composition of the layers below."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from snn_export.export import nir_io
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.trace import SPIKES_ONLY
from snn_export.models.diagnostics import UserError

if TYPE_CHECKING:
    from torch import nn

    from snn_export.export.passes.quantize import Target
    from snn_export.hardware_sims.trace import Record, Trace
    from snn_export.reporting.report import Report


def load(path: str | os.PathLike[str]) -> Deployment:
    """Read a deployment (graph, contract, integers) from a ``.nir`` file this project wrote.

    Raises:
        UserError: SNX101 to SNX109; see :func:`snn_export.export.nir_io.read`.
    """
    return nir_io.read(path)


def save(deployment: Deployment, path: str | os.PathLike[str], format: Literal["nir"] = "nir") -> Path:
    """Write a deployment as ``.nir`` with its contract beside it; both appear complete or not at all.

    Raises:
        UserError: SNX006 for a format that is not known.
    """
    if format != "nir":
        raise UserError(
            "SNX006", f"unknown format {format!r}", where="save(format=...)", why="known: nir", fix="use format='nir'"
        )
    return nir_io.write(deployment, path)


def from_snntorch(
    layers: nn.Sequential,
    input_shape: tuple[int, ...],
    steps: int,
    calibration_inputs: NDArray[Any],
    *,
    round_decays: bool = False,
) -> Deployment:
    """Read a trained snnTorch ``nn.Sequential`` into a float deployment in portable form.

    Batch-norm is folded, average pooling absorbed, and each exact pass is checked on the calibration inputs right after it ran.

    Args:
        layers: Conv2d, Linear, BatchNorm, AvgPool2d, Flatten, ``snntorch.Leaky``, and a final
            :class:`snn_export.models.neurons.integrator.Integrator`.
        input_shape: one sample, (channels, rows, columns) or (features,).
        steps: T.
        calibration_inputs: (B, *input_shape), a few dozen samples.
        round_decays: accept a beta that is not a multiple of 1/4096 and take the nearest.

    Raises:
        UserError: SNX210 to SNX243; see :mod:`snn_export.export.snntorch_reader`.
    """
    from snn_export.export.snntorch_reader import deployment_from_snntorch

    return prepared(deployment_from_snntorch(layers, input_shape, steps, round_decays=round_decays), calibration_inputs)


def prepared(deployment: Deployment, calibration_inputs: NDArray[Any]) -> Deployment:
    """Run the exact passes a chip needs: pooling absorbed, r = 1. Nothing to do gives the same network back."""
    from snn_export.export.passes.absorb_average_pooling import AbsorbAveragePooling
    from snn_export.export.passes.pass_ import run_passes
    from snn_export.export.passes.portable_form import PortableForm

    return run_passes(deployment, (AbsorbAveragePooling(), PortableForm()), calibration_inputs)


def quantize(
    deployment: Deployment,
    calibration_inputs: NDArray[Any],
    target: Target = "loihi2",
    *,
    weight_bits: int = 8,
    input_range: tuple[float, float] | None = None,
) -> Deployment:
    """Put a float deployment on a chip's integer grid.

    Scales and input levels are chosen by the spikes they change on the calibration inputs; the result cannot overflow for any
    input of the declared range.

    Args:
        deployment: float deployment.
        calibration_inputs: (B, *shape) or (T, B, *shape), real units; training data, not test data.
        target: "loihi1" or "loihi2".
        weight_bits: 2 to 8, sign included.
        input_range: declared (low, high) of inputs; default: what the calibration inputs span. Values beyond are clipped.

    Raises:
        UserError: SNX203, SNX208, SNX242 to SNX247, SNX306, SNX307; see :class:`snn_export.export.passes.quantize.Quantize`.
    """
    from snn_export.calibration import spike_score
    from snn_export.export.passes.pass_ import run_passes
    from snn_export.export.passes.quantize import InputRange, Quantize

    ready = deployment if _is_prepared(deployment) else prepared(deployment, calibration_inputs)
    low, high = input_range or (float(np.min(calibration_inputs)), float(np.max(calibration_inputs)))
    step = Quantize(target, spike_score(ready, calibration_inputs), InputRange(low, high), weight_bits)
    return run_passes(ready, (step,), calibration_inputs)


def simulate(
    deployment: Deployment,
    inputs: NDArray[Any],
    backend: str = "loihi",
    record: Collection[Record] = SPIKES_ONLY,
    **options: Any,
) -> Trace:
    """Run a deployment on a backend.

    Args:
        deployment: float or quantised, as the backend needs.
        inputs: (T, B, *shape), or (B, *shape) for direct encoding, in real units.
        backend: ``snn-export backends list`` shows the names.
        record: any of "spikes", "membrane", "current".
        options: for the backend, e.g. ``layers=`` (the trained module) for "student", ``time_limit=`` for "lava".

    Returns:
        Trace: ``.layers[name].spikes`` and ``.membrane`` (T, B, *features), ``.predictions`` (B,).

    Raises:
        UserError: SNX401 no such backend, and whatever keeps the network from running there, all at once.
        BackendError: the backend is missing or broke.
    """
    from snn_export.hardware_sims.registry import simulator
    from snn_export.hardware_sims.simulator import BackendError
    from snn_export.models.diagnostics import Diagnostic

    chosen = simulator(backend, **options)
    available = chosen.availability()
    if not available.ok:
        raise BackendError(
            Diagnostic("SNX404", f"{backend} is not available", where=backend, why=available.reason, fix=available.fix)
        )
    return chosen.run(chosen.compile(deployment), inputs, record)


def verify(
    deployment: Deployment,
    inputs: NDArray[Any],
    labels: NDArray[Any] | None = None,
    *,
    reference: str = "loihi",
    targets: Sequence[str] = ("lava",),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    accuracy_drop: float = 1.0,
    spike_mismatch: float = 20.0,
    decision_mismatch: float = 5.0,
) -> Report:
    """Compare backends on the same inputs, spike by spike and layer by layer.

    Two integer backends must agree in every spike, membrane and current. Otherwise differences are measured and gated.

    Args:
        deployment: what all backends run.
        inputs: (B, *shape) or (T, B, *shape), real units.
        labels: (B,) class indices; None: no accuracy.
        reference: backend the others are held against.
        targets: backends to compare; each is required.
        options: per backend, as in :func:`simulate`.
        accuracy_drop: points a target may lose against the reference.
        spike_mismatch: percent of a layer's spikes that may lack a counterpart where the two sides compute differently.
        decision_mismatch: percent of samples that may then be classified differently.

    Returns:
        Report: ``.passed``, ``.exit_code``, ``.comparisons``, ``.gates``, ``.coverage``.
    """
    from snn_export.verification.compare import Tolerance
    from snn_export.verification.direct import verify_backends

    tolerance = Tolerance(spike_mismatch, decision_mismatch)
    return verify_backends(
        deployment, inputs, labels, reference, targets, options or {}, accuracy_drop=accuracy_drop, tolerance=tolerance
    )


def _is_prepared(deployment: Deployment) -> bool:
    import nir

    nodes = deployment.graph.nodes.values()
    pooled = any(isinstance(node, nir.AvgPool2d | nir.SumPool2d) for node in nodes)
    return not pooled and all(np.all(node.r == 1.0) for node in nodes if isinstance(node, nir.LIF | nir.LI))
