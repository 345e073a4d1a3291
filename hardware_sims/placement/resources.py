"""What parts of a population need of a core.

Every neuron takes one compartment. Its synapses lie on its own core; a source neuron, the network's input included, has one input
axon on every core that it reaches, over however many weight layers, and one output axon for it on its own. Biases in front of a
synaptic filter are carried by sources that fire in every step (254 units a synapse); they count as sources outside the chip.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment, biases_in, weights_in
from snn_export.export.graph import CONV_TYPES, Shape
from snn_export.export.grid import is_filtered
from snn_export.export.linear_maps import matrix
from snn_export.export.wiring import Wire
from snn_export.hardware_sims.chips.chip_table import SynapseTable
from snn_export.hardware_sims.chips.core_resources import RESOURCES
from snn_export.hardware_sims.placement.reach import Box, Mask, Matrix, Reach, convolution_of, matrix_of, neurons_of, size_of
from snn_export.hardware_sims.placement.synapse_memory import Stored, cheapest, narrowest
from snn_export.models.arithmetic import WEIGHT_MAX
from snn_export.models.weight_grid import WEIGHT_BITS, signs_of

ALWAYS_ON = "always on: "
"""Before a population's name: the sources that carry the biases of its current."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One weight layer into a population.

    weight: its node; source: population, input node or :data:`ALWAYS_ON`. weight_field, delay_field: bits. delay: steps that
    its slowest synapse waits. kind: signs and weight exponent, which synapses of one format share.
    """

    weight: str
    source: str
    reach: Reach
    weight_field: int
    delay_field: int
    delay: int
    kind: tuple[str, int]


@dataclass(frozen=True, eq=False)
class Need:
    """What a part takes, by itself.

    axons: by source, input axons. stored: by weight layer. formats: one per weight layer. steps: of its slowest synapse.
    """

    neurons: int
    axons: Mapping[str, int]
    stored: Mapping[str, Stored]
    formats: frozenset[tuple[Any, ...]]
    steps: int

    @property
    def synapse_memory(self) -> int:
        """Bits."""
        return sum(item.bits for item in self.stored.values())


class PopulationNeeds:
    """Needs of every part of one population.

    Attributes:
        name, shape: the map that parts are boxes of. Its C-order is that of the population.
        layers: weight layers into it.
        decays, thresholds: what its neurons share a core's tables with.
    """

    def __init__(
        self, name: str, shape: Shape, layers: Sequence[Layer], table: SynapseTable,
        decays: tuple[int, int] = (0, 0), thresholds: frozenset[float] = frozenset({0.0}),
    ) -> None:  # fmt: skip
        self.name, self.shape, self.layers, self._table = name, shape, tuple(layers), table
        self.decays: tuple[int, int] = decays
        self.thresholds: frozenset[float] = thresholds
        self.sources = tuple(dict.fromkeys(layer.source for layer in layers))
        self._needs: dict[tuple[Box, int], Need] = {}
        self._heard: dict[tuple[Box, str], Mask] = {}

    @property
    def neurons(self) -> int:
        """Neurons of the population."""
        return int(np.prod(self.shape))

    @property
    def whole(self) -> Box:
        """All of it as one part."""
        return tuple((0, size) for size in self.shape)

    def need(self, box: Box, base: int = 0) -> Need:
        """What a part takes behind ``base`` other neurons on its core."""
        if (box, base) not in self._needs:
            self._needs[box, base] = self._worked_out(box, base)
        return self._needs[box, base]

    def heard(self, box: Box, source: str) -> Mask:
        """(sources,): which neurons of a source reach a part."""
        if (box, source) not in self._heard:
            found = [layer.reach.heard(box) for layer in self.layers if layer.source == source]
            self._heard[box, source] = np.logical_or.reduce(found)
        return self._heard[box, source]

    def _worked_out(self, box: Box, base: int) -> Need:
        sizes = {layer.weight: layer.reach.sizes(box) for layer in self.layers}
        stored = {
            layer.weight: cheapest(
                layer.reach, sizes[layer.weight], box, base, layer.weight_field, layer.delay_field, self._table
            )
            for layer in self.layers
        }
        formats = frozenset(
            (layer.weight_field, layer.delay_field, *layer.kind, stored[layer.weight].encoding, stored[layer.weight].index_field)
            for layer in self.layers
        )
        axons = {}
        for source in self.sources:
            reaching = [layer.weight for layer in self.layers if layer.source == source]
            axons[source] = len(sizes[reaching[0]]) if len(reaching) == 1 else int(self.heard(box, source).sum())
        steps = 1 + max((layer.delay for layer in self.layers), default=0)
        return Need(size_of(box), axons, stored, formats, steps)


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a population, and what it takes where it stands: behind ``base`` other neurons on its core."""

    population: PopulationNeeds
    box: Box
    base: int = 0

    @property
    def need(self) -> Need:
        """See :meth:`PopulationNeeds.need`."""
        return self.population.need(self.box, self.base)

    @property
    def neurons(self) -> int:
        """Its neurons."""
        return size_of(self.box)


@dataclass(frozen=True, eq=False)
class CoreContents:
    """What lies on one core.

    Attributes:
        parts: in the order in which their neurons lie; one at least.
        axons_out: output axons of all of them.
        table: the chip's memory.
    """

    parts: tuple[Part, ...]
    axons_out: int
    table: SynapseTable

    @cached_property
    def needs(self) -> tuple[Need, ...]:
        """Of every part."""
        return tuple(part.need for part in self.parts)

    @cached_property
    def neurons(self) -> int:
        """Of all parts."""
        return sum(need.neurons for need in self.needs)

    @cached_property
    def synapse_memory(self) -> int:
        """Bits of all synapses."""
        return sum(need.synapse_memory for need in self.needs)

    @cached_property
    def axons_in(self) -> int:
        """Distinct source neurons that reach it."""
        return sum(self._reaching(source) for source in sources_of(self.parts))

    def _reaching(self, source: str) -> int:
        hearing = [part for part in self.parts if source in part.population.sources]
        return hearing[0].need.axons[source] if len(hearing) == 1 else int(heard_by(hearing, source).sum())


def core_amounts(parts: Sequence[Part], axons_out: int, table: SynapseTable) -> dict[str, int]:
    """What parts take of the core they share, by name of the resource."""
    core = CoreContents(tuple(parts), axons_out, table)
    return {name: resource.amount(core) for name, resource in RESOURCES.items()}


def heard_by(parts: Iterable[Part], source: str) -> Mask:
    """(sources,): which neurons of a source reach any of these parts, all of which hear that source."""
    return np.asarray(np.logical_or.reduce([part.population.heard(part.box, source) for part in parts]))


def sources_of(parts: Iterable[Part]) -> tuple[str, ...]:
    """Sources that any of these parts hears, in the order of their layers."""
    return tuple(dict.fromkeys(source for part in parts for source in part.population.sources))


def population_needs(deployment: Deployment, table: SynapseTable, weight_bits: int = WEIGHT_BITS) -> dict[str, PopulationNeeds]:
    """Needs of every population of a deployment, sources first.

    Args:
        deployment: quantised, or float with one weight layer per connection.
        table: the chip's memory.
        weight_bits: of a float deployment's weights; a quantised one's are what its integers need.

    Raises:
        UserError: SNX209 for a connection of several layers, SNX458 for weights or delays wider than the chip's fields.
    """
    return {name: needs_of(deployment, name, table, weight_bits) for name in deployment.layers}


def needs_of(deployment: Deployment, name: str, table: SynapseTable, weight_bits: int = WEIGHT_BITS) -> PopulationNeeds:
    """Needs of one population; see :func:`population_needs`."""
    wires = deployment.wires[name]
    maps = [deployment.shapes[wire.weight] for wire in wires if isinstance(deployment.graph.nodes[wire.weight], CONV_TYPES)]
    shape = maps[0] if maps else deployment.shapes[name]
    layers = [_layer(deployment, wire, shape, table, weight_bits) for wire in wires]
    constant = always_on(deployment, name)
    if constant.any():
        layers.append(_constant_layer(name, constant, shape, table, weight_bits))
    return PopulationNeeds(name, shape, layers, table, *_registers(deployment, name))


def _layer(deployment: Deployment, wire: Wire, shape: Shape, table: SynapseTable, weight_bits: int) -> Layer:
    synapse = deployment.synapses.get(wire.weight)
    weight = weights_in(deployment, wire.weight)
    bits = weight_bits if synapse is None else bits_of(synapse.weight)
    delay = max(0, wire.most + deployment.latency_gap(wire))
    return Layer(
        wire.weight, wire.source, _reach(deployment, wire, weight != 0, shape),
        narrowest(table.weight_fields, bits, "weights", wire.weight),
        narrowest(tuple(range(table.delay_field + 1)), delay.bit_length(), "delays", wire.weight),
        delay, (signs_of(weight), 0 if synapse is None else synapse.weight_exponent),
    )  # fmt: skip


def _reach(deployment: Deployment, wire: Wire, present: Mask, shape: Shape) -> Reach:
    """Reach of a wire, with its target's neurons as a map of ``shape``. present: where its weights are not zero."""
    place = wire.connection.path.index(wire.weight)
    given = deployment.shapes[(wire.source, *wire.connection.path)[place]]
    made, node = deployment.shapes[wire.weight], deployment.graph.nodes[wire.weight]
    if isinstance(node, CONV_TYPES) and made == shape:
        return convolution_of(node, present, given, made)
    if isinstance(node, nir.Affine | nir.Linear):
        return matrix_of(present, shape)
    return Matrix(shape, matrix(wire.weight, node, given, made))


def bits_of(weights: NDArray[np.integer[Any]]) -> int:
    """Fewest bits that hold a layer's weights, sign included where there are both: the grids of ``models/weight_grid.py``."""
    common = int(np.bitwise_or.reduce(np.abs(weights.astype(np.int64)).reshape(-1), initial=0))
    zeros = (common & -common).bit_length() - 1 if common else WEIGHT_BITS
    return max(1, WEIGHT_BITS - zeros + (signs_of(weights) == "mixed"))


def always_on(deployment: Deployment, name: str) -> NDArray[np.int64]:
    """(neurons,): synapses from always-on sources that carry each neuron's bias of the current.

    Of a float deployment the sizes are not known yet: one source, where a population with a synaptic filter has a bias.
    """
    if name in deployment.populations:
        return np.asarray(-(-np.abs(deployment.current_bias(name)) // WEIGHT_MAX), np.int64).reshape(-1)
    biases = (bias for wire in deployment.wires[name] for bias in biases_in(deployment, wire.weight))
    needed = is_filtered(deployment, name) and any(np.any(bias) for bias in biases)
    return np.full(int(np.prod(deployment.shapes[name])), int(needed), np.int64)


def _constant_layer(name: str, constant: NDArray[np.int64], shape: Shape, table: SynapseTable, weight_bits: int) -> Layer:
    present = np.arange(int(constant.max())) < constant[:, None]
    field = narrowest(table.weight_fields, weight_bits, "weights", name)
    return Layer(ALWAYS_ON + name, ALWAYS_ON + name, matrix_of(present, shape), field, 0, 0, ("mixed", 0))


def _registers(deployment: Deployment, name: str) -> tuple[tuple[int, int], frozenset[float]]:
    """Decays (du, dv) and thresholds of a population, as a core's tables hold them."""
    if name in deployment.populations:
        held = deployment.populations[name]
        return (held.du, held.dv), frozenset({float(held.threshold)})
    spec, node = deployment.contract.neurons[name], deployment.graph.nodes[name]
    threshold = getattr(node, "v_threshold", getattr(node, "threshold", np.inf))
    return (spec.du, spec.dv), frozenset(float(value) for value in np.unique(threshold))


def part_indices(part: Part) -> NDArray[np.int64]:
    """Logical indices of a part's neurons in its population."""
    return neurons_of(part.box, part.population.shape)
