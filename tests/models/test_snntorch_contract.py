from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import snntorch

from snn_export.models.snntorch_contract import DOUBLED, DROPPED, LATE, SAME_STEP, Does, Law, first_difference

LAWS = (*SAME_STEP, *LATE, *DROPPED, *DOUBLED)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_snntorch_does_what_the_law_says_and_nothing_else(law: Law) -> None:
    assert first_difference(law, steps=60) == ""
    for other in get_args(Does):
        if other != law.does:
            assert "differ in step" in first_difference(replace(law, does=other), steps=60), other


def test_a_run_in_which_nothing_fires_shows_nothing() -> None:
    assert "never seen" in first_difference(SAME_STEP[0], steps=1, neurons=1, seed=0)


def test_spikes_that_differ_alone_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Quiet(snntorch.Leaky):  # type: ignore[misc]
        """Has the right membranes and tells of no spike."""

        def forward(self, *given: Any) -> Any:
            spikes, membrane = super().forward(*given)
            return 0 * spikes, membrane

    monkeypatch.setattr(snntorch, "Leaky", Quiet)
    assert "spikes differ" in first_difference(LATE[0], steps=60)


def test_neurons_that_were_asked_are_not_kept() -> None:
    before = list(snntorch.SpikingNeuron.instances)
    first_difference(LATE[0], steps=2)
    assert snntorch.SpikingNeuron.instances == before
