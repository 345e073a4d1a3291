"""What torch modules and functions compute, in the words of ONNX where they have one: one language for all teachers."""

from __future__ import annotations

from torch import nn

ACTIVATIONS = frozenset({
    "Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Silu", "Mish", "HardSwish", "HardSigmoid", "Sigmoid",
    "Tanh", "Softplus",
})  # fmt: skip
"""Operations that end a stage. An ONNX file holds the first two of them, a torch module may have any."""

_MODULES = {
    "ReLU": "Relu", "ReLU6": "Clip", "Hardtanh": "Clip", "LeakyReLU": "LeakyRelu", "PReLU": "PRelu", "ELU": "Elu", "SELU": "Selu",
    "CELU": "Celu", "GELU": "Gelu", "SiLU": "Silu", "Hardswish": "HardSwish", "Hardsigmoid": "HardSigmoid", "Linear": "Gemm",
    "Conv1d": "Conv", "Conv2d": "Conv", "BatchNorm1d": "BatchNormalization", "BatchNorm2d": "BatchNormalization",
    "AvgPool1d": "AveragePool", "AvgPool2d": "AveragePool", "AdaptiveAvgPool1d": "AveragePool",
    "AdaptiveAvgPool2d": "AveragePool", "MaxPool1d": "MaxPool", "MaxPool2d": "MaxPool", "AdaptiveMaxPool1d": "MaxPool",
    "AdaptiveMaxPool2d": "MaxPool", "FractionalMaxPool2d": "MaxPool",
}  # fmt: skip
_FUNCTIONS = {
    "relu": "Relu", "relu6": "Clip", "hardtanh": "Clip", "clamp": "Clip", "clip": "Clip", "leaky_relu": "LeakyRelu",
    "prelu": "PRelu", "elu": "Elu", "selu": "Selu", "celu": "Celu", "gelu": "Gelu", "silu": "Silu", "mish": "Mish",
    "hardswish": "HardSwish", "hardsigmoid": "HardSigmoid", "sigmoid": "Sigmoid", "tanh": "Tanh", "softplus": "Softplus",
    "linear": "Gemm", "conv1d": "Conv", "conv2d": "Conv", "batch_norm": "BatchNormalization", "avg_pool1d": "AveragePool",
    "avg_pool2d": "AveragePool", "adaptive_avg_pool1d": "AveragePool", "adaptive_avg_pool2d": "AveragePool",
    "max_pool1d": "MaxPool", "max_pool2d": "MaxPool", "adaptive_max_pool1d": "MaxPool", "adaptive_max_pool2d": "MaxPool",
    "boolean_dispatch": "MaxPool", "amax": "MaxPool", "max": "MaxPool", "add": "Add", "flatten": "Flatten", "view": "Reshape",
    "reshape": "Reshape", "mean": "ReduceMean", "matmul": "MatMul", "dropout": "Dropout", "maximum": "MaxPool",
}  # fmt: skip


def operation_of(computation: nn.Module | str) -> str:
    """What a torch module, or a function by its name, computes, in the words of ONNX where they have one, else in torch's."""
    if isinstance(computation, nn.Module):
        kind = type(computation).__name__
        return _MODULES.get(kind, kind)
    return _FUNCTIONS.get(computation, computation)
