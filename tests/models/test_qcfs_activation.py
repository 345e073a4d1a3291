"""The quantised ReLU: its values, and its gradients against the formula it states."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.qcfs_activation import QcfsActivation


def inputs(theta: float) -> Tensor:
    """Values below, within and above the range, none of them on a border."""
    generator = torch.Generator().manual_seed(3)
    return (torch.rand(64, 5, generator=generator, dtype=torch.float64) * 3 - 1) * theta


@pytest.mark.parametrize("levels", [1, 4, 8])
@pytest.mark.parametrize("theta", [0.3, 2.5])
def test_values_are_the_staircase(levels: int, theta: float) -> None:
    x = inputs(theta)
    expected = [theta * min(max(math.floor(value * levels / theta + 0.5) / levels, 0), 1) for value in x.flatten().tolist()]
    found = QcfsActivation(levels, theta).double()(x)
    assert torch.allclose(found.flatten(), torch.tensor(expected, dtype=torch.float64), atol=1e-7 * theta)
    assert len(found.unique()) == levels + 1


@pytest.mark.parametrize("levels", [1, 4, 8])
def test_gradients_are_those_of_the_stated_formula(levels: int) -> None:
    theta = 1.5
    activation = QcfsActivation(levels, theta).double()
    x = inputs(theta).requires_grad_()
    weights = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).reshape(x.shape)
    found = activation(x)
    (found * weights).sum().backward()

    values = x.detach()
    within = (values >= 0) & (values <= theta)
    to_theta = torch.where(within, (found.detach() - values) / theta, (values > theta).double())
    assert x.grad is not None and activation.threshold.grad is not None
    assert torch.allclose(x.grad, weights * within)
    assert torch.allclose(activation.threshold.grad, (weights * to_theta).sum())


def test_gradients_are_finite_differences_with_the_rounding_held() -> None:
    levels, theta, step = 4, 1.5, 1e-6
    x = inputs(theta)

    def smooth(values: Tensor, height: Tensor) -> Tensor:
        ratio = (values / height).clamp(0, 1)
        held = torch.floor((x / theta).clamp(0, 1) * levels + 0.5) / levels - (x / theta).clamp(0, 1)
        return height * (ratio + held)

    activation = QcfsActivation(levels, theta).double()
    moved = x.clone().requires_grad_()
    activation(moved).sum().backward()
    height = torch.tensor(theta, dtype=torch.float64)
    assert moved.grad is not None and activation.threshold.grad is not None
    assert torch.allclose(moved.grad, (smooth(x + step, height) - smooth(x - step, height)) / (2 * step), atol=1e-6)
    by_difference = ((smooth(x, height + step) - smooth(x, height - step)) / (2 * step)).sum()
    assert torch.allclose(activation.threshold.grad[0], by_difference, atol=1e-5)


def test_a_tie_is_rounded_up() -> None:
    assert QcfsActivation(4, 1.0)(torch.tensor([0.125, 0.375, 0.875])).tolist() == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(("levels", "theta"), [(0, 1.0), (4, 0.0), (4, float("inf")), (4, float("nan"))])
def test_settings_out_of_range_are_refused(levels: int, theta: float) -> None:
    with pytest.raises(UserError) as caught:
        QcfsActivation(levels, theta)
    assert caught.value.diagnostics[0].code == "SNX354"
