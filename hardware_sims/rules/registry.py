"""Every design rule: which networks it is asked of, for which targets, with which codes and limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, get_args

from snn_export.export import readiness
from snn_export.export.chips import Chip, chip_of
from snn_export.export.deployment import Deployment
from snn_export.export.readiness import Candidate
from snn_export.export.targets import MOST_CHIPS, CheckTarget
from snn_export.hardware_sims.chips.core_resources import MEMORIES, RESOURCES
from snn_export.hardware_sims.lava import expressible as lava
from snn_export.hardware_sims.loihi import rules as loihi
from snn_export.hardware_sims.netx import expressible as netx
from snn_export.hardware_sims.rules import activity, cores, limits, neurons
from snn_export.hardware_sims.rules.fit import Fit, fit_of
from snn_export.hardware_sims.rules.limits import LimitOnTarget, fixed
from snn_export.hardware_sims.rules.network import CHIP_TARGETS, Network, network
from snn_export.hardware_sims.rules.rule import DesignRule, Findings, Form, Needs, of_candidate, of_deployment
from snn_export.models.diagnostics import Diagnostic, Severity

Codes = Mapping[str, LimitOnTarget]

EVERY: tuple[CheckTarget, ...] = get_args(CheckTarget)
ON_LOIHI: tuple[CheckTarget, ...] = (*CHIP_TARGETS, "loihi")

_GRAPH: Codes = {
    "SNX104": limits.EDGES, "SNX201": limits.TYPES, "SNX204": limits.LOOPS, "SNX206": limits.SHAPES, "SNX218": limits.WAYS,
}  # fmt: skip
_TIME: Codes = {"SNX207": limits.LOOP_STEPS, "SNX249": limits.OWN_STEP}


def _where(holds: Callable[[Chip], bool]) -> tuple[CheckTarget, ...]:
    """Targets whose chip is such a one."""
    return tuple(target for target in EVERY if holds(chip_of(target)))


def _floats(function: Callable[[Candidate], Iterable[Diagnostic]], codes: Codes) -> DesignRule:
    """A rule of every float network, whatever the target."""
    return DesignRule(of_candidate(function), ("floats",), EVERY, codes)


def _integers(function: Callable[[Deployment], Iterable[Diagnostic]], codes: Codes, needs: Needs = "graph") -> DesignRule:
    """A rule of integer Loihi, which its simulator asks too."""
    return DesignRule(of_deployment(function), ("integers",), ON_LOIHI, codes, needs)


def _chips(
    function: Findings, codes: Codes, forms: tuple[Form, ...] = ("floats", "integers"), needs: Needs = "wires",
    severity: Severity = "error",
) -> DesignRule:  # fmt: skip
    """A rule of the chips themselves."""
    return DesignRule(function, forms, CHIP_TARGETS, codes, needs, severity)


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
    DesignRule(
        of_candidate(readiness.input_can_be_seen),
        ("floats", "integers"),
        _where(lambda chip: not chip.graded_input_bits),
        {"SNX247": limits.GRADED},
    ),
)

INTEGERS = (
    _integers(loihi.graph_is_readable, {**_GRAPH, **_TIME, "SNX248": limits.STEPS}, "nothing"),
    _integers(loihi.integers_exist, {"SNX302": limits.INTEGERS}),
    _integers(loihi.connections_are_single_layers, {"SNX209": limits.WEIGHTS_OF_ONE}),
    DesignRule(neurons.delays_are_whole_steps, ("integers",), ON_LOIHI, {"SNX248": limits.STEPS}),
    DesignRule(of_deployment(loihi.resets_are_known), ("integers",), ("loihi",), {"SNX203": limits.resets}),
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
    _chips(cores.parts_fit_cores, {"SNX453": limits.of_any_core(*RESOURCES), "SNX454": limits.of_core("axons_out")}),
    _chips(cores.cores_suffice, {"SNX482": limits.cores}),
    _chips(cores.one_chip_suffices, {"SNX483": limits.cores}, severity="note"),
)
"""What does not fit the cores of a chip."""

WARNINGS = (
    _chips(activity.states_cannot_overflow, {"SNX309": limits.STATE}, ("integers",), severity="warning"),
    _chips(activity.thresholds_can_be_reached, {"SNX484": limits.FIRES}, severity="warning"),
    _chips(activity.populations_are_heard, {"SNX485": limits.CONNECTED}, needs="nothing", severity="warning"),
    _chips(activity.weights_connect, {"SNX486": limits.ONE_WEIGHT}, severity="warning"),
)
"""What runs, and is hardly meant."""

BACKENDS = (
    DesignRule(
        of_deployment(lava.findings), ("integers",), ("lava",),
        {
            **_GRAPH, **_TIME, "SNX248": limits.STEPS, "SNX302": limits.INTEGERS, "SNX227": limits.INTEGERS,
            "SNX203": limits.TO_ZERO, "SNX221": limits.NEURON_VALUES, "SNX222": limits.BIAS_VALUES,
            "SNX223": limits.WEIGHT_VALUES, "SNX224": limits.SHIFTS,
            "SNX225": limits.WEIGHTS_OF_ONE,
            "SNX226": fixed(f"a matrix of {lava.ENTRIES_MAX:,} entries, where Conv cannot hold a convolution", limits.LAVA),
            "SNX228": fixed(f"Conv: sums below {lava.CONV_SUM_LIMIT:,}; u below {lava.REGISTER_LIMIT:,}", limits.LAVA),
            "SNX229": fixed("the latency that the graph has", limits.OURS), "SNX230": limits.delays,
            "SNX231": fixed("even biases of the current", limits.LAVA), "SNX328": limits.MEMORY,
        },
    ),
    DesignRule(
        of_deployment(netx.findings), ("integers",), ("netx",),
        {
            **_GRAPH, "SNX209": limits.WEIGHTS_OF_ONE, "SNX248": limits.STEPS, "SNX249": limits.OWN_STEP,
            "SNX302": limits.INTEGERS, "SNX227": limits.INTEGERS, "SNX203": limits.TO_ZERO,
            "SNX250": fixed("one layer behind the other, loops only from a layer to itself", limits.NETX),
            "SNX251": limits.NETX_LAYERS,
            "SNX252": limits.NETX_BIASES,
            "SNX253": limits.NETX_WEIGHTS,
            "SNX254": limits.NETX_DELAYS,
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

RULES: tuple[DesignRule, ...] = (*FLOATS, *INPUTS, *INTEGERS, *CORES, *WARNINGS, *BACKENDS)


def check(deployment: Deployment, target: CheckTarget = "loihi2", chips: int = MOST_CHIPS) -> list[Diagnostic]:
    """Everything that a network's target has to say about it, all at once.

    Args:
        deployment: float or quantised.
        target: a chip or a backend.
        chips: how many chips it may take.

    Returns:
        Findings in the order of the rules: errors, and for chips warnings and notes, which keep nothing from running.
    """
    return examined(deployment, target, chips).findings


class Examined(NamedTuple):
    """A network that was checked: all findings, and what it takes of a chip where that could be worked out."""

    findings: list[Diagnostic]
    fit: Fit | None


def examined(deployment: Deployment, target: CheckTarget = "loihi2", chips: int = MOST_CHIPS) -> Examined:
    """As :func:`check`, with how much of the chip the network takes."""
    asked = network(deployment, target, chips)
    return Examined(_findings(asked), fit_of(asked))


def _findings(asked: Network) -> list[Diagnostic]:
    found = [item for rule in RULES if rule.applies(asked) and rule.can_be_asked(asked) for item in rule.ask(asked)]
    if asked.deployment.quantised:
        return list(dict.fromkeys(found))
    # A connection of a float network may be refused on several ways: said once.
    return list({(item.code, item.where): item for item in found}.values())
