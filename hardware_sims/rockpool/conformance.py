"""Checks of the conformance kit that Rockpool's neuron cannot pass, and why.

Most networks of the kit reset to zero, which LIFTorch cannot; these checks show that nothing breaks, and no more. That what it
computes there is right but for its deviations is shown by a test: every network of the kit also runs on the reference with these
switched on, and spikes, membranes and currents are the same.
"""

from __future__ import annotations

from collections.abc import Mapping

SUBTRACTED = (
    "fire.exactly_at_threshold",
    "fire.negative_weights",
    "fire.bias_alone",
    "fire.bias_behind_a_layer",
    "fire.a_single_step",
    "fire.graded_input",
    "fire.negative_input",
    "fire.a_neuron_without_memory",
    "fire.an_integrator_never_fires",
    "fire.at_most_one_spike_per_step",
    "reset.to_zero",
    "reset.none",
    "reset.delayed_subtraction",
    "reset.delayed_to_zero",
    "reset.delayed_to_zero_clears_the_input",
    "reset.subtraction_that_doubles_the_threshold",
    "reset.leaves_the_current_alone",
    "reset.periodic",
    "leak.filtered_spikes",
    "leak.a_bias_is_filtered_too",
    "leak.resting_potential_of_a_cubalif",
    "leak.resting_potential_of_a_lif",
    "leak.membrane_resistance",
    "leak.time_in_other_units",
    "latency.layers_in_local_time",
    "latency.a_loop_takes_one_step",
    "latency.a_loop_between_neurons",
    "latency.a_loop_over_two_layers",
    "latency.a_delay_of_steps",
    "latency.a_delay_per_neuron",
    "latency.paths_of_unequal_depth",
    "shapes.conv_kernel_orientation",
    "shapes.conv_not_square",
    "shapes.conv_stride",
    "shapes.conv_padding",
    "shapes.conv_dilation",
    "shapes.conv_same_padding",
    "shapes.conv_groups",
    "shapes.conv_bias",
    "shapes.conv_over_a_line",
    "shapes.average_pooling",
    "shapes.overlapping_average_pooling",
    "shapes.sum_pooling",
    "shapes.flatten_order",
    "shapes.flatten_behind_maps",
    "shapes.flatten_of_some_axes",
    "shapes.a_scale_per_feature",
    "shapes.matrix_orientation",
    "graph.two_populations_into_one",
    "graph.two_edges_into_one_weight",
    "graph.parallel_ways_between_two_populations",
    "graph.a_branch_and_its_join",
    "graph.nested_graphs",
    "graph.a_threshold_per_neuron",
    "contract.state_is_cleared_between_samples",
    "contract.inputs_of_another_type",
    "contract.probes_hold_what_was_asked_for",
    "contract.direct_encoding",
    "contract.rate_encoding",
    "contract.input_as_bias",
)
"""Checks whose network resets otherwise than by one subtraction in the step of the spike, or meets its threshold."""

THRESHOLD_MET = (
    "fire.one_step_above_threshold", "reset.by_subtraction", "reset.by_subtraction_with_leak", "leak.long_silence",
)  # fmt: skip
"""Checks that pass with ``strict=True``."""

HELD_TWICE = ("reset.by_subtraction_takes_one_threshold", "contract.probes_are_complete")
"""Checks in which a membrane holds two thresholds at once."""

COUNTED = ("contract.readout_of_spike_counts",)
"""Checks that what a subtraction leaves behind decides, where it is not sent in the same step."""


def expected_failures(*, several_spikes: bool, strict: bool) -> Mapping[str, str]:
    """By check, the declared deviation that fails it; arguments as the backend's options."""
    found = dict.fromkeys(SUBTRACTED, "a declared deviation: LIFTorch resets by subtraction, in the step of the spike")
    if not strict:
        found |= dict.fromkeys(THRESHOLD_MET, "a declared deviation: LIFTorch fires at its threshold, which this check meets")
    if several_spikes:
        found |= dict.fromkeys(HELD_TWICE, "a declared deviation: it fires once per threshold that the membrane holds")
    else:
        found |= dict.fromkeys(COUNTED, "a declared deviation: what a subtraction leaves behind makes the next spike")
    if strict and not several_spikes:
        found["contract.ties_go_to_the_lowest_class"] = "a declared deviation: what a subtraction leaves behind breaks the tie"
    return found
