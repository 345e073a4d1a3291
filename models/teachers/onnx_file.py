"""A teacher from an ONNX file.

The file may come from any library. It is read as data: sizes are checked before memory is taken, weights beside the file only
from its own folder, and every node is either computed exactly or refused by name. What remains is a :class:`GraphTeacher` of
ordinary torch modules, whose outputs agree with onnxruntime to 1e-5.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, checker, external_data_helper, numpy_helper
from onnx.helper import get_attribute_value, tensor_dtype_to_np_dtype
from torch import nn

from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.teachers.graph_teacher import INPUT, GraphTeacher, Step
from snn_export.models.teachers.onnx_operations import OPERATIONS, VALUES_LIMIT, Node, with_bias
from snn_export.models.teachers.stages import with_found_stages

DEFAULT_LIMIT_BYTES = 1 << 30
"""Largest model, its external weights included. Protobuf itself ends at twice this size."""
NODES_LIMIT = 100_000

FINDINGS_LIMIT = 100
"""Most operations that are named as unknown."""

OPSETS = range(7, 26)
"""Versions of the operator set that are read. The operations used here mean the same in all of them, or are told apart."""

_STANDARD = ("", "ai.onnx")
_CONSTANT_TYPES = {
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
}
_FOLDED = ("Identity", "Transpose")
"""Operations that are applied to weights while a file is read, where an exporter left that open."""


def load_onnx_teacher(
    path: Path, *, input_shape: tuple[int, ...], classes: int, limit_bytes: int = DEFAULT_LIMIT_BYTES
) -> GraphTeacher:
    """Read the network of an ONNX file.

    A file whose input is flat, (B, features), also takes samples of another shape with as many values: they are flattened in
    front of it, as libraries for tables expect. A batch size that is fixed in the file is no bound here.

    Args:
        path: of the file.
        input_shape: of one sample.
        classes: number of logits.
        limit_bytes: of the file and the weights beside it, together.

    Raises:
        UserError: SNX150 no readable file, SNX151 no valid model, SNX152 weights outside the file's folder or cut short, SNX153
            it is for other samples or classes, SNX270 operations (all at once) and SNX271 forms of operations that a teacher
            cannot have, SNX272 not one input and one output, SNX273 an operator set out of range, SNX277 samples that are mixed.
    """
    model = _parsed(path, limit_bytes)
    graph = model.graph
    nodes = _needed(graph)
    _raise_unknown(graph, nodes)
    opset = _opset(model)
    _external(model, path, limit_bytes)
    _checked(model)
    return _Reader(graph, nodes, opset, input_shape).teacher(classes)


def external_files(path: Path) -> tuple[Path, ...]:
    """The files beside an ONNX model that hold weights of it, sorted; none for a model that cannot be read.

    What is wrong with a model or with such a file, :func:`load_onnx_teacher` says.
    """
    try:
        model = _parsed(path, DEFAULT_LIMIT_BYTES)
    except UserError:
        return ()
    found = {_location(tensor) for tensor in _tensors(model) if external_data_helper.uses_external_data(tensor)}
    return tuple(sorted(path.parent / location for location in found if location and _lies_inside(location)))


# --- the file ------------------------------------------------------------------------------------------------------------


def _parsed(path: Path, limit_bytes: int) -> ModelProto:
    try:
        if not path.is_file():
            raise _unreadable(path, "there is no such file")
        size = path.stat().st_size
        if size > limit_bytes:
            raise _unreadable(path, f"it takes {size} bytes; the limit is {limit_bytes}")
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    except (DecodeError, ValueError, RuntimeError) as error:
        raise _unreadable(path, f"it is no ONNX model: {error}") from error
    if not model.graph.node:
        raise _unreadable(path, "it holds no network")
    if len(model.graph.node) > NODES_LIMIT:
        raise _unreadable(path, f"it has {len(model.graph.node)} nodes; the limit is {NODES_LIMIT}")
    if not all(isinstance(text, str) for text in _texts(model.graph)):
        raise _unreadable(path, "a name in it is no text")
    # Neither takes part in what the graph computes: a node that calls a function of the file is refused by its domain.
    del model.functions[:]
    del model.training_info[:]
    return model


def _texts(graph: GraphProto) -> Iterator[object]:
    """All names that are used below. Protobuf hands out bytes where a damaged file holds no UTF-8."""
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))


def _unreadable(path: Path, why: str) -> UserError:
    return UserError(
        "SNX150", f"'{path.name}' is not a readable ONNX file", where=str(path), why=why,
        fix="export the teacher again, for instance with torch.onnx.export, tf2onnx or skl2onnx",
    )  # fmt: skip


def _external(model: ModelProto, path: Path, limit_bytes: int) -> None:
    """Take in the weights that lie in files beside the model; SNX152 for one that lies elsewhere or is cut short."""
    outside = [tensor for tensor in _tensors(model) if external_data_helper.uses_external_data(tensor)]
    left = limit_bytes - path.stat().st_size
    for tensor in outside:
        size = _bytes_of(tensor)
        if size is None or size > left:
            raise _misplaced(
                path, tensor, f"its shape {list(tensor.dims)} and type need more bytes than the limit {limit_bytes} leaves"
            )
        left -= size
        tensor.raw_data = _beside(path, tensor, size)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _tensors(model: ModelProto) -> list[TensorProto]:
    """All weights and constants of a model."""
    return [*model.graph.initializer, *(item.t for node in model.graph.node for item in node.attribute if item.HasField("t"))]


def _location(tensor: TensorProto) -> str:
    """The file that a tensor says its bytes lie in."""
    return next((str(entry.value) for entry in reversed(tensor.external_data) if entry.key == "location"), "")


def _lies_inside(location: str) -> bool:
    """Whether a location stays in the folder of the model, as any system reads it."""
    parts = {*PurePosixPath(location).parts, *PureWindowsPath(location).parts}
    return ".." not in parts and not PurePosixPath(location).is_absolute() and not PureWindowsPath(location).anchor


def _beside(path: Path, tensor: TensorProto, size: int) -> bytes:
    """The bytes of a tensor from a file in the folder of the model."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location or not _lies_inside(location):
        raise _misplaced(path, tensor, f"'{location}' does not lie in the folder of the model")
    folder = path.parent.resolve()
    try:
        file = (folder / location).resolve()
        if not file.is_relative_to(folder) or not file.is_file():
            raise _misplaced(path, tensor, f"'{location}' is no file in the folder of the model")
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", size))
        if offset < 0 or length != size or offset + size > file.stat().st_size:
            raise _misplaced(path, tensor, f"{size} bytes are expected at {offset} of '{location}'; that is not what it holds")
        with file.open("rb") as stream:
            stream.seek(offset)
            data: bytes = stream.read(size)
            return data
    except (OSError, ValueError) as error:  # ValueError: no number, or a name that no file can have
        raise _misplaced(path, tensor, str(error)) from error


def _bytes_of(tensor: TensorProto) -> int | None:
    """Size of a tensor as raw data; None where shape and type leave it open."""
    if tensor.data_type not in _CONSTANT_TYPES or any(size < 0 for size in tensor.dims):
        return None
    return math.prod(map(int, tensor.dims)) * int(tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _misplaced(path: Path, tensor: TensorProto, why: str) -> UserError:
    return UserError(
        "SNX152", f"the weights '{tensor.name}' of '{path.name}' cannot be read", where=str(path), why=why,
        fix="keep the data file in the folder of the model as it was exported, or save the model as one file",
    )  # fmt: skip


def _checked(model: ModelProto) -> None:
    try:
        checker.check_model(model)
    except (checker.ValidationError, EncodeError, ValueError, RuntimeError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), "it is not valid")
        raise UserError(
            "SNX151", "the ONNX file is not a valid model", where="the file", why=first,
            fix="export the model again; `check-model FILE` of the onnx package tells more",
        ) from error  # fmt: skip


def _opset(model: ModelProto) -> int:
    found = [int(entry.version) for entry in model.opset_import if entry.domain in _STANDARD]
    if not found or found[0] not in OPSETS:
        raise UserError(
            "SNX273", f"the ONNX file uses operator set {found[0] if found else 'unknown'}", where="opset_import",
            why=f"operator sets {OPSETS.start} to {OPSETS.stop - 1} are read: outside, operations may mean something else",
            fix="export with opset_version=17, or convert the file with onnx.version_converter",
        )  # fmt: skip
    return found[0]


# --- the graph -----------------------------------------------------------------------------------------------------------


def _needed(graph: GraphProto) -> list[NodeProto]:
    """The nodes that the output depends on, in order; SNX272 unless there is one output."""
    if len(graph.output) != 1:
        raise _ends("output", [value.name for value in graph.output])
    wanted, found = {graph.output[0].name}, []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


def _ends(kind: str, names: list[str]) -> UserError:
    return UserError(
        "SNX272", f"the ONNX file has {len(names)} {kind}s: {', '.join(names) or 'none'}", where=f"graph {kind}s",
        why="a teacher maps one batch of samples to one batch of logits",
        fix="cut the file to one input and the logits: onnx.utils.extract_model(source, target, [input], [logits])",
    )  # fmt: skip


def _raise_unknown(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """SNX270 with one finding per node that is no operation of a teacher."""
    constants = {tensor.name for tensor in graph.initializer}
    found = []
    for node in nodes:
        standard = node.domain in _STANDARD
        if standard and (node.op_type == "Constant" or (node.op_type in _FOLDED and constants.issuperset(node.input))):
            constants.update(node.output)
        elif not standard or node.op_type not in OPERATIONS:
            name = node.name or next(iter(node.output), "")
            kind = node.op_type if standard else f"{node.domain}.{node.op_type}"
            found.append(Diagnostic(
                "SNX270", f"{kind} '{name}' is no operation that a teacher can have", name,
                f"these are read: {', '.join(sorted(OPERATIONS))}", _advice(node.op_type),
            ))  # fmt: skip
    if found:
        raise UserError.from_diagnostics(tuple(found[:FINDINGS_LIMIT]))


def _advice(operation: str) -> str:
    if operation in ("Softmax", "LogSoftmax", "Sigmoid", "ArgMax"):
        return "export the logits: leave off the last activation, or cut the file there with onnx.utils.extract_model"
    if operation == "Transpose":
        return "export with channels first (B, C, H, W); tf2onnx does so with --inputs-as-nchw and --outputs-as-nchw"
    if operation in ("Shape", "Gather", "Unsqueeze", "Concat", "Slice", "Squeeze"):
        return "fold the computation of shapes: export with a fixed batch size, flatten with axis 1, or run onnxsim over the file"
    return "replace the layer by one of these and train again, or export the part of the network without it"


class _Reader:
    """Walks the nodes of a graph once and makes a step of each."""

    def __init__(self, graph: GraphProto, nodes: list[NodeProto], opset: int, input_shape: tuple[int, ...]) -> None:
        self.graph = graph
        self.nodes = nodes
        self.opset = opset
        self.input_shape = tuple(input_shape)
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.constants: dict[str, NDArray[Any]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.sources: dict[str, str] = {}
        """From the name of an activation to the step that computes it."""
        self.batch: int | None = None
        self.steps: list[Step] = []
        self.aliases: dict[str, str] = {}
        self.network = nn.Module()
        self.uses = Counter(name for node in nodes for name in set(node.input))
        self.names = Counter(node.name for node in nodes)

    def teacher(self, classes: int) -> GraphTeacher:
        """The network; SNX153 unless its logits are ``classes`` numbers per sample."""
        output = self.graph.output[0].name
        self._begin()
        for node in self.nodes:
            if node.op_type == "Constant":
                self._constant(node)
            else:
                self._node(node)
        if output not in self.sources or not self.steps or self.sources[output] == INPUT:
            raise _ends("output", [f"{output}, which no operation of the input computes"])
        if self.shapes[output] != (classes,):
            raise _misfit(f"gives {self.shapes[output]} per sample", f"{classes} classes", "outputs")
        names = {step.name for step in self.steps}
        aliases = {name: step for name, step in self.aliases.items() if name not in names}
        teacher = GraphTeacher(self.network, self.steps, input_shape=self.input_shape, classes=classes, aliases=aliases)
        return with_found_stages(teacher)

    def _begin(self) -> None:
        """The input: its type, its batch, its shape; samples are flattened for a network of flat ones."""
        inputs = [value for value in self.graph.input if value.name not in self.initializers]
        if len(inputs) != 1:
            raise _ends("input", [value.name for value in inputs])
        name, kind = inputs[0].name, inputs[0].type.tensor_type
        if kind.elem_type != TensorProto.FLOAT:
            raise UserError(
                "SNX271", f"the input '{name}' is not of type float32", where=name,
                why="teachers compute in float32; anything else would be rounded on the way", fix="export the model in float32",
            )  # fmt: skip
        expected = self.input_shape
        if kind.HasField("shape"):
            sizes = [size.dim_value if size.dim_value > 0 else None for size in kind.shape.dim]
            self.batch = sizes[0] if sizes else None
            flat = len(sizes) == 2 and len(expected) > 1
            wanted = (math.prod(expected),) if flat else expected
            if len(sizes) != len(wanted) + 1 or any(
                have not in (None, want) for have, want in zip(sizes[1:], wanted, strict=True)
            ):
                raise _misfit(f"takes samples of shape {tuple(sizes[1:])}", f"samples of shape {expected}", name)
            expected = wanted
        self.sources[name] = INPUT
        self.shapes[name] = expected
        if expected != self.input_shape:
            self._append("flatten the input", "Flatten", nn.Flatten(), [name], name, expected)

    def _constant(self, node: NodeProto) -> None:
        attribute = node.attribute[0]
        value = get_attribute_value(attribute)
        if attribute.name == "value":
            self.constants[node.output[0]] = _array(value)
        elif attribute.name in ("value_float", "value_floats"):
            self.constants[node.output[0]] = np.asarray(value, np.float32)
        elif attribute.name in ("value_int", "value_ints"):
            self.constants[node.output[0]] = np.asarray(value, np.int64)
        else:
            raise UserError(
                "SNX271", f"Constant '{node.name or node.output[0]}' holds {attribute.name}", where=node.name or node.output[0],
                why="weights are plain arrays of numbers", fix="export weights as dense tensors",
            )  # fmt: skip

    def _node(self, proto: NodeProto) -> None:
        if proto.op_type in _FOLDED and proto.input[0] not in self.sources:
            self.constants[proto.output[0]] = self._folded(proto)
            return
        node = self._outline(proto)
        module, shape = OPERATIONS[node.operation](node)
        if math.prod(shape) > VALUES_LIMIT:
            raise node.invalid(f"makes {shape} of a sample; the limit is {VALUES_LIMIT} values")
        activations = [name for name in proto.input if name in self.sources]
        output = proto.output[0]
        if module is None or (node.operation == "Add" and self._biases(proto, node, activations)):
            self._alias(node.name, output, self.sources[activations[0]], shape)
            return
        self._append(node.name, node.operation, module, activations, output, shape)

    def _folded(self, proto: NodeProto) -> NDArray[Any]:
        """Value of an operation on a constant."""
        value = self._value(proto, proto.input[0])
        if proto.op_type == "Identity":
            return value
        axes = next((tuple(attribute.ints) for attribute in proto.attribute if attribute.name == "perm"), None)
        if axes is not None and sorted(axes) != list(range(value.ndim)):
            raise self._outline(proto).invalid(f"has perm = {list(axes)} for a constant of shape {value.shape}")
        return value.transpose(axes)

    def _biases(self, proto: NodeProto, node: Node, activations: list[str]) -> bool:
        """Whether an Add is the bias of the MatMul in front of it, which then becomes one layer with it."""
        if len(activations) != 1 or self.uses[activations[0]] != 1 or activations[0] == self.graph.output[0].name:
            return False
        before = self.steps[-1] if self.steps else None
        if before is None or before.operation != "MatMul" or before.name != self.sources[activations[0]]:
            return False
        return with_bias(before.compute, node, position=1 - list(proto.input).index(activations[0]))

    def _outline(self, proto: NodeProto) -> Node:
        """What the operations need to know of a node."""
        optional = [name for name in proto.output[1:] if self.uses[name] or name == self.graph.output[0].name]
        return Node(
            name=proto.name if proto.name and self.names[proto.name] == 1 else proto.output[0],
            operation=proto.op_type,
            opset=self.opset,
            attributes={attribute.name: get_attribute_value(attribute) for attribute in proto.attribute},
            constants=tuple(None if name in self.sources or not name else self._value(proto, name) for name in proto.input),
            shapes=tuple(self.shapes.get(name) for name in proto.input),
            batch=self.batch,
            outputs=1 + len(optional),
        )

    def _value(self, proto: NodeProto, name: str) -> NDArray[Any]:
        """Value of a constant, read when it is first used."""
        if name not in self.constants:
            if name not in self.initializers:
                raise UserError(
                    "SNX271", f"{proto.op_type} '{proto.name or proto.output[0]}' uses '{name}', which is no dense constant",
                    where=proto.name or proto.output[0], why="weights are plain arrays of numbers",
                    fix="export weights as dense tensors, and nodes in the order in which they run",
                )  # fmt: skip
            self.constants[name] = _array(self.initializers[name])
        return self.constants[name]

    def _append(
        self, name: str, operation: str, module: nn.Module, activations: list[str], output: str, shape: tuple[int, ...]
    ) -> None:
        sources = tuple(self.sources[activation] for activation in activations)
        self.network.add_module(self._key(name), module)
        self.steps.append(Step(name, operation, sources, module, shape))
        self._alias(name, output, name, shape)

    def _alias(self, name: str, output: str, step: str, shape: tuple[int, ...]) -> None:
        self.sources[output] = step
        self.shapes[output] = shape
        if step != INPUT:
            self.aliases.update({name: step, output: step})

    def _key(self, name: str) -> str:
        """Name of a step as torch accepts it for a module; unique, and no attribute that a module has already."""
        key = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "layer"
        numbered = (f"{key}_{number}" for number in count(2))
        return next(candidate for candidate in chain([key], numbered) if not hasattr(self.network, candidate))


def _array(tensor: TensorProto) -> NDArray[Any]:
    if tensor.data_type not in _CONSTANT_TYPES:
        raise UserError(
            "SNX271", f"the constant '{tensor.name}' is of type {tensor.data_type}", where=tensor.name,
            why="weights are float32, sizes are integers", fix="export the model in float32",
        )  # fmt: skip
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (TypeError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise UserError(
            "SNX151", f"the constant '{tensor.name}' is damaged", where=tensor.name,
            why=f"its data do not make {list(tensor.dims)}: {error}", fix="export the model again",
        ) from error  # fmt: skip


def _misfit(found: str, expected: str, where: str) -> UserError:
    return UserError(
        "SNX153", f"the teacher {found}, not {expected}", where=where,
        why="teacher and student see the same samples and name the same classes",
        fix="give a teacher that was trained on this data, or state the data it was trained on",
    )  # fmt: skip
