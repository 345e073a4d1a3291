"""Deployment: a NIR graph, the contract that says how to run it, and its integers where it is quantised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.contract import ExecutionContract
from snn_export.export.graph import Connection, Shape, connections, shapes, stages, weight_array
from snn_export.export.wiring import Wire, wires
from snn_export.models.arithmetic import WEIGHT_MIN, shift_mantissa, state_units
from snn_export.models.diagnostics import UserError

SignMode = Literal["mixed", "excitatory", "inhibitory"]


@dataclass(frozen=True, eq=False)
class IntegerSynapse:
    """Integers of a weight node.

    weight: int16, the shape of the node's weight (of a Scale: its scale); effective value weight << weight_exponent.
    bias_mantissa: int16 (out,) or None; added to the membrane, the exponent is the population's.
    current_bias: int32 (out,) or None; added to the synaptic sum of every step, in its units (after the weight exponent). On a
        chip it is carried by sources that fire in every step, 254 units each.
    """

    weight: NDArray[np.int16]
    weight_exponent: int = 0
    bias_mantissa: NDArray[np.int16] | None = None
    current_bias: NDArray[np.int32] | None = None

    @property
    def sign_mode(self) -> SignMode:
        """Signs the chip stores: weights of one sign keep the bit that a mixed layer spends on it."""
        low, high = int(self.weight.min(initial=0)), int(self.weight.max(initial=0))
        if low < 0 < high or low <= WEIGHT_MIN:
            return "mixed"
        return "inhibitory" if low < 0 else "excitatory"


@dataclass(frozen=True)
class MergedLayers:
    """What a weight node stands for that a pass made from several linear layers.

    macs: multiplications of those layers, one after the other on one input; pooling adds and multiplies nothing.
    weights: that those layers store.
    sparse: the node is a matrix with the synapses of convolutions or poolings, so its zeros are none.
    """

    macs: int
    weights: int
    sparse: bool


@dataclass(frozen=True)
class IntegerPopulation:
    """Integers of a population. A membrane of 1.0 in real units is ``64 * scale`` here."""

    threshold: int
    du: int
    dv: int
    scale: float
    bias_exponent: int = 0

    @property
    def unit(self) -> float:
        """Real value of one membrane unit, 1 / (64 scale)."""
        return 1.0 / state_units(self.scale)


@dataclass(frozen=True)
class Firing:
    """How a neuron of some package fires otherwise than the contract says; see ``export/deviation.py``.

    Attributes:
        at_threshold: s = v >= theta in place of v > theta.
        several: as many spikes in one step as its membrane holds thresholds, n = floor(v / theta) where v >= theta, or, above
            the threshold only, ceil(v / theta) - 1; a subtraction takes n theta.
    """

    at_threshold: bool = False
    several: bool = False


@dataclass(frozen=True, eq=False)
class Deployment:
    """An immutable network ready to be run, compared or compiled. Passes return a new one.

    Attributes:
        graph: NIR graph in real units (float64). On a quantised deployment these values lie on the integer grid.
        contract: semantics that NIR cannot hold.
        synapses, populations: the authoritative integers, by node name; both empty while the parameters are floats.
        fold_magnitude: per weight node, (out,): sum of the absolute values that folding batch-norm added into the bias. The
            forward error bound of a float comparison needs it, because the folded bias no longer shows what cancelled.
        merged: by weight node, the layers that passes merged into it, where there were several.
        firing: by population, how it fires otherwise than the contract says. Empty but in networks that
            :func:`snn_export.export.deviation.deviating` made for the interpreter; no file holds it.
    """

    graph: nir.NIRGraph
    contract: ExecutionContract
    synapses: Mapping[str, IntegerSynapse] = field(default_factory=lambda: MappingProxyType({}))
    populations: Mapping[str, IntegerPopulation] = field(default_factory=lambda: MappingProxyType({}))
    fold_magnitude: Mapping[str, NDArray[np.float64]] = field(default_factory=lambda: MappingProxyType({}))
    firing: Mapping[str, Firing] = field(default_factory=lambda: MappingProxyType({}))
    merged: Mapping[str, MergedLayers] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def quantised(self) -> bool:
        """True where the integers exist."""
        return self.contract.quantisation is not None

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Population names, sources first: the layer ids of traces and reports."""
        return tuple(name for stage in self.stages for name in stage)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Output shape of every node."""
        return shapes(self.graph)

    @cached_property
    def connections(self) -> dict[str, tuple[Connection, ...]]:
        """Connections into every population."""
        return connections(self.graph)

    @cached_property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        """Populations in groups, sources first; a group with a loop must be stepped together."""
        return stages(self.graph)

    def is_recurrent(self, stage: tuple[str, ...]) -> bool:
        """True where the populations of a stage hear each other, or themselves."""
        return any(connection.source in stage for name in stage for connection in self.connections[name])

    @cached_property
    def host_synapses(self) -> frozenset[str]:
        """Weight nodes that the host computes: those behind the input, where the encoder turns the input into biases."""
        if self.contract.encoder.kind != "bias":
            return frozenset()
        return frozenset(
            name
            for incoming in self.connections.values()
            for connection in incoming
            if isinstance(self.graph.nodes[connection.source], nir.Input)
            for name in connection.path
        )

    @cached_property
    def wires(self) -> dict[str, tuple[Wire, ...]]:
        """Connections into every population as a chip has them; see :mod:`snn_export.export.wiring` for what it refuses."""
        return wires(self.graph, self.shapes, self.contract.dt, self.host_synapses)

    def latency_gap(self, wire: Wire) -> int:
        """Steps a spike on this wire waits on hardware beyond its own delays and the step of its synapse; see ``wiring``."""
        latency = self.contract.latency
        return latency[wire.target] - latency.get(wire.source, 0) - 1

    @property
    def input_shape(self) -> Shape:
        """Shape of one input without time and batch."""
        return next(self.shapes[name] for name, node in self.graph.nodes.items() if isinstance(node, nir.Input))

    def replace(self, **changes: Any) -> Deployment:
        """A copy with the named fields exchanged."""
        return replace(self, **changes)

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Every parameter by path, in a stable order: those of NIR nodes, then the integers.

        Geometry counts too, in one form: nir hands out tuples, numbers or arrays depending on where a node came from.
        """
        for name in sorted(self.graph.nodes):
            node = self.graph.nodes[name]
            yield f"nodes/{name}/shape", np.asarray(self.shapes[name], np.int64)
            for key, value in sorted(vars(node).items()):
                if key in ("input_type", "output_type", "metadata", "input_shape") or value is None:
                    continue
                yield f"nodes/{name}/{key}", _canonical(value)
        for path, value in sorted(self.integer_arrays().items()):
            yield f"integer/{path}", value

    def integer_arrays(self) -> dict[str, NDArray[Any]]:
        """The integers as arrays by ``node/field``, the form in which the file stores them."""
        found: dict[str, NDArray[Any]] = {}
        for name, synapse in self.synapses.items():
            found[f"{name}/weight"] = synapse.weight
            found[f"{name}/weight_exponent"] = np.array([synapse.weight_exponent], np.int16)
            if synapse.bias_mantissa is not None:
                found[f"{name}/bias_mantissa"] = synapse.bias_mantissa
            if synapse.current_bias is not None:
                found[f"{name}/current_bias"] = synapse.current_bias
        for name, population in self.populations.items():
            found[f"{name}/threshold"] = np.array([population.threshold], np.int32)
            found[f"{name}/du"] = np.array([population.du], np.int16)
            found[f"{name}/dv"] = np.array([population.dv], np.int16)
            found[f"{name}/bias_exponent"] = np.array([population.bias_exponent], np.int16)
            found[f"{name}/scale"] = np.array([population.scale], np.float64)
        return found

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over edges, arrays and contract (without lineage): equal for networks that behave alike."""
        digest = hashlib.sha256()
        for source, target in self.graph.edges:
            digest.update(f"{source}->{target};".encode())
        for path, value in self.arrays():
            digest.update(f"{path}:{array_digest(value)};".encode())
        digest.update(
            json.dumps(self.contract.model_dump(mode="json", exclude={"lineage"}, exclude_defaults=True), sort_keys=True).encode()
        )
        return digest.hexdigest()

    def bias(self, population: str) -> NDArray[np.int64]:
        """Integer bias of a population in membrane units, (*features): sum over its connections, already shifted.

        Raises:
            UserError: SNX302 where the deployment is not quantised.
        """
        if population not in self.populations:
            raise not_quantised(population)
        exponent = self.populations[population].bias_exponent
        mantissas = {
            name: shift_mantissa(synapse.bias_mantissa.astype(np.int64), exponent)
            for name, synapse in self.synapses.items()
            if synapse.bias_mantissa is not None
        }
        return self._spread(population, mantissas)

    def current_bias(self, population: str) -> NDArray[np.int64]:
        """What is added to a population's synaptic sum in every step, (*features), in its units. Raises as :meth:`bias`."""
        if population not in self.populations:
            raise not_quantised(population)
        found = {
            name: synapse.current_bias.astype(np.int64)
            for name, synapse in self.synapses.items()
            if synapse.current_bias is not None
        }
        return self._spread(population, found)

    def _spread(self, population: str, values: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
        """Values per output channel of weight nodes as they reach each neuron of a population, (*features)."""
        total: NDArray[np.int64] = np.zeros(self.shapes[population], np.int64)
        for name in dict.fromkeys(wire.weight for wire in self.wires[population]):
            if name in values:
                shape = self.shapes[name]
                channels = values[name].reshape(-1, *(1,) * (len(shape) - 1))
                total += np.broadcast_to(channels, shape).reshape(total.shape)
        return total


def integer_parameters(
    synapse: IntegerSynapse | None, bias: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Weight and bias to hand to :func:`snn_export.export.linear.apply` in place of a node's floats, int64.

    The bias defaults to zeros: on the chip it belongs to the neuron, not to the synaptic sum.
    """
    if synapse is None:
        return None, None
    weight = shift_mantissa(synapse.weight.astype(np.int64), synapse.weight_exponent)
    return weight, np.zeros(len(weight), np.int64) if bias is None else bias


def weights_in(deployment: Deployment, name: str) -> NDArray[Any]:
    """The weights of a node: its integers, or its floats where it has none."""
    synapse = deployment.synapses.get(name)
    return np.asarray(weight_array(deployment.graph.nodes[name]) if synapse is None else synapse.weight)


def biases_in(deployment: Deployment, name: str) -> tuple[NDArray[Any], ...]:
    """The biases that a node of weights holds: mantissas and what is added to the current, or floats where it has no integers."""
    synapse = deployment.synapses.get(name)
    held: tuple[Any, ...] = (getattr(deployment.graph.nodes[name], "bias", None),)
    if synapse is not None:
        held = (synapse.bias_mantissa, synapse.current_bias)
    return tuple(np.asarray(bias) for bias in held if bias is not None)


def not_quantised(where: str) -> UserError:
    """The error for asking a float deployment for integers."""
    return UserError(
        "SNX302",
        "this deployment is not on an integer grid",
        where=where,
        why="integer backends run integers, and this deployment holds floats",
        fix="run `snn-export quantize`, or snn_export.quantize(deployment, calibration_inputs, target='loihi2')",
    )


def _canonical(value: Any) -> NDArray[Any]:
    """A node's field as an array: integers as int64, text as bytes."""
    if isinstance(value, str):
        return np.frombuffer(value.encode(), np.uint8)
    array = np.asarray(value)
    return array.astype(np.int64) if array.dtype.kind in "iu" else array


def array_digest(value: NDArray[Any]) -> str:
    """SHA-256 of dtype, shape and contents."""
    digest = hashlib.sha256(f"{value.dtype.str}{value.shape}".encode())
    digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
