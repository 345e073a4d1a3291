"""Faults to put into a backend, one function each: given a network and a layer, a backend that is wrong there in one way.

A function answers None where the network has no place for its fault. ``layer`` of what it gives is the layer that the isolated
comparison has to name: for a fault between two layers the one that receives, for one in all layers the first that shows it.
Here stand faults in the network, its wiring and its equations; those in what is recorded stand in ``record_faults.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.models.arithmetic import DECAY_MAX, THRESHOLD_MAX
from snn_export.models.diagnostics import UserError
from tests.mutation import edits
from tests.mutation.backends import Equations, Faulty, FloatState, Interpreted
from tests.mutation.kinds import Injected, computing, fault, running, spikes_at
from tests.mutation.networks import Network

Array = NDArray[Any]
NEAREST_LARGEST = 254
"""Of an even weight."""


# --- weights ---------------------------------------------------------------------------------------------------------


def busiest(network: Network, layer: str, rank: int = 0) -> tuple[str, tuple[Any, ...], int] | None:
    """A weight node of a layer, the index of one weight from a source that fires much, and the axis of its sources.

    rank: 0 for the channel of the source that fires most, 1 for the next one that fires less.
    """
    found = edits.synapses(network.deployment, layer)
    if not found:
        return None
    connection, name = found[0]
    weight, sent = edits.weights(network.deployment, name), network.activity(connection.source)
    if weight.ndim == 1:  # a Scale
        return name, (int(np.argsort(-sent)[rank]) if weight.size > 1 else 0,), 0
    if weight.ndim == 2:
        per_source = sent if sent.size == weight.shape[1] else np.ones(weight.shape[1])
    else:
        per_source = sent.reshape(weight.shape[1], -1).sum(axis=1)
    amounts = np.unique(per_source)[::-1]  # of sources that fire equally often, two may be the same
    source = int(np.flatnonzero(per_source == amounts[min(rank, len(amounts) - 1)])[0])
    return name, (0, source, *(size // 2 for size in weight.shape[2:])), 1


@fault("weight bit", floats=True)
def weight_bit(network: Network, layer: str) -> Injected | None:
    """One bit of one weight is flipped: the lowest that an even weight has, the highest of a float's mantissa."""
    found = busiest(network, layer)
    if found is None:
        return None
    name, index, _ = found
    weight = edits.weights(network.deployment, name)
    if network.integer:
        weight[index] ^= 2
    else:
        single = weight.astype(np.float32)
        single.view(np.int32)[index] ^= 1 << 22
        weight = single.astype(np.float64)
    return running(network, layer, edits.with_weights(network.deployment, name, weight))


@fault("sign of a row", floats=True)
def sign_of_a_row(network: Network, layer: str) -> Injected | None:
    """The weights of one neuron, or of one channel, have the wrong sign."""
    found = busiest(network, layer)
    if found is None:
        return None
    weight = edits.weights(network.deployment, found[0])
    weight[0] = np.minimum(-weight[0], NEAREST_LARGEST)
    return running(network, layer, edits.with_weights(network.deployment, found[0], weight))


@fault("transposed kernel", floats=True)
def transposed_kernel(network: Network, layer: str) -> Injected | None:
    """A kernel's rows and columns are exchanged, or a matrix is read in the other order of memory."""
    found = busiest(network, layer)
    if found is None:
        return None
    weight = edits.weights(network.deployment, found[0])
    if weight.ndim == 1 or (weight.ndim == 4 and weight.shape[2] != weight.shape[3]):
        return None
    turned = weight.swapaxes(2, 3) if weight.ndim == 4 else weight.reshape(weight.shape[::-1]).T
    return running(network, layer, edits.with_weights(network.deployment, found[0], turned))


@fault("flatten order", floats=True)
def flatten_order(network: Network, layer: str) -> Injected | None:
    """Maps are flattened with their channels last."""
    deployment = network.deployment
    for connection, name in edits.synapses(deployment, layer):
        shape, weight = deployment.shapes[connection.source], edits.weights(deployment, name)
        if len(shape) == 3 and weight.ndim == 2 and weight.shape[1] == np.prod(shape):
            order = np.arange(weight.shape[1]).reshape(shape).transpose(1, 2, 0).reshape(-1)
            return running(network, layer, edits.with_weights(deployment, name, weight[:, order]))
    return None


@fault("swapped channels", floats=True)
def swapped_channels(network: Network, layer: str) -> Injected | None:
    """Two channels of the source are exchanged; of a source with one, two channels of the layer."""
    first, second = busiest(network, layer, 0), busiest(network, layer, 1)
    if first is None or second is None:
        return None
    weight = edits.weights(network.deployment, first[0])
    if weight.ndim == 1:
        return None
    axis = 1 if weight.shape[1] > 1 else 0
    order = np.arange(weight.shape[axis])
    pair = [first[1][1], second[1][1]] if axis else [0, 1]
    if pair[0] == pair[1]:  # all of them fire equally often
        pair[1] = (pair[0] + 1) % len(order)
    order[pair] = order[pair[::-1]]
    return running(network, layer, edits.with_weights(network.deployment, first[0], np.take(weight, order, axis=axis)))


@fault("7-bit weights")
def seven_bit_weights(network: Network, layer: str) -> Injected | None:
    """One layer's weights are held on 7 bits in place of 8: the lowest bit is lost."""
    found = busiest(network, layer)
    if found is None:
        return None
    weight = edits.weights(network.deployment, found[0])
    return running(network, layer, edits.with_weights(network.deployment, found[0], weight & ~3))


@fault("weight exponent")
def weight_exponent(network: Network, layer: str) -> Injected | None:
    """The weight exponent is one too large."""
    found = busiest(network, layer)
    if found is None:
        return None
    exponent = network.deployment.synapses[found[0]].weight_exponent + 1
    return running(network, layer, edits.with_synapse(network.deployment, found[0], weight_exponent=exponent))


@fault("average without its scale", floats=True)
def average_without_scale(network: Network, layer: str) -> Injected | None:
    """An average pooling sums and does not divide."""
    deployment = network.deployment
    if layer not in network.pooled:
        return None
    if network.integer:
        name = edits.synapses(deployment, layer)[0][1]
        exponent = deployment.synapses[name].weight_exponent + network.pooled[layer].bit_length() - 1
        return running(network, layer, edits.with_synapse(deployment, name, weight_exponent=exponent))
    (pool,) = (name for name in deployment.connections[layer][0].path if isinstance(deployment.graph.nodes[name], nir.AvgPool2d))
    node = deployment.graph.nodes[pool]
    summed = nir.SumPool2d(node.kernel_size, node.stride, node.padding)
    return running(
        network, layer, edits.rewired(deployment, {**deployment.graph.nodes, pool: summed}, list(deployment.graph.edges))
    )


@fault("batch-norm unfolded", integers=False, floats=True)
def batch_norm_unfolded(network: Network, layer: str) -> Injected | None:
    """A convolution runs with the weights and biases it had before batch-norm was folded into it."""
    if network.unfolded is None:
        return None
    found, different = network.deployment, False
    for _, name in edits.synapses(network.deployment, layer):
        before, now = network.unfolded.graph.nodes[name], network.deployment.graph.nodes[name]
        different |= not np.array_equal(before.weight, now.weight)
        found = edits.with_node(found, name, weight=before.weight, bias=before.bias)
    return running(network, layer, found) if different else None


# --- biases ----------------------------------------------------------------------------------------------------------


@fault("bias dropped", floats=True)
def bias_dropped(network: Network, layer: str) -> Injected | None:
    """The biases of a layer are left out."""
    return running(network, layer, edits.with_biases(network.deployment, layer, np.zeros_like))


@fault("bias twice", floats=True)
def bias_twice(network: Network, layer: str) -> Injected | None:
    """The biases of a layer are added twice."""
    if network.integer:  # in a register of 13 bits it may not fit
        return computing(layer, Equations(biases=2)) if network.deployment.bias(layer).any() else None
    return running(network, layer, edits.with_biases(network.deployment, layer, lambda bias: 2 * bias))


# --- neurons ---------------------------------------------------------------------------------------------------------


def other_decay(network: Network, layer: str, which: str, change: int) -> Injected:
    """A decay off by a step, as far as its register goes."""
    deployment = network.deployment
    if not network.integer:
        decay = getattr(deployment.contract.neurons[layer], which)
        return running(network, layer, edits.with_spec(deployment, layer, **{which: decay + change}))  # type: ignore[return-value]
    decay = int(np.clip(getattr(deployment.populations[layer], which) + change, 0, DECAY_MAX))
    found = edits.with_population(edits.with_spec(deployment, layer, **{which: decay}), layer, **{which: decay})
    return running(network, layer, found)  # type: ignore[return-value]


@fault("decay + 1")
def decay_up(network: Network, layer: str) -> Injected | None:
    """The membrane decays by 1/4096 more."""
    return other_decay(network, layer, "dv", 1)


@fault("decay - 1")
def decay_down(network: Network, layer: str) -> Injected | None:
    """The membrane decays by 1/4096 less."""
    return other_decay(network, layer, "dv", -1)


@fault("current decay + 1")
def current_decay_up(network: Network, layer: str) -> Injected | None:
    """The current decays by 1/4096 more."""
    return other_decay(network, layer, "du", 1)


@fault("current decay - 1")
def current_decay_down(network: Network, layer: str) -> Injected | None:
    """The current decays by 1/4096 less."""
    return other_decay(network, layer, "du", -1)


@fault("wrong dt", integers=False, floats=True)
def wrong_dt(network: Network, layer: str) -> Injected | None:
    """The layer's step is twice as long: everything that is dt / tau doubles."""
    decay = network.deployment.contract.neurons[layer].dv
    return other_decay(network, layer, "dv", decay) if decay else None


@fault("threshold + 1")
def threshold_up(network: Network, layer: str) -> Injected | None:
    """The threshold is one too large."""
    threshold = network.deployment.populations[layer].threshold + 1
    return None if threshold > THRESHOLD_MAX else running(
        network, layer, edits.with_population(network.deployment, layer, threshold=threshold)
    )  # fmt: skip


@fault("threshold - 1")
def threshold_down(network: Network, layer: str) -> Injected | None:
    """The threshold is one too small."""
    threshold = network.deployment.populations[layer].threshold - 1
    return running(network, layer, edits.with_population(network.deployment, layer, threshold=threshold))


@fault(">= for >")
def fires_from_threshold(network: Network, layer: str) -> Injected | None:
    """A membrane that is exactly at its threshold fires."""
    return computing(layer, Equations(from_threshold=True))


@fault("subtract for zero", floats=True)
def subtract_for_zero(network: Network, layer: str) -> Injected | None:
    """The reset subtracts the threshold where it should clear the membrane."""
    if network.deployment.contract.neurons[layer].reset != "zero":
        return None
    return running(network, layer, edits.with_spec(network.deployment, layer, reset="subtract"))


@fault("zero for subtract", floats=True)
def zero_for_subtract(network: Network, layer: str) -> Injected | None:
    """The reset clears the membrane where it should subtract the threshold."""
    if network.deployment.contract.neurons[layer].reset != "subtract":
        return None
    return running(network, layer, edits.with_spec(network.deployment, layer, reset="zero"))


@fault("delayed reset", floats=True)
def delayed_reset(network: Network, layer: str) -> Injected | None:
    """The reset comes in the step after the spike."""
    if network.integer:
        return computing(layer, Equations(late=True))
    if not spikes_at(network, layer):
        return None
    return running(network, layer, edits.with_spec(network.deployment, layer, reset_delay=1))


@fault("state not cleared")
def state_not_cleared(network: Network, layer: str) -> Injected | None:
    """The layer starts a sample with the state in which the one before ended."""
    return Injected(Faulty(Interpreted(remembers=layer)), layer)


@fault("rounding down")
def rounding_down(network: Network, layer: str) -> Injected | None:
    """Decays round toward minus infinity, not toward zero."""
    return computing(layer, Equations(floor=True))


@fault("saturation for wrap")
def saturation_for_wrap(network: Network, layer: str) -> Injected | None:
    """A current that leaves its 24 bits stops there."""
    return computing(layer, Equations(wraps=False))


@fault("wrap for saturation")
def wrap_for_saturation(network: Network, layer: str) -> Injected | None:
    """A membrane that leaves its 24 bits comes back from the other side."""
    return computing(layer, Equations(saturates=False))


@fault("float state")
def float_state(network: Network, layer: str) -> Injected | None:
    """A floating-point model says it is the fixed-point one: nothing is truncated, nothing ends at 24 bits."""
    return Injected(Faulty(FloatState()), layer) if layer == first_that_rounds(network) else None


def first_that_rounds(network: Network) -> str | None:
    """The first layer whose decays leave a fraction."""
    populations = network.deployment.populations
    return next(
        (name for name in network.deployment.layers if populations[name].dv % 4096 or populations[name].du != DECAY_MAX), None
    )


# --- wiring and geometry ---------------------------------------------------------------------------------------------


@fault("wrong stride", floats=True)
def wrong_stride(network: Network, layer: str) -> Injected | None:
    """A kernel moves on by one row and column too many."""
    for _, name in edits.synapses(network.deployment, layer):
        node = network.deployment.graph.nodes[name]
        if isinstance(node, nir.Conv2d):
            other = edits.with_node(network.deployment, name, stride=tuple(int(s) + 1 for s in np.broadcast_to(node.stride, 2)))
            try:
                fits = other.shapes[layer] == network.deployment.shapes[layer]
            except UserError:  # the kernel does not fit any more
                fits = False
            return running(network, layer, other) if fits else None
    return None


@fault("wrong padding", floats=True)
def wrong_padding(network: Network, layer: str) -> Injected | None:
    """The padding of both sides stands at one: every neuron looks one row too far down."""
    for _, name in edits.synapses(network.deployment, layer):
        node = network.deployment.graph.nodes[name]
        if isinstance(node, nir.Conv2d) and not isinstance(node.padding, str) and np.all(np.asarray(node.padding)):
            rows, columns = (int(p) for p in np.broadcast_to(node.padding, 2))
            weight = np.pad(edits.weights(network.deployment, name), ((0, 0), (0, 0), (2, 0), (0, 0)))
            other = edits.with_weights(network.deployment, name, weight, padding=(rows + 1, columns))
            return running(network, layer, other)
    return None


@fault("missing edge", floats=True)
def missing_edge(network: Network, layer: str) -> Injected | None:
    """One of several connections into a layer is missing."""
    forward = [connection for connection in network.deployment.connections[layer] if not connection.recurrent]
    return running(network, layer, edits.without(network.deployment, forward[-1])) if len(forward) > 1 else None


@fault("recurrent edge dropped")
def recurrent_edge_dropped(network: Network, layer: str) -> Injected | None:
    """A loop is open."""
    loops = [connection for connection in network.deployment.connections[layer] if connection.recurrent]
    return running(network, layer, edits.without(network.deployment, loops[0])) if loops else None


@fault("recurrent edge not delayed")
def recurrent_edge_not_delayed(network: Network, layer: str) -> Injected | None:
    """The Delay node in a loop is left out; the step that every loop takes remains."""
    for connection in network.deployment.connections[layer]:
        nodes = edits.delays(network.deployment, connection) if connection.recurrent else []
        if nodes:
            one = np.atleast_1d(network.deployment.contract.dt)
            other = edits.with_node(network.deployment, nodes[0], delay=one)
            return Injected(Faulty(Interpreted(), network=constantly(other)), layer, other)
    return None


def constantly(deployment: Deployment) -> Callable[[Deployment], Deployment]:
    """Whatever was asked for, this runs."""
    return lambda _: deployment


@fault("delay off by one")
def delay_off_by_one(network: Network, layer: str) -> Injected | None:
    """The delay of one source, or of one neuron, is a step too long."""
    for connection in network.deployment.connections[layer]:
        nodes = edits.delays(network.deployment, connection)
        if nodes:
            steps = np.array(network.deployment.graph.nodes[nodes[0]].delay, np.float64)
            source = int(network.activity(connection.source).argmax())
            steps.reshape(-1)[source if steps.size == network.activity(connection.source).size else 0] += (
                network.deployment.contract.dt
            )
            return running(network, layer, edits.with_node(network.deployment, nodes[0], delay=steps))
    return None
