"""What a quantised student is built from: plain records, so that this layer needs to know no file format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snn_export.models.spec import NeuronSpec, ReadoutRule
from snn_export.models.weight_grid import WeightGrid

Shape = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]
Delays = int | NDArray[np.int64]


@dataclass(frozen=True)
class Geometry:
    """How a weight layer maps ``input_shape`` to ``output_shape``.

    kind: "dense" (out, in); "conv" (out, in / groups, *kernel) over one or two spatial axes; "scale", elementwise, broadcast.
    padding: zeros before and after each spatial axis. stride, dilation: one number per spatial axis.
    """

    kind: Literal["dense", "conv", "scale"]
    input_shape: Shape
    output_shape: Shape
    stride: tuple[int, ...] = ()
    padding: Pads = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1


Onto = Literal["membrane", "current"]


@dataclass(frozen=True, eq=False)
class BiasPlan:
    """A bias of a layer, (out,): multiples of ``step`` between low and high, worth ``unit`` each in real units.

    onto: "membrane", in mantissas, or "current", in units of the synaptic sum. values: the integers to start from.
    """

    onto: Onto
    unit: float
    step: int
    low: int
    high: int
    values: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """One weight layer with the integers it starts from.

    Attributes:
        name: of the layer.
        geometry: see :class:`Geometry`.
        grid: integers its weights may take, before ``exponent``.
        exponent: weights count w 2^exponent; a negative one needs a grid on which that is a whole number.
        unit: real value of w 2^exponent = 1: effect on the membrane of one step, of an input of 1.0 in real units.
        weight: the integers to start from, shape of the weight.
        biases: none, one, or one onto each.
    """

    name: str
    geometry: Geometry
    grid: WeightGrid
    exponent: int
    unit: float
    weight: NDArray[np.int64]
    biases: tuple[BiasPlan, ...] = ()


@dataclass(frozen=True, eq=False)
class WirePlan:
    """Spikes of ``source`` through ``layer`` into a population, a_i[t] += sum_j w_ij s_j[t - before_j - after_i].

    before has the shape of the layer's input, after of its output, where they are arrays. low and high are the smallest and
    largest input: 0 and 1 for spikes, the declared range for graded levels.
    """

    source: str
    layer: str
    before: Delays = 0
    after: Delays = 0
    low: int = 0
    high: int = 1


@dataclass(frozen=True)
class DriveLimits:
    """Up to where a population is proven safe, membrane units (a << 6, and gathered over time by the synaptic filter).

    gather: what a constant a << 6 adds up to in u. current: limit of gather |a << 6|. push, pull: limits of
    gather (a << 6) + bias upwards and downwards; without ``biased`` they allow for every bias already.
    """

    gather: float
    current: float
    push: float
    pull: float
    biased: bool = True


@dataclass(frozen=True, eq=False)
class PopulationPlan:
    """One population: its registers, where its sums come from, and how large they may become.

    scale: S; a membrane of 1.0 in real units is 64 S. threshold: vth, unshifted. bias_exponent: of its layers' mantissas.
    """

    name: str
    shape: Shape
    neuron: NeuronSpec
    threshold: int
    scale: float
    bias_exponent: int
    wires: tuple[WirePlan, ...]
    limits: DriveLimits


@dataclass(frozen=True, eq=False)
class StudentPlan:
    """A whole network. stages: populations in order, those that hear each other in one stage."""

    input_name: str
    steps: int
    stages: tuple[tuple[str, ...], ...]
    populations: dict[str, PopulationPlan]
    layers: dict[str, LayerPlan]
    readout: str
    rule: ReadoutRule = "membrane_last"
