"""Placement of random networks on a tiny chip, recounted neuron by neuron, synapse by synapse and axon by axon.

The recount shares nothing with the code under test but the chip's widths: which neuron reaches which is found by sending one
spike at a time through the weight node.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.linear import apply
from snn_export.hardware_sims.chips.chip_table import ChipTable, SynapseTable, load_chip
from snn_export.hardware_sims.chips.core_resources import RESOURCES
from snn_export.hardware_sims.placement.packing import partitioned
from snn_export.hardware_sims.placement.placement import Placement, PlacementSettings, place
from snn_export.hardware_sims.placement.resources import Part, core_amounts, population_needs
from snn_export.models.arithmetic import WEIGHT_MAX
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import ReadoutSpec
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, even, random_conv, random_dense
from tests.networks import conv_deployment

Ints = NDArray[np.int64]
LOIHI1 = load_chip("loihi1")
SPIKES = ReadoutSpec("readout", "spike_count")


def tiny_chip(base: ChipTable = LOIHI1, rows: int = 3, columns: int = 3, share: int = 2, **capacities: int) -> ChipTable:
    """A chip with the memory of ``base`` and other limits; a limit of 0 is left unpublished."""
    data = base.model_dump()
    for name, value in capacities.items():
        if value:
            data["limits"][name] = {**data["limits"]["neurons"], "value": value}
            data["covered"].pop(name, None)
            data["not_published"].pop(name, None)
        else:
            data["limits"].pop(name, None)
            data["not_published"][name] = "not published"
    data["mesh"] |= {"rows": rows, "columns": columns, "cores_per_router": share}
    if not data["synapses"]["kernel_once"]:  # widths that a core of few neurons feels
        data["synapses"] |= {"index_fields": [2, 3, 4, 5, 6, 7, 8, 12], "base_reach": 16, "block_entries": 8, "word": 16}
    return ChipTable.model_validate(data)


def weights_of(deployment: Deployment, weight: str) -> Ints:
    """Integers of a weight node."""
    return deployment.synapses[weight].weight.astype(np.int64)


def reached(deployment: Deployment, wire: Any, weight: Ints | None = None) -> Ints:
    """(sources, targets): what one spike of each source neuron adds to each target."""
    source, node = wire.source, deployment.graph.nodes[wire.weight]
    size = int(np.prod(deployment.shapes[source]))
    x = np.eye(size, dtype=np.int64).reshape(size, *deployment.shapes[source])
    for name in wire.connection.path:
        if name == wire.weight:
            integers = weights_of(deployment, name) if weight is None else weight
            x = apply(name, node, x, integers, np.zeros(len(integers), np.int64))
        elif isinstance(deployment.graph.nodes[name], nir.Flatten):
            x = apply(name, deployment.graph.nodes[name], x)
    return x.reshape(size, -1)


def list_bits(entries: int, entry: int, table: SynapseTable) -> int:
    """Bits of one list."""
    block, bits = table.block_entries or max(entries, 1), 0
    while entries > 0:
        here = min(entries, block)
        bits += -(-(here * entry + table.block_header) // table.word) * table.word
        entries -= here
    return bits


def weight_bits(weights: Ints, table: SynapseTable) -> int:
    """The field that holds these weights, found by trying."""
    both = weights.min(initial=0) < 0 < weights.max(initial=0) or not weights.any()
    for bits in table.weight_fields:
        if not np.any(weights % ((512 if both else 256) >> bits)):
            return bits
    raise AssertionError("no field holds these weights")


def local_order(box: tuple[tuple[int, int], ...], shape: tuple[int, ...]) -> Ints:
    """Logical neurons of a part in the order in which they lie on a core: row by row, the channel last."""
    index = np.arange(int(np.prod(shape))).reshape(shape)[tuple(slice(*ends) for ends in box)]
    return np.moveaxis(index, 0, -1).reshape(-1) if index.ndim > 1 else index.reshape(-1)


def shared_lists(deployment: Deployment, wire: Any, order: Ints, channels: int, base: int, reach: int) -> list[int]:
    """Entries of the lists that differ, where axons add an offset of less than ``reach`` to the neurons of their list."""
    effect, everywhere = (
        reached(deployment, wire)[:, order],
        reached(deployment, wire, np.ones_like(weights_of(deployment, wire.weight))),
    )
    per_channel = int(np.prod(deployment.shapes[wire.source][1:]))
    lists = set()
    for source in range(len(effect)):
        targets = np.flatnonzero(effect[source])
        if len(targets):
            first = int(np.flatnonzero(everywhere[source][order])[0]) // channels * channels
            offset = (base + first) % reach if reach else base + first
            lists.add((source // per_channel, *((base + int(t) - offset, int(effect[source, t])) for t in targets)))
    return [len(found) - 1 for found in lists]


def bits_of_part(deployment: Deployment, wire: Any, order: Ints, channels: int, base: int, table: SynapseTable) -> int:
    """Fewest bits for the synapses of a weight layer into a part."""
    counts = np.count_nonzero(reached(deployment, wire)[:, order], axis=1)
    counts = counts[counts > 0]
    weight = weight_bits(weights_of(deployment, wire.weight), table)
    delay = max(0, wire.most + deployment.latency_gap(wire)).bit_length()
    index = min((field for field in table.index_fields if 1 << field >= base + len(order)), default=0)
    found = [sum(list_bits(int(n), weight + delay + index, table) for n in counts)]
    found.append(sum(list_bits(len(order), weight + delay, table) for _ in counts))
    if isinstance(deployment.graph.nodes[wire.weight], nir.Conv1d | nir.Conv2d):
        if table.kernel_once:
            kernel = deployment.graph.nodes[wire.weight].weight
            found.append(list_bits(channels * int(np.prod(kernel.shape[1:])), weight + delay, table))
        else:
            lists = shared_lists(deployment, wire, order, channels, base, table.base_reach)
            found.append(sum(list_bits(n, weight + delay + index, table) for n in lists))
    return min(found)


def recount(deployment: Deployment, placement: Placement) -> list[dict[str, int]]:
    """Neurons, synapse bits and axons of every core. Also asserts that every neuron has exactly one core."""
    table, shapes = placement.chip.synapses, {layer.name: layer.shape for layer in placement.layers}
    assert table is not None
    owner = {name: np.full(int(np.prod(deployment.shapes[name])), -1) for name in deployment.layers}
    found: list[dict[str, int]] = [defaultdict(int) for _ in placement.cores]
    for number, core in enumerate(placement.cores):
        sources: dict[str, set[int]] = defaultdict(set)
        for piece in core.pieces:
            order = local_order(piece.box, shapes[piece.population])
            assert len(order) == piece.neurons and np.all(owner[piece.population][order] == -1)
            owner[piece.population][order] = number
            channels = piece.box[0][1] - piece.box[0][0] if len(piece.box) > 1 else 1
            for wire in deployment.wires[piece.population]:
                effect = reached(deployment, wire)[:, order]
                sources[wire.source].update(np.flatnonzero(effect.any(axis=1)).tolist())
                found[number]["synapse_memory"] += bits_of_part(
                    deployment, wire, order, channels, found[number]["neurons"], table
                )
            always = -(-np.abs(deployment.current_bias(piece.population).reshape(-1)[order]) // WEIGHT_MAX)
            sources[f"always on {piece.population}"].update(range(int(always.max(initial=0))))
            found[number]["neurons"] += piece.neurons
        found[number]["axons_in"] = sum(len(neurons) for neurons in sources.values())
    assert all(np.all(cores >= 0) for cores in owner.values())
    for name, cores in owner.items():
        sends: list[set[int]] = [set() for _ in cores]
        for target, wires in deployment.wires.items():
            for wire in wires:
                if wire.source == name:
                    for neuron, hit in zip(*np.nonzero(reached(deployment, wire)), strict=True):
                        sends[neuron].add(int(owner[target][hit]))
        for neuron, core_of in enumerate(cores):
            found[core_of]["axons_out"] += len(sends[neuron])
            if deployment.contract.readout.rule == "spike_count" and deployment.contract.readout.node == name:
                found[core_of]["axons_out"] += 1
    return found


def assert_within_limits(deployment: Deployment, placement: Placement) -> None:
    """Every core as recounted, and under every limit."""
    for core, counted in zip(placement.cores, recount(deployment, placement), strict=True):
        for name, capacity in placement.chip.capacities.items():
            assert core.used[name] <= capacity, name
        assert core.used["neurons"] == counted["neurons"]
        assert core.used["axons_in"] == counted["axons_in"]
        assert core.used["axons_out"] == counted["axons_out"]
        assert core.used["synapse_memory"] >= counted["synapse_memory"]


def convolutional(rng: np.random.Generator) -> Deployment:
    """Two convolutions, one of them grouped, and a dense readout."""
    return conv_deployment(rng, steps=4)


def residual(rng: np.random.Generator) -> Deployment:
    """A stem, a convolution, and a population that adds the stem, unchanged and through a second convolution."""
    channels = int(rng.integers(2, 5))
    stem = random_conv(rng, "stem", "input", (2, channels))
    one = LayerPlan("one", even(rng, (channels, channels, 3, 3)), "stem", padding=(1, 1), threshold=300)
    added = SynapsePlan(2 * rng.integers(1, 100, (1,)), "stem", scale=True)
    kernel = SynapsePlan(even(rng, (channels, channels, 1, 1)), "stem")
    two = LayerPlan("two", even(rng, (channels, channels, 3, 3)), "one", padding=(1, 1), threshold=300, more=(added, kernel))
    partial = deployment_from(Plan((2, 7, 6), (stem, one, two), 4))
    size = int(np.prod(partial.shapes["two"]))
    return deployment_from(Plan((2, 7, 6), (stem, one, two, LayerPlan("readout", even(rng, (5, size), 60), "two")), 4))


def recurrent(rng: np.random.Generator) -> Deployment:
    """A filtered population that hears itself and, with a delay, a later one; biases of its current; sparse weights."""
    size = int(rng.integers(4, 20))
    thin = even(rng, (size, size)) * (rng.random((size, size)) < 0.3)
    back = SynapsePlan(even(rng, (size, 6)) * (rng.random((size, 6)) < 0.5), "later", before=int(rng.integers(2, 6)))
    biases = 2 * rng.integers(-400, 400, size)
    loop = LayerPlan(
        "loop", even(rng, (size, 9)), "input", du=1500, threshold=500, current_bias=biases, more=(SynapsePlan(thin, "loop"), back)
    )
    later = random_dense(rng, "later", "loop", (size, 6))
    return deployment_from(Plan((9,), (loop, later, LayerPlan("readout", even(rng, (3, 6)), "later")), 4, events=True))


def in_one_dimension(rng: np.random.Generator) -> Deployment:
    """A Conv1d with a stride and a dilation, behind it a matrix into a population of maps."""
    first = LayerPlan("first", even(rng, (4, 2, 3)), "input", stride=(2,), padding=(1,), dilation=(2,), threshold=200)
    partial = deployment_from(Plan((2, 20), (first,), 4))
    size = int(np.prod(partial.shapes["first"]))
    return deployment_from(Plan((2, 20), (first, LayerPlan("readout", even(rng, (7, size), 90), "first")), 4))


NETWORKS = (convolutional, residual, recurrent, in_one_dimension)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(NETWORKS), st.integers(0, 10_000), st.integers(0, 10_000))
def test_no_limit_is_ever_exceeded(network: Any, seed: int, chip_seed: int) -> None:
    deployment, rng = network(np.random.default_rng(seed)), np.random.default_rng(chip_seed)
    if rng.random() < 0.5:
        deployment = deployment.replace(contract=deployment.contract.model_copy(update={"readout": SPIKES}))
    chip = tiny_chip(
        LOIHI1 if rng.random() < 0.7 else load_chip("loihi2"),
        neurons=int(rng.integers(3, 80)), axons_in=int(rng.integers(40, 400)), axons_out=int(rng.integers(10, 300)),
        synapse_memory=int(rng.integers(4_000, 60_000)), synapse_formats=int(rng.integers(3, 8)),
    )  # fmt: skip
    try:
        placement = place(deployment, chip, settings=PlacementSettings(chips=1000, kicks=2))
    except UserError as error:
        assert_impossible(deployment, chip, error)
        return
    assert_within_limits(deployment, placement)
    assert placement.spike_hops <= placement.naive_spike_hops
    weighted = sum(link.packets * (placement.mesh.interchip if link.between_chips else 1) for link in placement.links)
    assert weighted == pytest.approx(placement.spike_hops, rel=1e-12)
    assert sum(item.spike_hops for item in placement.journeys.values()) == pytest.approx(placement.spike_hops, rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(NETWORKS), st.integers(0, 1000))
def test_what_adds_up_takes_at_least_the_sum_on_a_shared_core(network: Any, seed: int) -> None:
    """Packing skips cores by this sum without looking closer."""
    deployment = network(np.random.default_rng(seed))
    chip = tiny_chip(LOIHI1 if seed % 2 else load_chip("loihi2"), neurons=12)
    assert chip.synapses is not None
    cut = partitioned(deployment, chip, chip.synapses, population_needs(deployment, chip.synapses))
    parts = [part for found in cut.cuts.values() for part in found.parts]
    for one, other in pairwise([*parts, parts[0]]):
        behind = Part(other.population, other.box, one.neurons)
        together = core_amounts((one, behind), 7, chip.synapses)
        alone = [core_amounts((part,), axons, chip.synapses) for part, axons in ((one, 3), (other, 4))]
        for name, resource in RESOURCES.items():
            assert not resource.adds_up or together[name] >= sum(amounts[name] for amounts in alone), name


def assert_impossible(deployment: Deployment, chip: ChipTable, error: UserError) -> None:
    """The neuron that the refusal names does exceed the limit by itself."""
    assert error.code in ("SNX453", "SNX454")
    assert chip.synapses is not None
    name, _, place_of = error.diagnostics[0].where.partition("[")
    if error.code == "SNX454":
        fan = sum(
            np.count_nonzero(reached(deployment, w), axis=1) for ws in deployment.wires.values() for w in ws if w.source == name
        )
        assert np.max(fan) > chip.capacities["axons_out"]
        return
    at = tuple(int(n) for n in place_of.rstrip("]").split(","))
    wires = deployment.wires[name]
    maps = [deployment.shapes[w.weight] for w in wires if isinstance(deployment.graph.nodes[w.weight], nir.Conv1d | nir.Conv2d)]
    order = np.array([np.ravel_multi_index(at, maps[0] if maps else deployment.shapes[name])])
    heard = {w.source: np.zeros(int(np.prod(deployment.shapes[w.source])), bool) for w in wires}
    for wire in wires:
        heard[wire.source] |= reached(deployment, wire)[:, order[0]] != 0
    always = -(-np.abs(deployment.current_bias(name).reshape(-1)[order[0]]) // WEIGHT_MAX)
    memory = sum(bits_of_part(deployment, wire, order, 1, 0, chip.synapses) for wire in wires)
    too_many_axons = sum(int(mask.sum()) for mask in heard.values()) + always > chip.capacities["axons_in"]
    too_many_bits = memory + 74 * always > chip.capacities["synapse_memory"]
    too_many_formats = len(wires) + (always > 0) > chip.capacities.get("synapse_formats", len(wires) + 1)
    assert too_many_axons or too_many_bits or too_many_formats


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(NETWORKS), st.integers(0, 1000))
def test_memory_is_exact_where_all_weights_differ_from_zero(network: Any, seed: int) -> None:
    """Patterns that the code counts as different lists are different lists: the recount compares their contents."""
    deployment = network(np.random.default_rng(seed))
    placement = place(deployment, tiny_chip(neurons=60, synapse_memory=1 << 20), settings=PlacementSettings(chips=1000, kicks=0))
    always = any(np.any(deployment.current_bias(name)) for name in deployment.layers)
    full = all(np.all(synapse.weight) for synapse in deployment.synapses.values())
    for core, counted in zip(placement.cores, recount(deployment, placement), strict=True):
        if full and not always:
            assert core.used["synapse_memory"] == counted["synapse_memory"]
        else:
            assert core.used["synapse_memory"] >= counted["synapse_memory"]


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(NETWORKS), st.integers(0, 1000))
def test_the_same_network_gives_the_same_placement(network: Any, seed: int) -> None:
    chip = tiny_chip(neurons=40, synapse_memory=1 << 20)
    found = [place(network(np.random.default_rng(seed)), chip, settings=PlacementSettings(chips=1000)) for _ in range(2)]
    assert found[0] == found[1]
