from __future__ import annotations

import pytest
import torch

from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator


def test_membrane_is_the_running_sum_without_leak_or_reset() -> None:
    inputs = torch.tensor([[2.0, -1.0], [3.0, -4.0], [-0.5, 0.25]])
    integrator, membrane, seen = Integrator(), torch.zeros(2), []
    for current in inputs:
        membrane = integrator(current, membrane)
        seen.append(membrane)
    assert torch.equal(torch.stack(seen), torch.cumsum(inputs, 0))


def test_has_nothing_to_save() -> None:
    assert Integrator().state_dict() == {}


def test_a_leak_and_a_filter_are_those_of_their_integers() -> None:
    integrator = Integrator(dv=1024, du=2047)
    current = integrator.current(torch.tensor(1.0), torch.tensor(4.0))
    assert current == 0.5 * 4.0 + 1.0
    assert integrator(current, torch.tensor(8.0)) == 0.75 * 8.0 + current
    assert Integrator(dv=1024).current(torch.tensor(1.0), torch.tensor(4.0)) == 1.0, "nothing is filtered without du"
    assert repr(integrator) == "Integrator(dv=1024, du=2047)"


@pytest.mark.parametrize("wrong", [{"dv": -1}, {"dv": 5000}, {"du": 4096}, {"du": -1}])
def test_decays_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError) as caught:
        Integrator(**wrong)
    assert caught.value.code == "SNX301"
