"""Checks of the conformance kit that lava-dl's netx cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

from snn_export.hardware_sims.conformance.resets import NOT_ON_FIXED_NEURONS

_RESET = "SNX203: netx's neurons are Lava's LIF, which resets to zero in the step of the spike"
_CHAIN = "SNX250: a .net file is one chain of layers, without branches, sums, or loops over several layers"
_LAYER = "SNX251: netx has dense layers and 2-d convolutions that pad both sides alike, nothing else"

EXPECTED_FAILURES: Mapping[str, str] = {
    "fire.one_step_above_threshold": "SNX252: netx shifts every bias by 6 bits, and one unit of v is less than that",
    **dict.fromkeys(NOT_ON_FIXED_NEURONS, _RESET),
    "latency.a_loop_over_two_layers": _CHAIN,
    "latency.paths_of_unequal_depth": _CHAIN,
    "shapes.conv_same_padding": _LAYER,
    "shapes.conv_over_a_line": _LAYER,
    "shapes.flatten_of_some_axes": _LAYER,
    "shapes.a_scale_per_feature": _LAYER,
    "graph.two_populations_into_one": _CHAIN,
    "graph.two_edges_into_one_weight": _CHAIN,
    "graph.parallel_ways_between_two_populations": _CHAIN,
    "graph.a_branch_and_its_join": _CHAIN,
    "graph.a_threshold_per_neuron": _CHAIN,
}
