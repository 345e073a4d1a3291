from __future__ import annotations

import torch

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
