"""Every linear node in torch is the linear node of the interpreter, whatever its geometry."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export.export.graph import shapes
from snn_export.export.linear import apply
from snn_export.hardware_sims.torch_layers import layer_of, without_bias
from snn_export.models.diagnostics import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

GIVEN = (4, 7, 6)
two = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def nodes(draw: st.DrawFn) -> nir.NIRNode:
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    kernel, stride, dilation = draw(two), draw(two), draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.one_of(two, st.sampled_from(["same", "valid"])))
    groups = draw(st.sampled_from([1, 2, 4]))
    weight, bias = rng.normal(0, 1, (8, 4 // groups, *kernel)), rng.normal(0, 1, 8)
    pools = [kind(np.array(kernel), np.array(stride), np.array(draw(two))) for kind in (nir.AvgPool2d, nir.SumPool2d)]
    start = draw(st.integers(0, 2))
    found = [
        nir.Conv2d(GIVEN[1:], weight, stride, padding, dilation, groups, bias), *pools,
        nir.Flatten({"input": np.array(GIVEN)}, start, draw(st.sampled_from([*range(start, 3), *range(start - 3, 0)]))),
        nir.Scale(rng.normal(0, 1, GIVEN)), nir.Scale(np.array([0.5])),
    ]  # fmt: skip
    return draw(st.sampled_from(found))


def compare(node: nir.NIRNode, given_shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(0, 1, (3, *given_shape)).astype(np.float32)
    layer = layer_of("node", node, given_shape)
    with torch.inference_mode():
        np.testing.assert_allclose(layer(torch.from_numpy(x)), apply("node", node, x.astype(np.float64)), atol=2e-5)
        if hasattr(node, "bias"):
            plain, zeros = without_bias(layer), np.zeros(len(node.weight))
            np.testing.assert_allclose(plain(torch.from_numpy(x)), apply("node", node, x, None, zeros), atol=2e-5)
            np.testing.assert_allclose(layer(torch.from_numpy(x)), apply("node", node, x.astype(np.float64)), atol=2e-5)


@settings(max_examples=150, deadline=None)
@given(node=nodes())
def test_maps(node: nir.NIRNode) -> None:
    ends = {"input": nir.Input({"input": np.array(GIVEN)}), "node": node}
    try:
        shapes(nir.NIRGraph(ends, [("input", "node")], type_check=False))
    except UserError:  # a kernel that does not fit
        return
    compare(node, GIVEN)


@pytest.mark.parametrize("padding", ["same", "valid", 2])
def test_sequences_and_features(padding: str | int) -> None:
    rng = np.random.default_rng(0)
    compare(nir.Conv1d(9, rng.normal(0, 1, (6, 2, 4)), 2, padding, 1, 2, rng.normal(0, 1, 6)), (4, 9))
    compare(nir.Affine(rng.normal(0, 1, (3, 5)), rng.normal(0, 1, 3)), (5,))
    compare(nir.Linear(rng.normal(0, 1, (3, 5))), (5,))


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 1), (0, 2), (1, 2), (0, -1), (-2, -1), (0, -2)])
def test_axes_are_counted_without_the_batch(start: int, end: int) -> None:
    compare(nir.Flatten({"input": np.array(GIVEN)}, start, end), GIVEN)


def test_other_nodes_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        layer_of("n", nir.Delay(np.ones(3)), (3,))
    assert caught.value.code == "SNX201"
