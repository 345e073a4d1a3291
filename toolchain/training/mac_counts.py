"""Multiplications of an ANN, counted on its activations while it runs.

Every convolution and matrix product that PyTorch carries out is seen, whatever module or function asked for it. A multiplication
is effective where both factors are nonzero: the same operation on the marks of what is nonzero counts them. Positions of padding
are not multiplied: the same operation on ones counts the dense ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from snn_export.reporting.energy_records import AnnOperations
from snn_export.training.evaluate import CHUNK
from snn_export.training.evaluating import evaluating

aten = torch.ops.aten
_Factors = Callable[[Sequence[Any]], tuple[torch.Tensor, torch.Tensor]]
_PRODUCTS: dict[Any, _Factors] = {
    aten.mm.default: lambda given: (given[0], given[1]),
    aten.bmm.default: lambda given: (given[0], given[1]),
    aten.addmm.default: lambda given: (given[1], given[2]),
    aten.baddbmm.default: lambda given: (given[1], given[2]),
}
_CONVOLUTIONS = (aten.convolution.default, aten._convolution.default)
_ATTENTION = (
    aten._scaled_dot_product_flash_attention_for_cpu.default, aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
)  # fmt: skip
"""Fused: their weights are not seen, so every product counts as effective."""


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what passes through. What does not depend on the values is counted only while ``whole`` is True."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.whole = True
        self.dense, self.effective, self.moved, self.layers = 0, 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        if func in _CONVOLUTIONS:
            x, weight, bias, *rest = args
            del bias
            run = aten.convolution.default
            self._add(lambda one, other: run(one, other, None, *rest[:6]), x, weight, result)
        elif func in _PRODUCTS:
            one, other = _PRODUCTS[func](args)
            self._add(torch.matmul, one, other, result)
        elif func in _ATTENTION:
            query, key, value = args[:3]
            products = query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
            self.effective += products
            self._structure(products, query.numel() + key.numel() + value.numel() + result[0].numel())
        return result

    def _add(self, run: Callable[..., torch.Tensor], one: torch.Tensor, other: torch.Tensor, result: torch.Tensor) -> None:
        marks = [(factor != 0).to(torch.float32) for factor in (one, other)]
        self.effective += _total(run(*marks))
        if self.whole:
            self._structure(_total(run(*(torch.ones_like(mark) for mark in marks))), one.numel() + result.numel())

    def _structure(self, dense: int, moved: int) -> None:
        if self.whole:
            self.dense, self.moved, self.layers = self.dense + dense, self.moved + moved, self.layers + 1


def _total(counts: torch.Tensor) -> int:
    """Every count is exact in float32: it is at most the number of weights of one output."""
    return int(counts.to(torch.float64).sum().round())


def count_macs(
    model: nn.Module, x: NDArray[np.float32], name: str, chunk: int = CHUNK
) -> tuple[AnnOperations, NDArray[np.float32]]:
    """What a network multiplies on inputs, and its logits for them (N, K).

    Args:
        model: any network of one input.
        x: (N, *shape), at least one sample.
        name: of the network.
        chunk: samples per forward pass.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    counting, logits = _Counting(), []
    with torch.no_grad(), evaluating(model):
        for start in range(0, len(x), chunk):
            given = torch.tensor(x[start : start + chunk]).to(device)
            with counting:
                made = model(given)
            counting.whole = False
            logits.append(made.cpu().numpy())
    first = min(chunk, len(x))
    return AnnOperations(
        name=name,
        samples=len(x),
        dense_macs=counting.dense // first,
        effective_macs=counting.effective,
        weights=_weights(model),
        activations=counting.moved // first,
        layers=counting.layers,
    ), np.concatenate(logits)


def _weights(model: nn.Module) -> int:
    """Parameters that are multiplied: matrices and kernels, not biases and norms."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.dim() > 1)
