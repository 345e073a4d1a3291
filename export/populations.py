"""Populations of NIR as chips have them: one decay, one threshold and one gain for all neurons of a population."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.graph import POPULATION_TYPES, Shape
from snn_export.models.diagnostics import Diagnostic

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
    """A population whose every constant is float64 and has the shape of its neurons; other nodes come back as they are.

    Raises:
        ValueError: for constants that are neither one number nor as many as there are neurons.
    """
    if not isinstance(node, POPULATION_TYPES):
        return node
    given = constants(node)
    if all(value.shape == shape and value.dtype == np.float64 for value in given.values()):
        return node
    return type(node)(**{key: _filled(value, shape) for key, value in given.items()})


def _filled(value: NDArray[Any], shape: Shape) -> NDArray[np.float64]:
    single = value.size == 1
    return np.broadcast_to(value.reshape(()) if single else value.reshape(shape), shape).astype(np.float64)


def uniform_groups(node: nir.NIRNode, shape: Shape) -> list[NDArray[np.int64]]:
    """Indices of the neurons (flattened) that share all register constants, in order of their first neuron."""
    size = int(np.prod(shape))
    columns = [_filled(value, shape).ravel() for key, value in constants(node).items() if key in SHARED]
    if all(np.all(column == column[:1]) for column in columns):
        return [np.arange(size)]
    _, first, member = np.unique(np.stack(columns), axis=1, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return [np.flatnonzero(np.ravel(member) == group) for group in order]


def constant_findings(name: str, node: nir.NIRNode) -> Iterator[Diagnostic]:
    """Constants of a neuron node that the canonical neuron does not have (SNX262); time constants are the contract's matter."""
    given = constants(node)
    for key, value in given.items():
        if not np.isfinite(value).all():
            yield _constant(name, f"{key} holds NaN or infinity", "a neuron's constants are numbers", "write the file again")
    for key in ("v_leak", "v_reset"):
        largest = np.ravel(given.get(key, np.zeros(1)))
        largest = largest[np.argmax(np.abs(largest))]
        if largest:
            why = "the canonical neuron rests at zero and is reset to zero"
            fix = "shift the threshold by it, and write what a leak adds as a bias of the weights before"
            yield _constant(name, f"{key} is {float(largest):g}", why, fix)
    for key in ("r", "v_threshold", "threshold"):
        if key in given and np.any(given[key] <= 0):
            why = "a silent neuron would fire" if key != "r" else "its input would be lost or turned around"
            yield _constant(name, f"{key} is not positive", why, "put the sign into the weights before")


def _constant(name: str, what: str, why: str, fix: str) -> Diagnostic:
    return Diagnostic("SNX262", f"{name}: {what}", name, why, fix)
