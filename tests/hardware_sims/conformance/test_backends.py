"""Every backend, put through the kit. The isolated ones run the checks their own arithmetic and wiring can fail.

`snn-export conformance lava netx` runs all of them: a Lava run costs a second, and most of the rest is code that all share.
"""

from __future__ import annotations

import pytest

from snn_export.hardware_sims.conformance.kit import run_kit, selected
from snn_export.hardware_sims.lava.simulator import LavaSimulator
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
from snn_export.hardware_sims.netx.simulator import NetxSimulator
from snn_export.hardware_sims.reference.simulator import ReferenceSimulator
from snn_export.hardware_sims.student.quantised_simulator import QuantisedStudentSimulator
from tests.lava_environment import require_lava
from tests.netx_environment import require_netx

THEIR_OWN = (
    *("fire.exactly_at_threshold", "fire.only_negative_weights", "fire.bias_behind_a_layer", "leak.truncation_toward_zero"),
    *("leak.a_bias_is_filtered_too", "leak.currents_wrap", "leak.membranes_saturate", "latency.a_delay_per_neuron"),
    *("latency.paths_of_unequal_depth", "shapes.conv_kernel_orientation", "shapes.conv_groups", "shapes.flatten_behind_maps"),
    *("graph.two_edges_into_one_weight", "contract.state_is_cleared_between_samples", "contract.input_as_bias"),
)


def test_reference_passes_the_kit() -> None:
    found = run_kit(ReferenceSimulator())
    assert found.passed, found.summary()


def test_loihi_passes_the_kit() -> None:
    found = run_kit(LoihiSimulator())
    assert found.passed, found.summary()


def test_the_quantised_student_passes_the_kit() -> None:
    found = run_kit(QuantisedStudentSimulator())
    assert found.passed, found.summary()


@pytest.mark.lava
def test_lava_passes_its_part_of_the_kit() -> None:
    require_lava()
    found = run_kit(LavaSimulator(), selected((*THEIR_OWN, *LavaSimulator.expected_failures)))
    assert found.passed, found.summary()


@pytest.mark.lava
def test_netx_passes_its_part_of_the_kit() -> None:
    require_netx()
    found = run_kit(NetxSimulator(), selected((*THEIR_OWN, *NetxSimulator.expected_failures)))
    assert found.passed, found.summary()
