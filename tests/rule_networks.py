"""For every design rule and code a network that breaks it, and networks that break none. Made without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np

from snn_export.export import chains
from snn_export.export import graph as graphs
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.populations import with_constants
from snn_export.export.targets import MOST_CHIPS
from snn_export.hardware_sims.chips.chip_table import ChipTable, load_chip
from snn_export.hardware_sims.rules.rule import DesignRule, Form
from snn_export.models.spec import EncoderSpec, NeuronSpec
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from

LAYER = LayerPlan("layer", np.array([[6, -4, 2, 8]] * 3), dv=2048, threshold=1)
MAPS = LayerPlan("layer", np.array([[[[6, -4], [2, 8], [4, -2]]]] * 2), dv=2048, threshold=1)
SQUARE = np.array([[2, -4, 6]] * 3)
SECOND = LayerPlan("second", SQUARE, "layer", dv=2048, threshold=1)


def dense(high: int = 1, inputs: int = 4, behind: tuple[LayerPlan, ...] = (), **changes: Any) -> Deployment:
    """One dense layer, and others behind it."""
    return deployment_from(Plan((inputs,), (replace(LAYER, **changes), *behind), high=high))


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


def with_node(made: Deployment, name: str = "layer", **constants: Any) -> Deployment:
    """Other constants of a neuron node, each one number or one per neuron."""
    node = made.graph.nodes[name]
    changes = {key: np.broadcast_to(value, getattr(node, key).shape).astype(float) for key, value in constants.items()}
    return made.replace(graph=replace_nodes(made.graph, {name: with_constants(node, **changes)}))


def with_integers(**changes: int) -> Deployment:
    made = dense()
    return made.replace(populations={"layer": replace(made.populations["layer"], **changes)})


def with_graph(made: Deployment, nodes: Mapping[str, Any], *edges: tuple[str, str], without: tuple[Any, ...] = ()) -> Deployment:
    """More nodes and edges, and some edges less."""
    kept = [edge for edge in made.graph.edges if edge not in without]
    return made.replace(graph=nir.NIRGraph({**made.graph.nodes, **nodes}, [*kept, *edges], type_check=False))


class Unheard(nir.NIRNode):
    """A node type that nothing here knows."""

    def __init__(self) -> None:
        self.metadata = {}


def between(node: Any) -> Deployment:
    """A node between the weights and the layer."""
    edges = (("layer.weight", "odd"), ("odd", "layer"))
    return with_graph(dense(), {"odd": node}, *edges, without=(("layer.weight", "layer"),))


def loop_without_neuron() -> Deployment:
    ones = {"a": nir.Scale(np.ones(4)), "b": nir.Scale(np.ones(4))}
    return with_graph(dense(), ones, ("input", "a"), ("a", "b"), ("b", "a"), ("b", "layer.weight"))


def fast_loop() -> Deployment:
    """Two connections in a loop, and one step of delay."""
    slow = dense(behind=(SECOND,), more=(SynapsePlan(SQUARE, "second", before=2),))
    edges = [*((a, b) for a, b in slow.graph.edges if "before" not in a + b), ("second", "layer.weight1")]
    nodes = {name: node for name, node in slow.graph.nodes.items() if "before" not in name}
    return slow.replace(graph=nir.NIRGraph(nodes, edges, type_check=False))


def timeless_loop() -> Deployment:
    """A loop whose delay is said to be nothing."""
    nodes = {"wait": nir.Delay(np.zeros(3)), "back": nir.Affine(SQUARE.astype(float), np.zeros(3))}
    return with_graph(dense(), nodes, ("layer", "wait"), ("wait", "back"), ("back", "layer"))


def chained(wait: tuple[int, ...] = ()) -> Deployment:
    """Two dense layers without a neuron between them, and a delay per feature."""
    nodes = {"wide": nir.Linear(np.ones((5, 4))), "layer.weight": nir.Linear(np.ones((3, 5)))}
    edges = [("input", "wide"), ("wide", "layer.weight")]
    if wait:
        nodes["wait"], edges[1:] = nir.Delay(np.array(wait) * 1e-3), [("wide", "wait"), ("wait", "layer.weight")]
    return with_graph(floats(dense()), nodes, *edges, without=(("input", "layer.weight"),))


def graded(encoder: EncoderSpec) -> Deployment:
    return with_contract(dense(), encoder=encoder)


def uneven_resistance() -> Deployment:
    made = floats(conv())
    shape = made.graph.nodes["layer"].r.shape
    return with_node(made, r=np.linspace(1, 2, int(np.prod(shape))).reshape(shape))


def without_memory() -> Deployment:
    """A Threshold whose membrane can reach more than its register forgets."""
    made = dense(weight=np.full((3, 4), 32), threshold=131, dv=4095)
    graph = replace_nodes(made.graph, {"layer": nir.Threshold(np.full(3, 131.0))})
    return with_spec(made.replace(graph=graph), NeuronSpec(4096))


def in_many_formats(weight: Any, source: str = "input") -> tuple[SynapsePlan, ...]:
    """Weights of both signs in twelve formats of synapses: six widths of delays, both signs and one."""
    signed = [(held, 1 << bit) for bit in range(6) for held in (weight, np.abs(weight))]
    return tuple(SynapsePlan(held, source, before=steps) for held, steps in signed)


def many_formats() -> Deployment:
    return dense(more=in_many_formats(LAYER.weight))


def pooled() -> Deployment:
    """A pool in front of a convolution."""
    pool = nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    nodes = {"pool": pool, "layer": nir.LIF(*(np.ones((2, 1, 1)) for _ in range(5)))}
    return with_graph(conv(), nodes, ("input", "pool"), ("pool", "layer.weight"), without=(("input", "layer.weight"),))


def small_chip(**capacities: int) -> ChipTable:
    """Loihi 1 with one core per chip, and other limits of it."""
    chip = load_chip("loihi1")
    assert chip.mesh is not None
    limits = {name: chip.limits[name].model_copy(update={"value": value}) for name, value in capacities.items()}
    mesh = chip.mesh.model_copy(update={"rows": 1, "columns": 1, "cores_per_router": 1})
    return chip.model_copy(update={"limits": {**chip.limits, **limits}, "mesh": mesh})


@dataclass(frozen=True)
class Broken:
    """A network that breaks a rule.

    target: the first of the rule where there is none. chip, chips: in place of the target's. patch: (module, name, value), a
    limit of the program that is lowered meanwhile.
    """

    make: Callable[[], Deployment]
    target: Any = None
    chip: ChipTable | None = None
    chips: int = MOST_CHIPS
    patch: tuple[Any, str, int] | None = None


GRAPHS = {
    "SNX104": Broken(lambda: with_graph(dense(), {}, ("input", "layer.weight"))),
    "SNX201": Broken(lambda: between(Unheard())),
    "SNX204": Broken(loop_without_neuron),
    "SNX205": Broken(lambda: with_graph(dense(), {"second": nir.Output(np.array([3]))}, ("layer", "second"))),
    "SNX206": Broken(lambda: between(nir.Linear(np.ones((3, 7))))),
    "SNX207": Broken(fast_loop),
    "SNX218": Broken(dense, patch=(graphs, "PATH_LIMIT", 1)),
    "SNX249": Broken(timeless_loop),
    "loihi.rules.graph_is_readable SNX248": Broken(
        lambda: with_graph(timeless_loop(), {"wait": nir.Delay(np.full(3, 0.5e-3))})
    ),
    "SNX248": Broken(lambda: dense(before=0.5)),
}  # fmt: skip

NEURONS = {
    "SNX107": Broken(lambda: with_node(dense(), tau=1e-3)),
    "SNX203": Broken(lambda: with_spec(dense(), NeuronSpec(2048, reset_delay=1))),
    "neurons.resets_fit_the_chip SNX203": Broken(lambda: with_spec(dense(), NeuronSpec(2048, reset="subtract")), "loihi1"),
    "SNX242": Broken(uneven_resistance),
    "SNX245": Broken(lambda: with_node(dense(), v_threshold=[1, 1, 2])),
    "SNX247": Broken(lambda: graded(EncoderSpec("direct", gain=1.0, high=16)), "loihi1"),
    "SNX260": Broken(chained, patch=(chains, "MATRIX_LIMIT", 4)),
    "SNX261": Broken(lambda: with_node(dense(), v_threshold=[1, 1, 2])),
    "SNX262": Broken(lambda: with_node(dense(), v_leak=0.1)),
    "SNX264": Broken(lambda: chained(wait=(0, 1, 2, 3, 4))),
    "SNX278": Broken(lambda: with_contract(dense(du=2000), encoder=EncoderSpec("bias"))),
}

INTEGERS = {
    "SNX209": Broken(pooled),
    "SNX302": Broken(lambda: dense().replace(synapses={})),
    "SNX304": Broken(lambda: dense(weight=np.array([[2, 3, -2, 2]]))),
    "loihi.rules.bias_sums_fit SNX304": Broken(
        lambda: dense(bias=np.full(3, 4000), more=(SynapsePlan(LAYER.weight, bias=np.full(3, 4000)),))
    ),
    "SNX305": Broken(lambda: dense(1 << 24, 20_000, weight=np.full((1, 20_000), 254), weight_exponent=7)),
    "SNX327": Broken(lambda: dense(before=40, after=23)),
    "SNX328": Broken(without_memory),
}

CORES = {
    "SNX480": Broken(lambda: dense(inputs=5000, weight=np.full((2, 5000), 2)), "loihi1"),
    "SNX481": Broken(lambda: dense(inputs=200_000, weight=np.full((1, 200_000), 253)), "loihi2"),
    "SNX453": Broken(many_formats, "loihi1"),
    "SNX454": Broken(
        lambda: dense(behind=(replace(SECOND, weight=np.full((5, 3), 2)),)), "loihi1", small_chip(neurons=1, axons_out=4)
    ),
    "SNX482": Broken(dense, "loihi1", small_chip(neurons=1), chips=2),
    "SNX483": Broken(dense, "loihi1", small_chip(neurons=1)),
}

WARNINGS = {
    "SNX309": Broken(lambda: dense(1 << 22)),
    "SNX484": Broken(lambda: dense(threshold=131_071)),
    "SNX485": Broken(lambda: deployment_from(Plan((4,), (LAYER, replace(SECOND, name="side")), readout="layer"))),
    "SNX486": Broken(lambda: dense(weight=np.zeros((3, 4), np.int64))),
}

LAVA = {
    "SNX302": Broken(lambda: graded(EncoderSpec("direct"))),
    "SNX227": Broken(lambda: dense().replace(synapses={})),
    "SNX203": Broken(lambda: with_spec(dense(), NeuronSpec(2048, reset="subtract"))),
    "SNX221": Broken(lambda: with_integers(threshold=1 << 17)),
    "SNX222": Broken(lambda: dense(bias=np.array([0, 4096, 0]))),
    "SNX223": Broken(lambda: dense(weight=np.array([[2, 3, -2, 2]]))),
    "SNX224": Broken(lambda: dense(weight_exponent=-1)),
    "SNX225": Broken(pooled),
    "SNX226": Broken(lambda: conv((1, 1, 30_000), weight=np.full((2, 1, 1, 3000), 2), padding="same")),
    "SNX228": Broken(lambda: dense(1 << 22)),
    "SNX229": Broken(lambda: with_contract(dense(), latency={"layer": 2})),
    "SNX230": Broken(lambda: dense(before=40, after=23)),
    "SNX231": Broken(lambda: dense(current_bias=np.array([0, 3, 0]))),
}

NETX = {
    "SNX302": LAVA["SNX302"],
    "SNX227": LAVA["SNX227"],
    "SNX203": LAVA["SNX203"],
    "SNX250": Broken(lambda: dense(behind=(replace(SECOND, more=(SynapsePlan(LAYER.weight),)),))),
    "SNX251": Broken(lambda: dense(weight=np.array([2, -4, 6, 2]), scale=True)),
    "SNX252": Broken(lambda: dense(bias=np.array([1, 0, 0]))),
    "SNX253": Broken(lambda: dense(weight_exponent=7)),
    "SNX254": Broken(lambda: conv(after=1)),
    "SNX255": Broken(lambda: deployment_from(Plan((4,), (LAYER,), encoder=EncoderSpec("bias")))),
    "SNX256": Broken(lambda: with_integers(du=-1)),
    "SNX257": Broken(lambda: conv(current_bias=np.array([2, 0]), du=2000)),
    "SNX258": Broken(lambda: dense(1 << 22)),
}

EXAMPLES: Mapping[str, Broken] = {
    **GRAPHS, **NEURONS, **INTEGERS, **CORES, **WARNINGS,
    **{f"lava.expressible.findings {code}": example for code, example in LAVA.items()},
    **{f"netx.expressible.findings {code}": example for code, example in NETX.items()},
    "floats SNX230": Broken(lambda: dense(before=40, after=23)),
}  # fmt: skip
"""By "rule code", "form code" or "code", whichever there is first."""

CLEAN: tuple[Callable[[], Deployment], ...] = (dense, conv, lambda: dense(behind=(SECOND,)))
"""Networks that break no rule of any target."""


def example_of(rule: DesignRule, code: str, form: Form) -> Broken | None:
    """A network that breaks this rule so that it finds this code; None where nobody made one."""
    keys = (f"{rule.name} {code}", f"{form} {code}", code)
    return next((EXAMPLES[key] for key in keys if key in EXAMPLES), None)


def in_form(made: Deployment, form: Form) -> Deployment:
    return floats(made) if form == "floats" and made.quantised else made
