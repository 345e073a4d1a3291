"""The two places where the rate pass differentiates something other than what it computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rate_output(mean_current: Tensor, rates: Tensor, slopes: Tensor) -> Tensor:
    """The rates themselves, with ``slopes`` as their derivative by ``mean_current``; all (B, *features).

    ``r.detach() + c g - (c g).detach()`` in one function: exact in value (the sum would round) and with one tensor kept.
    """
    found: Tensor = _RateOutput.apply(mean_current, rates, slopes)  # type: ignore[no-untyped-call]
    return found


class _RateOutput(torch.autograd.Function):
    """See :func:`rate_output`."""

    @staticmethod
    def forward(ctx: Any, mean_current: Tensor, rates: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(slopes)
        return rates.to(mean_current.dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradients[0] * slopes, None, None


def rate_norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    """Batch-norm with given statistics as values, and gradients as if they were those of ``x`` itself.

        y = weight (x - m) / sqrt(v + eps) + bias,   m = mean,   v = variance
        dm/dx = 1/N,   dv/dx = 2 (x - mean(x)) / N

    x (B, C, *space), everything else (C,), N samples and positions per channel. ``mean`` and ``variance`` (biased) are those of
    the spike pass over T steps: m = m_rate + (mean - m_rate).detach(), and the same for v, in one function that keeps x alone.

    Source: Yu et al., NeurIPS 2024, arXiv 2410.11488, section 4.
    """
    found: Tensor = _RateNorm.apply(x, weight, bias, mean, variance, eps)  # type: ignore[no-untyped-call]
    return found


class _RateNorm(torch.autograd.Function):
    """See :func:`rate_norm`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, scale)
        factor = weight * scale
        return torch.addcmul(along(bias - mean * factor, x), x, along(factor, x))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        """Gradients of x, weight and bias."""
        x, weight, mean, scale = ctx.saved_tensors
        grad = gradients[0]
        count = x.numel() // x.shape[1]
        centred = x - along(mean, x)
        total = channel_sums(grad)
        grad_scale = channel_sums(grad * centred)
        by_variance = -0.5 * weight * scale**3 * grad_scale
        by_mean = -weight * scale * total
        own_mean = channel_sums(x) / count
        # dL/dx = grad weight scale + by_mean / N + by_variance 2 (x - own mean) / N
        offset = by_mean / count + by_variance * 2 * (mean - own_mean) / count
        found = grad * along(weight * scale, x)
        found.addcmul_(centred, along(by_variance * 2 / count, x)).add_(along(offset, x))
        return found, grad_scale * scale, total, None, None, None


def along(values: Tensor, x: Tensor) -> Tensor:
    """(C,) as (1, C, 1, ...), to meet x (B, C, *space)."""
    return values.reshape(1, -1, *(1,) * (x.ndim - 2))


def channel_sums(x: Tensor) -> Tensor:
    """Sum per channel, (C,), of x (B, C, *space), along its memory: torch's sum over several axes takes five times as long."""
    if x.ndim < 3:
        return x.sum(0)
    rows = _rows_of_channels(x)
    return x.flatten(2).sum(2).sum(0) if rows is None else rows.sum(0)


def channel_squares(x: Tensor) -> Tensor:
    """Sum of squares per channel, (C,), of x (B, C, *space)."""
    if x.ndim < 3:
        return x.square().sum(0)
    rows = _rows_of_channels(x)
    return torch.linalg.vector_norm(x.flatten(2), dim=2).square_().sum(0) if rows is None else rows.square().sum(0)


def _rows_of_channels(x: Tensor) -> Tensor | None:
    """Maps that lie in memory channel last as (B * space, C), a view; None where they do not."""
    if x.is_contiguous() or not x.movedim(1, -1).is_contiguous():
        return None
    return x.movedim(1, -1).reshape(-1, x.shape[1])
