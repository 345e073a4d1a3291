"""Every way to make a case smaller. All are pure; CannotNarrowError and UserError mean that the result would be no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from snn_export.export import thinning
from snn_export.export.deployment import weights_in
from snn_export.export.extracting import Cut, cuts, extract, part_inputs
from snn_export.export.graph import CONV_TYPES, conv_padding, input_node, per_axis
from snn_export.export.narrowing import CannotNarrowError, Kept, choice, everything, kept_input, narrowed, with_flat_input
from snn_export.hardware_sims.trace import Trace
from snn_export.models.diagnostics import UserError
from snn_export.verification.bisection.case import Case
from snn_export.verification.bisection.judging import Difference

Reduction = Callable[[], Case]
Indices = NDArray[np.int64]


def made(reduction: Reduction) -> Case | None:
    """The case a reduction makes; None where that is no network."""
    try:
        return reduction()
    except (CannotNarrowError, UserError):
        return None


# --- samples and layers ----------------------------------------------------------------------------------------------


def samples(case: Case, kept: Sequence[int]) -> Case:
    """Only these samples."""
    return replace(case, inputs=np.ascontiguousarray(case.inputs[:, list(kept)]))


def part(case: Case, cut: Cut, run: Trace) -> Case:
    """A part of the network, driven by what a run of the case recorded."""
    sent = {name: layer.sent for name, layer in run.layers.items() if layer.sent is not None}
    return Case(extract(case.deployment, cut), part_inputs(case.deployment, cut, case.inputs, sent))


def parts(case: Case, layer: str) -> tuple[Cut, ...]:
    """Parts that end in a layer and are smaller than the case, smallest first."""
    whole = set(case.deployment.layers)
    return tuple(cut for cut in cuts(case.deployment, layer) if set(cut.populations) < whole)


# --- time and input --------------------------------------------------------------------------------------------------


def steps(case: Case, kept: Sequence[int]) -> Case:
    """Only these steps; an input that serves all steps stays as it is."""
    chosen = np.asarray(kept, np.int64)
    inputs = case.inputs if len(case.inputs) == 1 else np.ascontiguousarray(case.inputs[chosen])
    return Case(thinning.during(case.deployment, chosen), inputs)


def events(case: Case) -> tuple[int, ...]:
    """Places of the input values other than zero, as flat indices."""
    return tuple(int(place) for place in np.flatnonzero(case.inputs))


def with_events(case: Case, kept: Sequence[int]) -> Case:
    """All other input values are zero."""
    inputs = np.zeros_like(case.inputs)
    inputs.flat[list(kept)] = case.inputs.flat[list(kept)]
    return replace(case, inputs=inputs)


def input_kept(case: Case, axis: int, kept: Sequence[int]) -> Case:
    """Only these input features, channels, rows or columns."""
    chosen = _along(everything(case.deployment.input_shape), axis, kept)
    start = input_node(case.deployment.graph)
    return Case(narrowed(case.deployment, {start: chosen}), kept_input(case.inputs, chosen))


def flat_input(case: Case) -> Case:
    """The same on flattened inputs, so that single features can be dropped."""
    found = with_flat_input(case.deployment, case.inputs)
    if found is None:
        raise CannotNarrowError("no Flatten stands behind the input alone")
    return Case(*found)


# --- neurons and parameters ------------------------------------------------------------------------------------------


def neurons(case: Case, population: str, kept: Sequence[int]) -> Case:
    """Only these neurons of a population, or channels of one that has maps."""
    shape = case.deployment.shapes[population]
    chosen = choice(case.deployment, population, _along(everything(shape), 0, kept))
    start = input_node(case.deployment.graph)
    inputs = kept_input(case.inputs, chosen[start]) if start in chosen else case.inputs
    return Case(narrowed(case.deployment, chosen), inputs)


def unpadded(case: Case, name: str) -> Case:
    """A convolution without its padding."""
    return replace(case, deployment=narrowed(case.deployment, {}, (name,)))


def padded(case: Case) -> tuple[str, ...]:
    """Convolutions with padding."""
    nodes = case.deployment.graph.nodes.items()
    return tuple(name for name, node in nodes if isinstance(node, CONV_TYPES) and np.any(conv_padding(node)))


def without_bias(case: Case, name: str) -> Case:
    """Without the bias of a node."""
    return replace(case, deployment=thinning.without_bias(case.deployment, name))


def without_delay(case: Case, name: str) -> Case:
    """Without a Delay node."""
    return replace(case, deployment=thinning.without_delay(case.deployment, name))


def weights(case: Case, name: str) -> tuple[int, ...]:
    """Places of a node's weights other than zero, as flat indices."""
    return tuple(int(place) for place in np.flatnonzero(weights_in(case.deployment, name)))


def with_weights(case: Case, name: str, kept: Sequence[int]) -> Case:
    """All other weights of a node are zero."""
    mask = np.zeros(weights_in(case.deployment, name).shape, bool)
    mask.flat[list(kept)] = True
    return replace(case, deployment=thinning.with_weights(case.deployment, name, mask))


# --- what is worth trying first ---------------------------------------------------------------------------------------


def receptive_field(case: Case, difference: Difference, axis: int) -> tuple[int, int] | None:
    """Rows (axis 1) or columns (2) of the input that the first diverging neuron sees; None where that is not one convolution."""
    network = case.deployment
    incoming = network.connections[difference.layer]
    if len(incoming) != 1 or len(incoming[0].path) != 1 or len(network.layers) != 1:
        return None
    node = network.graph.nodes[incoming[0].path[0]]
    shape = network.shapes[difference.layer]
    if not isinstance(node, CONV_TYPES) or len(shape) != node.weight.ndim - 1 or axis >= len(shape):
        return None
    place, axes = int(np.unravel_index(difference.neuron, shape)[axis]), node.weight.ndim - 2
    stride, dilation = per_axis(node.stride, axes)[axis - 1], per_axis(node.dilation, axes)[axis - 1]
    first = place * stride - conv_padding(node)[axis - 1][0]
    last = first + (node.weight.shape[1 + axis] - 1) * dilation
    return max(first, 0), min(last + 1, network.input_shape[axis])


def active(case: Case, axis: int) -> tuple[int, ...]:
    """Features, channels, rows or columns of the input with a value other than zero."""
    others = tuple(number for number in range(case.inputs.ndim) if number != axis + 2)
    return tuple(int(index) for index in np.flatnonzero(np.any(case.inputs != 0, axis=others)))


def _along(kept: Kept, axis: int, indices: Sequence[int]) -> Kept:
    """``kept`` with other indices on one axis."""
    return (*kept[:axis], np.asarray(indices, np.int64), *kept[axis + 1 :])


# --- one thing less --------------------------------------------------------------------------------------------------


def single_steps(case: Case, run: Trace, layer: str) -> Iterator[tuple[str, Reduction]]:
    """Every reduction that takes one thing away, largest things first: what must all fail for a case to be minimal.

    Args:
        case: to reduce.
        run: of it, whose spikes drive its parts.
        layer: that diverges first; parts end in it.
    """
    network, count, length = case.deployment, case.inputs.shape[1], case.deployment.contract.steps
    yield from ((f"layers before {cut.populations[0]}", partial(part, case, cut, run)) for cut in parts(case, layer))
    yield from ((f"sample {n}", partial(samples, case, _but(count, n))) for n in range(count) if count > 1)
    yield from ((f"step {n}", partial(steps, case, _but(length, n))) for n in reversed(range(length)) if length > 1)
    for name in reversed(network.layers):
        size = network.shapes[name][0]
        yield from ((f"{name} {n}", partial(neurons, case, name, _but(size, n))) for n in range(size) if size > 1)
    for axis, size in enumerate(network.input_shape):
        ends = range(size) if axis == 0 else (0, size - 1)
        yield from ((f"input {axis}:{n}", partial(input_kept, case, axis, _but(size, n))) for n in ends if size > 1)
    entering = events(case)
    yield from ((f"event {n}", partial(with_events, case, _without(entering, n))) for n in entering)
    yield from ((f"bias of {name}", partial(without_bias, case, name)) for name in thinning.biased_nodes(network))
    yield from ((f"delay {name}", partial(without_delay, case, name)) for name in thinning.delays(network))
    yield from ((f"padding of {name}", partial(unpadded, case, name)) for name in padded(case))
    for name in thinning.weight_nodes(network):
        kept = weights(case, name)
        yield from ((f"weight {n} of {name}", partial(with_weights, case, name, _without(kept, n))) for n in kept)


def _but(size: int, index: int) -> list[int]:
    return [number for number in range(size) if number != index]


def _without(items: Sequence[int], gone: int) -> list[int]:
    return [item for item in items if item != gone]
