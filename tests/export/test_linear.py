"""NumPy's linear nodes against torch's, and exact where the numbers are integers."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from snn_export.export.linear import apply
from snn_export.models.diagnostics import UserError


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nir.Conv2d, np.ndarray, np.ndarray]:
    """A convolution of any geometry, integer-valued, and its input (N, C, H, W) and bias."""
    small = lambda low, high: draw(st.integers(low, high))
    groups, kernel = small(1, 3), (small(1, 3), small(1, 4))
    weight_shape = (groups * small(1, 2), small(1, 2), *kernel)
    same = draw(st.booleans())
    stride = (1, 1) if same else (small(1, 3), small(1, 2))
    padding = "same" if same else (small(0, 2), small(0, 3))
    dilation = (small(1, 2), small(1, 3))
    rng = np.random.default_rng(small(0, 10_000))
    weight, bias = rng.integers(-254, 255, weight_shape), rng.integers(-4096, 4096, weight_shape[0])
    rows, columns = small(9, 12), small(10, 13)
    x = rng.integers(-255, 256, (small(1, 3), weight_shape[1] * groups, rows, columns))
    return nir.Conv2d((rows, columns), weight, stride, padding, dilation, groups, bias), x, bias


@settings(max_examples=80, deadline=None)
@given(convolutions())
def test_convolution_is_torch_s(case: tuple[nir.Conv2d, np.ndarray, np.ndarray]) -> None:
    node, x, bias = case
    expected = functional.conv2d(
        torch.from_numpy(x).double(), torch.from_numpy(node.weight).double(), torch.from_numpy(bias).double(),
        node.stride, node.padding, node.dilation, int(node.groups),
    ).numpy()  # fmt: skip
    got = apply("conv", node, x)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(apply("conv", node, x, bias=np.zeros_like(bias)), got - bias.reshape(1, -1, 1, 1))


def test_integers_beyond_float64_are_summed_exactly() -> None:
    big = (1 << 53) + 1
    assert apply("fc", nir.Linear(np.ones((1, 2))), np.array([[big, 2]]), np.array([[1, 1]])).item() == big + 2
    node = nir.Conv2d((1, 1), np.ones((1, 1, 1, 1)), 1, 0, 1, 1, np.zeros(1))
    assert apply("conv", node, np.array([[[[big]]]]), np.array([[[[3]]]]), np.array([0])).item() == 3 * big


@pytest.mark.parametrize("sizes", [((2, 2), (2, 2), (0, 0)), ((3, 2), (2, 1), (1, 1)), ((2, 3), (3, 2), (0, 1))])
def test_pools_are_torch_s(sizes: tuple[tuple[int, int], ...]) -> None:
    kernel, stride, padding = sizes
    arrays = [np.array(size) for size in sizes]
    x = np.random.default_rng(0).normal(size=(2, 3, 9, 8))
    expected = functional.avg_pool2d(torch.from_numpy(x), kernel, stride, padding).numpy()
    np.testing.assert_allclose(apply("p", nir.AvgPool2d(*arrays), x), expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(apply("p", nir.SumPool2d(*arrays), x), expected * kernel[0] * kernel[1], rtol=0, atol=1e-13)


@pytest.mark.parametrize(("start", "end"), [(0, -1), (1, 2), (0, 1), (1, 1), (-2, -1)])
def test_flatten_leaves_the_batch_alone(start: int, end: int) -> None:
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    expected = torch.flatten(torch.from_numpy(x), start + 1 if start >= 0 else start, end + 1 if end >= 0 else end).numpy()
    node = nir.Flatten({"input": np.array([3, 4, 5])}, start, end)
    np.testing.assert_array_equal(apply("f", node, x), expected)


def test_affine_and_scale() -> None:
    x = np.array([[1.0, 2.0]])
    assert apply("a", nir.Affine(np.array([[3.0, 4.0]]), np.array([0.5])), x).tolist() == [[11.5]]
    assert apply("s", nir.Scale(np.array([2.0, -1.0])), x).tolist() == [[2.0, -2.0]]


def test_neuron_is_not_linear() -> None:
    with pytest.raises(UserError) as caught:
        apply("n", nir.I(np.ones(2)), np.ones((1, 2)))
    assert caught.value.code == "SNX201"
