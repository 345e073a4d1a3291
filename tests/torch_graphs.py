"""Float graphs for backends that step in torch: every node NIR has, every way of joining them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest

from snn_export.explanations import lookup
from snn_export.export import interpreter
from snn_export.export.contract import ExecutionContract
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.simulator import Simulator
from snn_export.hardware_sims.trace import Trace
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutSpec


def with_spec(deployment: Deployment, **changes: Any) -> Deployment:
    """Other semantics for every population that fires."""
    neurons = {name: replace(spec, **changes) if spec.spiking else spec for name, spec in deployment.contract.neurons.items()}
    return deployment.replace(contract=deployment.contract.model_copy(update={"neurons": neurons}))


def refusals(backend: Simulator, deployment: Deployment) -> list[tuple[str, str]]:
    """(code, where) of what ``check`` finds; ``compile`` must raise the same, and every code must have its page."""
    found = [(item.code, item.where) for item in backend.check(deployment)]
    with pytest.raises(UserError) as caught:
        backend.compile(deployment)
    assert [item.code for item in caught.value.diagnostics] == [code for code, _ in found]
    for code, _ in found:
        assert lookup.page(code).startswith(f"# {code} ")
    return found


def assert_runs_its_integers(backend: Simulator, deployment: Deployment, inputs: Any) -> Trace:
    """A quantised deployment in float state: the spikes of the float64 interpreter, states within float32's rounding."""
    trace = backend.run(backend.compile(deployment), inputs, ("spikes", "membrane", "current"))
    for name, activity in interpreter.run(deployment, inputs).items():
        layer = trace.layers[name]
        assert layer.membrane is not None and layer.current is not None
        np.testing.assert_array_equal(layer.spikes, activity.spikes)
        np.testing.assert_allclose(layer.membrane, activity.membrane, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(layer.current, activity.current, rtol=1e-4, atol=1e-4)
    return trace


def graph_of(
    nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]], specs: dict[str, NeuronSpec], steps: int = 9
) -> Deployment:
    """A deployment of event frames, read at its last population."""
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    contract = ExecutionContract(
        dt=1e-3, steps=steps, latency=dict.fromkeys(specs, 1), encoder=EncoderSpec("events"), neurons=specs,
        readout=ReadoutSpec(list(specs)[-1]),
    )  # fmt: skip
    return Deployment(graph, contract)


def neuron(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[nir.NIRNode, NeuronSpec]:
    """A population of any type, its constants drawn; two thresholds, so that they stand per neuron."""
    ones, dv, du = np.ones(shape), int(rng.integers(1, 3000)), int(rng.integers(0, 4000))
    r, leak = ones * rng.uniform(0.5, 3), ones * rng.uniform(-0.2, 0.2)
    theta = ones * rng.uniform(0.2, 0.6, shape)
    tau, tau_syn = ones * 4.096 / dv, ones * 4.096 / (du + 1)
    zero = ones * 0
    found: dict[str, tuple[nir.NIRNode, NeuronSpec]] = {
        "LIF": (nir.LIF(tau, r * 8, leak, theta, zero), NeuronSpec(dv)),
        "IF": (nir.IF(r * 500, theta, zero), NeuronSpec(0)),
        "LI": (nir.LI(tau, r, leak), NeuronSpec(dv, reset="none", spiking=False)),
        "I": (nir.I(r * 500), NeuronSpec(0, reset="none", spiking=False)),
        "CubaLIF": (nir.CubaLIF(tau_syn, tau, r * 8, zero, theta, zero, ones * 2.5), NeuronSpec(dv, du)),
        "CubaLI": (nir.CubaLI(tau_syn, tau, r, zero, ones * 2.5), NeuronSpec(dv, du, reset="none", spiking=False)),
        "Threshold": (nir.Threshold(theta), NeuronSpec(4096)),
    }
    return found[kind]


def everything(seed: int) -> Deployment:
    """All linear nodes, all neurons; skips, two sources into one weight node, loops with and without Delay nodes."""
    rng = np.random.default_rng(seed)
    w = lambda *shape: rng.normal(0, 0.7, shape)
    delays = np.array([0, 2, 1, 3, 1, 0]) * 1e-3
    nodes: dict[str, nir.NIRNode] = {
        "input": nir.Input({"input": np.array([2, 7, 6])}),
        "conv": nir.Conv2d((7, 6), w(4, 2, 3, 2), (1, 1), "same", (1, 1), 1, w(4)),
        "grouped": nir.Conv2d((7, 6), w(4, 2, 2, 3), (2, 1), (1, 0), (1, 2), 2, w(4)),
        "avg": nir.AvgPool2d(np.array([2, 1]), np.array([1, 1]), np.array([1, 0])),
        "sum": nir.SumPool2d(np.array([3, 2]), np.array([2, 1]), np.array([1, 1])),
        "merged": nir.Flatten({"input": np.array([4, 3, 3])}, 1, 2), "conv1d": nir.Conv1d(9, w(4, 2, 2), 1, 1, 2, 2, w(4)),
        "flat": nir.Flatten({"input": np.array([4, 9])}, 0, -1), "fc": nir.Affine(w(6, 36), w(6)), "late": nir.Delay(delays),
        "skip": nir.Linear(w(6, 36)), "both": nir.Affine(w(6, 6), w(6)), "back": nir.Affine(w(6, 6), w(6)),
        "slow": nir.Delay(1e-3 * np.array([1, 2, 1, 3, 1, 2])), "self": nir.Scale(w(6)), "out": nir.Affine(w(3, 6), w(3)),
        "output": nir.Output({"output": np.array([3])}),
    }  # fmt: skip
    specs: dict[str, NeuronSpec] = {}
    found = {"n1": ("LIF", (4, 7, 6)), "n2": ("IF", (4, 3, 3)), "n3": ("Threshold", (4, 9)), "n4": ("CubaLIF", (6,)),
             "n5": ("LIF", (6,)), "n6": (str(rng.choice(["LI", "I", "CubaLI"])), (3,))}  # fmt: skip
    for name, (kind, shape) in found.items():
        nodes[name], specs[name] = neuron(kind, shape, rng)
    edges = [
        ("input", "conv"), ("conv", "n1"), ("n1", "grouped"), ("grouped", "avg"), ("avg", "sum"), ("sum", "n2"), ("n2", "merged"),
        ("merged", "conv1d"), ("conv1d", "n3"), ("n3", "flat"), ("flat", "fc"), ("fc", "late"), ("late", "n4"), ("n4", "both"),
        ("flat", "skip"), ("skip", "both"), ("both", "n5"), ("n5", "back"), ("back", "slow"), ("slow", "n4"),
        ("n5", "self"), ("self", "n5"), ("n5", "out"), ("out", "n6"), ("n6", "output"),
    ]  # fmt: skip
    return graph_of(nodes, edges, specs)
