"""Teachers from ONNX files against onnxruntime, as several libraries would write them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.graph_teacher import GraphTeacher
from snn_export.models.teachers.onnx_file import load_onnx_teacher
from snn_export.models.teachers.stages import checked_taps, describe_taps
from tests.onnx_graphs import Graph

TOLERANCE = 1e-5


def onnxruntime_logits(path: Path, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: inputs})[0])


def difference(teacher: GraphTeacher, path: Path, samples: int = 3) -> float:
    """Largest difference to onnxruntime over random samples."""
    inputs = np.random.default_rng(1).normal(size=(samples, *teacher.input_shape)).astype(np.float32)
    with torch.no_grad():
        got = teacher(torch.from_numpy(inputs)).numpy()
    return float(np.abs(got - onnxruntime_logits(path, inputs)).max())


def read(path: Path, shape: tuple[int, ...], classes: int) -> GraphTeacher:
    return load_onnx_teacher(path, input_shape=shape, classes=classes)


def headed(graph: Graph, value: str, shape: tuple[int, ...], classes: int = 4) -> str:
    """Flatten and a dense layer behind an activation of ``shape``."""
    return graph.node(
        "Gemm", graph.node("Flatten", value), graph.weight(classes, math.prod(shape)), graph.weight(classes), transB=1
    )


def shape_of(graph: Graph, value: str, path: Path) -> tuple[int, ...]:
    """Shape of an activation as ONNX infers it, without the batch."""
    model = onnx.shape_inference.infer_shapes(onnx.load(graph.write(path, value)))
    return tuple(size.dim_value for size in model.graph.output[0].type.tensor_type.shape.dim[1:])


def one_layer(tmp_path: Path, kind: str, shape: tuple[int, ...], *inputs: Any, opset: int = 17, **attributes: Any) -> float:
    """Difference to onnxruntime of a network with one layer and a dense one behind it."""
    graph = Graph(shape, opset=opset)
    value = graph.node(kind, "x", *(graph.constant(value) for value in inputs), **attributes)
    path = tmp_path / "net.onnx"
    logits = headed(graph, value, shape_of(graph, value, path))
    graph.write(path, logits)
    return difference(read(path, shape, 4), path)


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32) / math.sqrt(math.prod(shape[1:]))


# --- networks of other libraries --------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A residual block with batch-norm."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.short = nn.Conv2d(before, channels, 1, stride, bias=False) if stride > 1 or before != channels else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.relu(self.norm1(self.conv1(inputs)))
        return self.relu(self.norm2(self.conv2(hidden)) + self.short(inputs))


def residual() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6(), Block(8, 8, 1), Block(8, 12, 2), Block(12, 16, 2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 10),
    )  # fmt: skip
    with torch.no_grad():
        network.train()(torch.rand(32, 3, 12, 12))  # statistics that are not those of a fresh norm
    return network.eval()


@pytest.fixture(scope="module")
def residual_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "residual.onnx"
    with pytest.warns(DeprecationWarning):
        torch.onnx.export(
            residual(), (torch.rand(1, 3, 12, 12),), path, dynamo=False, opset_version=17, input_names=["image"],
            training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
        )  # fmt: skip
    return path


def test_residual_network_exported_by_torch(residual_path: Path) -> None:
    teacher = read(residual_path, (3, 12, 12), 10)
    inputs = torch.rand(5, 3, 12, 12)  # the file has a batch of one
    torch.testing.assert_close(teacher(inputs), residual()(inputs), rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(
        teacher(inputs[:1]).detach(), onnxruntime_logits(residual_path, inputs[:1].numpy()), rtol=TOLERANCE, atol=TOLERANCE
    )
    shapes = {tap.name: tap.shape for tap in describe_taps(teacher)}
    assert [shapes[name] for name in teacher.stages] == [(8, 12, 12), (12, 6, 6), (16, 3, 3)]
    assert all(name.endswith("relu_1/Relu") for name in teacher.stages)  # behind the sum, not the ReLU inside the block
    assert teacher.nonlinear_operations == ()


def test_onward_from_every_stage_gives_the_logits_and_their_gradient(residual_path: Path) -> None:
    teacher = read(residual_path, (3, 12, 12), 10)
    inputs = torch.rand(4, 3, 12, 12)
    logits, features = teacher.features(inputs, teacher.stages)
    for tap in teacher.stages:
        entry = features[tap].detach().requires_grad_()
        torch.testing.assert_close(teacher.onward(tap, entry), logits)
        teacher.onward(tap, entry).sum().backward()
        assert entry.grad is not None
        assert bool(entry.grad.any())
        assert not torch.allclose(teacher.onward(tap, 2 * entry), logits)


def test_a_tap_inside_a_block_cannot_be_continued(residual_path: Path) -> None:
    teacher = read(residual_path, (3, 12, 12), 10)
    inside = next(step.name for step in teacher.steps if step.operation == "Relu")
    features = teacher.features(torch.rand(1, 3, 12, 12), [inside])[1][inside]  # it can be looked at
    with pytest.raises(UserError) as error:
        teacher.onward(inside, features)
    assert error.value.code == "SNX275"
    with pytest.raises(UserError) as error:
        checked_taps(teacher, [inside])
    assert error.value.code == "SNX275"
    assert checked_taps(teacher) == teacher.stages


def test_the_state_dict_holds_the_weights(residual_path: Path) -> None:
    teacher, other = read(residual_path, (3, 12, 12), 10), read(residual_path, (3, 12, 12), 10)
    inputs = torch.rand(2, 3, 12, 12)
    expected = teacher(inputs)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert not torch.allclose(other(inputs), expected)
    other.load_state_dict(teacher.state_dict())
    assert torch.equal(other(inputs), expected)
    assert torch.equal(other.train()(inputs), expected)  # norms of a file never learn


def test_mlp_in_the_style_of_keras(tmp_path: Path) -> None:
    graph = Graph((12,), opset=13, batch="unk__6")
    hidden = graph.node("MatMul", "x", graph.weight(12, 9), name="model/dense/MatMul")
    hidden = graph.node("Add", hidden, graph.weight(9), name="model/dense/BiasAdd")
    hidden = graph.node("Relu", hidden, name="model/dense/Relu")
    logits = graph.node("MatMul", hidden, graph.weight(9, 4), name="model/out/MatMul")
    logits = graph.node("Add", graph.weight(4), logits, name="model/out/BiasAdd")
    path = graph.write(tmp_path / "mlp.onnx", graph.node("Identity", logits, name="Identity"))
    teacher = read(path, (12,), 4)
    assert difference(teacher, path) <= TOLERANCE
    assert [tap.name for tap in describe_taps(teacher)] == ["model/dense/MatMul", "model/dense/Relu", "model/out/MatMul"]
    assert teacher.stages == ("model/dense/Relu",)
    inputs = torch.rand(2, 12)
    by_either_name = teacher.features(inputs, ["model/dense/BiasAdd", "model/dense/MatMul"])[1]
    assert torch.equal(by_either_name["model/dense/BiasAdd"], by_either_name["model/dense/MatMul"])


def test_a_matmul_used_twice_keeps_its_own_output(tmp_path: Path) -> None:
    graph = Graph((6,))
    product = graph.node("MatMul", "x", graph.weight(6, 4))
    path = graph.write(tmp_path / "net.onnx", graph.node("Add", graph.node("Add", product, graph.weight(4)), product))
    assert difference(read(path, (6,), 4), path) <= TOLERANCE


def test_scikit_learn_classifier_cut_to_its_logits(tmp_path: Path) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.neural_network import MLPClassifier

    random = np.random.default_rng(0)
    inputs, labels = random.normal(size=(60, 16)).astype(np.float32), random.integers(0, 3, 60)
    with pytest.warns(UserWarning):
        model = MLPClassifier(hidden_layer_sizes=(8,), max_iter=5).fit(inputs, labels)
    whole, cut = tmp_path / "whole.onnx", tmp_path / "cut.onnx"
    whole.write_bytes(skl2onnx.to_onnx(model, inputs[:1], options={"zipmap": False}).SerializeToString())
    with pytest.raises(UserError, match="extract_model") as error:
        read(whole, (1, 4, 4), 3)
    assert error.value.code == "SNX272"
    onnx.utils.extract_model(whole, cut, ["X"], ["add_result1"])
    teacher = read(cut, (1, 4, 4), 3)  # images: flattened for a network of features
    got = teacher(torch.from_numpy(inputs.reshape(60, 1, 4, 4))).detach().numpy()
    np.testing.assert_allclose(got, onnxruntime_logits(cut, inputs), rtol=TOLERANCE, atol=TOLERANCE)


def test_max_pool_is_named(tmp_path: Path) -> None:
    graph = Graph((2, 8, 8))
    hidden = graph.node("Relu", graph.node("Conv", "x", graph.weight(4, 2, 3, 3)))
    path = graph.write(
        tmp_path / "net.onnx", headed(graph, graph.node("MaxPool", hidden, kernel_shape=[2, 2], name="pool"), (4, 5, 5))
    )
    teacher = read(path, (2, 8, 8), 4)
    assert teacher.nonlinear_operations == ("pool",)
    assert difference(teacher, path) <= TOLERANCE


# --- one operation at a time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attributes", [
    {}, {"strides": [2, 1]}, {"dilations": [2, 1], "pads": [1, 1, 1, 1]}, {"pads": [0, 1, 2, 0]}, {"auto_pad": "SAME_UPPER"},
    {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, {"auto_pad": "SAME_UPPER", "strides": [2, 3]}, {"auto_pad": "VALID"},
])  # fmt: skip
@pytest.mark.parametrize("groups", [1, 2])
def test_conv_2d(tmp_path: Path, attributes: dict[str, Any], groups: int) -> None:
    inputs = weights(6, 4 // groups, 3, 2), weights(6)
    assert one_layer(tmp_path, "Conv", (4, 9, 8), *inputs, group=groups, **attributes) <= TOLERANCE


@pytest.mark.parametrize("attributes", [{}, {"strides": [2], "pads": [2, 1]}, {"auto_pad": "SAME_LOWER"}])
def test_conv_1d(tmp_path: Path, attributes: dict[str, Any]) -> None:
    assert one_layer(tmp_path, "Conv", (3, 11), weights(5, 3, 4), **attributes) <= TOLERANCE


POOLS: list[dict[str, Any]] = [
    {}, {"strides": [2, 2]}, {"strides": [2, 2], "ceil_mode": 1}, {"strides": [2, 1], "pads": [1, 0, 1, 1]},
    {"strides": [2, 2], "pads": [1, 1, 0, 0], "ceil_mode": 1}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER"}, {"strides": [4, 4], "ceil_mode": 1},
]  # fmt: skip


@pytest.mark.parametrize("attributes", POOLS)
@pytest.mark.parametrize("with_padding", [0, 1])
@pytest.mark.parametrize("opset", [11, 22])
def test_average_pool(tmp_path: Path, attributes: dict[str, Any], with_padding: int, opset: int) -> None:
    found = one_layer(
        tmp_path, "AveragePool", (2, 9, 10), opset=opset, kernel_shape=[3, 2], count_include_pad=with_padding, **attributes
    )
    assert found <= TOLERANCE


@pytest.mark.parametrize("attributes", [*POOLS, {"dilations": [2, 3]}])
def test_max_pool(tmp_path: Path, attributes: dict[str, Any]) -> None:
    assert one_layer(tmp_path, "MaxPool", (2, 9, 10), opset=22, kernel_shape=[3, 2], **attributes) <= TOLERANCE


@pytest.mark.parametrize("kind", ["AveragePool", "MaxPool"])
def test_a_window_that_begins_behind_the_input_does_not_count(tmp_path: Path, kind: str) -> None:
    attributes = {"kernel_shape": [3, 2], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    assert one_layer(tmp_path, kind, (2, 9, 10), opset=22, **attributes) <= TOLERANCE


@pytest.mark.parametrize("kind", ["AveragePool", "MaxPool"])
def test_pool_1d(tmp_path: Path, kind: str) -> None:
    assert one_layer(tmp_path, kind, (2, 11), kernel_shape=[3], strides=[2], pads=[1, 2]) <= TOLERANCE


@pytest.mark.parametrize(("opset", "inputs", "attributes"), [
    (7, (), {"min": -0.2, "max": 0.7}), (10, (), {"min": 0.0, "max": 6.0}), (13, (np.float32(-0.2), np.float32(0.5)), {}),
    (17, (np.float32(0),), {}),
])  # fmt: skip
def test_clip(tmp_path: Path, opset: int, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> None:
    assert one_layer(tmp_path, "Clip", (2, 5, 5), *inputs, opset=opset, **attributes) <= TOLERANCE


def test_clip_with_an_upper_bound_only(tmp_path: Path) -> None:
    graph = Graph((8,))
    path = graph.write(tmp_path / "n.onnx", headed(graph, graph.node("Clip", "x", "", graph.constant(np.float32(0.1))), (8,)))
    assert difference(read(path, (8,), 4), path) <= TOLERANCE


@pytest.mark.parametrize("attributes", [
    {"alpha": 0.5, "beta": 2.0}, {"transB": 1}, {"alpha": -1.5, "transB": 1},
])  # fmt: skip
@pytest.mark.parametrize("bias", [None, (4,), (1, 4), (1,), ()])
def test_gemm(tmp_path: Path, attributes: dict[str, Any], bias: tuple[int, ...] | None) -> None:
    graph = Graph((6,))
    parts = [graph.weight(4, 6) if attributes.get("transB") else graph.weight(6, 4)]
    parts += [] if bias is None else [graph.constant(np.full(bias, 0.7, np.float32))]
    path = graph.write(tmp_path / "net.onnx", graph.node("Gemm", "x", *parts, **attributes))
    assert difference(read(path, (6,), 4), path) <= TOLERANCE


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 13, 15, 17, 18, 19, 20, 21, 22, 23, 24, 25])
def test_every_operator_set(tmp_path: Path, opset: int) -> None:
    graph = Graph((2, 8, 8), opset=opset, batch=1)
    value = graph.node("Conv", "x", graph.weight(4, 2, 3, 3), pads=[1, 1, 1, 1])
    value = graph.node("Relu", graph.norm(value, 4, epsilon=1e-3))
    value = graph.node("Add", value, graph.node("Conv", value, graph.weight(4, 4, 1, 1)))
    value = graph.node("AveragePool", value, kernel_shape=[2, 2], strides=[2, 2])
    value = graph.node("Dropout", value)
    if opset < 18:
        value = graph.node("ReduceMean", value, axes=[2, -1], keepdims=0)
    else:
        value = graph.node("ReduceMean", value, graph.constant(np.array([-2, 3])), keepdims=0)
    value = graph.node("Reshape", value, graph.constant(np.array([1, -1])))
    path = graph.write(tmp_path / "net.onnx", graph.node("Gemm", value, graph.weight(4, 5), graph.weight(5)))
    teacher = read(path, (2, 8, 8), 5)
    assert difference(teacher, path, samples=1) <= TOLERANCE
    inputs = torch.rand(3, 2, 8, 8)  # the batch of one that the file fixes is no bound
    torch.testing.assert_close(teacher(inputs)[1:2], teacher(inputs[1:2]), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("target", [[0, -1], [-1, 24], [0, 4, 0, -1], [0, 0, 6, 1], [0, 24]])
def test_reshape_keeps_the_samples(tmp_path: Path, target: list[int]) -> None:
    assert one_layer(tmp_path, "Reshape", (4, 6), np.array(target)) <= TOLERANCE


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1), (), (5, 5)])
def test_a_constant_is_added(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert one_layer(tmp_path, "Add", (3, 5, 5), weights(*shape) if shape else np.float32(0.5)) <= TOLERANCE


def test_constants_may_be_nodes(tmp_path: Path) -> None:
    graph = Graph((6,))
    value = numpy_helper.from_array(weights(4, 6))
    weight = graph.node("Identity", graph.node("Constant", value=value))
    path = graph.write(tmp_path / "net.onnx", graph.node("Gemm", "x", weight, transB=1))
    assert difference(read(path, (6,), 4), path) <= TOLERANCE


def test_weights_may_be_transposed_on_the_way(tmp_path: Path) -> None:
    graph = Graph((6,))
    first = graph.node("Transpose", graph.weight(5, 6), perm=[1, 0])
    second = graph.node("Transpose", graph.weight(4, 5))
    path = graph.write(tmp_path / "net.onnx", graph.node("MatMul", graph.node("MatMul", "x", first), second))
    assert difference(read(path, (6,), 4), path) <= TOLERANCE


def test_weights_beside_the_file(tmp_path: Path) -> None:
    graph = Graph((6,))
    path = graph.write(tmp_path / "net.onnx", graph.node("Gemm", "x", graph.weight(4, 6), graph.weight(4), transB=1))
    expected = read(path, (6,), 4).state_dict()
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    teacher = read(path, (6,), 4)
    assert all(torch.equal(value, expected[name]) for name, value in teacher.state_dict().items())
    assert difference(teacher, path) <= TOLERANCE


def test_what_the_output_does_not_need_is_not_read(tmp_path: Path) -> None:
    graph = Graph((6,))
    logits = graph.node("Gemm", "x", graph.weight(6, 4))
    graph.node("Sin", "x")
    assert [step.operation for step in read(graph.write(tmp_path / "net.onnx", logits), (6,), 4).steps] == ["Gemm"]


def test_layers_without_a_name_are_called_after_their_output(tmp_path: Path) -> None:
    graph = Graph((6,))
    value = graph.node("Gemm", "x", graph.weight(6, 6), name="")
    value = graph.node("Relu", value, name="same")
    path = graph.write(
        tmp_path / "net.onnx", graph.node("Gemm", graph.node("Relu", value, name="same"), graph.weight(6, 4), name="")
    )
    assert [step.name for step in read(path, (6,), 4).steps] == ["t0", "t1", "t2", "t3"]


# --- any small network -----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_random_networks_agree_with_onnxruntime(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("random")
    draw = data.draw
    channels, side = draw(st.integers(1, 3)), draw(st.integers(5, 9))
    shape = (channels, side, side + draw(st.integers(0, 2)))
    graph = Graph(shape, opset=draw(st.sampled_from([11, 13, 17, 19])), seed=draw(st.integers(0, 99)))
    value, current = "x", shape
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["conv", "norm", "relu", "clip", "average", "max", "residual", "constant"]))
        if kind == "conv":
            group = draw(st.sampled_from([1, current[0]]))
            size = draw(st.integers(1, min(3, *current[1:])))
            weight = graph.weight(draw(st.integers(1, 2)) * current[0], current[0] // group, size, size)
            pads = [draw(st.integers(0, 2)) for _ in range(4)]
            value = graph.node("Conv", value, weight, group=group, pads=pads, strides=[draw(st.integers(1, 2))] * 2)
        elif kind in ("average", "max"):
            size = draw(st.integers(1, min(2, *current[1:])))
            pads = [draw(st.integers(0, size - 1)) for _ in range(4)]
            extra = {"count_include_pad": draw(st.integers(0, 1))} if kind == "average" else {}
            name = "AveragePool" if kind == "average" else "MaxPool"
            value = graph.node(name, value, kernel_shape=[size, size], pads=pads, strides=[draw(st.integers(1, 2))] * 2, **extra)
        elif kind == "residual":
            branch = graph.node("Conv", value, graph.weight(current[0], current[0], 3, 3), pads=[1, 1, 1, 1])
            value = graph.node("Add", *draw(st.permutations([branch, value])))
        elif kind == "constant":
            value = graph.node("Add", value, graph.weight(current[0], 1, 1))
        elif kind == "norm":
            value = graph.norm(value, current[0])
        elif kind == "relu":
            value = graph.node("Relu", value)
        else:
            value = graph.node("Clip", value, graph.constant(np.float32(-0.5)), graph.constant(np.float32(6)))
        current = shape_of(graph, value, folder / "part.onnx")
    path = folder / "net.onnx"
    graph.write(path, headed(graph, value, current))
    teacher = read(path, shape, 4)
    assert difference(teacher, path) <= TOLERANCE
    inputs = torch.rand(2, *shape)
    logits, features = teacher.features(inputs, teacher.stages)
    for tap in teacher.stages:
        torch.testing.assert_close(teacher.onward(tap, features[tap]), logits, rtol=TOLERANCE, atol=TOLERANCE)
    cuts = set(teacher.cuts())
    assert all((step in cuts) == (teacher.rest(step.name)[1] is None) for step in teacher.steps)
    found = teacher.features(inputs, [step.name for step in teacher.steps])[1]
    assert all(found[step.name].shape == (2, *(step.shape or ())) for step in teacher.steps)
