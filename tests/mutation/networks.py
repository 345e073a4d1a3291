"""Networks that faults are put into: small, of every topology, and alive in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import chain, product
from typing import Any

import numpy as np
import torch
from numpy.random import default_rng
from numpy.typing import NDArray
from torch import nn

import snn_export
from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.trace import Trace
from snn_export.models.arithmetic import STATE_SHIFT
from snn_export.models.neurons.integrator import Integrator
from tests.builders import LayerPlan, Plan, SynapsePlan, deployment_from, even, random_inputs
from tests.mutation.edits import with_population, with_spec
from tests.networks import leaky, named, read, residual_net

Array = NDArray[Any]
SAMPLES = 24


@dataclass(frozen=True, eq=False)
class Network:
    """A deployment and inputs under which all of it fires.

    Attributes:
        told: what it is, in a line.
        pooled: by layer, the divisor of the average pooling in front of it.
        unfolded: the same network read without its batch-norms, where it has some.
        exhaustive: the inputs are all that there are.
        leaves_out: faults that are not put into it.
    """

    name: str
    told: str
    deployment: Deployment
    inputs: Array
    pooled: Mapping[str, int] = field(default_factory=dict)
    unfolded: Deployment | None = None
    exhaustive: bool = False
    leaves_out: tuple[str, ...] = ()

    @property
    def integer(self) -> bool:
        """Whether it is quantised."""
        return self.deployment.quantised

    @property
    def reference(self) -> str:
        """The backend that runs it as it should be."""
        return "loihi" if self.integer else "reference"

    @cached_property
    def sound(self) -> Trace:
        """What it does without a fault."""
        backend = simulator(self.reference)
        return backend.run(backend.compile(self.deployment), self.inputs, ("spikes", "membrane", "current"))

    @cached_property
    def hears_input(self) -> str:
        """The first layer behind the input."""
        into = self.deployment.connections
        return next(name for name in self.deployment.layers if any(c.source not in into for c in into[name]))

    def activity(self, source: str) -> Array:
        """How much every feature of a layer or of the input sends over all samples, flat."""
        if source in self.sound.layers:
            sent: Array = self.sound.layers[source].counts.sum(axis=0).reshape(-1)
            return sent
        size = int(np.prod(self.deployment.input_shape))
        given: Array = np.abs(self.inputs).reshape(-1, size).sum(axis=0)
        return given


def dense() -> Network:
    """Two hidden layers of equal size; the second has a synaptic filter and resets by subtraction."""
    rng = default_rng(1)
    plan = Plan(
        (6,),
        (
            LayerPlan("lif1", even(rng, (8, 6), 20), dv=700, threshold=30, bias=rng.integers(-60, 60, 8), bias_exponent=3),
            LayerPlan("lif2", even(rng, (8, 8), 20), "lif1", dv=300, du=2000, threshold=25, bias=rng.integers(-99, 99, 8)),
            LayerPlan("readout", even(rng, (4, 8), 60), "lif2", bias=rng.integers(-99, 99, 4)),
        ),
        steps=12, high=3,
    )  # fmt: skip
    deployment = with_spec(with_readout(plan), "lif2", reset="subtract")  # Loihi 2's microcode can do that
    return touching(Network("dense", "6-8-8-4, CubaLIF, one layer resets by subtraction", deployment, inputs_for(deployment)))


def recurrent() -> Network:
    """A delay per neuron, a loop over two layers, neurons that hear themselves, a skip that is delayed."""
    rng = default_rng(2)
    back = SynapsePlan(even(rng, (7, 7), 16), "lif2", before=2)
    itself = SynapsePlan(even(rng, (7,), 20), "lif2", scale=True)
    own: dict[str, Any] = {"more": (itself,)}
    skip = SynapsePlan(even(rng, (6, 7), 2), "lif1", after=np.array([0, 1, 2, 0, 3, 1]))
    plan = Plan(
        (5,),
        (
            LayerPlan("lif1", even(rng, (7, 5), 30), dv=400, threshold=28, before=rng.integers(0, 4, 5), more=(back,)),
            LayerPlan("lif2", even(rng, (7, 7), 30), "lif1", dv=900, du=3000, threshold=22, bias=even(rng, (7,), 99), **own),
            LayerPlan("lif3", even(rng, (6, 7), 4), "lif2", dv=4095, threshold=4, before=1, more=(skip,)),
            LayerPlan("readout", even(rng, (3, 6), 60), "lif3", dv=200),
        ),
        steps=16, high=2, events=True,
    )  # fmt: skip
    deployment = with_readout(plan)
    return touching(Network("recurrent", "5-7-7-6-3, loops, delays, event frames", deployment, inputs_for(deployment)))


def residual() -> Network:
    """Maps with skips: a layer that hears three sources, a strided layer, a readout that hears two."""
    rng = default_rng(3)

    def kernel(*shape: int) -> Array:
        return even(rng, shape, 20)

    same: dict[str, Any] = {"padding": (1, 1)}
    flat: dict[str, Any] = {"bias_exponent": 3, **same}
    short = SynapsePlan(kernel(3, 3, 1, 1), "lif1")
    shorter = SynapsePlan(kernel(3, 2, 3, 3), "input", padding=(1, 1))
    direct = SynapsePlan(even(rng, (4, 75), 20), "lif1")
    plan = Plan(
        (2, 5, 5),
        (
            LayerPlan("lif1", kernel(3, 2, 3, 3), dv=500, threshold=50, bias=rng.integers(-60, 60, 3), **flat),
            LayerPlan("lif2", kernel(3, 3, 3, 3), "lif1", dv=300, threshold=40, bias=rng.integers(-30, 90, 3), **flat),
            LayerPlan("lif3", kernel(3, 3, 3, 3), "lif2", dv=800, du=3500, threshold=60, more=(short, shorter), **same),
            LayerPlan("lif4", even(rng, (4, 3, 2, 2), 60), "lif3", dv=0, threshold=80, stride=(2, 2)),
            LayerPlan("readout", even(rng, (4, 16), 60), "lif4", dv=100, more=(direct,)),
        ),
        steps=8, high=3,
    )  # fmt: skip
    deployment = with_readout(plan)
    return touching(Network("residual", "maps, skips, a layer with three sources", deployment, inputs_for(deployment, 16)))


def digits_module(batch_norm: bool = True) -> nn.Sequential:
    """The digits student's architecture, fewer channels: convolution, batch-norm, LIF, average pooling, twice; dense readout."""
    torch.manual_seed(4)

    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()

    layers = dict[str, nn.Module](
        conv1=nn.Conv2d(1, 4, 3, padding=1), norm1=norm(4), lif1=leaky(1024, 0.5), pool=nn.AvgPool2d(2),
        conv2=nn.Conv2d(4, 6, 3, padding=1), norm2=norm(6), lif2=leaky(1024, 0.5), flatten=nn.Flatten(),
        dense=nn.Linear(96, 10), readout=Integrator(),
    )  # fmt: skip
    return learnt(named(**layers))


def learnt(layers: nn.Sequential) -> nn.Sequential:
    """Batch-norms with statistics that change something, as after training."""
    for module in layers.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.05, 0.3), (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.5),
            ):  # fmt: skip
                nn.init.uniform_(value, low, high)  # type: ignore[arg-type]
    return layers


def digits() -> Network:
    """Batch-norm folded, pooling absorbed, quantised as the toolchain does it."""
    inputs = np.round(default_rng(5).uniform(0.0, 1.0, (SAMPLES, 1, 8, 8)) * 16) / 16
    network = snn_export.quantize(read(digits_module(), (1, 8, 8)), inputs)
    return touching(Network("digits", "the digits student's architecture, quantised", network, inputs, pooled={"lif2": 4}))


def float_digits() -> Network:
    """The same before quantisation, with its pooling."""
    inputs = default_rng(6).uniform(0.0, 1.0, (SAMPLES, 1, 8, 8))
    networks = [read(digits_module(batch_norm), (1, 8, 8)) for batch_norm in (True, False)]
    told = "the digits student's architecture in floats, batch-norm folded"
    return Network("float digits", told, networks[0], inputs, {"lif2": 4}, networks[1])


def float_residual() -> Network:
    """Residual blocks with batch-norms, a projection, paths of unequal depth."""
    inputs = default_rng(7).uniform(0.0, 1.0, (12, 2, 8, 6))
    networks = [read(module, (2, 8, 6)) for module in (learnt(residual_net()), without_norms(residual_net()))]
    return Network("float residual", "residual blocks in floats, batch-norm folded", networks[0], inputs, unfolded=networks[1])


def without_norms(layers: nn.Sequential) -> nn.Sequential:
    """The same modules, batch-norms exchanged for nothing."""
    for parent in list(layers.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    return layers


def overflowing() -> Network:
    """Currents that wrap and membranes that saturate, both ways."""
    rng = default_rng(8)
    plan = Plan(
        (4,),
        (
            LayerPlan("lif1", even(rng, (6, 4), 254), du=100, dv=50, threshold=90000, weight_exponent=4),
            LayerPlan("lif2", even(rng, (6, 6), 254), "lif1", du=20, dv=100, threshold=70000, weight_exponent=7),
            LayerPlan("readout", even(rng, (3, 6), 254), "lif2"),
        ),
        steps=12, high=15,
    )  # fmt: skip
    deployment = with_readout(plan)
    no_membrane_comes_near = ("threshold + 1", "threshold - 1", ">= for >")
    told = "4-6-6-3, u wraps and v saturates"
    return Network("overflowing", told, deployment, inputs_for(deployment), leaves_out=no_membrane_comes_near)


def tiny() -> Network:
    """Two inputs over five steps, run on all 1,024 event patterns: what changes nothing here changes nothing on any input."""
    weights = np.array([[6, 4], [-4, 6], [6, 0]])
    plan = Plan(
        (2,),
        (
            LayerPlan("lif1", weights, dv=1024, threshold=5, bias=np.array([0, 64, 0])),
            LayerPlan("lif2", np.array([[4, 2, 0], [2, -2, 6]]), "lif1", dv=0, threshold=3),
            LayerPlan("readout", np.array([[2, 4], [4, 2]]), "lif2"),
        ),
        steps=5, events=True,
    )  # fmt: skip
    patterns = np.array(list(product((0.0, 1.0), repeat=10))).reshape(-1, 5, 2).transpose(1, 0, 2)
    return Network("tiny", "2-3-2-2, run on all 1,024 inputs it can have", with_readout(plan), patterns, exhaustive=True)


def inputs_for(deployment: Deployment, samples: int = SAMPLES) -> Array:
    """Inputs on the grid, all of it used."""
    return random_inputs(default_rng(9), deployment, samples)


def with_readout(plan: Plan) -> Deployment:
    """The deployment of a plan whose readout never fires and is never reset."""
    deployment = deployment_from(plan)
    return with_spec(deployment, deployment.contract.readout.node, reset="none", spiking=False)


def touching(network: Network) -> Network:
    """The same with thresholds, front to back, on which a membrane lands exactly and, if that can be, just above which one does.

    Otherwise nothing tells >= from > on these inputs, or a threshold from the next one.
    """
    deployment = network.deployment
    for layer in (name for name in deployment.layers if deployment.contract.neurons[name].spiking):
        start = deployment.populations[layer].threshold
        offsets = sorted(range(-min(start - 1, 40), 41), key=abs)
        near = (with_population(deployment, layer, threshold=start + offset) for offset in offsets)
        landed = (candidate for candidate in near if _lands(candidate, layer, network.inputs))
        first = next(landed, None)
        if first is None:
            raise ValueError(f"{network.name}: no threshold of {layer} near {start} is met exactly")
        deployment = next((item for item in chain((first,), landed) if _passes_narrowly(item, layer, network.inputs)), first)
    return replace(network, deployment=deployment)


def _lands(deployment: Deployment, layer: str, inputs: Array) -> bool:
    run = interpreter.run(deployment, inputs, "int64")[layer]
    return bool((run.membrane == deployment.populations[layer].threshold << STATE_SHIFT).any())


def _passes_narrowly(deployment: Deployment, layer: str, inputs: Array) -> bool:
    higher = with_population(deployment, layer, threshold=deployment.populations[layer].threshold + 1)
    runs = [interpreter.run(form, inputs, "int64")[layer] for form in (deployment, higher)]
    return bool((runs[0].spikes != runs[1].spikes).any())


@cache
def network(name: str) -> Network:
    """One of :data:`NETWORKS`, made once."""
    return NETWORKS[name]()


NETWORKS = {
    "dense": dense, "digits": digits, "recurrent": recurrent, "residual": residual, "overflowing": overflowing, "tiny": tiny,
    "float digits": float_digits, "float residual": float_residual,
}  # fmt: skip
