"""Graphs of other programs run as they say, or are refused with every reason."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import snntorch
import torch
from numpy.typing import NDArray
from snntorch import export_nir
from torch import nn

from snn_export.export import interpreter, nir_io
from snn_export.export import snntorch_reader as reader
from snn_export.export.deployment import Deployment
from snn_export.export.nir_reader import deployment_from_nir
from snn_export.export.passes.pass_ import run_passes
from snn_export.export.passes.portable_form import PortableForm
from snn_export.models.diagnostics import UserError
from tests.networks import named, uniform

DT = 1e-4
Array = NDArray[np.float64]


def cuba(alpha: Array, beta: Array, threshold: Array) -> nir.CubaLIF:
    """As snnTorch writes a Synaptic: float32, r = tau_mem / dt, w_in = tau_syn / dt."""
    single = lambda value: np.asarray(value, np.float32)
    tau_syn, tau_mem = single(DT / (1 - alpha)), single(DT / (1 - beta))
    zero = single(alpha * 0)
    return nir.CubaLIF(tau_syn, tau_mem, single(tau_mem / DT), zero, single(threshold), zero, single(tau_syn / DT))


def recurrent_graph(alpha: Array, beta: Array, threshold: Array, seed: int = 0) -> nir.NIRGraph:
    """input -> fc1 -> nested recurrent CubaLIF -> fc2 -> LIF without memory to speak of; as snnTorch nests an RSynaptic."""
    rng, n = np.random.default_rng(seed), len(alpha)
    loop = nir.NIRGraph(
        {
            "input": nir.Input(np.array([n])), "lif": cuba(alpha, beta, threshold), "output": nir.Output(np.array([n])),
            "w_rec": nir.Affine(rng.normal(size=(n, n)).astype(np.float32) / 4, rng.normal(size=n).astype(np.float32) / 8),
        },
        [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")], type_check=False,
    )  # fmt: skip
    half = np.array([0.5], np.float32)  # one number for a whole population
    last = nir.LIF(DT / half, 1 / half, half * 0, half, half * 0)
    return nir.NIRGraph(
        {
            "input": nir.Input(np.array([3])), "output": nir.Output(np.array([4])), "1": loop, "lif2": last,
            "fc1": nir.Affine(rng.normal(size=(n, 3)).astype(np.float32), np.zeros(n, np.float32)),
            "fc2": nir.Linear(rng.normal(size=(4, n)).astype(np.float32)),
        },
        [("input", "fc1"), ("fc1", "1"), ("1", "fc2"), ("fc2", "lif2"), ("lif2", "output")], type_check=False,
    )  # fmt: skip


def simulated(graph: nir.NIRGraph, alpha: Array, beta: Array, threshold: Array, inputs: Array, steps: int) -> tuple[Array, Array]:
    """The same network step by step, from its parameters as they were meant."""
    fc1, loop, fc2 = graph.nodes["fc1"], graph.nodes["1"].nodes["w_rec"], graph.nodes["fc2"]
    u, v, s = (np.zeros((len(inputs), len(alpha))) for _ in range(3))
    w, hidden, out = np.zeros((len(inputs), 4)), [], []
    for _ in range(steps):
        u = alpha * u + inputs @ fc1.weight.T.astype(float) + s @ loop.weight.T.astype(float) + loop.bias
        v = beta * v + u
        s = (v > threshold).astype(float)
        v = v * (1 - s)
        w = 0.5 * w + s @ fc2.weight.T.astype(float)
        fired = w > 0.5
        w = w * ~fired
        hidden.append(s)
        out.append(fired)
    return np.array(hidden), np.array(out)


def decays(*lost: int) -> Array:
    return 1 - np.array(lost) / 4096


UNIFORM = (decays(*[1000] * 6), decays(*[512] * 6), np.full(6, 0.9))
MIXED = (
    decays(1000, 1000, 2000, 1000, 2000, 1000),
    decays(512, 512, 512, 300, 512, 512),
    np.array([0.9, 0.9, 0.9, 0.9, 0.9, 1.7]),
)


@pytest.mark.parametrize("constants", [UNIFORM, MIXED])
@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_nested_recurrent_graph_runs_as_its_parameters_say(constants: Any, through_a_file: bool, tmp_path: Path) -> None:
    graph = recurrent_graph(*constants)
    source: Any = graph
    if through_a_file:
        nir.write(tmp_path / "foreign.nir", graph)
        source = tmp_path / "foreign.nir"
    deployment = deployment_from_nir(source, steps=20, dt=DT)
    inputs = uniform(np.random.default_rng(1), 9, 3, low=-1, high=1)
    hidden, out = simulated(graph, *constants, inputs, 20)
    assert 0 < hidden.mean() < 1
    assert 0 < out.mean() < 1
    found = interpreter.run(deployment, inputs)
    parts = [name for name in deployment.layers if deployment.contract.origin[name] == "1.lif"]
    assert len(parts) == (1 if constants is UNIFORM else 4)
    order = [[0, 1, 2, 3, 4, 5]] if constants is UNIFORM else [[0, 1], [2, 4], [3], [5]]
    for name, index in zip(parts, order, strict=True):
        np.testing.assert_array_equal(found[name].spikes, hidden[:, :, index] > 0)
    np.testing.assert_array_equal(found["lif2"].spikes, out)
    assert deployment.contract.readout.rule == "spike_count"
    ready = run_passes(deployment, [PortableForm()], inputs)
    assert nir_io.read(nir_io.write(ready, tmp_path / "ours.nir")).fingerprint == ready.fingerprint


class Odd(nir.NIRNode):
    """A node type that NIR might have one day."""

    def __init__(self) -> None:
        self.metadata = {}


def small(**nodes: Any) -> nir.NIRGraph:
    """input (4,) -> fc -> n -> out (2) -> readout, some of it replaced."""
    ones = np.ones(3)
    table = {
        "input": nir.Input(np.array([4])), "fc": nir.Linear(np.ones((3, 4))),
        "n": nir.LIF(ones * 2 * DT, ones, ones * 0, ones, ones * 0),
        "out": nir.Affine(np.ones((2, 3)), np.ones(2)), "readout": nir.I(np.ones(2) / DT), "output": nir.Output(np.array([2])),
        **nodes,
    }  # fmt: skip
    names = ["input", "fc", "n", "out", "readout", "output"]
    edges = [(a, b) for a, b in pairwise(names) if table[a] is not None and table[b] is not None]
    return nir.NIRGraph({name: node for name, node in table.items() if node is not None}, edges, type_check=False)


def read(graph: nir.NIRGraph, **options: Any) -> Deployment:
    return deployment_from_nir(graph, **{"steps": 5, "dt": DT, **options})


def lif(tau: Any = 2 * DT, r: Any = 1.0, leak: float = 0.0, threshold: Any = 1.0, rest: float = 0.0) -> nir.LIF:
    values = [np.broadcast_to(np.asarray(value, float), 3).copy() for value in (tau, r, leak, threshold, rest)]
    return nir.LIF(*values)


@pytest.mark.parametrize(
    ("change", "code", "where"),
    [
        ({"n": lif(leak=0.5)}, "SNX262", "n"), ({"n": lif(rest=-0.1)}, "SNX262", "n"), ({"n": lif(threshold=0)}, "SNX262", "n"),
        ({"n": lif(r=[1, -1, 1])}, "SNX262", "n"), ({"n": lif(threshold=np.nan)}, "SNX262", "n"),
        ({"n": lif(tau=DT)}, "SNX266", "n"), ({"n": lif(tau=1.0)}, "SNX266", "n"), ({"n": lif(tau=-DT)}, "SNX266", "n"),
        ({"n": lif(tau=[2 * DT, 10 * DT, 2 * DT])}, "SNX241", "n"),
        ({"readout": nir.Linear(np.ones((2, 2)))}, "SNX265", "output"),
        ({"readout": nir.LI(np.array([2, 4]) * DT, np.ones(2), np.zeros(2))}, "SNX261", "readout"),
        ({"fc": nir.Linear(np.ones((3, 5)))}, "SNX206", "fc"), ({"fc": nir.Delay(np.ones(4) * 0.5 * DT)}, "SNX206", "n"),
        ({"extra": nir.Output(np.array([2]))}, "SNX205", "output, extra"), ({"extra": Odd()}, "SNX201", "extra"),
        ({"extra": nir.NIRGraph({"a": nir.Linear(np.ones((1, 1)))}, [], type_check=False)}, "SNX263", "extra"),
    ],
)  # fmt: skip
def test_what_has_no_exact_form_is_refused(change: dict[str, Any], code: str, where: str) -> None:
    with pytest.raises(UserError) as caught:
        read(small(**change))
    assert [(item.code, item.where) for item in caught.value.diagnostics] == [(code, where)]


def test_decays_are_rounded_on_request_and_said_so() -> None:
    deployment = read(small(n=lif(tau=10 * DT)), round_decays=True)
    assert deployment.contract.neurons["n"].dv == 410
    np.testing.assert_array_equal(deployment.graph.nodes["n"].tau, DT * 4096 / 410)
    assert "round_decays" in deployment.contract.lineage.passes


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_the_reset_is_stated_by_the_reader(reset: Any) -> None:
    deployment = read(small(), reset=reset)
    assert deployment.contract.neurons["n"].reset == reset
    assert deployment.contract.neurons["readout"].reset == "none"


def test_every_neuron_of_nir_is_read() -> None:
    ones = np.ones(3)
    kinds = {
        "LIF": lif(), "IF": nir.IF(ones, ones), "LI": nir.LI(ones * 2 * DT, ones, ones * 0), "I": nir.I(ones),
        "CubaLIF": cuba(decays(4096, 4096, 4096), decays(1, 1, 1), ones), "Threshold": nir.Threshold(ones),
        "CubaLI": nir.CubaLI(ones * 2 * DT, ones * 4 * DT, ones, ones * 0),
    }  # fmt: skip
    expected = {"LIF": (2048, 4095), "IF": (0, 4095), "LI": (2048, 4095), "I": (0, 4095), "CubaLIF": (1, 4095)}
    expected |= {"Threshold": (4096, 4095), "CubaLI": (1024, 2047)}
    for name, node in kinds.items():
        graph = small(n=node, out=None, readout=None)
        graph = nir.NIRGraph(graph.nodes, [*graph.edges, ("n", "output")], type_check=False)
        spec = read(graph).contract.neurons["n"]
        assert (spec.dv, spec.du) == expected[name], name


def test_one_number_stands_for_a_whole_population_layer_or_delay() -> None:
    one = np.ones(1)
    neurons = nir.LIF(one * 2 * DT, one, one * 0, one, one * 0)
    deployment = read(small(n=neurons, fc=nir.Scale(np.array(0.5)), out=nir.Linear(np.ones((2, 4)))))
    assert deployment.graph.nodes["n"].tau.shape == (4,)
    assert deployment.graph.nodes["fc"].scale.shape == (4,)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic", "Leaky", "Synaptic"])
def test_what_snntorch_makes_of_its_own_neurons(kind: str) -> None:
    """Its exporter loses the reset and fixes dt at 1e-4 s; stated again, the graph is the network."""
    decay = {"beta": 1 - 700 / 4096, **({"alpha": 1 - 2000 / 4096} if "Synaptic" in kind else {})}
    loop = {"linear_features": 6} if kind.startswith("R") else {}
    # snnTorch 1.0.0 cannot reset an RSynaptic in the step of its spike.
    reset: Any = "none" if kind == "RSynaptic" else "zero"
    common: dict[str, Any] = {"reset_mechanism": reset, "reset_delay": False}

    def build() -> nn.Sequential:
        torch.manual_seed(0)
        neuron = getattr(snntorch, kind)(**decay, **loop, **common, threshold=0.6)
        last = snntorch.Leaky(beta=0.5, threshold=0.3, **common)
        return named(fc1=nn.Linear(4, 6), n=neuron, fc2=nn.Linear(6, 3), out=last)

    # Its own walk over the network (export_to_nir) stops at nir 1.0.8's shape check; what it makes of each layer does not.
    nodes = {name: export_nir._extract_snntorch_module(module) for name, module in build().named_children()}
    nodes = {"input": nir.Input(np.array([4])), **nodes, "output": nir.Output(np.array([3]))}
    graph = nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)
    deployment = deployment_from_nir(graph, steps=10, dt=1e-4, reset=reset)
    inputs = uniform(np.random.default_rng(0), 12, 4, low=-1, high=2).astype(np.float32)
    expected = interpreter.run(reader.deployment_from_snntorch(build(), (4,), 10), inputs)
    found = interpreter.run(deployment, inputs)
    assert 0 < expected["n"].spikes.mean() < 1
    hidden, out = (layer for layer in deployment.layers)
    np.testing.assert_array_equal(found[hidden].spikes, expected["n"].spikes)
    np.testing.assert_array_equal(found[out].spikes, expected["out"].spikes)


def test_a_nested_convolution_that_is_not_square_is_read(tmp_path: Path) -> None:
    """nir 1.0.8 infers a wrong shape for it and would refuse the file."""
    conv = nir.Conv2d((8, 6), np.ones((4, 2, 3, 2)), 1, (0, 0), 1, 1, np.zeros(4))
    inner = nir.NIRGraph(
        {"input": nir.Input(np.array([2, 8, 6])), "c": conv, "output": nir.Output(np.array([4, 6, 5]))},
        [("input", "c"), ("c", "output")], type_check=False,
    )  # fmt: skip
    outer = nir.NIRGraph(
        {
            "input": nir.Input(np.array([2, 8, 6])), "m": inner, "n": nir.I(np.array([1 / DT])),
            "output": nir.Output(np.array([4, 6, 5])),
        },
        [("input", "m"), ("m", "n"), ("n", "output")], type_check=False,
    )  # fmt: skip
    nir.write(tmp_path / "nested.nir", outer)
    assert deployment_from_nir(tmp_path / "nested.nir", steps=2, dt=DT).shapes["n"] == (4, 6, 5)
