"""Faults in what a backend records, runs and says; the network and its equations are as they should be.

See ``faults.py`` for the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.hardware_sims.trace import Trace
from tests.mutation import edits
from tests.mutation.backends import Faulty, changed
from tests.mutation.kinds import Injected, answering, fault, real, running, spikes_at
from tests.mutation.networks import Network

Array = NDArray[Any]


# --- time ------------------------------------------------------------------------------------------------------------


@fault("input a step late", floats=True)
def input_a_step_late(network: Network, layer: str) -> Injected | None:
    """Everything reaches the layer one step late."""
    found = running(network, layer, edits.later(network.deployment, layer, 1))
    return found


@fault("declared latency too short", floats=True)
def latency_too_short(network: Network, layer: str) -> Injected | None:
    """The backend removes one step too few from a layer's record: all that it did seems to come a step late."""

    def change(trace: Trace) -> Trace:
        return shifted(trace, layer, 1)

    return answering(network, layer, change, lag=1 if spikes_at(network, layer) else None)


@fault("declared latency too long")
def latency_too_long(network: Network, layer: str) -> Injected | None:
    """The backend removes one step too many: all that a layer did seems to come a step early."""
    contract = network.deployment.contract
    inputs = network.inputs
    longer = network.deployment.replace(contract=contract.model_copy(update={"steps": contract.steps + 1}))
    events = inputs.ndim - len(network.deployment.input_shape) == 2

    def change(trace: Trace) -> Trace:
        moved = shifted(trace, layer, -1)
        for name in trace.layers:
            kept = {what: state[:-1] for what, state in states(moved, name).items()}
            moved = changed(moved, name, **kept, overflows=network.sound.layers[name].overflows)
        last = moved.layers[contract.readout.node].membrane
        readout = trace.readout if last is None else last[-1].reshape(len(trace.readout), -1)
        return replace(moved, readout=readout, predictions=readout.argmax(axis=1))

    def lengthened(values: Array) -> Array:
        return np.concatenate([values, values[-1:]]) if events else values

    backend = Faulty(real(network), network=lambda _: longer, inputs=lengthened, answer=change)
    return Injected(backend, layer, lag=-1 if spikes_at(network, layer) else None)


def states(trace: Trace, layer: str) -> dict[str, Array]:
    """What is recorded step by step."""
    found = {what: getattr(trace.layers[layer], what) for what in ("spikes", "membrane", "current")}
    return {what: np.asarray(state) for what, state in found.items() if state is not None}


def shifted(trace: Trace, layer: str, steps: int) -> Trace:
    """One layer's record some steps later or earlier; what comes in is silence."""
    fields = {}
    for what, state in states(trace, layer).items():
        moved = np.zeros_like(state)
        if steps > 0:
            moved[steps:] = state[:-steps]
        else:
            moved[:steps] = state[-steps:]
        fields[what] = moved
    return changed(trace, layer, **fields, latency=trace.layers[layer].latency - steps)


@fault("truncated T", floats=True)
def truncated(network: Network, layer: str) -> Injected | None:
    """The last step is not run; silence and the state of the step before stand in its place."""
    if layer != network.deployment.layers[0]:
        return None

    def change(trace: Trace) -> Trace:
        for name in trace.layers:
            fields = {what: state.copy() for what, state in states(trace, name).items()}
            for what, state in fields.items():
                state[-1] = 0 if what == "spikes" else state[-2]
            trace = changed(trace, name, **fields)
        return trace

    return answering(network, layer, change)


# --- data and bookkeeping --------------------------------------------------------------------------------------------


@fault("stale cache", floats=True)
def stale_cache(network: Network, layer: str) -> Injected | None:
    """The program of a network that was compiled before runs: same shapes, other weights."""
    if layer != network.deployment.layers[0]:
        return None
    earlier = network.deployment
    for name in network.deployment.layers:
        for _, synapse in edits.synapses(earlier, name):
            earlier = edits.with_weights(earlier, synapse, np.roll(edits.weights(earlier, synapse), 1, axis=0))
    return running(network, layer, earlier)


@fault("inputs of another sample", floats=True)
def inputs_of_another_sample(network: Network, layer: str) -> Injected | None:
    """Every sample runs with the input of the one before."""
    axis = network.inputs.ndim - len(network.deployment.input_shape) - 1
    if layer != network.hears_input:
        return None
    return Injected(Faulty(real(network), inputs=lambda inputs: np.roll(inputs, 1, axis=axis)), layer)


@fault("clipped inputs")
def clipped_inputs(network: Network, layer: str) -> Injected | None:
    """The encoder stops one level too early."""
    encoder = network.deployment.contract.encoder
    if layer != network.hears_input or encoder.gain is None:
        return None
    limit = (encoder.high - 1) / encoder.gain
    return Injected(Faulty(real(network), inputs=lambda inputs: np.minimum(inputs, limit)), layer)


@fault("layers swapped", floats=True)
def layers_swapped(network: Network, layer: str) -> Injected | None:
    """Two layers of one shape stand under each other's name."""
    other = twin(network, layer)
    if other is None:
        return None
    return answering(network, layer, lambda trace: replace(trace, layers={
        **trace.layers, layer: trace.layers[other], other: trace.layers[layer]
    }))  # fmt: skip


@fault("mislabelled layer", floats=True)
def mislabelled_layer(network: Network, layer: str) -> Injected | None:
    """What another layer did is reported under this one's name."""
    other = twin(network, layer)
    if other is None:
        return None
    return answering(network, layer, lambda trace: replace(trace, layers={**trace.layers, layer: trace.layers[other]}))


def twin(network: Network, layer: str) -> str | None:
    """A later layer of the same shape."""
    layers, shapes = network.deployment.layers, network.deployment.shapes
    later = layers[layers.index(layer) + 1 :]
    return next((name for name in later if shapes[name] == shapes[layer]), None)


@fault("last neuron dropped", floats=True)
def last_neuron_dropped(network: Network, layer: str) -> Injected | None:
    """The last neuron is not computed."""

    def change(trace: Trace) -> Trace:
        fields = {what: state.copy() for what, state in states(trace, layer).items()}
        for state in fields.values():
            state.reshape(*state.shape[:2], -1)[:, :, -1] = 0
        return changed(trace, layer, **fields)

    return answering(network, layer, change)


@fault("noise on a membrane", floats=True)
def noise_on_a_membrane(network: Network, layer: str) -> Injected | None:
    """One membrane of the last sample is off by one in the last step; in floats by 1 %."""

    def change(trace: Trace) -> Trace:
        membrane = np.array(trace.layers[layer].membrane)
        membrane[-1, -1].reshape(-1)[-1] += 1 if network.integer else 0.01
        return changed(trace, layer, membrane=membrane)

    return answering(network, layer, change)


@fault("noise on a current")
def noise_on_a_current(network: Network, layer: str) -> Injected | None:
    """One current of the first sample is off by one in the first step, and its membrane is not."""

    def change(trace: Trace) -> Trace:
        current = np.array(trace.layers[layer].current)
        current[0, 0].reshape(-1)[0] += 1
        return changed(trace, layer, current=current)

    return answering(network, layer, change)


@fault("membranes of the step before", floats=True)
def membranes_of_the_step_before(network: Network, layer: str) -> Injected | None:
    """Spikes are right, membranes are recorded before the step."""

    def change(trace: Trace) -> Trace:
        membrane = np.array(trace.layers[layer].membrane)
        membrane[1:], membrane[0] = membrane[:-1].copy(), 0
        return changed(trace, layer, membrane=membrane)

    return answering(network, layer, change)


@fault("overflows not counted")
def overflows_not_counted(network: Network, layer: str) -> Injected | None:
    """Wraps and saturations happen, and none is reported."""
    if not network.sound.layers[layer].overflows:
        return None
    return answering(network, layer, lambda trace: changed(trace, layer, overflows=0))


@fault("another readout rule")
def another_readout_rule(network: Network, layer: str) -> Injected | None:
    """All layers are right, and the predictions are those of the first step."""
    if layer != network.deployment.contract.readout.node:
        return None

    def change(trace: Trace) -> Trace:
        first = np.asarray(trace.layers[layer].membrane)[0].reshape(len(trace.predictions), -1)
        return replace(trace, readout=first, predictions=first.argmax(axis=1))

    return answering(network, layer, change)


@fault("layer left out", floats=True)
def layer_left_out(network: Network, layer: str) -> Injected | None:
    """The trace does not say what a layer did."""
    return answering(
        network, layer, lambda trace: replace(trace, layers={k: v for k, v in trace.layers.items() if k != layer}), compared=False
    )


@fault("membranes left out", floats=True)
def membranes_left_out(network: Network, layer: str) -> Injected | None:
    """A layer's membranes are not recorded."""
    return answering(network, layer, lambda trace: changed(trace, layer, membrane=None), compared=False)
