"""A kind of fault, the list of them, and the ways of putting one in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.simulator import Simulator
from snn_export.hardware_sims.trace import Trace
from tests.mutation.backends import Equations, Faulty, Interpreted
from tests.mutation.networks import Network


@dataclass(frozen=True, eq=False)
class Injected:
    """A backend with a fault.

    Attributes:
        layer: to be named.
        runs: the network that it runs in place of the one it is given; None where the fault is elsewhere.
        lag: by how many steps the layer comes later than the backend declares; None where it is not shifted.
        compared: False where the fault leaves nothing to compare: that must fail too, but no layer answers wrongly.
    """

    backend: Simulator
    layer: str
    runs: Deployment | None = None
    lag: int | None = None
    compared: bool = True


Inject = Callable[[Network, str], Injected | None]


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    integers, floats: the networks it makes sense in.
    """

    name: str
    inject: Inject
    integers: bool
    floats: bool

    @property
    def told(self) -> str:
        """In a line."""
        return (self.inject.__doc__ or "").split("\n")[0]

    def into(self, network: Network, layer: str) -> Injected | None:
        """Put into a layer; None where that cannot be."""
        if self.name in network.leaves_out or not (self.integers if network.integer else self.floats):
            return None
        return self.inject(network, layer)


FAULTS: dict[str, Fault] = {}


def fault(name: str, *, integers: bool = True, floats: bool = False) -> Callable[[Inject], Inject]:
    """Put a function into the list."""

    def add(inject: Inject) -> Inject:
        FAULTS[name] = Fault(name, inject, integers, floats)
        return inject

    return add


def real(network: Network) -> Simulator:
    """The backend that faults are put into."""
    return simulator("loihi", threads=1) if network.integer else simulator("snntorch")


def running(network: Network, layer: str, other: Deployment | None) -> Injected | None:
    """A backend that runs another network."""
    if other is None:
        return None
    backend: Simulator = real(network)
    if backend.check(other):  # a register does not hold it, or snnTorch resets otherwise, and says so
        backend = Interpreted() if network.integer else simulator("reference")
    return Injected(Faulty(backend, network=lambda _: other), layer, other)


def computing(layer: str, equations: Equations) -> Injected:
    """A backend with other equations in one layer."""
    return Injected(Faulty(Interpreted({layer: equations})), layer)


def answering(network: Network, layer: str, change: Callable[[Trace], Trace], **options: Any) -> Injected:
    """A backend that records something else than what it did."""
    return Injected(Faulty(real(network), answer=change), layer, **options)


def spikes_at(network: Network, layer: str) -> bool:
    """Whether a layer fires."""
    return network.deployment.contract.neurons[layer].spiking
