"""Whether the numbers of a NIR graph are numbers of the right kind, asked before anything is computed with them.

A graph comes from a file or from another program. A negative padding, a stride of zero or an infinite bias would end as an
error somewhere deep in the arithmetic, or not end at all; here each becomes a finding that names node and field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nir
import numpy as np

from snn_export.export.graph import CONV_TYPES, POOL_TYPES, is_population
from snn_export.models.diagnostics import Diagnostic

SIZE_LIMIT = 1 << 16
"""Largest kernel, stride, padding or dilation, and largest side of an input: beyond lies no network, only a damaged file."""
NEURON_LIMIT = 1 << 31
DELAY_LIMIT = 1e9
"""Longest delay in the unit of time of the file."""
DEPTH_LIMIT = 32
"""Graphs inside graphs."""

_GEOMETRY = {"stride": 1, "dilation": 1, "kernel_size": 1, "padding": 0}
"""Least value of each size of a window."""
_TEXT = ("same", "valid")


def malformed(graph: nir.NIRGraph, depth: int = 0) -> list[Diagnostic]:
    """Everything that is wrong with the numbers of a graph and of the graphs in it; empty where all are usable."""
    if depth > DEPTH_LIMIT:
        return [_finding("graph", f"graphs stand inside graphs more than {DEPTH_LIMIT} deep", "the nesting has no end")]
    found: list[Diagnostic] = []
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            found += malformed(node, depth + 1)
            continue
        arrays = list(_arrays(name, node))
        found += arrays
        if not arrays:
            found += [*_input(name, node), *_geometry(name, node), *_weights(name, node), *_delay(name, node)]
    entered = {target for _, target in graph.edges if isinstance(graph.nodes.get(target), nir.Input)}
    found += [_finding(name, "an edge leads into the input", "an input is where signals come from") for name in sorted(entered)]
    return list({(item.where, item.what): item for item in found}.values())


def _arrays(name: str, node: nir.NIRNode) -> Iterator[Diagnostic]:
    """Parameters are finite real numbers, at least one each."""
    for key, value in vars(node).items():
        if key in ("input_type", "output_type", "metadata") or value is None or (key == "padding" and value in _texts(value)):
            continue
        array = np.asarray(value)
        if key == "input_shape" and array.dtype.kind == "O":  # nir leaves parts of it open
            continue
        if array.dtype.kind not in "fiub":
            yield _finding(name, f"{key} holds {array.dtype}", "parameters are real numbers")
        elif array.size == 0:
            yield _finding(name, f"{key} is empty", "a layer of nothing computes nothing")
        elif not np.isfinite(array).all() and not is_population(node):  # a neuron's constants have findings of their own
            yield _finding(name, f"{key} holds NaN or infinity", "it would silence or saturate whole layers")


def _texts(value: Any) -> tuple[str, ...]:
    return _TEXT if isinstance(value, str) else ()


def _input(name: str, node: nir.NIRNode) -> Iterator[Diagnostic]:
    if not isinstance(node, nir.Input):
        return
    shape = node.input_type.get("input") if isinstance(node.input_type, dict) else None
    sizes = np.asarray(shape) if shape is not None else np.zeros(0)
    whole = sizes.dtype.kind in "fiu" and sizes.ndim == 1 and sizes.size > 0 and np.all(sizes == np.floor(sizes))
    if not whole or sizes.min() < 1 or sizes.max() >= NEURON_LIMIT or np.prod(sizes.astype(np.float64)) >= NEURON_LIMIT:
        yield _finding(name, f"its shape is {shape}", "an input has a shape of positive whole numbers")


def _geometry(name: str, node: nir.NIRNode) -> Iterator[Diagnostic]:
    """Sizes of convolutions and pools are whole numbers in range, and their kernels have an extent."""
    if not isinstance(node, (*CONV_TYPES, *POOL_TYPES)):
        return
    for key, least in _GEOMETRY.items():
        value = getattr(node, key, None)
        if value is None or isinstance(value, str):
            continue
        sizes = np.asarray(value)
        if sizes.ndim > 1 or sizes.size > 2 or np.any(sizes != np.floor(sizes)):
            yield _finding(name, f"{key} is {value}", "it is one whole number per axis")
        elif sizes.min() < least or sizes.max() > SIZE_LIMIT:
            yield _finding(name, f"{key} is {value}", f"it lies in {least}..{SIZE_LIMIT}")
    if isinstance(node, CONV_TYPES):
        groups = np.asarray(node.groups)
        if groups.ndim or groups != np.floor(groups) or groups < 1:
            yield _finding(name, f"groups is {node.groups}", "it is one positive whole number")
        axes = 1 if isinstance(node, nir.Conv1d) else 2
        if np.ndim(node.weight) != axes + 2 or min(np.shape(node.weight)) < 1:
            yield _finding(
                name, f"its weight has shape {np.shape(node.weight)}", f"it is (out, in, {axes} sizes), none of them 0"
            )


def _weights(name: str, node: nir.NIRNode) -> Iterator[Diagnostic]:
    """A matrix is a matrix, and a bias has one value per output."""
    if isinstance(node, nir.Affine | nir.Linear) and np.ndim(node.weight) != 2:
        yield _finding(name, f"its weight has shape {np.shape(node.weight)}", "it is a matrix (out, in)")
    bias = getattr(node, "bias", None)
    if bias is not None and np.ndim(node.weight) > 0 and np.shape(bias) != np.shape(node.weight)[:1]:
        yield _finding(name, f"its bias has shape {np.shape(bias)}", f"it has one value per output, {np.shape(node.weight)[:1]}")


def _delay(name: str, node: nir.NIRNode) -> Iterator[Diagnostic]:
    if isinstance(node, nir.Delay) and not 0 <= float(np.min(node.delay)) <= float(np.max(node.delay)) <= DELAY_LIMIT:
        yield _finding(name, "a delay is negative or without end", f"delays lie in 0..{DELAY_LIMIT:g}")


def _finding(name: str, what: str, why: str) -> Diagnostic:
    return Diagnostic(
        "SNX129", f"{name}: {what}", where=name, why=why, fix="correct the graph, or write it again from where it came from"
    )
