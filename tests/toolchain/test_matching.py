"""Layers are matched by id through the origin map: a form whose layers a pass cut up is compared, not left out."""

from __future__ import annotations

import numpy as np
import pytest

from snn_export import library
from snn_export.hardware_sims.registry import simulator
from snn_export.reporting.report import Comparison
from snn_export.verification import assemble
from snn_export.verification.gates import Criteria
from snn_export.verification.ladder import Link, Rung, run_ladder
from tests.export.test_split_populations import CASES, of


def compared(case: str, *, spoil: bool = False) -> tuple[Comparison, tuple[str, ...]]:
    """The network as it was read against the form that a chip can hold, both in float64."""
    whole = of(case)
    inputs = np.random.default_rng(0).uniform(-0.5, 2.0, (12, *CASES[case][1]))
    cut = library.prepared(whole, inputs)
    if spoil:
        part = next(name for name in cut.layers if name not in whole.layers)
        nodes = cut.graph.nodes
        nodes[part].v_threshold = nodes[part].v_threshold * 0.5
    rungs = [Rung(name, "reference", form, simulator("reference"), "") for name, form in (("whole", whole), ("cut", cut))]
    ladder = run_ladder(rungs, [Link("whole", "cut", "approximate")], inputs, None)
    (comparison,) = assemble.comparisons_of(ladder, Criteria())
    return comparison, cut.layers


@pytest.mark.parametrize("case", CASES)
def test_parts_and_relays_are_compared_with_the_whole(case: str) -> None:
    comparison, layers = compared(case)
    assert {layer.layer for layer in comparison.layers} == set(layers)
    assert comparison.verdict == "WITHIN"
    assert sum(layer.mismatched_spikes for layer in comparison.layers) == 0
    assert sum(layer.reference_spikes for layer in comparison.layers) > 0


@pytest.mark.parametrize("case", CASES)
def test_a_part_that_differs_shows(case: str) -> None:
    assert sum(layer.mismatched_spikes for layer in compared(case, spoil=True)[0].layers) > 0
