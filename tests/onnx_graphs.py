"""ONNX files for tests, built by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Builds an ONNX file node by node; each call returns the name of an output."""

    def __init__(self, shape: tuple[int, ...], *, opset: int = 17, batch: int | str = "N", seed: int = 0) -> None:
        self.shape, self.opset, self.batch = shape, opset, batch
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any, name: str = "") -> str:
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant(self.random.normal(0, 1 / math.sqrt(math.prod(shape[1:]) or 1), shape).astype(np.float32))

    def node(self, kind: str, *inputs: str, name: str | None = None, outputs: int = 1, **attributes: Any) -> str:
        name = f"{kind.lower()}{len(self.nodes)}" if name is None else name
        names = [f"t{len(self.nodes)}" + "_" * index for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names[0]

    def norm(self, value: str, channels: int, **attributes: Any) -> str:
        draw = self.random.uniform
        parts = [self.constant(draw(0.5, 1.5, channels).astype(np.float32)) for _ in range(4)]
        return self.node("BatchNormalization", value, *parts, **attributes)

    def write(self, path: Path, output: str, *more: str) -> Path:
        """Save the graph with these outputs; their shapes are inferred."""
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [self.batch, *self.shape])]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (output, *more)]
        graph = helper.make_graph(self.nodes, "g", inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        return path
