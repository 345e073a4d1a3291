"""Every design rule: which networks it is asked of, for which targets, with which codes and limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

from snn_export.export import readiness
from snn_export.export.deployment import Deployment
from snn_export.export.readiness import CheckTarget
from snn_export.hardware_sims.chips.core_resources import MEMORIES, RESOURCES
from snn_export.hardware_sims.lava import expressible as lava
from snn_export.hardware_sims.loihi import rules as loihi
from snn_export.hardware_sims.netx import expressible as netx
from snn_export.hardware_sims.rules import activity, cores, limits, neurons
from snn_export.hardware_sims.rules.limits import Limit, fixed
from snn_export.hardware_sims.rules.network import CHIP_TARGETS, CHIPS, network
from snn_export.hardware_sims.rules.rule import Form, Needs, Rule
from snn_export.models.diagnostics import Diagnostic, Severity

Function = Callable[..., Iterable[Diagnostic]]
Codes = Mapping[str, Limit]

EVERY: tuple[CheckTarget, ...] = get_args(CheckTarget)
ON_LOIHI: tuple[CheckTarget, ...] = (*CHIP_TARGETS, "loihi")
NO_FIELD = frozenset({"SNX304", "SNX327", "SNX230"})
"""Weights or delays that no register holds: their memory cannot be worked out."""
NO_PART = NO_FIELD | {"SNX453", "SNX454", "SNX458", "SNX480", "SNX481"}
"""A neuron that fits no core: cores cannot be counted."""

_GRAPH: Codes = {
    "SNX104": limits.EDGES, "SNX201": limits.TYPES, "SNX204": limits.LOOPS, "SNX206": limits.SHAPES, "SNX218": limits.WAYS,
}  # fmt: skip
_TIME: Codes = {"SNX207": limits.LOOP_STEPS, "SNX249": limits.OWN_STEP}


def _floats(function: Function, codes: Codes) -> Rule:
    """A rule of every float network, whatever the target."""
    return Rule(function, "candidate", ("floats",), EVERY, codes)


def _integers(function: Function, codes: Codes, needs: Needs = "graph") -> Rule:
    """A rule of integer Loihi, which its simulator asks too."""
    return Rule(function, "deployment", ("integers",), ON_LOIHI, codes, needs)


def _chips(
    function: Function, codes: Codes, forms: tuple[Form, ...] = ("floats", "integers"), needs: Needs = "wires",
    unless: frozenset[str] = frozenset(), severity: Severity = "error",
) -> Rule:  # fmt: skip
    """A rule of the chips themselves."""
    return Rule(function, "network", forms, CHIP_TARGETS, codes, needs, unless, severity)


FLOATS = (
    _floats(readiness.resets_are_possible, {"SNX203": limits.resets}),
    _floats(readiness.constants_are_canonical, {"SNX262": fixed("v_leak = v_reset = 0, r > 0, threshold > 0", limits.OURS)}),
    _floats(readiness.decays_are_the_contracts, {"SNX107": limits.DECAYS}),
    _floats(readiness.node_types_are_known, {"SNX201": limits.TYPES}),
    _floats(readiness.delays_are_whole_steps, {"SNX248": limits.STEPS}),
    _floats(
        readiness.graph_is_readable,
        {**{code: limit for code, limit in _GRAPH.items() if code != "SNX201"}, "SNX205": limits.ENDS},
    ),
    _floats(readiness.hosts_do_not_filter, {"SNX278": limits.BIASES_OF_HOSTS}),
    _floats(readiness.loops_take_time, _TIME),
    _floats(readiness.connections_can_be_one_layer, {"SNX260": limits.MATRIX, "SNX264": limits.DELAY_PLACES}),
    _floats(readiness.readouts_are_uniform, {"SNX261": limits.THRESHOLDS}),
    _floats(readiness.populations_can_be_uniform, {"SNX261": limits.THRESHOLDS}),
    _floats(readiness.gains_can_be_folded, {"SNX242": limits.GAINS}),
    _floats(readiness.waits_fit, {"SNX230": limits.delays}),
)
"""What keeps a float network from being quantised."""

INPUTS = (
    Rule(readiness.input_can_be_seen, "candidate", ("floats", "integers"), ("loihi1",), {"SNX247": limits.GRADED}),
)  # fmt: skip

INTEGERS = (
    _integers(loihi.graph_is_readable, {**_GRAPH, **_TIME, "SNX248": limits.STEPS}, "nothing"),
    _integers(loihi.integers_exist, {"SNX302": limits.INTEGERS}),
    _integers(loihi.connections_are_single_layers, {"SNX209": limits.WEIGHTS_OF_ONE}),
    Rule(neurons.delays_are_whole_steps, "network", ("integers",), ON_LOIHI, {"SNX248": limits.STEPS}),
    Rule(loihi.resets_are_known, "deployment", ("integers",), ("loihi",), {"SNX203": limits.resets}),
    _chips(neurons.resets_fit_the_chip, {"SNX203": limits.resets}, ("integers",), "nothing"),
    _chips(neurons.thresholds_are_shared, {"SNX245": limits.THRESHOLDS}, ("integers",), "nothing"),
    _integers(loihi.integers_fit, {"SNX304": limits.VALUES}),
    _integers(loihi.delays_fit, {"SNX327": limits.delays}, "wires"),
    _integers(loihi.bias_sums_fit, {"SNX304": limits.BIAS_SUMS}, "wires"),
    _integers(loihi.thresholds_without_memory_forget, {"SNX328": limits.MEMORY}, "wires"),
    _integers(loihi.sums_are_exact, {"SNX305": limits.EXACT_SUMS}, "wires"),
)
"""What keeps a quantised network from a chip, or from its simulator."""

CORES = (
    _chips(cores.fan_in_fits_axons, {"SNX480": limits.of_core("axons_in")}),
    _chips(cores.synapses_fit_one_core, {"SNX481": limits.of_any_core(*MEMORIES)}),
    _chips(cores.weights_and_delays_have_fields, {"SNX458": limits.of_any_fact("weight_bits", "delay")}, unless=NO_FIELD),
    _chips(
        cores.parts_fit_cores,
        {
            "SNX453": limits.of_any_core(*RESOURCES),
            "SNX454": limits.of_core("axons_out"),
        },
        unless=NO_PART,
    ),
    _chips(cores.cores_suffice, {"SNX482": limits.cores}, unless=NO_PART),
    _chips(cores.one_chip_suffices, {"SNX483": limits.cores}, unless=NO_PART, severity="note"),
)
"""What does not fit the cores of a chip."""

WARNINGS = (
    _chips(activity.states_cannot_overflow, {"SNX309": limits.STATE}, ("integers",), unless=NO_FIELD, severity="warning"),
    _chips(activity.thresholds_can_be_reached, {"SNX484": limits.FIRES}, unless=NO_FIELD, severity="warning"),
    _chips(activity.populations_are_heard, {"SNX485": limits.CONNECTED}, needs="nothing", severity="warning"),
    _chips(activity.weights_connect, {"SNX486": limits.ONE_WEIGHT}, severity="warning"),
)
"""What runs, and is hardly meant."""

BACKENDS = (
    Rule(
        lava.findings, "deployment", ("integers",), ("lava",),
        {
            **_GRAPH, **_TIME, "SNX248": limits.STEPS, "SNX302": limits.INTEGERS, "SNX227": limits.INTEGERS,
            "SNX203": limits.TO_ZERO, "SNX221": limits.NEURON_VALUES, "SNX222": limits.BIAS_VALUES,
            "SNX223": limits.WEIGHT_VALUES, "SNX224": fixed("weight exponent 0..7: it shifts the sum up only", limits.LAVA),
            "SNX225": limits.WEIGHTS_OF_ONE,
            "SNX226": fixed(f"a matrix of {lava.ENTRIES_MAX:,} entries, where Conv cannot hold a convolution", limits.LAVA),
            "SNX228": fixed(f"Conv: sums below {lava.CONV_SUM_LIMIT:,}; u below {lava.REGISTER_LIMIT:,}", limits.LAVA),
            "SNX229": fixed("the latency that the graph has", limits.OURS), "SNX230": limits.delays,
            "SNX231": fixed("even biases of the current", limits.LAVA), "SNX328": limits.MEMORY,
        },
    ),
    Rule(
        netx.findings, "deployment", ("integers",), ("netx",),
        {
            **_GRAPH, "SNX209": limits.WEIGHTS_OF_ONE, "SNX248": limits.STEPS, "SNX249": limits.OWN_STEP,
            "SNX302": limits.INTEGERS, "SNX227": limits.INTEGERS, "SNX203": limits.TO_ZERO,
            "SNX250": fixed("one layer behind the other, loops only from a layer to itself", limits.NETX),
            "SNX251": fixed("dense layers and Conv2d with sizes up to 127", limits.NETX),
            "SNX252": fixed("bias mantissa -4096..4095 << 6", limits.NETX),
            "SNX253": fixed("weights of eight bits without an exponent", limits.NETX),
            "SNX254": fixed("delays of dense layers, up to 62 steps", limits.NETX),
            "SNX255": fixed("one factor and one offset of the input", limits.NETX),
            "SNX256": limits.NETX_NEURONS,
            "SNX257": fixed("a bias of the current only behind dense layers without delays", limits.NETX),
            "SNX258": fixed(
                f"Conv: sums below {netx.CONV_SUM_LIMIT:,}; u below {netx.REGISTER_LIMIT:,}; delays {netx.DELAY_BYTES >> 30} GiB",
                limits.NETX,
            ),
        },
    ),
)  # fmt: skip
"""What the process models of Lava, and lava-dl's netx, cannot run as the contract says."""

RULES: tuple[Rule, ...] = (*FLOATS, *INPUTS, *INTEGERS, *CORES, *WARNINGS, *BACKENDS)


def check(deployment: Deployment, target: CheckTarget = "loihi2", chips: int = CHIPS) -> list[Diagnostic]:
    """Everything that a network's target has to say about it, all at once.

    Args:
        deployment: float or quantised.
        target: a chip or a backend.
        chips: how many chips it may take.

    Returns:
        Findings in the order of the rules: errors, and for chips warnings and notes, which keep nothing from running.
    """
    asked, found = network(deployment, target, chips), dict[object, Diagnostic]()
    for rule in (rule for rule in RULES if rule.applies(asked) and rule.can_be_asked(asked)):
        if rule.unless.isdisjoint(item.code for item in found.values()):
            # A connection of a float network may be refused on several ways: said once.
            found |= {(item.code, item.where) if rule.takes == "candidate" else item: item for item in rule.ask(asked)}
    return list(dict.fromkeys(found.values()))
