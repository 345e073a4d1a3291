"""Building ONNX graphs: values that Python's operators work on.

:class:`Value` stands for a tensor of the graph. Its operators append nodes, so the functions of ``models/arithmetic.py``, called
with values in place of arrays, write their own equations into the file: no equation is stated a second time for ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import helper, numpy_helper

from snn_export.export.deployment import array_digest

Dimension = int | str
"""A size, or the name of one that is known when the graph runs."""
Operand = Any
"""A Value, a number, or an array of numbers that broadcasts."""


class Graph:
    """Nodes of one ONNX graph, or of a Scan's body where ``outer`` is given; constants live in the outermost one.

    Equal nodes and equal constants are made once. Nodes that no output needs are left out by :meth:`proto`.
    """

    def __init__(self, name: str, outer: Graph | None = None) -> None:
        self._name = name
        self._root: Graph = self if outer is None else outer._root
        self._nodes: list[onnx.NodeProto] = []
        self._made: dict[tuple[Any, ...], Value] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        if outer is None:
            self._names = 0
            self._constants: dict[str, tuple[Value, NDArray[Any]]] = {}
            self._defaults: list[onnx.TensorProto] = []

    @property
    def constant_bytes(self) -> int:
        """Size of all constants."""
        return sum(value.nbytes for _, value in self._root._constants.values())

    def constant(self, value: Operand, dtype: DTypeLike | None = None, hint: str = "constant") -> Value:
        """A tensor whose numbers stand in the file."""
        array = np.ascontiguousarray(np.asarray(value, dtype)).reshape(np.shape(value))
        constants, key = self._root._constants, array_digest(array)
        if key not in constants:
            constants[key] = Value(self._root, self._unique(hint), array.dtype), array
        return Value(self, constants[key][0].name, array.dtype)

    def node(
        self, op: str, *inputs: Value, dtype: DTypeLike | None = None, hint: str = "", attributes: dict[str, Any] | None = None
    ) -> Value:
        """The output of a node. dtype: its numbers, by default those of the first input; attributes: of ONNX."""
        given = attributes or {}
        made = np.dtype(dtype if dtype is not None else inputs[0].dtype)
        key = (op, *(value.name for value in inputs), made.str, repr(sorted(given.items())))
        if key not in self._made:
            name = self._unique(hint or op.lower())
            self._nodes.append(helper.make_node(op, [value.name for value in inputs], [name], **given))
            self._made[key] = Value(self, name, made, inputs[0].number if made.kind == "b" and inputs else made)
        return self._made[key]

    def cast(self, value: Value, dtype: DTypeLike) -> Value:
        """The same numbers as another type."""
        wanted = np.dtype(dtype)
        return value if value.dtype == wanted else self.node("Cast", value, dtype=wanted, attributes={"to": _code(wanted)})

    def reshaped(self, value: Value, shape: Sequence[int]) -> Value:
        """Features in another shape; the first axis, of samples, stays."""
        return self.node("Reshape", value, self.constant([0, *shape], np.int64))

    def input(self, name: str, dtype: DTypeLike, dims: Sequence[Dimension], default: NDArray[Any] | None = None) -> Value:
        """An input of the graph; one with a default may be left out when the graph is run."""
        self._inputs.append(_info(name, dtype, dims))
        if default is not None:
            self._defaults.append(numpy_helper.from_array(np.asarray(default, dtype), name))
        return Value(self, name, np.dtype(dtype))

    def output(self, name: str, value: Value, dims: Sequence[Dimension]) -> str:
        """Make a value an output called ``name``."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(_info(name, value.dtype, dims))
        return name

    def scan(
        self, body: Graph, states: Sequence[Value], scanned: Sequence[Value], made: Sequence[tuple[str, np.dtype[Any]]]
    ) -> list[Value]:
        """Run ``body`` once per row of ``scanned``.

        Args:
            body: its inputs are the states and one row of each scanned value, its outputs the states and one row of the rest.
            states: their first values.
            scanned: of equal length.
            made: hint and type of the outputs, in the body's order.
        """
        outputs = [Value(self, self._unique(hint), dtype) for hint, dtype in made]
        inputs = [value.name for value in (*states, *scanned)]
        names = [value.name for value in outputs]
        self._nodes.append(helper.make_node("Scan", inputs, names, body=body.proto(), num_scan_inputs=len(scanned)))
        return outputs

    def proto(self, doc: str = "") -> onnx.GraphProto:
        """The graph with the nodes its outputs need, and the constants that these need."""
        needed = {output.name for output in self._outputs}
        kept = []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(_reads(node))
        stored = []
        if self._root is self:
            stored = [
                numpy_helper.from_array(array, value.name) for value, array in self._constants.values() if value.name in needed
            ]
            stored += self._defaults
        return helper.make_graph(kept[::-1], self._name, self._inputs, self._outputs, stored, doc)

    def _unique(self, hint: str) -> str:
        """A name that nothing in the whole model has; those of inputs and outputs never begin like this."""
        self._root._names += 1
        return f"_{self._root._names} {hint}"


class Value:
    """A tensor of a graph, by name. Numbers and arrays that meet it become constants of its type.

    number: type of the numbers it is calculated with; of a comparison, those that were compared.
    """

    __array_ufunc__ = None  # array * value is the value's business

    def __init__(self, graph: Graph, name: str, dtype: DTypeLike, number: DTypeLike | None = None) -> None:
        self.graph, self.name, self.dtype = graph, name, np.dtype(dtype)
        self.number = np.dtype(number if number is not None else dtype)

    def __add__(self, other: Operand) -> Any:
        return self if _is(other, 0) else self._with("Add", other)

    def __radd__(self, other: Operand) -> Any:
        return self + other

    def __sub__(self, other: Operand) -> Any:
        return self if _is(other, 0) else self._with("Sub", other)

    def __mul__(self, other: Operand) -> Any:
        """A product; with a comparison it is ``other`` where that holds, and 0 elsewhere."""
        if isinstance(other, Value) and other.dtype.kind == "b":
            return other * self
        if self.dtype.kind == "b":
            return self.graph.node("Where", self, self._operand(other), self._operand(0), dtype=self.number)
        if _is(other, 1):
            return self
        return 0 if _is(other, 0) else self._with("Mul", other)

    def __rmul__(self, other: Operand) -> Any:
        return self * other

    def __truediv__(self, other: Operand) -> Any:
        return self._with("Div", other)

    def __lshift__(self, bits: int) -> Any:
        return self * (1 << bits)

    def __rshift__(self, bits: int) -> Any:
        """Arithmetic shift of integers: ONNX has none for signed ones; what lies below is taken off, then division is exact."""
        return (self - (self & ((1 << bits) - 1))) / (1 << bits)

    def __and__(self, other: Operand) -> Any:
        return self._with("BitwiseAnd", other)

    def __or__(self, other: Operand) -> Any:
        return self._with("Or", other)

    def __lt__(self, other: Operand) -> Any:
        return self._with("Less", other, bool)

    def __gt__(self, other: Operand) -> Any:
        return self._with("Greater", other, bool)

    def __le__(self, other: Operand) -> Any:
        return self._with("LessOrEqual", other, bool)

    def __ge__(self, other: Operand) -> Any:
        return self._with("GreaterOrEqual", other, bool)

    def _with(self, op: str, other: Operand, dtype: DTypeLike | None = None) -> Value:
        return self.graph.node(op, self, self._operand(other), dtype=dtype)

    def _operand(self, other: Operand) -> Value:
        if isinstance(other, Value):
            return other
        array = np.asarray(other)
        same = array.size > 0 and bool(np.all(array == array.flat[0]))
        return self.graph.constant(array.flat[0] if same else array, self.number)


def _is(other: Operand, number: int) -> bool:
    """True for a number, or an array of nothing else."""
    return not isinstance(other, Value) and np.size(other) > 0 and bool(np.all(np.asarray(other) == number))


def _code(dtype: DTypeLike) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _info(name: str, dtype: DTypeLike, dims: Sequence[Dimension]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _code(dtype), list(dims))


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the values a node takes, those that its body takes from outside included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)
