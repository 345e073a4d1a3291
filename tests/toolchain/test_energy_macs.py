from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from snn_export.training.evaluate import logits
from snn_export.training.mac_counts import count_macs


def images(count: int = 7, zeros: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.random((count, 2, 8, 7)).astype(np.float32)
    return values * (rng.random(values.shape) > zeros)


def convnet() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4 * 4, 10),
    )  # fmt: skip
    net[0].weight.data[:, 0, 1, 1] = 0.0
    return net


def brute_force(net: nn.Sequential, x: np.ndarray) -> tuple[int, int]:
    """(dense per sample, effective of all samples), from what each layer is given, one output at a time."""
    dense = effective = 0
    given = torch.tensor(x)
    net.eval()
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            patches = nn.functional.unfold(nn.functional.pad(given, (1, 1, 1, 1)) if layer.padding == (1, 1) else given,
                                           layer.kernel_size, layer.dilation, 0, layer.stride)  # fmt: skip
            inside = nn.functional.unfold(
                nn.functional.pad(torch.ones_like(given), (1, 1, 1, 1)), layer.kernel_size, 1, 0, layer.stride
            )
            size, groups = int(np.prod(layer.kernel_size)), layer.groups
            for channel in range(layer.out_channels):
                group = channel // (layer.out_channels // groups)
                width = layer.in_channels // groups * size
                rows = slice(group * width, (group + 1) * width)
                nonzero = (layer.weight[channel].reshape(-1) != 0)[None, :, None]
                dense += int(inside[0, rows].sum())
                effective += int(((patches[:, rows] != 0) & nonzero).sum())
        elif isinstance(layer, nn.Linear):
            dense += layer.weight.numel()
            effective += int(((given[:, None] != 0) & (layer.weight[None] != 0)).sum())
        given = layer(given).detach()
    return dense, effective


def test_a_convnet_is_counted_as_one_output_after_the_other_counts() -> None:
    net, x = convnet(), images()
    found, answers = count_macs(net, x, "teacher", chunk=3)
    assert (found.dense_macs, found.effective_macs) == brute_force(net, x)
    assert found.effective_macs < 7 * found.dense_macs
    assert (found.name, found.samples, found.layers) == ("teacher", 7, 3)
    assert found.weights == 4 * 2 * 9 + 6 * 2 * 6 + 10 * 96, "no biases, no norms"
    assert found.activations == (2 * 56 + 4 * 56) + (4 * 56 + 6 * 16) + (96 + 10)
    assert np.array_equal(answers, logits(net, x, 3)), "counting changes nothing of what it counts"


def test_chunks_change_nothing() -> None:
    net, x = convnet(), images()
    assert count_macs(net, x, "t", chunk=7)[0] == count_macs(net, x, "t", chunk=2)[0]


def test_what_is_no_module_is_seen_too() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(5, 112))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.flatten(1)
            q = y[:, None, :8].expand(-1, 3, 8)
            z = nn.functional.scaled_dot_product_attention(q, q, q)
            return y @ self.matrix.T + z.sum((1, 2))[:, None]

    found, _ = count_macs(Functional(), images(4, zeros=0.0), "t")
    assert found.dense_macs == 5 * 112 + 3 * 3 * 8 * 2, "a product of matrices, and an attention of three rows of eight"


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_network_is_restored(training: bool) -> None:
    net = convnet().train(training)
    count_macs(net, images(2), "t")
    assert net.training is training
