"""Recurrent students for sequences of events: hidden layers of neurons that hear their own population."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import Lif
from snn_export.models.neurons.recurrent import Recurrent
from snn_export.models.students.student import SpikingStudent, StudentConfig


def build_recurrent(config: StudentConfig) -> SpikingStudent:
    """One hidden layer: dense (width) - BN - recurrent neurons, one dense layer to the classes, an integrator.

    Inputs (B, T, F) with ``encoder`` "events": counts per step, or graded values, which no chip's integer grid takes; (B, F), the
    same in every step, with "direct". The neurons are ``Leaky``, or ``Synaptic`` (a synaptic filter, alpha = 1 - (du + 1)/4096)
    where ``config.du`` asks for it; they hear the spikes of their population one step later through a dense layer without bias.
    Stages: recurrent1.

    snnTorch's own ``RSynaptic`` is the same network up to its reset, which comes a step late and which no chip has
    (:class:`snn_export.models.neurons.recurrent.Recurrent`). It is trained through time: rates have no slope here (SNX281).

    Source: Cramer et al., The Heidelberg spiking data sets, IEEE Transactions on Neural Networks and Learning Systems 33(7),
    2022; the batch-norm, which keeps sparse events from leaving the neurons silent and folds away, is ours.

    Raises:
        UserError: SNX012 for inputs of another shape, SNX284 for a reset that recurrent neurons do not have, SNX301 where a decay
            does not fit 12 bits.
    """
    return _build(config, hidden=1)


def build_recurrent2(config: StudentConfig) -> SpikingStudent:
    """Two hidden layers, otherwise as :func:`build_recurrent`. Stages: recurrent1, recurrent2."""
    return _build(config, hidden=2)


def _build(config: StudentConfig, hidden: int) -> SpikingStudent:
    if len(config.input_shape) != 1:
        raise UserError(
            "SNX012", f"the {config.name} student cannot take inputs of shape {config.input_shape}", where="input_shape",
            why="it runs over a sequence of feature vectors", fix="give the shape of one step, e.g. input_shape = (700,)",
        )  # fmt: skip
    features = config.input_shape[0]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, hidden + 1):
        layers[f"dense{number}"] = nn.Linear(features, config.width, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm1d(config.width)
        layers[f"recurrent{number}"] = _recurrent(config)
        features = config.width
    layers[f"dense{hidden + 1}"] = nn.Linear(features, config.classes)
    layers["readout"] = Integrator()
    return SpikingStudent(config, nn.Sequential(layers), stages=[f"recurrent{number}" for number in range(1, hidden + 1)])


def _recurrent(config: StudentConfig) -> Recurrent:
    neuron = config.population()
    if isinstance(neuron, Lif) or config.detach_reset:
        raise UserError(
            "SNX284", f"the {config.name} student cannot have reset = {config.reset!r}, detach_reset = {config.detach_reset} and "
            f"initial = {config.initial:g}", where="reset, detach_reset, initial",
            why="a population that hears itself is stepped by snnTorch's own neurons: from zero, reset to zero in the step of "
            "the spike, seen by the gradient",
            fix="leave the three at their defaults: 'zero', False and 0",
        )  # fmt: skip
    return Recurrent(neuron, nn.Linear(config.width, config.width, bias=False))
