"""Nodes of a deployment as Norse's modules: through ``norse.torch.from_nir`` where it is right, put together here where not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import nir
import norse.torch as norse
import numpy as np
import torch
from norse.torch.functional.reset import reset_subtract, reset_value
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_export.export.deployment import Deployment
from snn_export.export.gains import input_gains, threshold_array
from snn_export.export.graph import Shape, is_population
from snn_export.hardware_sims.norse.expressible import Plan
from snn_export.hardware_sims.torch_graph import Cell, Fired, TorchProgram
from snn_export.hardware_sims.torch_layers import float32, layer_of
from snn_export.models.arithmetic import DECAY_ONE
from snn_export.models.spec import Reset


def keep(z: Tensor, v: Tensor, reset: Tensor, th: Tensor) -> Tensor:
    """No reset, in the form Norse takes one."""
    del z, reset, th
    return v


RESETS: dict[str, Callable[..., Tensor]] = {"zero": reset_value, "subtract": reset_subtract, "none": keep}


def program_of(plan: Plan, provenance: dict[str, str]) -> TorchProgram:
    """A deployment in Norse's modules; ``findings`` of ``expressible`` must have found nothing."""
    deployment = plan.deployment
    layers: dict[str, nn.Module] = {}
    for name, node in deployment.graph.nodes.items():
        sources = [source for source, target in deployment.graph.edges if target == name]
        if not sources or is_population(node) or isinstance(node, nir.Output | nir.Delay):
            continue
        given = deployment.shapes[sources[0]]
        layers[name] = imported(deployment, name) if plan.native(name) else layer_of(name, node, given)
    cells = {name: _cell(plan, name) for name in deployment.layers}
    return TorchProgram(plan.given, deployment, cells, layers, (), _current_units(plan), provenance)


def _current_units(plan: Plan) -> dict[str, NDArray[np.float64]]:
    """How much u of the graph is in 1 of the u that Norse has: what was folded out of the membrane's factor went into u."""
    found = {}
    for name in plan.deployment.layers:
        before, after = _gains(plan.original, name)[1], _gains(plan.deployment, name)[1]
        ratio = np.asarray(np.broadcast_to(after, np.broadcast_shapes(before.shape, after.shape)), np.float64)
        found[name] = np.divide(ratio, before, out=np.ones_like(ratio), where=before != 0)
    return found


def imported(deployment: Deployment, name: str) -> nn.Module:
    """What ``norse.torch.from_nir`` makes of one node of a deployment."""
    spec = deployment.contract.neurons.get(name)
    source = next(source for source, target in deployment.graph.edges if target == name)
    reset: Reset = spec.reset if spec is not None else "zero"
    shapes = deployment.shapes
    return imported_node(deployment.graph.nodes[name], shapes[source], shapes[name], reset, deployment.contract.dt)


def imported_node(node: nir.NIRNode, given: Shape, made: Shape, reset: Reset, dt: float) -> nn.Module:
    """What ``norse.torch.from_nir`` makes of a node of shape ``given`` to ``made``, in a graph that holds nothing else."""
    ends = {"input": nir.Input({"input": np.array(given)}), "output": nir.Output({"output": np.array(made)})}
    alone = nir.NIRGraph(
        {"input": ends["input"], "node": node, "output": ends["output"]},
        [("input", "node"), ("node", "output")],
        type_check=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of nirtorch.load, which Norse 1.1 calls
        loaded = norse.from_nir(
            alone,
            ignore_warnings=True,  # it warns of the r = 1/dt of an IF, and of every r != 1 that was folded before
            reset_method=RESETS[reset],
            dt=dt,
        )
    module: nn.Module = loaded.get_submodule("node")
    return module.eval().requires_grad_(False)


def native_cell(node: nir.NIRNode, shape: Shape, reset: Reset, dt: float) -> Cell:
    """The population that Norse imports from a LIF, IF or CubaLIF."""
    module = imported_node(node, shape, shape, reset, dt)
    return _NativeCuba(module) if isinstance(node, nir.CubaLIF) else _Native(module, isinstance(node, nir.IF))


def _cell(plan: Plan, name: str) -> Cell:
    node, deployment = plan.deployment.graph.nodes[name], plan.deployment
    if plan.native(name):
        return native_cell(node, deployment.shapes[name], deployment.contract.neurons[name].reset, deployment.contract.dt)
    if isinstance(node, nir.IF | nir.I | nir.Threshold):
        return _Accumulating(deployment, name)
    return _Leaking(deployment, name)


class _Native:
    """A LIFBoxCell or IAFCell that Norse imported, with its state in hand."""

    def __init__(self, module: nn.Module, accumulates: bool) -> None:
        self._module, self._state_of = module, norse.IAFFeedForwardState if accumulates else norse.LIFBoxFeedForwardState
        self._state: Any = None

    def begin(self, shape: Shape) -> None:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        self._state = self._state_of(v=torch.zeros(shape))

    def clear(self) -> None:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        self._state = self._state_of(v=torch.zeros_like(self._state.v))

    def step(self, drive: Tensor) -> Fired:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        spikes, self._state = self._module(drive, self._state)
        return Fired(spikes, drive, self._state.v)


class _NativeCuba:
    """The CubaLIF that Norse imported: an LIBoxCell and a LIFBoxCell."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._state: Any = None

    def begin(self, shape: Shape) -> None:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        zeros = torch.zeros(shape)
        self._state = (norse.LIBoxState(v=zeros), norse.LIFBoxFeedForwardState(v=zeros))

    def clear(self) -> None:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        self.begin(tuple(self._state[0].v.shape))

    def step(self, drive: Tensor) -> Fired:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        spikes, self._state = self._module(drive, self._state)
        return Fired(spikes, self._state[0].v, self._state[1].v)


class _Accumulating:
    """IF, I and Threshold by an IAFCell: v += x, never for I, from zero in every step for Threshold.

    The cell sets a neuron that fires to ``v_reset``; for a subtraction that is v + x - theta, for no reset v + x.
    """

    def __init__(self, deployment: Deployment, name: str) -> None:
        node, self._spec = deployment.graph.nodes[name], deployment.contract.neurons[name]
        shape = deployment.shapes[name]
        current, membrane = _gains(deployment, name)
        self._gain = float32(np.broadcast_to(current * membrane, shape))
        theta = threshold_array(node) if self._spec.spiking else np.asarray(np.inf)
        self._threshold = float32(np.broadcast_to(theta, shape))
        self._cell = norse.IAFCell(norse.IAFParameters(v_th=self._threshold))
        self._v = torch.zeros(0)

    def begin(self, shape: Shape) -> None:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        self._v = torch.zeros(shape)

    def clear(self) -> None:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        self._v = torch.zeros_like(self._v)

    def step(self, drive: Tensor) -> Fired:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        before = torch.zeros_like(self._v) if self._spec.memoryless else self._v
        x = drive * self._gain
        if self._spec.spiking and self._spec.reset != "zero":
            taken = self._threshold if self._spec.reset == "subtract" else 0.0
            self._cell.p = self._cell.p._replace(v_reset=before + x - taken)
        spikes, state = self._cell(x, norse.IAFFeedForwardState(v=before))
        self._v = state.v
        return Fired(spikes, drive, self._v)


class _Leaking:
    """LIF, LI, CubaLIF and CubaLI by LIBoxCell and LIFBoxCell, with the contract's decays: time counts in steps.

    u = alpha u + (1 - alpha) w_in x ;  v += (1 - beta) (r u + v_leak - v), from zero; without filter u = x.
    """

    def __init__(self, deployment: Deployment, name: str) -> None:
        node, self._spec = deployment.graph.nodes[name], deployment.contract.neurons[name]
        shape = deployment.shapes[name]
        self._filters = isinstance(node, nir.CubaLIF | nir.CubaLI)
        self._r = float32(np.broadcast_to(np.asarray(node.r), shape))
        lost = {"tau_mem_inv": torch.tensor(self._spec.dv / DECAY_ONE), "v_leak": float32(np.broadcast_to(node.v_leak, shape))}
        if self._filters:
            self._w_in = float32(np.broadcast_to(np.asarray(node.w_in), shape))
            kept = norse.LIBoxParameters(tau_mem_inv=torch.tensor((self._spec.du + 1) / DECAY_ONE), v_leak=torch.zeros(shape))
            self._synapse = norse.LIBoxCell(kept, dt=1.0)
        if self._spec.spiking:
            theta = float32(np.broadcast_to(threshold_array(node), shape))
            fires = norse.LIFBoxParameters(**lost, v_th=theta, reset_method=RESETS[self._spec.reset])
            self._membrane: nn.Module = norse.LIFBoxCell(fires, dt=1.0)
        else:
            self._membrane = norse.LIBoxCell(norse.LIBoxParameters(**lost), dt=1.0)
        self._u, self._v = torch.zeros(0), torch.zeros(0)

    def begin(self, shape: Shape) -> None:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        self._u, self._v = torch.zeros(shape), torch.zeros(shape)

    def clear(self) -> None:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        self.begin(tuple(self._v.shape))

    def step(self, drive: Tensor) -> Fired:
        """See :class:`~snn_export.hardware_sims.torch_graph.Cell`."""
        self._u = self._synapse(self._w_in * drive, norse.LIBoxState(v=self._u))[0] if self._filters else drive
        x = self._r * self._u
        if self._spec.spiking:
            spikes, state = self._membrane(x, norse.LIFBoxFeedForwardState(v=self._v))
        else:
            _, state = self._membrane(x, norse.LIBoxState(v=self._v))
            spikes = torch.zeros_like(x)
        self._v = state.v
        return Fired(spikes, self._u, self._v)


def _gains(deployment: Deployment, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    current, membrane = input_gains(deployment, name)
    return np.asarray(current, np.float64), np.asarray(membrane, np.float64)
