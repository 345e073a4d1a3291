"""Two windows as one, and any linear node as a matrix, against the nodes applied one after the other."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
from numpy.random import Generator

from snn_export.export.graph import Shape, shapes
from snn_export.export.linear import apply
from snn_export.export.linear_maps import axis_readers, composed, convolution, matrix, synapse_count, window_of
from snn_export.models.diagnostics import UserError


def shape_behind(node: nir.NIRNode, given: Shape) -> Shape:
    graph = nir.NIRGraph({"i": nir.Input({"input": np.array(given)}), "n": node}, [("i", "n")], type_check=False)
    return shapes(graph)["n"]


def random_convolution(rng: Generator, channels: int, axes: int = 2) -> Any:
    groups = int(rng.choice([g for g in (1, 2, channels) if channels % g == 0]))
    out = groups * int(rng.integers(1, 3))
    size = rng.integers(1, 4, axes)
    same = rng.random() < 0.2
    padding = "same" if same else tuple(int(p) for p in rng.integers(0, 3, axes))
    stride = (1,) * axes if same else tuple(int(s) for s in rng.integers(1, 3, axes))
    dilation = tuple(int(d) for d in rng.integers(1, 3, axes))
    weight = rng.normal(size=(out, channels // groups, *size))
    if axes == 1:
        return nir.Conv1d(None, weight, stride[0], padding if same else padding[0], dilation[0], groups, np.zeros(out))
    return nir.Conv2d(None, weight, stride, padding, dilation, groups, np.zeros(out))


@pytest.mark.parametrize("seed", range(8))
def test_readers_along_an_axis_are_those_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, kernel, stride, dilation = (int(size) for size in rng.integers(1, (12, 5, 4, 4)))
    padding = int(rng.integers(0, 4))
    outputs = max(1, (inputs + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
    expected = np.full((kernel, inputs), -1)
    for o in range(outputs):
        for k in range(kernel):
            if 0 <= o * stride + k * dilation - padding < inputs:
                expected[k, o * stride + k * dilation - padding] = o
    assert np.array_equal(axis_readers(inputs, outputs, kernel, stride, dilation, padding), expected)


def random_window(rng: Generator, channels: int) -> Any:
    if rng.random() < 0.5:
        return random_convolution(rng, channels)
    size = rng.integers(1, 4, 2)
    return (nir.AvgPool2d, nir.SumPool2d)[rng.integers(2)](
        size, rng.integers(1, 4, 2), np.minimum(rng.integers(0, 2, 2), size // 2)
    )


@pytest.mark.parametrize("seed", range(8))
def test_two_windows_in_a_row(seed: int) -> None:
    """As matrices always; as one convolution where that is claimed to be exact, which is often."""
    rng = np.random.default_rng(seed)
    tried = joined = 0
    while tried < 40:
        given = (int(rng.choice([2, 4])), int(rng.integers(5, 10)), int(rng.integers(5, 10)))
        first = random_window(rng, given[0])
        try:
            middle = shape_behind(first, given)
            then = random_window(rng, middle[0])
            made = shape_behind(then, middle)
        except UserError:
            continue  # a kernel that does not fit
        tried += 1
        x = rng.normal(size=(2, *given))
        expected = apply("b", then, apply("a", first, x))
        both = matrix("b", then, middle, made) @ matrix("a", first, given, middle)
        np.testing.assert_allclose((both @ x.reshape(2, -1).T).T, expected.reshape(2, -1), rtol=0, atol=1e-12)
        windows = window_of(first, given, middle), window_of(then, middle, made)
        assert windows[0] is not None
        assert windows[1] is not None
        assert synapse_count(windows[0]) == matrix("a", first, given, middle).nnz
        found = composed(windows[0], windows[1])
        node = None if found is None else convolution(found, np.zeros(len(found.kernel)))
        if node is not None:
            joined += 1
            np.testing.assert_allclose(apply("c", node, x), expected, rtol=0, atol=1e-12)
    assert joined > 10


@pytest.mark.parametrize("seed", range(3))
def test_one_dimensional_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = random_convolution(rng, 4, axes=1)
    given = (4, 15)
    made = shape_behind(first, given)
    x = rng.normal(size=(2, *given))
    expected = apply("a", first, x).reshape(2, -1)
    np.testing.assert_allclose((matrix("a", first, given, made) @ x.reshape(2, -1).T).T, expected, rtol=0, atol=1e-12)


def test_a_padding_behind_windows_that_leave_a_rest_is_no_convolution() -> None:
    pool = nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    conv = nir.Conv2d(None, np.ones((1, 1, 3, 3)), (1, 1), (1, 1), (1, 1), 1, np.zeros(1))
    for size, exact in ((8, True), (9, False)):
        middle = shape_behind(pool, (1, size, size))
        first, then = window_of(pool, (1, size, size), middle), window_of(conv, middle, middle)
        assert first is not None
        assert then is not None
        assert (composed(first, then) is not None) == exact


def test_a_node_that_is_not_linear_has_no_matrix() -> None:
    with pytest.raises(UserError) as caught:
        matrix("n", nir.Threshold(np.ones(2)), (2,), (2,))
    assert caught.value.code == "SNX201"
