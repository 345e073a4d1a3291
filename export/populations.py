"""Populations of NIR as chips have them: one decay, one threshold and one gain for all neurons of a population."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.graph import POPULATION_TYPES, Shape

PARAMETERS = ("tau", "tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in", "threshold")
"""Constants of NIR's neurons."""

SHARED = ("tau", "tau_mem", "tau_syn", "v_threshold", "threshold")
"""Constants that are one register per population on a chip; the others can be moved into weights."""


def constants(node: nir.NIRNode) -> dict[str, NDArray[Any]]:
    """The constants of a neuron node that are given, by name."""
    return {key: np.asarray(getattr(node, key)) for key in PARAMETERS if getattr(node, key, None) is not None}


def with_constants(node: nir.NIRNode, **changes: NDArray[Any]) -> nir.NIRNode:
    """A copy of a neuron node with other constants."""
    return type(node)(**{**constants(node), **changes})


def broadcast(node: nir.NIRNode, shape: Shape) -> nir.NIRNode:
    """A population whose every constant has the shape of its neurons; other nodes come back as they are.

    Raises:
        ValueError: for constants that are neither one number nor as many as there are neurons.
    """
    if not isinstance(node, POPULATION_TYPES):
        return node
    given = constants(node)
    if all(value.shape == shape for value in given.values()):
        return node
    return type(node)(**{key: _filled(value, shape) for key, value in given.items()})


def _filled(value: NDArray[Any], shape: Shape) -> NDArray[np.float64]:
    single = value.size == 1
    return np.broadcast_to(value.reshape(()) if single else value.reshape(shape), shape).astype(np.float64)


def uniform_groups(node: nir.NIRNode, shape: Shape) -> list[NDArray[np.int64]]:
    """Indices of the neurons (flattened) that share all register constants, in order of their first neuron."""
    size = int(np.prod(shape))
    columns = [_filled(value, shape).ravel() for key, value in constants(node).items() if key in SHARED]
    if not columns:
        return [np.arange(size)]
    _, first, member = np.unique(np.stack(columns), axis=1, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return [np.flatnonzero(np.ravel(member) == group) for group in order]
