"""Steps populations with SpikingJelly's own neurons, one cell each; see ``isolated/cell_server.py``.

A self-contained script for the SpikingJelly environment. What its neurons compute in one step, ``step_mode="s"``, float32:

    IFNode          h = v + x
    LIFNode         h = v + (x - v)/tau  with decay_input,  h = v - v/tau + x  without;  tau > 1, in steps
    CUBALIFNode     c = c_decay c + x ;  h = v_decay v + c
    all three       s = h >= v_threshold ;  v = 0 where s (v_reset = 0.0), or h - s v_threshold (v_reset = None)
    NonSpikingIFNode, NonSpikingLIFNode     v = v + x ;  v = v + (x - v)/tau

The spike is what the ``surrogate_function`` of a neuron says; that of every one shipped is ``surrogate.heaviside``, x >= 0. The
option ``strict`` hands them x > 0. tau is 4096/dv, the decays of a CUBALIFNode are the contract's, exact in float32.

One threshold for a population is all the constructors take. Where the neurons of a population have thresholds of their own, the
attribute is set to a tensor of them, and ``surrogate.heaviside`` makes the node take its plain torch equations.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import neuron as nodes
from spikingjelly.activation_based import surrogate

sys.path.append(str(Path(__file__).resolve().parents[1] / "isolated"))

from cell_server import Cell, Neuron, serve  # in a folder beside this one, in no package of this environment

Array = Any
LARGEST = float(np.finfo(np.float32).max)
NEURONS, STEPS = 8, 60
"""Of the self-test."""
CLOSE = 1e-5
"""Membranes are float32 here and float64 in what the self-test compares them with."""
DT = 1e-3


def above(x: torch.Tensor) -> torch.Tensor:
    """Spikes of a membrane above its threshold, not at it: the contract's, in the form a surrogate function has."""
    return (x > 0).to(x)


def make(neuron: Neuron) -> Cell:
    """The cell of a population. What never fires gets a threshold that nothing reaches: SpikingJelly would multiply it by 0."""
    neuron = replace(neuron, threshold=np.minimum(neuron.threshold, LARGEST))
    if not neuron.spiking or neuron.reset == "none":
        return NeverReset(neuron)
    if neuron.filtered and neuron.membrane_gain.all() and not neuron.bias.any():
        return Cuba(neuron)
    return Resetting(neuron)


class Driven(ABC):
    """A population whose input is filtered in torch; what a node of SpikingJelly makes of it is the subclass's.

    u = alpha u + current_gain x ;  the node is given gain u + bias, both over 1 - beta where it takes that part of its input.
    """

    _plain_input = True
    """The node has a form that adds its input as it is."""

    def __init__(self, neuron: Neuron) -> None:
        self._shape, self._alpha, self._filtered = neuron.shape, neuron.alpha, neuron.filtered
        self._current_gain = float32(neuron.current_gain)
        self._threshold = float32(neuron.threshold)
        self._fires = spike_function(neuron)
        self._leaks = 0.0 < neuron.beta < 1.0
        self._memoryless = neuron.beta == 0.0
        self._tau = 1.0 / (1.0 - neuron.beta) if self._leaks else 1.0
        gain, bias = neuron.membrane_gain, neuron.bias
        self._decays_input = self._leaks and not (self._plain_input and np.allclose(gain, 1.0, rtol=1e-9, atol=0.0))
        if self._decays_input:
            gain, bias = gain / (1.0 - neuron.beta), bias / (1.0 - neuron.beta)
        self._gain, self._bias = float32(gain), float32(bias)
        self._u = torch.zeros(0)

    def begin(self, batch: int) -> None:
        """Zero state for (B, *shape)."""
        self._u = torch.zeros(batch, *self._shape)
        self.clear()

    def clear(self) -> None:
        """Zero u and v."""
        self._u = torch.zeros_like(self._u)
        self.rest()

    def step(self, x: Array) -> tuple[Array, Array, Array]:
        """One step on (B, *shape): spikes, u and v."""
        with torch.inference_mode():
            drive = self._current_gain * torch.from_numpy(x)
            self._u = self._alpha * self._u + drive if self._filtered else drive
            if self._memoryless:
                self.rest()
            spikes, v = self.fire(self._gain * self._u + self._bias)
            return spikes.numpy(), self._u.numpy(), v.numpy()

    @abstractmethod
    def rest(self) -> None:
        """Zero v."""

    @abstractmethod
    def fire(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Spikes and membrane of one step on what the node is given."""


class Resetting(Driven):
    """LIFNode where the membrane leaks, IFNode where it does not; a memoryless one begins every step at zero."""

    def __init__(self, neuron: Neuron) -> None:
        super().__init__(neuron)
        if self._leaks:
            self.node = spiking(nodes.LIFNode, neuron, tau=self._tau, decay_input=self._decays_input)
        else:
            self.node = spiking(nodes.IFNode, neuron)

    def rest(self) -> None:
        """Zero v."""
        self.node.reset()

    def fire(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of the node."""
        return self.node(x), self.node.v


class Cuba:
    """CUBALIFNode, which filters its input itself and adds its current as it is: c = membrane_gain u."""

    def __init__(self, neuron: Neuron) -> None:
        self._membrane_gain = float32(neuron.membrane_gain)
        self._input_gain = float32(neuron.current_gain * neuron.membrane_gain)
        self.node = spiking(nodes.CUBALIFNode, neuron, c_decay=neuron.alpha, v_decay=neuron.beta)

    def begin(self, batch: int) -> None:
        """Zero state; the node takes its shape from its first input."""
        del batch
        self.clear()

    def clear(self) -> None:
        """Zero u and v."""
        self.node.reset()

    def step(self, x: Array) -> tuple[Array, Array, Array]:
        """One step on (B, *shape): spikes, u and v."""
        with torch.inference_mode():
            spikes = self.node(self._input_gain * torch.from_numpy(x))
            return spikes.numpy(), (self.node.c / self._membrane_gain).numpy(), self.node.v.numpy()


class NeverReset(Driven):
    """NonSpikingLIFNode or NonSpikingIFNode; one that spikes without a reset has the spike function behind it."""

    _plain_input = False

    def __init__(self, neuron: Neuron) -> None:
        super().__init__(neuron)
        self.node = nodes.NonSpikingLIFNode(tau=self._tau) if self._leaks else nodes.NonSpikingIFNode()
        self._spiking = neuron.spiking

    def rest(self) -> None:
        """Zero v."""
        self.node.v = torch.zeros_like(self._u)

    def fire(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Charge the node; its forward pass would run a whole sequence from zero."""
        self.node.neuronal_charge(x)
        v = self.node.v
        return self._fires(v - self._threshold) if self._spiking else torch.zeros_like(v), v


def spike_function(neuron: Neuron) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes spikes of membranes less their thresholds."""
    return above if neuron.options.get("strict") else surrogate.heaviside


def spiking(kind: Callable[..., Any], neuron: Neuron, **constants: Any) -> Any:
    """A node that fires and is reset; it keeps its own surrogate function where it has one threshold and the usual spikes."""
    each, fires = np.unique(neuron.threshold), spike_function(neuron)
    if len(each) != 1 or fires is not surrogate.heaviside:
        constants["surrogate_function"] = fires
    node = kind(v_reset=0.0 if neuron.reset == "zero" else None, **constants)
    node.v_threshold = float(each[0]) if len(each) == 1 else float32(neuron.threshold)
    return node.eval().requires_grad_(False)


def float32(values: Array) -> torch.Tensor:
    """Float64 constants as float32."""
    return torch.from_numpy(np.array(values, np.float32))


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    return {name: version(name) for name in ("spikingjelly", "torch", "numpy")}


def self_test() -> dict[str, Any]:
    """Every node that :func:`make` uses against its equations, and what SpikingJelly's NIR import makes of neurons.

    Raises:
        RuntimeError: where one does something else, or torchvision is imported.
    """
    torch.set_num_threads(1)
    wrong = [f"{neuron.name}: {found}" for neuron in _examples() if (found := _difference(neuron))]
    wrong += [f"NIR import of {name}: {found}" for name, found in _imports().items() if found]
    wrong += [] if _at_threshold() else ["IFNode: silent at its threshold"]
    wrong += [f"{name} was imported" for name in ("torchvision", "torchaudio") if name in sys.modules]
    if wrong:
        raise RuntimeError("; ".join(wrong))
    return {"neurons": [neuron.name for neuron in _examples()], "NIR import": list(_imports()), "at its threshold": "fires"}


def _example(name: str, beta: float, gain: float = 1.0, **changes: Any) -> Neuron:
    constants = {"current_gain": 1.0, "membrane_gain": gain, "bias": 0.0, "threshold": 1.0}
    full = {key: np.full(NEURONS, changes.pop(key, value), np.float64) for key, value in constants.items()}
    plain = {"filtered": False, "alpha": 0.0, "spiking": True, "reset": "zero", **changes}
    return Neuron(name=name, shape=(NEURONS,), beta=beta, **full, **plain)


def _examples() -> list[Neuron]:
    """Neurons that take each node and each of its forms; dyadic constants, so that thresholds are met exactly too."""
    filtered: dict[str, Any] = {"filtered": True, "alpha": 0.5, "current_gain": 1.5}
    each: dict[str, Any] = {"threshold": 0.5 + np.arange(NEURONS) / 4}
    return [
        _example("IFNode", 1.0), _example("IFNode, soft", 1.0, reset="subtract"),
        _example("LIFNode, decay_input", 0.75, 0.25), _example("LIFNode", 0.75, reset="subtract"),
        _example("LIFNode, r and leak", 0.5, 0.75, bias=0.25), _example("LIFNode, a threshold each", 0.75, **each),
        _example("CUBALIFNode", 0.75, 0.5, **filtered), _example("CUBALIFNode, soft", 0.75, 0.5, reset="subtract", **filtered),
        _example("LIFNode behind a filter", 0.75, 0.5, bias=-0.125, **filtered),
        _example("IFNode from zero", 0.0, memoryless=True),
        _example("no reset", 0.75, 0.25, reset="none"), _example("no reset, IF", 1.0, reset="none", **each),
        _example("NonSpikingIFNode", 1.0, spiking=False), _example("NonSpikingLIFNode", 0.75, spiking=False),
        _example("NonSpikingLIFNode behind a filter", 0.5, 0.25, spiking=False, **filtered),
        _example("LIFNode, strict", 0.5, options={"strict": True}),
    ]  # fmt: skip


def _drives() -> Array:
    """(T, 1, N) in eighths: membranes meet thresholds, stay below them and pass twice of them."""
    return np.random.default_rng(0).integers(-8, 25, (STEPS, 1, NEURONS)) / 8.0


def _difference(neuron: Neuron) -> str:
    """Empty where the cell does what the equations say, otherwise what differs first."""
    cell, u, v, fired = make(neuron), np.zeros((1, NEURONS)), np.zeros((1, NEURONS)), 0
    cell.begin(1)
    for step, x in enumerate(_drives()):
        u = neuron.alpha * u + neuron.current_gain * x
        v = neuron.beta * v + neuron.membrane_gain * u + neuron.bias
        s = (v > neuron.threshold if neuron.options.get("strict") else v >= neuron.threshold) & neuron.spiking
        fired += int(s.sum())
        v = np.where(s, {"zero": 0.0 * v, "subtract": v - neuron.threshold, "none": v}[neuron.reset], v)
        spikes, current, membrane = cell.step(x.astype(np.float32))
        if not np.array_equal(spikes, s):
            return f"spikes differ in step {step}"
        if not np.allclose(current, u, rtol=CLOSE, atol=CLOSE) or not np.allclose(membrane, v, rtol=CLOSE, atol=CLOSE):
            return f"states differ in step {step}"
    return "" if fired or not neuron.spiking else "no neuron fired"


def _at_threshold() -> bool:
    """True where an IFNode fires on a membrane that equals its threshold."""
    cell = make(_example("IFNode", 1.0))
    cell.begin(1)
    return bool(cell.step(np.ones((1, NEURONS), np.float32))[0].all())


def _imports() -> dict[str, str]:
    """By node that ``nir_exchange.import_from_nir`` makes: empty where it steps as our cell does, bit for bit."""
    import nir
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    one, zero = np.ones(NEURONS), np.zeros(NEURONS)
    lost, filtered = 1100 / 4096, {"filtered": True, "alpha": 1.0 - 2500 / 4096}
    tau, tau_syn, lif = one * DT / lost, one * DT * 4096 / 2500, {"v_leak": zero, "v_threshold": one, "v_reset": zero}
    cases: dict[str, tuple[Any, Neuron]] = {
        "IF": (nir.IF(one / DT, one, zero), _example("IF", 1.0)),
        "LIF": (nir.LIF(tau, one, **lif), _example("LIF", 1.0 - lost, lost)),
        "LIF, r = tau/dt": (nir.LIF(tau, tau / DT, **lif), _example("LIF", 1.0 - lost)),
        "CubaLIF": (
            nir.CubaLIF(tau_syn=tau_syn, tau_mem=tau, r=tau / DT, w_in=tau_syn / DT, **lif),
            _example("CubaLIF", 1.0 - lost, **filtered),
        ),
    }
    found = {}
    for name, (node, neuron) in cases.items():
        ends = {"input": nir.Input({"input": np.array([NEURONS])}), "output": nir.Output({"output": np.array([NEURONS])})}
        graph = nir.NIRGraph({**ends, "node": node}, [("input", "node"), ("node", "output")], type_check=False)
        module, cell, state = import_from_nir(graph, dt=DT), make(neuron), None
        cell.begin(1)
        found[name] = ""
        for x in _drives().astype(np.float32) / 3:
            spikes, state = module(torch.from_numpy(x), state)
            expected, _, v = cell.step(x)
            if not np.array_equal(spikes.detach(), expected) or not np.array_equal(state["node"][0].detach(), v):
                found[name] = "not what our cell does"
    return found


if __name__ == "__main__":
    serve(make, versions, self_test)
