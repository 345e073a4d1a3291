"""Counting the operations of a run: exact integers, from spike counts, inputs and fan-out. No energy stands here.

Counted per layer (a population and the connections into it), summed over samples and steps::

    synops          sum over sources of spikes x fan-out: binary synaptic events that arrive
    axon            synaptic events of the sources that carry biases and are always on: charged as such, measured apart
    graded          sum over steps of nonzero graded inputs x fan-out: a value is sent anew in every step
    spikes          spikes the layer fires
    updates         neurons x steps: every neuron of a clocked chip is updated in every step

Names of NeuroBench (Yik et al., The NeuroBench framework, Nature Communications 16, 2025) for the same things: *effective
ACs* are synops over nonzero weights, *effective MACs* graded operations over nonzero weights, *dense* is ``synapses x
steps``. Its *membrane updates* leave out updates that change nothing (not those of the first step), so they are at most
``updates``: ``membrane_changes``.

An update is **active** in a step in which the neuron spikes, else inactive. The published energies tell active from inactive
without defining them, and this definition needs nothing but spikes. The other reading (active: anything arrives, or there is
a bias) makes almost every update of a network with biases active; the range of a cost table has to cover it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import chain, pairwise
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.energy.fan_out import FanOut, dense_macs, dense_weights, fan_out, stored_weights
from snn_export.export import encoding
from snn_export.export.deployment import Deployment, biases_in, weights_in
from snn_export.export.graph import SYNAPSE_TYPES, Connection
from snn_export.hardware_sims.placement.resources import always_on
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.models.diagnostics import UserError


@dataclass(frozen=True)
class LayerCounts:
    """Operations of one layer, totals over all samples and steps of a run.

    ``effective_`` counts synapses with a nonzero weight only; what has no such prefix counts all of them.

    Attributes:
        spike_operations, effective_spike_operations: synaptic events caused by spikes of other layers.
        axon_operations: synaptic events of sources that are always on and carry biases; no neuron spikes for them.
        input_operations, effective_input_operations: nonzero inputs times synapses, in every step in which they are sent.
        spikes: spikes fired.
        messages: spikes fired by neurons with at least one synapse: each leaves its neuron's core at least once.
        updates: neuron updates.
        twin_input_macs: what an ANN that skips zeros multiplies behind the input: nonzero-weight synapses whose input element is
            nonzero, once per inference, or in every frame where the data have frames; all multiplications of merged layers,
            whose zeros behind the pooling are not known.
        membrane_changes: updates after which the membrane is another one, and all of the first step; None where membranes were
            not recorded.
    """

    spike_operations: int = 0
    effective_spike_operations: int = 0
    axon_operations: int = 0
    input_operations: int = 0
    effective_input_operations: int = 0
    spikes: int = 0
    messages: int = 0
    updates: int = 0
    twin_input_macs: int = 0
    membrane_changes: int | None = 0

    def __add__(self, other: LayerCounts) -> LayerCounts:
        changes = _sum_of(self.membrane_changes, other.membrane_changes)
        names = [item.name for item in fields(self) if item.name != "membrane_changes"]
        return LayerCounts(**{name: getattr(self, name) + getattr(other, name) for name in names}, membrane_changes=changes)


@dataclass(frozen=True)
class LayerStructure:
    """What is fixed before anything runs.

    Attributes:
        neurons: neurons of the population.
        synapses, nonzero_synapses: of the connections from other populations.
        input_synapses: of the connections from the network's input.
        weights, nonzero_weights: stored parameters; a convolution's kernel counts once, zeros that are no synapses do not.
        twin_macs, twin_weights: multiplications on one input and stored weights of an ordinary ANN with these layers, those
            that were merged one after the other.
        twin_nonzero_macs: of the multiplications behind other populations, those with a nonzero weight; all of merged layers.
        biases: stored parameters too; those of weight nodes that have any.
    """

    neurons: int
    synapses: int
    nonzero_synapses: int
    input_synapses: int
    weights: int
    nonzero_weights: int
    twin_macs: int
    twin_nonzero_macs: int
    twin_weights: int
    biases: int = 0


@dataclass(frozen=True)
class Counts:
    """Operations of a run. Immutable; ``a.merge(b)`` equals counting both runs at once.

    Attributes:
        fingerprint: of the deployment that was counted.
        samples, steps: inferences, and steps of each.
        binary_input: True where the network's input is spikes, False where it is graded values.
        input_events: messages into the chip: nonzero input values, in every step in which they are sent; biases, once per
            inference, where the host computes the first layer.
        input_frames: different inputs that the chip is sent in an inference: T where they change from step to step, else 1.
        data_frames: frames of a sample: T where the data change over time, else 1.
        structure, layers: by population name, sources first.
        encoded_values: input values that the host turns into levels, or draws a random number for; 0 for events.
        host_macs: multiplications of the first layer where the host computes it (``input_as_bias``).
        host_weights: that the host stores for them.
        host_biases: values that it makes of them in an inference.
    """

    fingerprint: str
    samples: int
    steps: int
    binary_input: bool
    input_events: int
    input_frames: int
    data_frames: int
    structure: Mapping[str, LayerStructure]
    layers: Mapping[str, LayerCounts]
    encoded_values: int = 0
    host_macs: int = 0
    host_weights: int = 0
    host_biases: int = 0

    def merge(self, other: Counts) -> Counts:
        """Counts of two runs of one deployment on different samples.

        An input counts as spikes only if it does in both runs.

        Raises:
            UserError: SNX321 where the two belong to different deployments.
        """
        if self.fingerprint != other.fingerprint:
            raise wrong_deployment(self.fingerprint, other.fingerprint)
        return replace(
            self,
            samples=self.samples + other.samples,
            binary_input=self.binary_input and other.binary_input,
            input_events=self.input_events + other.input_events,
            layers={name: layer + other.layers[name] for name, layer in self.layers.items()},
            encoded_values=self.encoded_values + other.encoded_values,
            host_macs=self.host_macs + other.host_macs,
        )


@dataclass(frozen=True, eq=False)
class _Incoming:
    """A connection on the chip. macs: of an ordinary ANN; merged: passes made its weight layer from several."""

    source: str
    fan: FanOut
    macs: int
    merged: bool


class Counter:
    """Counts the runs of one deployment. Fan-out is worked out once; memory is that of one chunk's inputs.

    Args:
        deployment: the network that ran, quantised or float.

    Raises:
        UserError: SNX320 where a connection's synapses cannot be counted.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._incoming: dict[str, tuple[_Incoming, ...]] = {}
        self._host_macs, self._host_biases = 0, 0
        for target, incoming in deployment.connections.items():
            on_host = [each for each in incoming if any(node in deployment.host_synapses for node in each.path)]
            self._incoming[target] = tuple(_incoming(deployment, each) for each in incoming if each not in on_host)
            self._host_macs += sum(dense_macs(deployment, each) for each in on_host)
            self._host_biases += int(np.prod(deployment.shapes[target])) if on_host else 0
        multiplied = [name for name in deployment.host_synapses if isinstance(deployment.graph.nodes[name], SYNAPSE_TYPES)]
        self._host_weights = sum(dense_weights(deployment, name) for name in multiplied)
        self._axon_operations = {name: _axon_operations(deployment, name) for name in deployment.layers}
        self._inputs = frozenset(name for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Input))
        self._senders = _senders(self._incoming, {name: deployment.shapes[name] for name in deployment.layers})
        self._structure = {name: self._layer_structure(name, weights) for name, weights in _weight_nodes(deployment).items()}

    def count(self, trace: Trace, inputs: NDArray[Any]) -> Counts:
        """Operations of one run.

        Args:
            trace: what ran; only the spike counts (B, *features) of its layers are read.
            inputs: what it ran on, (B, *shape) or (T, B, *shape), in the contract's real units.

        Raises:
            UserError: SNX321 where the trace is not one of this deployment on these inputs; for inputs as
                :func:`snn_export.export.encoding.signal`.
        """
        deployment, steps = self._deployment, self._deployment.contract.steps
        sent = self.sent(inputs)
        samples = sent.shape[1]
        self._check(trace, samples)
        sources = self.fired(trace, sent)
        frames = len(sent) if deployment.contract.encoder.kind == "events" else 1
        seen = (sent if frames > 1 else sent.any(axis=0, keepdims=True)).sum(axis=(0, 1), dtype=np.int64)
        layers = {name: self._layer(name, sources, seen, frames, trace.layers[name]) for name in deployment.layers}
        encoded = {"direct": len(sent), "rate": steps, "events": 0, "bias": 0}[deployment.contract.encoder.kind]
        return Counts(
            fingerprint=deployment.fingerprint,
            samples=samples,
            steps=steps,
            binary_input=self._binary(inputs),
            input_events=int(self.input_messages(sent).sum()),
            input_frames=len(sent),
            data_frames=frames,
            structure=self._structure,
            layers=layers,
            encoded_values=encoded * sent[0].size,
            host_macs=self._host_macs * samples,
            host_weights=self._host_weights,
            host_biases=self._host_biases,
        )

    @property
    def deployment(self) -> Deployment:
        """The network whose runs are counted."""
        return self._deployment

    def fired(self, trace: Trace, sent: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
        """By population and input node, spikes or nonzero inputs of each neuron over all samples and steps, (*features).

        Args:
            trace: what ran.
            sent: where it was sent an input message, from :meth:`sent`.
        """
        found = {name: trace.layers[name].counts.sum(axis=0, dtype=np.int64) for name in self._deployment.layers}
        incoming = sent.sum(axis=(0, 1), dtype=np.int64) * (self._deployment.contract.steps // len(sent))
        return found | dict.fromkeys(self._inputs, incoming)

    def outgoing(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """By source, input nodes included: synapses of each neuron into all its targets together, (structural, effective)."""
        found = {
            name: (np.zeros(self._deployment.shapes[name], np.int64),) * 2 for name in (*self._inputs, *self._deployment.layers)
        }
        for each in chain.from_iterable(self._incoming.values()):
            structural, effective = found[each.source]
            found[each.source] = structural + each.fan.structural, effective + each.fan.effective
        return found

    def senders(self, name: str) -> NDArray[np.bool_]:
        """(*features): neurons of a population with at least one synapse."""
        return self._senders[name]

    def always_on(self, name: str) -> int:
        """Synaptic events per step of the sources that carry biases of a population's current."""
        return self._axon_operations[name]

    def input_messages(self, sent: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Messages into the chip in every step, (T, B): values that are sent, or biases, which are written once."""
        found: NDArray[np.int64] = np.zeros((self._deployment.contract.steps, sent.shape[1]), np.int64)
        if self._deployment.contract.encoder.kind == "bias":
            found[0] = self._host_biases
        else:
            found[:] = sent.reshape(*sent.shape[:2], -1).sum(axis=2)
        return found

    def sent(self, inputs: NDArray[Any]) -> NDArray[np.bool_]:
        """Where an input message is sent, (S, B, *shape): S = T steps, or 1 where every step is the same."""
        if self._deployment.contract.encoder.gain is None:
            return encoding.signal(self._deployment, inputs).astype(np.bool_)
        return encoding.levels(self._deployment, inputs).astype(np.bool_)

    def _layer(
        self, name: str, sources: Mapping[str, NDArray[np.int64]], seen: NDArray[np.int64], frames: int, trace: LayerTrace
    ) -> LayerCounts:
        """``seen``: by input element, samples and frames in which an ANN finds it nonzero."""
        samples = len(trace.counts)
        spike, effective_spike, graded, effective_graded, twin = 0, 0, 0, 0, 0
        for each in self._incoming[name]:
            source, fan = each.source, each.fan
            arrived, effective = int((sources[source] * fan.structural).sum()), int((sources[source] * fan.effective).sum())
            if source in self._inputs:
                graded, effective_graded = graded + arrived, effective_graded + effective
                twin += each.macs * samples * frames if each.merged else int((seen * fan.effective).sum())
            else:
                spike, effective_spike = spike + arrived, effective_spike + effective
        fired = sources[name]
        return LayerCounts(
            spike_operations=spike,
            effective_spike_operations=effective_spike,
            axon_operations=self._axon_operations[name] * self._deployment.contract.steps * samples,
            input_operations=graded,
            effective_input_operations=effective_graded,
            spikes=int(fired.sum()),
            messages=int(fired[self._senders[name]].sum()),
            updates=fired.size * self._deployment.contract.steps * samples,
            twin_input_macs=twin,
            membrane_changes=_membrane_changes(trace),
        )

    def _binary(self, inputs: NDArray[Any]) -> bool:
        """Whether inputs are spikes. A quantised encoder's declared range decides; a float one's only where it takes events."""
        encoder = self._deployment.contract.encoder
        if encoder.gain is not None:
            return encoder.binary
        values = np.asarray(inputs)
        return encoder.kind == "events" and bool(((values == 0) | (values == 1)).all())

    def _check(self, trace: Trace, samples: int) -> None:
        for name in self._deployment.layers:
            layer: LayerTrace | None = trace.layers.get(name)
            expected = (samples, *self._deployment.shapes[name])
            if layer is None or layer.counts.shape != expected:
                got = "is missing" if layer is None else f"has spike counts of shape {layer.counts.shape}"
                raise UserError(
                    "SNX321", f"the trace does not belong to this network and these inputs: {name} {got}", where=name,
                    why=f"{samples} samples through {name} give spike counts of shape {expected}",
                    fix="count a run with the deployment and the inputs that made it",
                )  # fmt: skip

    def _layer_structure(self, name: str, weight_nodes: tuple[str, ...]) -> LayerStructure:
        incoming, deployment = self._incoming[name], self._deployment
        spiking = [each.fan for each in incoming if each.source not in self._inputs]
        graded = [each.fan for each in incoming if each.source in self._inputs]
        return LayerStructure(
            neurons=int(np.prod(deployment.shapes[name])),
            synapses=sum(fan.synapses for fan in spiking),
            nonzero_synapses=sum(fan.nonzero_synapses for fan in spiking),
            input_synapses=sum(fan.synapses for fan in graded),
            weights=sum(stored_weights(deployment, node) for node in weight_nodes),
            nonzero_weights=sum(int(np.count_nonzero(weights_in(deployment, node))) for node in weight_nodes),
            twin_macs=sum(each.macs for each in incoming),
            twin_nonzero_macs=sum(
                each.macs if each.merged else each.fan.nonzero_synapses for each in incoming if each.source not in self._inputs
            ),
            twin_weights=sum(dense_weights(deployment, node) for node in weight_nodes),
            biases=sum(_biases(deployment, node) for node in weight_nodes),
        )


def count(deployment: Deployment, trace: Trace, inputs: NDArray[Any]) -> Counts:
    """Operations of one run. Use a :class:`Counter` and :meth:`Counts.merge` for many chunks. Raises as both."""
    return Counter(deployment).count(trace, inputs)


def wrong_deployment(one: str, other: str) -> UserError:
    """The error for counts that were made with another deployment; arguments are fingerprints."""
    return UserError(
        "SNX321", "these operation counts belong to another network", where=f"{one[:12]} and {other[:12]}",
        why="fan-out and number of synapses differ from network to network",
        fix="count every run with the deployment that ran, and estimate with the same one",
    )  # fmt: skip


def _weight_nodes(deployment: Deployment) -> dict[str, tuple[str, ...]]:
    """Weight nodes by the population they drive; one that drives several is listed with the first."""
    found: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for name in deployment.layers:
        nodes = dict.fromkeys(node for connection in deployment.connections[name] for node in connection.path)
        found[name] = tuple(
            node
            for node in nodes
            if node not in seen | deployment.host_synapses and isinstance(deployment.graph.nodes[node], SYNAPSE_TYPES)
        )
        seen.update(found[name])
    return found


def _incoming(deployment: Deployment, connection: Connection) -> _Incoming:
    merged = any(name in deployment.merged for name in connection.path)
    return _Incoming(connection.source, fan_out(deployment, connection), dense_macs(deployment, connection), merged)


def _axon_operations(deployment: Deployment, population: str) -> int:
    """Synaptic events per step of the sources that carry biases of the current: they fire in every step, 254 units a synapse."""
    if population not in deployment.populations:
        return 0
    return int(always_on(deployment, population).sum())


def _sum_of(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _membrane_changes(layer: LayerTrace) -> int | None:
    """Updates after which a membrane differs from the one before, and every update of the first step: NeuroBench's count."""
    if layer.membrane is None:
        return None
    changed = sum(int(np.count_nonzero(now != before)) for before, now in pairwise(layer.membrane))
    return changed + int(layer.membrane[0].size)


def _biases(deployment: Deployment, node: str) -> int:
    """Biases stored with a weight node: mantissas where quantised, floats of the NIR node else."""
    return sum(int(held.size) for held in biases_in(deployment, node))


def _senders(
    incoming: Mapping[str, tuple[_Incoming, ...]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.bool_]]:
    """Per population, the neurons with at least one synapse: only their spikes leave the core."""
    senders = {name: np.zeros(shape, bool) for name, shape in shapes.items()}
    for each in chain.from_iterable(incoming.values()):
        if each.source in senders:
            senders[each.source] |= each.fan.structural > 0
    return senders
