"""ONNX files that are no teacher: damaged, hostile, or with operations that cannot be read. Each is answered with a code."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.onnx_file import load_onnx_teacher
from tests.onnx_graphs import Graph


def refusal(path: Path, shape: tuple[int, ...] = (2, 6, 6), classes: int = 4, **options: Any) -> UserError:
    with pytest.raises(UserError) as error:
        load_onnx_teacher(path, input_shape=shape, classes=classes, **options)
    return error.value


def plain(path: Path) -> Path:
    """A network that can be read, to be spoilt."""
    graph = Graph((6,))
    return graph.write(path, graph.node("Gemm", "x", graph.weight(4, 6), graph.weight(4), transB=1, name="dense"))


def spoilt(path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(plain(path))
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


# --- the file ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"no model", os.urandom(300), b"\x08\x08"])
def test_not_a_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    assert refusal(path).code in ("SNX150", "SNX151", "SNX272")


def test_a_file_that_is_missing_or_cut_short(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.onnx").code == "SNX150"
    assert refusal(tmp_path).code == "SNX150"
    path = plain(tmp_path / "net.onnx")
    data = path.read_bytes()
    for size in range(1, len(data), 7):
        path.write_bytes(data[:size])
        assert refusal(path, (6,)).code in ("SNX150", "SNX151", "SNX272", "SNX273")


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = plain(tmp_path / "net.onnx")
    path.write_bytes(path.read_bytes().replace(b"dense", b"d\xff\xfese"))
    assert refusal(path, (6,)).code == "SNX150"


def test_damaged_bytes_are_answered_with_a_code(tmp_path: Path) -> None:
    path = plain(tmp_path / "net.onnx")
    data, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] = random.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            load_onnx_teacher(path, input_shape=(6,), classes=4)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    assert "limit" in str(refusal(plain(tmp_path / "net.onnx"), (6,), limit_bytes=100))


@pytest.mark.parametrize("dims", [[1 << 62, 1 << 62], [-4, 6], [4, 7], [0, 6], [1 << 40, 0]])
def test_sizes_that_the_data_do_not_have(tmp_path: Path, dims: list[int]) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[:] = dims

    assert refusal(spoilt(tmp_path / "net.onnx", change), (6,)).code == "SNX151"


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    graph = Graph((6,))
    path = graph.write(tmp_path / "net.onnx", graph.node("Gemm", "x", graph.constant(np.full((6, 4), np.nan, np.float32))))
    assert refusal(path, (6,)).code == "SNX151"


def test_an_operator_set_out_of_range(tmp_path: Path) -> None:
    for version in (6, 99):
        path = spoilt(tmp_path / "net.onnx", lambda model, v=version: setattr(model.opset_import[0], "version", v))
        assert refusal(path, (6,)).code == "SNX273"


def test_an_invalid_model_is_told_in_the_words_of_the_checker(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].attribute.append(helper.make_attribute("invented", 1))

    error = refusal(spoilt(tmp_path / "net.onnx", change), (6,))
    assert error.code == "SNX151"
    assert "invented" in str(error)


# --- weights beside the file -------------------------------------------------------------------------------------------------


def beside(path: Path, count: int = 1, **entries: str) -> Path:
    """The plain network with its first weights (96 bytes), or also its bias (16 bytes), declared to lie elsewhere."""

    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer[:count]:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value)

    return spoilt(path, change)


@pytest.mark.parametrize("location", [
    "../secret.bin", "sub/../../secret.bin", "..\\secret.bin", "C:\\secret.bin", "/etc/hostname", "", "none.bin", ".", "link.bin",
    "folder/secret.bin", "sub/../own.bin", "a\0b", "x" * 5000,
])  # fmt: skip
def test_weights_outside_the_folder_are_not_opened(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(96))
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "own.bin").write_bytes(bytes(96))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "folder").symlink_to(tmp_path)
    assert refusal(beside(folder / "net.onnx", location=location), (6,)).code == "SNX152"


@pytest.mark.parametrize("entries", [
    {"offset": "1"}, {"offset": "-1"}, {"length": "95"}, {"length": "1000000000000"}, {"offset": "x"}, {"offset": "9" * 30},
])  # fmt: skip
def test_weights_cut_short(tmp_path: Path, entries: dict[str, str]) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(96))
    path = beside(tmp_path / "net.onnx", location="w.bin")
    assert load_onnx_teacher(path, input_shape=(6,), classes=4).classes == 4
    assert refusal(beside(path, location="w.bin", **entries), (6,)).code == "SNX152"


def test_weights_beside_the_file_count_towards_the_limit(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(96))
    path = beside(tmp_path / "net.onnx", count=2, location="w.bin")
    needed = path.stat().st_size + 96 + 16
    assert load_onnx_teacher(path, input_shape=(6,), classes=4, limit_bytes=needed).classes == 4
    assert refusal(path, (6,), limit_bytes=needed - 1).code == "SNX152"
    assert refusal(path, (6,), limit_bytes=needed - 17).code == "SNX152"


# --- what cannot be expressed -----------------------------------------------------------------------------------------------


def test_all_unknown_operations_are_named_at_once(tmp_path: Path) -> None:
    graph = Graph((6, 6, 2))
    value = graph.node("Transpose", "x", perm=[0, 3, 1, 2], name="to_nchw")
    value = graph.node("Flatten", graph.node("Relu", value))
    logits = graph.node("Gemm", value, graph.weight(72, 4))
    error = refusal(graph.write(tmp_path / "net.onnx", graph.node("Softmax", logits, name="probabilities")), (6, 6, 2))
    assert [(item.code, item.where) for item in error.diagnostics] == [("SNX270", "to_nchw"), ("SNX270", "probabilities")]
    assert "channels first" in error.diagnostics[0].fix
    assert "logits" in error.diagnostics[1].fix


def test_an_operation_of_another_domain(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].domain = "com.example"

    assert "com.example.Gemm" in str(refusal(spoilt(tmp_path / "net.onnx", change), (6,)))


def node_case(kind: str, *constants: Any, shape: tuple[int, ...] = (2, 6, 6), opset: int = 17, **attributes: Any) -> Any:
    return pytest.param(kind, constants, shape, opset, attributes, id=f"{kind} {attributes}")


FOUR = [np.ones(2, np.float32)] * 4


@pytest.mark.parametrize(("kind", "constants", "shape", "opset", "attributes"), [
    node_case("Conv", np.ones((3, 2, 2, 2, 2), np.float32), shape=(2, 4, 4, 4)),
    node_case("Conv", np.ones((3, 2, 2, 2)), shape=(2, 6, 6)),
    node_case("Gemm", np.ones((6, 4), np.float32), shape=(6,), transA=1),
    node_case("MatMul", np.ones((3, 6, 4), np.float32), shape=(3, 6)),
    node_case("BatchNormalization", *FOUR, training_mode=1),
    node_case("BatchNormalization", *FOUR, opset=8, spatial=0),
    node_case("AveragePool", kernel_shape=[2, 2], dilations=[2, 2], opset=19),
    node_case("ReduceMean", axes=[2]),
    node_case("ReduceMean", axes=[1, 2, 3]),
    node_case("ReduceMean"),
    node_case("Cast", to=TensorProto.DOUBLE),
    node_case("Dropout", np.float32(0.5), np.array(True)),
    node_case("Add", np.ones((2, 6, 6), np.float64)),
])  # fmt: skip
def test_forms_that_a_teacher_cannot_have(
    tmp_path: Path, kind: str, constants: tuple[Any, ...], shape: tuple[int, ...], opset: int, attributes: dict[str, Any]
) -> None:
    graph = Graph(shape, opset=opset)
    graph.node(kind, "x", *(graph.constant(value) for value in constants), name="it", **attributes)
    error = refusal(unchecked(graph, tmp_path / "net.onnx"), shape)
    assert error.code == "SNX271"
    assert "it" in error.diagnostics[0].where


def unchecked(graph: Graph, path: Path) -> Path:
    """Write a graph whose shapes cannot be inferred; its output is that of the last node."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [graph.batch, *graph.shape])]
    outputs = [helper.make_tensor_value_info(graph.nodes[-1].output[0], TensorProto.FLOAT, [])]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "g", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=8,
    )  # fmt: skip
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(("kind", "constants", "shape", "opset", "attributes"), [
    node_case("Conv", np.ones((3, 3, 2, 2), np.float32)),
    node_case("Conv", np.ones((3, 2, 7, 7), np.float32)),
    node_case("Conv", np.ones((3, 2, 2, 2), np.float32), kernel_shape=[3, 3]),
    node_case("Conv", np.ones((3, 2, 2, 2), np.float32), strides=[0, 1]),
    node_case("Conv", np.ones((3, 2, 2, 2), np.float32), strides=[1]),
    node_case("Conv", np.ones((3, 2, 2, 2), np.float32), pads=[-1, 0, 0, 0]),
    node_case("Conv", np.ones((3, 2, 2, 2), np.float32), pads=[60000, 60000, 60000, 60000]),
    node_case("Conv", np.ones((3, 2, 2, 2), np.float32), pads=[1 << 40, 0, 0, 0]),
    node_case("Conv", np.ones((3, 2, 2, 2), np.float32), group=0),
    node_case("Conv", np.ones((3, 2, 2, 2), np.float32), np.ones(4, np.float32)),
    node_case("Conv", np.ones((3, 2, 2, 2), np.float32), auto_pad="SAME"),
    node_case("Gemm", np.ones((5, 4), np.float32), shape=(6,)),
    node_case("BatchNormalization", *[np.ones(3, np.float32)] * 4),
    node_case("BatchNormalization", *FOUR[:3], -FOUR[0]),
    node_case("MaxPool", kernel_shape=[2, 2], pads=[2, 0, 0, 0]),
    node_case("MaxPool", kernel_shape=[9, 9]),
    node_case("Clip", np.float32(1), np.float32(0)),
    node_case("Clip", np.float32("nan"), np.float32(0)),
    node_case("Add", np.ones((5, 6), np.float32)),
    node_case("GlobalAveragePool", shape=(6,)),
])  # fmt: skip
def test_numbers_that_contradict_each_other(
    tmp_path: Path, kind: str, constants: tuple[Any, ...], shape: tuple[int, ...], opset: int, attributes: dict[str, Any]
) -> None:
    graph = Graph(shape, opset=opset)
    graph.node(kind, "x", *(graph.constant(value) for value in constants), name="it", **attributes)
    error = refusal(unchecked(graph, tmp_path / "net.onnx"), shape)
    assert error.code == "SNX151"
    assert error.diagnostics[0].where == "it"


@pytest.mark.parametrize(("kind", "constants", "shape", "opset", "attributes"), [
    node_case("Flatten", axis=0),
    node_case("Flatten", axis=2),
    node_case("Reshape", np.array([1, -1])),  # the batch of this file is open: all samples would be one
    node_case("Reshape", np.array([-1, 36])),
    node_case("Reshape", np.array([-1])),
    node_case("Reshape", np.array([2, -1])),
    node_case("Reshape", np.array([-1, 0, -1])),
    node_case("Add", np.ones((3, 2, 6, 6), np.float32)),
])  # fmt: skip
def test_operations_across_the_samples(
    tmp_path: Path, kind: str, constants: tuple[Any, ...], shape: tuple[int, ...], opset: int, attributes: dict[str, Any]
) -> None:
    graph = Graph(shape, opset=opset)
    graph.node(kind, "x", *(graph.constant(value) for value in constants), name="it", **attributes)
    error = refusal(unchecked(graph, tmp_path / "net.onnx"), shape)
    assert error.code == "SNX277"
    assert error.diagnostics[0].where == "it"


def test_weights_transposed_along_axes_that_they_do_not_have(tmp_path: Path) -> None:
    graph = Graph((6,))
    graph.node("MatMul", "x", graph.node("Transpose", graph.weight(4, 6), perm=[2, 0], name="it"))
    error = refusal(unchecked(graph, tmp_path / "net.onnx"), (6,))
    assert (error.code, error.diagnostics[0].where) == ("SNX151", "it")


def test_more_than_one_input_or_output(tmp_path: Path) -> None:
    graph = Graph((6,))
    hidden = graph.node("Gemm", "x", graph.weight(6, 4))
    assert refusal(graph.write(tmp_path / "net.onnx", hidden, graph.node("Relu", hidden)), (6,)).code == "SNX272"

    def second_input(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3]))

    assert refusal(spoilt(tmp_path / "net.onnx", second_input), (6,)).code == "SNX272"


def test_an_output_that_is_no_computation_of_the_input(tmp_path: Path) -> None:
    graph = Graph((4,))
    assert refusal(graph.write(tmp_path / "net.onnx", graph.node("Identity", "x")), (4,)).code == "SNX272"


def test_an_input_of_another_type(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE

    assert refusal(spoilt(tmp_path / "net.onnx", change), (6,)).code == "SNX271"


@pytest.mark.parametrize(("shape", "classes"), [((7,), 4), ((6,), 5), ((1, 2, 4), 4), ((), 4)])
def test_other_samples_or_classes(tmp_path: Path, shape: tuple[int, ...], classes: int) -> None:
    assert refusal(plain(tmp_path / "net.onnx"), shape, classes).code == "SNX153"


def test_a_misspelt_layer_is_answered_with_the_closest(tmp_path: Path) -> None:
    teacher = load_onnx_teacher(plain(tmp_path / "net.onnx"), input_shape=(6,), classes=4)
    with pytest.raises(UserError, match="did you mean 'dense'") as error:
        teacher.step("dens")
    assert error.value.code == "SNX016"
