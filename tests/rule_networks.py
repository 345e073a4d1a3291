"""For every design rule and code a network that breaks it, made without torch, and networks that break none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import nir
import numpy as np

from snn_export.export import chains
from snn_export.export import graph as graphs
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.populations import with_constants
from snn_export.hardware_sims.chips.chip_table import ChipTable, load_chip
from snn_export.models.spec import EncoderSpec, NeuronSpec
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from

Make = Callable[[], Deployment]
LAYER = LayerPlan("layer", np.full((3, 4), 2), dv=2048, threshold=1)
MAPS = LayerPlan("layer", np.full((2, 1, 3, 2), 2), dv=2048, threshold=1)
SQUARE = np.full((3, 3), 2)


def dense(high: int = 1, inputs: int = 4, more: tuple[LayerPlan, ...] = (), **changes: Any) -> Deployment:
    """One dense layer, and others behind it."""
    return deployment_from(Plan((inputs,), (replace(LAYER, **changes), *more), high=high))


def conv(shape: tuple[int, ...] = (1, 6, 5), high: int = 1, **changes: Any) -> Deployment:
    """One convolution."""
    return deployment_from(Plan(shape, (replace(MAPS, **changes),), high=high))


def floats(made: Deployment) -> Deployment:
    """The same network without its integers."""
    contract = made.contract.model_copy(update={"quantisation": None})
    return made.replace(contract=contract, synapses={}, populations={})


def with_contract(made: Deployment, **changes: Any) -> Deployment:
    return made.replace(contract=made.contract.model_copy(update=changes))


def with_spec(made: Deployment, spec: NeuronSpec, name: str = "layer") -> Deployment:
    return with_contract(made, neurons={**made.contract.neurons, name: spec})


def with_node(made: Deployment, name: str, **constants: Any) -> Deployment:
    """Other constants of a neuron node, each one number or one per neuron."""
    node = made.graph.nodes[name]
    changes = {key: np.broadcast_to(value, getattr(node, key).shape).astype(float) for key, value in constants.items()}
    return made.replace(graph=replace_nodes(made.graph, {name: with_constants(node, **changes)}))


def with_integers(made: Deployment, **changes: int) -> Deployment:
    return made.replace(populations={**made.populations, "layer": replace(made.populations["layer"], **changes)})


def with_graph(made: Deployment, nodes: Mapping[str, Any], *edges: tuple[str, str], without: tuple[Any, ...] = ()) -> Deployment:
    """More nodes and edges, and some edges less."""
    kept = [edge for edge in made.graph.edges if edge not in without]
    return made.replace(graph=nir.NIRGraph({**made.graph.nodes, **nodes}, [*kept, *edges], type_check=False))


class Unheard(nir.NIRNode):
    """A node type that nothing here knows."""

    def __init__(self) -> None:
        self.metadata = {}


def between(made: Deployment, node: Any) -> Deployment:
    """A node between the weights and the layer."""
    return with_graph(made, {"odd": node}, ("layer.weight", "odd"), ("odd", "layer"), without=(("layer.weight", "layer"),))


def loop_without_neuron() -> Deployment:
    ones = {"a": nir.Scale(np.ones(4)), "b": nir.Scale(np.ones(4))}
    return with_graph(dense(), ones, ("input", "a"), ("a", "b"), ("b", "a"), ("b", "layer.weight"))


def fast_loop() -> Deployment:
    """Two connections in a loop, and one step of delay."""
    back = SynapsePlan(SQUARE, "second", before=2)
    slow = dense(more=(LayerPlan("second", SQUARE, "layer", dv=2048, threshold=1),))
    plans = (replace(LAYER, more=(back,)), LayerPlan("second", SQUARE, "layer", dv=2048, threshold=1))
    slow = deployment_from(Plan((4,), plans))
    edges = [*((a, b) for a, b in slow.graph.edges if "before" not in a + b), ("second", "layer.weight1")]
    nodes = {name: node for name, node in slow.graph.nodes.items() if "before" not in name}
    return slow.replace(graph=nir.NIRGraph(nodes, edges, type_check=False))


def timeless_loop() -> Deployment:
    """A loop whose delay is said to be nothing."""
    made = dense(more=(), weight=np.full((3, 4), 2))
    nodes = {"wait": nir.Delay(np.zeros(3)), "back": nir.Affine(SQUARE.astype(float), np.zeros(3))}
    made = with_graph(made, nodes, ("layer", "wait"), ("wait", "back"), ("back", "layer"))
    return made if not made.quantised else made.replace(synapses={**made.synapses, "back": made.synapses["layer.weight"]})


def chained(rows: int) -> Deployment:
    """Two dense layers without a neuron between them."""
    weights = {"wide": nir.Linear(np.ones((rows, 4))), "layer.weight": nir.Linear(np.ones((3, rows)))}
    edges = [("input", "wide"), ("wide", "layer.weight")]
    return with_graph(floats(dense()), weights, *edges, without=(("input", "layer.weight"),))


def delay_inside() -> Deployment:
    made = chained(5)
    waits = {"wait": nir.Delay(np.arange(5) * 1e-3)}
    return with_graph(made, waits, ("wide", "wait"), ("wait", "layer.weight"), without=(("wide", "layer.weight"),))


def filtered_host() -> Deployment:
    made = floats(dense(du=2000))
    return with_contract(made, encoder=EncoderSpec("bias"))


def graded(encoder: EncoderSpec) -> Deployment:
    return with_contract(dense(), encoder=encoder)


def uneven_resistance() -> Deployment:
    made = floats(conv())
    rows = np.linspace(1, 2, made.graph.nodes["layer"].r.size).reshape(made.graph.nodes["layer"].r.shape)
    return with_node(made, "layer", r=rows)


def without_memory(threshold: int, weight: int = 32) -> Deployment:
    """A Threshold whose membrane can reach 256 times its weight."""
    made = dense(weight=np.full((3, 4), weight), threshold=threshold, dv=4095)
    graph = replace_nodes(made.graph, {"layer": nir.Threshold(np.full(3, float(threshold)))})
    return with_spec(made.replace(graph=graph), NeuronSpec(4096))


def many_formats() -> Deployment:
    """A population with nine formats of synapses: eight weight exponents of both signs, seven delays of one."""
    rng = np.random.default_rng(0)
    mixed = 2 * rng.integers(-100, 100, (3, 4)) + 2
    plans = tuple(SynapsePlan(np.abs(mixed), before=1 << bit) for bit in range(6))
    plans += tuple(SynapsePlan(mixed, before=1 << bit) for bit in range(6))
    return dense(weight=mixed, more=(), **{"more": ()}) if not plans else _several(mixed, plans)


def _several(weight: Any, plans: tuple[SynapsePlan, ...]) -> Deployment:
    return deployment_from(Plan((4,), (replace(LAYER, weight=weight, more=plans),)))


def wide_output() -> Deployment:
    return dense(more=(LayerPlan("second", np.full((5, 3), 2), "layer", dv=2048, threshold=1),))


def pooled() -> Deployment:
    made = conv()
    pool = nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    nodes = {"pool": pool, "layer": nir.LIF(*(np.ones((2, 1, 1)) for _ in range(5)))}
    return with_graph(made, nodes, ("input", "pool"), ("pool", "layer.weight"), without=(("input", "layer.weight"),))


def diagonal() -> Deployment:
    return dense(weight=np.full(4, 2), scale=True)


def side_branch(weight: Any = SQUARE) -> Deployment:
    """A population beside the readout, which nobody hears."""
    plans = (LAYER, LayerPlan("side", weight, "layer", dv=2048, threshold=1))
    return deployment_from(Plan((4,), plans, readout="layer"))


def host_matrix() -> Deployment:
    return deployment_from(Plan((4,), (LAYER,), encoder=EncoderSpec("bias")))


def small_chip(rows: int = 1, **capacities: int) -> ChipTable:
    """Loihi 1 with other limits of a core, and one core per router."""
    chip = load_chip("loihi1")
    limits = {**chip.limits, **{name: chip.limits[name].model_copy(update={"value": value}) for name, value in capacities.items()}}
    assert chip.mesh is not None
    mesh = chip.mesh.model_copy(update={"rows": rows, "columns": 1, "cores_per_router": 1})
    return chip.model_copy(update={"limits": limits, "mesh": mesh})


@dataclass(frozen=True)
class Broken:
    """A network that breaks a rule. chip, chips: in place of the target's own. limit: (module, name, value) to be patched."""

    make: Make
    target: Any = ""
    chip: ChipTable | None = None
    chips: int = 32
    limit: tuple[Any, str, int] | None = None


@dataclass(frozen=True)
class Examples:
    """By code; those of ``floats`` and ``integers`` come before those of both."""

    both: Mapping[str, Broken] = field(default_factory=dict)
    floats: Mapping[str, Broken] = field(default_factory=dict)
    integers: Mapping[str, Broken] = field(default_factory=dict)
