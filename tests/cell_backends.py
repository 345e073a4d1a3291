"""What tests of cell backends share: one row per backend, its runs, and what they are held against."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from numpy.random import default_rng

from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.deviation import deviating
from snn_export.export.graph import replace_nodes
from snn_export.export.populations import with_constants
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.isolated.backend import CellBackend
from snn_export.hardware_sims.rockpool.simulator import RockpoolSimulator
from snn_export.hardware_sims.simulator import Simulator
from snn_export.hardware_sims.sinabs.simulator import SinabsSimulator
from snn_export.hardware_sims.spikingjelly.simulator import SpikingJellySimulator
from snn_export.hardware_sims.spyx.simulator import SpyxSimulator
from snn_export.hardware_sims.trace import LayerTrace, Record, Trace
from snn_export.models.spec import NeuronSpec
from tests.networks import conv_net, delayed_net, dense_net, recurrent_net, residual_net
from tests.torch_graphs import everything, graph_of, with_spec

ALL: tuple[Record, ...] = ("spikes", "membrane", "current")
NETWORKS = {
    "dense": (dense_net, (4,)), "conv": (conv_net, (2, 9, 7)), "residual": (residual_net, (2, 8, 6)),
    "recurrent": (recurrent_net, (7,)), "delayed": (delayed_net, (6,)),
}  # fmt: skip
WORKERS = Path(__file__).parent / "hardware_sims" / "workers"


@dataclass(frozen=True)
class Row:
    """A cell backend as its tests see it.

    Attributes:
        make: its class.
        package: what it runs on, with the version, as its self-test tells it.
        options: every way to run it, by a name for the test's id; "as shipped" has none.
        faithful: the way in which nothing is left to declare for a network that resets as ``reset`` says.
        reset: see ``faithful``.
        roundings: float32 roundings per step, in units of those of the canonical form.
        imports: modules that must not be imported where the backend is only asked whether it is there.
    """

    make: Callable[..., CellBackend]
    package: str
    options: Mapping[str, Mapping[str, bool]]
    faithful: str
    reset: str
    roundings: int
    imports: tuple[str, ...]

    @property
    def roundoff(self) -> float:
        """The unit roundoff that ties are judged by."""
        return self.roundings * FLOAT32_ROUNDOFF


ROWS: Mapping[str, Row] = {
    "sinabs": Row(
        SinabsSimulator, "sinabs 3.1.3",
        {"as shipped": {}, "several": {"several_spikes": True}, "strict": {"strict": True}},
        "strict", "zero", 1, ("torch", "sinabs"),
    ),
    "spikingjelly": Row(
        SpikingJellySimulator, "spikingjelly 2.0.0", {"as shipped": {}, "strict": {"strict": True}}, "strict", "zero",
        4,  # a LIFNode rounds its tau, a division by it, and a difference that the canonical form does not have
        ("torch", "spikingjelly", "torchvision"),
    ),
    "spyx": Row(
        SpyxSimulator, "spyx 1.0.0", {"as shipped": {}, "zero_reset": {"zero_reset": True}}, "zero_reset", "zero",
        2,  # the membrane's gain is multiplied before the filter of a CuBaLIF, not behind it
        ("torch", "spyx", "jax"),
    ),
    "rockpool": Row(
        RockpoolSimulator, "rockpool 3.1.0",
        {"as shipped": {}, "several": {"several_spikes": True}, "strict": {"strict": True},
         "strict, several": {"several_spikes": True, "strict": True}},
        "strict", "subtract",
        4,  # the input is multiplied by gain / alpha and the sum by alpha
        ("torch", "rockpool", "torchvision"),
    ),
}  # fmt: skip
WAYS = [(name, way) for name, row in ROWS.items() for way in row.options]


@cache
def backend(name: str, way: str = "as shipped") -> CellBackend:
    """One for all tests of a module: its worker stays, and importing its package takes longer than most of them."""
    return ROWS[name].make(**ROWS[name].options[way], time_limit=120)


def require(name: str) -> None:
    """Skip, or fail under ``SNN_EXPORT_REQUIRE_<NAME>=1``, where a backend's environment is missing."""
    found = backend(name).availability()
    if found.ok:
        return
    message = f"{found.reason}; fix: {found.fix}"
    if os.environ.get(f"SNN_EXPORT_REQUIRE_{name.upper()}") == "1":
        pytest.fail(message)
    pytest.skip(message)


def run(made: Simulator, deployment: Deployment, inputs: Any) -> Trace:
    """Everything recorded of a network that the backend has nothing to object to."""
    assert made.check(deployment) == []
    return made.run(made.compile(deployment), inputs, ALL)


def declared(made: CellBackend, deployment: Deployment) -> Deployment:
    """The network with what the backend declares: what its runs are held against."""
    return deviating(deployment, made.deviations(deployment))


def kinds(made: CellBackend, deployment: Deployment) -> dict[str, str]:
    """By node: native, rewritten, emulated or unsupported."""
    return {name: found.kind for name, found in made.mapping(deployment).items()}


def sent(layer: LayerTrace) -> Any:
    """Spikes per step, several counted."""
    return layer.spikes if layer.several is None else layer.several


def assert_explained(model: Deployment, inputs: Any, trace: Trace, roundoff: float) -> None:
    """Every layer follows from what the run itself fired before it, but for ties; and every layer that can fire does."""
    for name, found in explain(model, inputs, trace.layers, roundoff).items():  # type: ignore[arg-type]
        assert not found.faulty.any(), name
        assert not found.beyond.any(), name
        assert bool(trace.layers[name].counts.any()) == model.contract.neurons[name].spiking, f"{name} is dead"


def assert_equal(model: Deployment, inputs: Any, trace: Trace) -> None:
    """0 mismatched spikes against the arbiter, and states within float32's rounding."""
    for name, activity in interpreter.run(model, inputs).items():
        layer = trace.layers[name]
        np.testing.assert_array_equal(sent(layer), activity.sent, err_msg=name)
        np.testing.assert_array_equal(layer.counts, activity.sent.sum(axis=0), err_msg=name)
        for which in ("membrane", "current"):
            found, expected = getattr(layer, which), getattr(activity, which)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(expected).max()), err_msg=name)


def assert_is(name: str, way: str, deployment: Deployment, inputs: Any) -> Trace:
    """Run a network: the backend does what it declares, up to rounding, and nothing else."""
    made = backend(name, way)
    trace, model = run(made, deployment, inputs), declared(made, deployment)
    assert_explained(model, inputs, trace, ROWS[name].roundoff)
    assert_equal(model, inputs, trace)
    return trace


def assert_bit_for_bit(model: Deployment, inputs: Any, trace: Trace) -> dict[str, interpreter.Activity]:
    """The run is the arbiter's on ``model`` in every spike and every bit of u and v; returns the arbiter's."""
    activities = interpreter.run(model, inputs)
    for name, activity in activities.items():
        layer = trace.layers[name]
        np.testing.assert_array_equal(sent(layer), activity.sent, err_msg=name)
        np.testing.assert_array_equal(layer.membrane, activity.membrane, err_msg=name)  # type: ignore[arg-type]
        np.testing.assert_array_equal(layer.current, activity.current, err_msg=name)  # type: ignore[arg-type]
    return activities


def every_node(seed: int, leak: bool = True, **spec: Any) -> tuple[Deployment, Any]:
    """All nodes and ways of joining them, and inputs; ``leak``: a v_leak behind a synaptic filter too."""
    deployment = with_spec(everything(seed), **spec)
    if leak:
        leaky = with_constants(deployment.graph.nodes["n4"], v_leak=default_rng(seed).uniform(-0.3, 0.3, 6))
        deployment = deployment.replace(graph=replace_nodes(deployment.graph, {"n4": leaky}))
    return deployment, default_rng(seed).uniform(-1, 2, (9, 5, 2, 7, 6))


def dyadic(r_of_cuba: float = 2.0, v_leak: float = 0.0, **spec: Any) -> dict[str, tuple[nir.NIRNode, NeuronSpec]]:
    """An IF, a LIF and a CubaLIF of six neurons with decays of one half; a v_leak is the CubaLIF's."""
    one = np.ones(6)
    fires = {"v_threshold": 2 * one, "v_reset": 0 * one}
    cuba = nir.CubaLIF(2e-3 * one, 2e-3 * one, r_of_cuba * one, v_leak * one, w_in=2 * one, **fires)
    return {
        "if": (nir.IF(1e3 * one, **fires), NeuronSpec(0, **spec)),
        "lif": (nir.LIF(2e-3 * one, 2 * one, 0 * one, **fires), NeuronSpec(2048, **spec)),
        "cuba": (cuba, NeuronSpec(2048, 2047, **spec)),
    }


def on_the_grid(populations: Mapping[str, tuple[nir.NIRNode, NeuronSpec]]) -> tuple[Deployment, Any]:
    """Populations of :func:`dyadic` in a row, and inputs: whole, half and quarter numbers.

    What meets a threshold meets it exactly, in float32 as in float64.
    """
    rng = default_rng(3)
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array([6])})}
    for index, (name, (node, _)) in enumerate(populations.items(), 1):
        weight = rng.integers(-3, 6, (6, 6)) / 2.0
        nodes |= {f"w{index}": nir.Linear(weight / 2 if name == "lif" else weight), name: node}
    nodes["output"] = nir.Output({"output": np.array([6])})
    specs = {name: spec for name, (_, spec) in populations.items()}
    return graph_of(nodes, list(pairwise(nodes)), specs, steps=12), rng.integers(0, 3, (12, 20, 6)).astype(np.float64)


# --- what a package's own NIR import makes of a node --------------------------------------------------------------------------


def chain(shape: tuple[int, ...], *nodes: nir.NIRNode) -> nir.NIRGraph:
    """Nodes in a row as a graph; one alone is called "node", as the scripts in ``workers`` expect."""
    names = ["node"] if len(nodes) == 1 else [f"n{index}" for index in range(len(nodes))]
    named = {"input": nir.Input({"input": np.array(shape)}), **dict(zip(names, nodes, strict=True))}
    named["output"] = nir.Output({"output": np.array(shape)})
    return nir.NIRGraph(named, list(pairwise(named)), type_check=False)


def alone(node: nir.NIRNode, shape: tuple[int, ...], spec: NeuronSpec | None = None) -> Deployment:
    """A deployment of one node, called "node"; behind a linear one, which has no ``spec``, stands an IF."""
    after = {} if spec else {"after": nir.IF(np.ones(1), np.ones(1), np.zeros(1))}
    nodes = {
        "input": nir.Input({"input": np.array(shape)}), "node": node, **after, "output": nir.Output({"output": np.array(shape)}),
    }  # fmt: skip
    return graph_of(nodes, list(pairwise(nodes)), {"node": spec} if spec else {"after": NeuronSpec(0)})


def imported_by(name: str, *arguments: str | Path) -> dict[str, Any]:
    """What ``workers/<name>_imports.py`` sees in the backend's environment: its last line, as JSON."""
    command = [str(environments.interpreter(name)), "-I", str(WORKERS / f"{name}_imports.py"), *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
