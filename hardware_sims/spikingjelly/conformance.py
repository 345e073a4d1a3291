"""Checks of the conformance kit that SpikingJelly's neurons cannot pass, and why."""

from __future__ import annotations

from collections.abc import Mapping

from snn_export.hardware_sims.conformance.resets import LATE

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

EXPECTED_FAILURES_STRICT: Mapping[str, str] = dict.fromkeys(
    LATE, "a declared deviation: its neurons reset in the step of the spike, to v_reset or by one subtraction"
)
EXPECTED_FAILURES: Mapping[str, str] = {
    **dict.fromkeys(THRESHOLD_MET, "a declared deviation: its neurons fire at their threshold, which this check meets"),
    **EXPECTED_FAILURES_STRICT,
}
