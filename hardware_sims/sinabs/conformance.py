"""Checks of the conformance kit that sinabs' neurons cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

RESETS: Mapping[str, str] = {
    "reset.delayed_to_zero_clears_the_input": "a declared deviation: a reset of sinabs never takes the input of the next step",
    "reset.subtraction_that_doubles_the_threshold": "a declared deviation: it compares with the threshold, never with twice it",
}

THRESHOLD_MET = (
    "fire.exactly_at_threshold",
    "fire.one_step_above_threshold",
    "fire.negative_weights",
    "fire.bias_alone",
    "fire.bias_behind_a_layer",
    "fire.a_single_step",
    "fire.graded_input",
    "fire.a_neuron_without_memory",
    "reset.by_subtraction",
    "reset.by_subtraction_with_leak",
    "reset.delayed_subtraction",
    "reset.delayed_to_zero",
    "leak.long_silence",
    "leak.a_bias_is_filtered_too",
    "shapes.conv_not_square",
    "shapes.conv_stride",
    "shapes.conv_padding",
    "shapes.conv_dilation",
    "shapes.conv_same_padding",
    "shapes.conv_groups",
    "shapes.conv_bias",
    "shapes.flatten_order",
    "shapes.flatten_of_some_axes",
    "shapes.a_scale_per_feature",
    "shapes.matrix_orientation",
    "graph.a_branch_and_its_join",
    "contract.rate_encoding",
    "contract.input_as_bias",
)
"""Checks in which a membrane equals its threshold. Every one of them passes with ``strict=True``."""

SEVERAL_HELD = (
    "fire.negative_input",
    "fire.at_most_one_spike_per_step",
    "reset.by_subtraction_takes_one_threshold",
    "reset.none",
    "reset.leaves_the_current_alone",
    "leak.membrane_resistance",
    "latency.a_loop_takes_one_step",
    "shapes.conv_over_a_line",
    "shapes.average_pooling",
    "shapes.sum_pooling",
    "shapes.flatten_behind_maps",
    "graph.nested_graphs",
    "graph.a_threshold_per_neuron",
    "contract.probes_are_complete",
)
"""Checks in which a membrane holds its threshold more than once and never equals it: only ``several_spikes=True`` fails them."""


def expected_failures(*, several_spikes: bool, strict: bool) -> Mapping[str, str]:
    """By check, the deviation that fails it; arguments as the backend's options."""
    met = () if strict else THRESHOLD_MET
    held = SEVERAL_HELD if several_spikes else ()
    return {
        **dict.fromkeys(met, "a declared deviation: sinabs' neurons fire at their threshold, which this check meets"),
        **dict.fromkeys(held, "a declared deviation: several spikes in one step, as sinabs' neurons emit by default"),
        **RESETS,
    }
