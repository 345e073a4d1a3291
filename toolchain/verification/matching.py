"""Layers of two forms of a network, matched by id through the origin map of their contracts.

A pass may cut a population into parts that a chip can hold, or put a relay on a connection whose spikes have to wait. The
form without them is shown in the layers of the form with them: a part is compared with its neurons of the whole, a relay with
the spikes that it repeats. What matches nothing stays as it is, and is NOT_COMPARED.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.populations import uniform_groups
from snn_export.hardware_sims.trace import LayerTrace, Trace


def matched(first: Trace, first_form: Deployment, second: Trace, second_form: Deployment) -> tuple[Trace, Trace]:
    """Both traces in the layers of the form that has more of them."""
    if first_form is second_form or first.layers.keys() == second.layers.keys():
        return first, second
    if len(first_form.layers) > len(second_form.layers):
        return first, _in_layers_of(first_form, second, second_form)
    return _in_layers_of(second_form, first, first_form), second


def _in_layers_of(fine: Deployment, trace: Trace, coarse: Deployment) -> Trace:
    """A trace of the coarser form in the layers of the finer one; layers that could not be placed keep their own name."""
    placed, used = dict[str, LayerTrace](), set[str]()
    for name in fine.layers:
        source = name if name in trace.layers else _source(fine, name, coarse)
        if source is None or source not in trace.layers:
            continue
        layer = trace.layers[source] if source == name else _as(fine, name, trace.layers[source], coarse, source)
        if layer is not None:
            placed[name] = layer
            used.add(source)
    rest = {name: layer for name, layer in trace.layers.items() if name not in used}
    return replace(trace, layers={**placed, **rest})


def _source(fine: Deployment, name: str, coarse: Deployment) -> str | None:
    """The population of the coarser form that one of the finer form stands for, or repeats."""
    origin = fine.contract.origin.get(name, name)
    related = [other for other in coarse.layers if coarse.contract.origin.get(other, other) == origin]
    return max((other for other in related if name.startswith(f"{other}.")), key=len, default=related[0] if related else None)


def _as(fine: Deployment, name: str, layer: LayerTrace, coarse: Deployment, source: str) -> LayerTrace | None:
    """What a layer of the coarser form says about one of the finer form; None where they do not fit."""
    repeated = max((other for other in fine.layers if name.startswith(f"{other}.")), key=len, default=None)
    if repeated is not None:  # a relay: it fires as its source does; its membrane is its own affair
        found = _as(fine, repeated, layer, coarse, source) if repeated not in coarse.layers else layer
        return None if found is None else replace(found, membrane=None, current=None, overflows=None)
    shape, whole = fine.shapes[name], coarse.shapes[source]
    if shape == whole:
        return layer
    groups = uniform_groups(coarse.graph.nodes[source], whole)
    relays = {other for other in fine.layers if any(other.startswith(f"{first}.") for first in fine.layers)}
    parts = sorted((p for p in fine.layers if p not in relays and _source(fine, p, coarse) == source), key=lambda p: (len(p), p))
    place = parts.index(name)
    if place >= len(groups) or len(groups[place]) != int(np.prod(shape)):
        return None
    return _cut(layer, groups[place], shape)


def _cut(layer: LayerTrace, index: NDArray[np.int64], shape: tuple[int, ...]) -> LayerTrace:
    """Some neurons of a layer, by flat index, in the shape of a population of their own."""

    def take(values: NDArray[Any] | None, axes: int) -> Any:
        if values is None:
            return None
        kept = values.reshape(*values.shape[:axes], -1)[..., index]
        return kept.reshape(*values.shape[:axes], *shape)

    return replace(
        layer, counts=take(layer.counts, 1), overflows=None,
        **{name: take(getattr(layer, name), 2) for name in ("spikes", "membrane", "current", "several")},
    )  # fmt: skip
