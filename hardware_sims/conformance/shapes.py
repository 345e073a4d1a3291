"""Geometry of linear nodes: kernels, strides, padding, groups, pools and flattens, on maps and kernels that are not square."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

from snn_export.hardware_sims.conformance.expected import Array, correlation, lif
from snn_export.hardware_sims.conformance.networks import Layer, Network, Synapse, dense, network
from snn_export.hardware_sims.conformance.topic import Topic
from snn_export.hardware_sims.conformance.trial import Trial

TOPIC = Topic("shapes")

STEPS, BATCH = 3, 2
MAP = (2, 5, 4)
"""Channels, rows, columns."""


def _kernel(*shape: int) -> Array:
    """Weights of both signs, all different along every axis, multiples of 1/32."""
    count = int(np.prod(shape))
    return ((np.arange(count) * 7 + 3) % 23 - 7).reshape(shape) / 8.0


def _spikes(*shape: int) -> Array:
    """A fixed pattern of events (T, B, *shape) without any symmetry."""
    return np.random.default_rng(11).integers(0, 2, (STEPS, BATCH, *shape)).astype(np.float64)


def _flat(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])


def _expect_maps(trial: Trial, net: Network, x: Array, drive: Array) -> None:
    """The population "n" of IF neurons does what a drive (T * B, *features) makes of it."""
    spikes, membrane = lif(drive.reshape(STEPS, BATCH, *drive.shape[1:]))
    trial.expect(net, x, {"n": spikes}, {"n": membrane})


def _convolution(
    trial: Trial, weight: Array, stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (0, 0), **more: Any
) -> None:
    x = _spikes(*MAP)
    net = network(STEPS, Layer("n", (Synapse(weight, stride=stride, padding=padding, **more),)), input_shape=MAP)
    _expect_maps(trial, net, x, correlation(_flat(x), weight, stride, padding, more.get("dilation", 1)))


@TOPIC.check()
def conv_kernel_orientation(trial: Trial) -> None:
    """A single event shows the kernel: NIR's convolution does not flip it, and rows come before columns."""
    weight = np.array([[[[0.25, 0.5, 0.75], [1.25, 1.5, 1.75]]]])
    x = np.zeros((1, 1, 1, 4, 5))
    x[0, 0, 0, 1, 2] = 1.0
    drive = np.zeros((3, 3))
    drive[0, 0], drive[0, 1], drive[0, 2] = 1.75, 1.5, 1.25
    drive[1, 0], drive[1, 1], drive[1, 2] = 0.75, 0.5, 0.25
    net = network(1, Layer("n", (Synapse(weight),)), input_shape=(1, 4, 5))
    trial.expect(net, x, {"n": (drive > 1)[None, None, None]}, {"n": np.where(drive > 1, 0.0, drive)[None, None, None]})


@TOPIC.check()
def conv_not_square(trial: Trial) -> None:
    """A 3 x 2 kernel over a 5 x 4 map of two channels."""
    _convolution(trial, _kernel(3, 2, 3, 2))


@TOPIC.check()
def conv_stride(trial: Trial) -> None:
    """Different strides along rows and columns."""
    _convolution(trial, _kernel(2, 2, 2, 2), stride=(2, 1))


@TOPIC.check()
def conv_padding(trial: Trial) -> None:
    """Different zero padding along rows and columns."""
    _convolution(trial, _kernel(2, 2, 3, 2), padding=(2, 1))


@TOPIC.check()
def conv_dilation(trial: Trial) -> None:
    """A dilated kernel looks at every second place."""
    _convolution(trial, _kernel(2, 2, 2, 2), dilation=2)


@TOPIC.check()
def conv_same_padding(trial: Trial) -> None:
    """Padding "same" with a kernel of even size puts the odd zero at the end, as torch does."""
    x, weight = _spikes(*MAP), _kernel(2, 2, 2, 3)
    net = network(STEPS, Layer("n", (Synapse(weight, padding="same"),)), input_shape=MAP)
    padded = np.pad(_flat(x), ((0, 0), (0, 0), (0, 1), (1, 1)))
    _expect_maps(trial, net, x, correlation(padded, weight, (1, 1), (0, 0)))


@TOPIC.check()
def conv_groups(trial: Trial) -> None:
    """In a grouped convolution every group of output channels sees its own input channels."""
    x, weight = _spikes(4, 4, 3), _kernel(6, 2, 2, 2)
    net = network(STEPS, Layer("n", (Synapse(weight, groups=2),)), input_shape=(4, 4, 3))
    halves = [correlation(_flat(x)[:, c : c + 2], weight[o : o + 3], (1, 1), (0, 0)) for c, o in ((0, 0), (2, 3))]
    _expect_maps(trial, net, x, np.concatenate(halves, axis=1))


@TOPIC.check()
def conv_bias(trial: Trial) -> None:
    """The bias of a convolution is one value per output channel, at every place, padded ones too."""
    x, weight, bias = _spikes(*MAP), _kernel(2, 2, 2, 2), np.array([0.5, -0.25])
    net = network(STEPS, Layer("n", (Synapse(weight, bias=bias, padding=(1, 0)),)), input_shape=MAP)
    _expect_maps(trial, net, x, correlation(_flat(x), weight, (1, 1), (1, 0)) + bias[:, None, None])


@TOPIC.check()
def conv_over_a_line(trial: Trial) -> None:
    """A Conv1d with stride and padding: a convolution of one row."""
    x, weight = _spikes(2, 7), _kernel(3, 2, 3)
    net = network(STEPS, Layer("n", (Synapse(weight, stride=2, padding=1),)), input_shape=(2, 7))
    drive = correlation(_flat(x)[:, :, None], weight[:, :, None], (1, 2), (0, 1))
    _expect_maps(trial, net, x, drive[:, :, 0])


def _sums(x: Array, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int] = (0, 0)) -> Array:
    """Sums over windows of every channel."""
    channels = [correlation(_flat(x)[:, c : c + 1], np.ones((1, 1, *size)), stride, padding) for c in range(x.shape[2])]
    return np.concatenate(channels, axis=1)


@TOPIC.check()
def average_pooling(trial: Trial) -> None:
    """Average pooling of 2 x 2 in front of a convolution."""
    x, weight = _spikes(2, 6, 4), _kernel(2, 2, 2, 1)
    pool = nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    net = network(STEPS, Layer("n", (Synapse(weight, front=(pool,)),)), input_shape=(2, 6, 4))
    _expect_maps(trial, net, x, correlation(_sums(x, (2, 2), (2, 2)) / 4, weight, (1, 1), (0, 0)))


@TOPIC.check()
def overlapping_average_pooling(trial: Trial) -> None:
    """Overlapping windows over a padded map: the padding counts in the average, as in torch's default."""
    x, weight = _spikes(1, 4, 5), 2 * _kernel(2, 1, 1, 1)
    pool = nir.AvgPool2d(np.array([2, 4]), np.array([1, 2]), np.array([1, 0]))
    net = network(STEPS, Layer("n", (Synapse(weight, front=(pool,)),)), input_shape=(1, 4, 5))
    _expect_maps(trial, net, x, correlation(_sums(x, (2, 4), (1, 2), (1, 0)) / 8, weight, (1, 1), (0, 0)))


@TOPIC.check()
def sum_pooling(trial: Trial) -> None:
    """Sum pooling of 3 x 2 in front of a convolution, strides of its own."""
    x, weight = _spikes(2, 5, 4), _kernel(2, 2, 1, 2) / 2
    pool = nir.SumPool2d(np.array([3, 2]), np.array([2, 1]), np.array([0, 0]))
    net = network(STEPS, Layer("n", (Synapse(weight, front=(pool,)),)), input_shape=(2, 5, 4))
    _expect_maps(trial, net, x, correlation(_sums(x, (3, 2), (2, 1)), weight, (1, 1), (0, 0)))


@TOPIC.check()
def flatten_order(trial: Trial) -> None:
    """Flatten runs through columns first, then rows, then channels; the batch axis stays."""
    x, flatten = _spikes(2, 2, 3), nir.Flatten({"input": np.array([2, 2, 3])}, start_dim=0, end_dim=-1)
    weight = np.tril(np.ones((12, 12)), -1) * 0.125 + np.eye(12)
    net = network(STEPS, Layer("n", (Synapse(weight, front=(flatten,)),)), input_shape=(2, 2, 3))
    _expect_maps(trial, net, x, x.reshape(-1, 12) @ weight.T)


@TOPIC.check()
def flatten_behind_maps(trial: Trial) -> None:
    """Maps of neurons, flattened into a dense layer: every neuron keeps its place."""
    x, kernel = _spikes(1, 3, 3), 1.5 * np.ones((2, 1, 1, 1)) + np.array([0.0, 0.25]).reshape(2, 1, 1, 1)
    flatten = nir.Flatten({"input": np.array([2, 3, 3])}, start_dim=0, end_dim=-1)
    weight = 1.5 * np.eye(18)[::-1] + 0.25 * np.eye(18)
    maps = Layer("maps", (Synapse(kernel),))
    net = network(STEPS, maps, Layer("n", (Synapse(weight, "maps", front=(flatten,)),)), input_shape=(1, 3, 3))
    fired = np.repeat(x, 2, axis=2)
    _expect_maps(trial, net, x, fired.reshape(-1, 18) @ weight.T)


@TOPIC.check()
def flatten_of_some_axes(trial: Trial) -> None:
    """Flatten with start_dim 1 counts from the first feature axis: channels stay, rows and columns become one."""
    x, weight = _spikes(2, 3, 2), _kernel(2, 2, 2)
    flatten = nir.Flatten({"input": np.array([2, 3, 2])}, start_dim=1, end_dim=-1)
    net = network(STEPS, Layer("n", (Synapse(weight, front=(flatten,)),)), input_shape=(2, 3, 2))
    drive = correlation(x.reshape(-1, 2, 1, 6), weight[:, :, None], (1, 1), (0, 0))
    _expect_maps(trial, net, x, drive[:, :, 0])


@TOPIC.check()
def a_scale_per_feature(trial: Trial) -> None:
    """NIR's Scale multiplies every feature with its own factor."""
    scale = np.array([[0.5, 1.5, -1.0], [1.25, 0.25, 2.0]])
    x = _spikes(2, 3)
    net = network(STEPS, Layer("n", (Synapse(scale, scale=True),)), input_shape=(2, 3))
    _expect_maps(trial, net, x, _flat(x) * scale)


@TOPIC.check()
def matrix_orientation(trial: Trial) -> None:
    """A Linear's weight is (out, in): three inputs, two neurons."""
    weight, x = np.array([[0.5, 1.25, -0.5], [1.5, -0.25, 0.75]]), _spikes(3)
    net = network(STEPS, dense("n", weight), input_shape=(3,))
    _expect_maps(trial, net, x, _flat(x) @ weight.T)
