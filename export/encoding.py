"""From a user's inputs to the signal the first layer receives."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.models.diagnostics import UserError


def signal(deployment: Deployment, inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Inputs in real units as (S, B, *shape), S = T steps, or S = 1 where every step is the same.

    Args:
        deployment: says which shape and how many steps are expected.
        inputs: (B, *shape) for direct encoding, or (T, B, *shape), in the contract's real units.

    Raises:
        UserError: SNX003 for a shape that does not fit, SNX004 for values that are not finite numbers, SNX501 for no
            samples.
    """
    shape, steps = deployment.input_shape, deployment.contract.steps
    array = np.asarray(inputs)
    if array.dtype.kind not in "fiub":
        raise UserError(
            "SNX004",
            f"inputs have dtype {array.dtype}",
            where="inputs",
            why="a network takes real numbers",
            fix="convert them: np.asarray(inputs, dtype=np.float32)",
        )
    if array.ndim == len(shape) + 1 and array.shape[1:] == shape and deployment.contract.encoder.kind == "direct":
        array = array[None]
    constant = deployment.contract.encoder.kind == "direct" and array.shape[:1] == (1,)
    sizes = ", ".join(map(str, shape))
    if array.ndim != len(shape) + 2 or array.shape[2:] != shape or not (constant or array.shape[0] == steps):
        raise UserError(
            "SNX003",
            f"inputs have shape {np.shape(inputs)}",
            where="inputs",
            why=f"the network takes samples of shape {shape} over {steps} steps",
            fix=f"pass (batch, {sizes}) for direct encoding, or ({steps}, batch, {sizes})",
        )
    if array.shape[1] == 0:
        raise UserError(
            "SNX501",
            "there are no samples",
            where="inputs",
            why="a run over nothing shows nothing",
            fix="pass at least one sample",
        )
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise UserError(
            "SNX004",
            f"{int((~np.isfinite(values)).sum())} input values are NaN or infinite",
            where="inputs",
            why="they would silence or saturate whole layers without a trace",
            fix="clean the data, for example with np.nan_to_num, and check where the values come from",
        )
    return values


def levels(deployment: Deployment, inputs: NDArray[Any]) -> NDArray[np.int64]:
    """Integer levels of inputs on the encoder's grid, (S, B, *shape). Raises as :func:`signal`, and SNX302 without a grid."""
    return deployment.contract.encoder.levels(signal(deployment, inputs))
