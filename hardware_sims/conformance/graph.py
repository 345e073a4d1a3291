"""How nodes are wired: several ways into one place, loops, nested graphs, neurons that differ, files, and what nobody knows."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export import nir_io
from snn_export.export.deployment import Deployment
from snn_export.export.nir_reader import deployment_from_nir
from snn_export.hardware_sims.conformance.expected import Array
from snn_export.hardware_sims.conformance.networks import (
    DT,
    EVENTS,
    HALF,
    HALF_CURRENT,
    Layer,
    Synapse,
    dense,
    float_deployment,
    network,
)
from snn_export.hardware_sims.conformance.topic import Topic
from snn_export.hardware_sims.conformance.trial import Trial, events

TOPIC = Topic("graph")


@TOPIC.check()
def two_populations_into_one(trial: Trial) -> None:
    """Edges into one population add up, each over weights of its own."""
    both = Layer("n", (Synapse([[0.75]], "a"), Synapse([[0.5]], "b")))
    net = network(4, dense("a", [[1.5, 0.0]]), dense("b", [[0.0, 1.5]]), both, input_shape=(2,))
    trial.expect(net, events("1100", "1010"), {"a": "1100", "b": "1010", "n": "1010"}, {"n": [0.0, 0.75, 0.0, 0.0]})


@TOPIC.check()
def two_edges_into_one_weight(trial: Trial) -> None:
    """Two populations that spike in the same step into one weight node count twice, not once; its bias counts once."""
    net = network(4, dense("a", [[1.5, 0.0]]), dense("b", [[0.0, 1.5]]), dense("n", 0.5, "a", bias=[0.125]), input_shape=(2,))
    deployment = float_deployment(net)
    graph = deployment.graph
    shared = nir.NIRGraph(graph.nodes, [*graph.edges, ("b", "n.weight")], type_check=False)
    membrane = [0.0, 0.625, 0.0, 0.125]
    trial.expect(deployment.replace(graph=shared), events("1110", "1010"), {"n": "1010"}, {"n": membrane})


@TOPIC.check()
def parallel_ways_between_two_populations(trial: Trial) -> None:
    """Two weight nodes from one population to another add up."""
    net = network(3, dense("a", 1.5), Layer("n", (Synapse([[0.75]], "a"), Synapse([[0.5]], "a"))))
    trial.expect(net, events("101"), {"a": "101", "n": "101"}, {"n": [0.0] * 3})


@TOPIC.check()
def a_branch_and_its_join(trial: Trial) -> None:
    """One population feeds two, and both feed a third."""
    join = Layer("n", (Synapse([[0.75]], "left"), Synapse([[-0.5]], "right")))
    net = network(4, dense("a", 1.5), dense("left", 1.5, "a"), dense("right", 0.75, "a"), join)
    trial.expect(net, events("1111"), {"left": "1111", "right": "0101", "n": "0010"}, {"n": [0.75, 1.0, 0.0, 0.25]})


@TOPIC.check()
def nested_graphs(trial: Trial) -> None:
    """A graph inside a graph, a recurrent neuron as snnTorch exports one, runs as if it were written out flat."""
    flat = float_deployment(network(5, Layer("n", (Synapse([[1.5]]), Synapse([[-1.0]], "n"))))).graph
    inner = nir.NIRGraph(
        {"in": nir.Input({"input": np.array([1])}), "n": flat.nodes["n"], "w": flat.nodes["n.weight1"],
         "out": nir.Output({"output": np.array([1])})},
        [("in", "n"), ("n", "w"), ("w", "n"), ("n", "out")], type_check=False,
    )  # fmt: skip
    outer = nir.NIRGraph(
        {"input": flat.nodes["input"], "fc": flat.nodes["n.weight"], "block": inner, "output": flat.nodes["output"]},
        [("input", "fc"), ("fc", "block"), ("block", "output")], type_check=False,
    )  # fmt: skip
    deployment = deployment_from_nir(outer, steps=5, dt=DT, encoder=EVENTS)
    trial.expect(deployment, events("11111"), {"block.n": "10101"}, {"block.n": [0.0, 0.5, 0.0, 0.5, 0.0]})


@TOPIC.check()
def a_threshold_per_neuron(trial: Trial) -> None:
    """Neurons of one population compare with thresholds of their own (a chip gets a population per threshold)."""
    layer = dense("n", [[0.75], [0.75], [0.75]], threshold=[0.5, 1.0, 0.5], dv=HALF)
    deployment = trial.deployment(network(4, layer, dense("last", [[1.5, 1.5, 1.5]], "n")))
    trace = trial.run(deployment, events("1111"))
    trains, values = {"0.5": "1111", "1.0": "0101"}, {"0.5": [0.0] * 4, "1.0": [0.75, 0.0, 0.75, 0.0]}
    if "n" in deployment.layers:
        trial.compare(trace, {"n": [trains["0.5"], trains["1.0"], trains["0.5"]]})
    else:
        low, high = (name for name in deployment.layers if name != "last")
        trial.compare(trace, {low: [trains["0.5"]] * 2, high: trains["1.0"]}, {high: values["1.0"]})
    trial.compare(trace, {"last": "1111"}, {"last": [0.0] * 4})


def _from_a_file(trial: Trial, deployment: Deployment, inputs: Array) -> None:
    """What a network did before, it does when it was written and read."""
    before = trial.run(deployment, inputs)
    with tempfile.TemporaryDirectory(prefix="snn-export-conformance-") as folder:
        read = nir_io.read(nir_io.write(deployment, Path(folder) / "net.nir"))
    trial.same_trace(before, trial.run(read, inputs), "the network and its file")


@TOPIC.check()
def from_a_file(trial: Trial) -> None:
    """Maps, a flatten, a loop, biases and a readout of membranes: written as NIR with its contract and read, the same bits."""
    flatten = nir.Flatten({"input": np.array([2, 2, 2])}, start_dim=0, end_dim=-1)
    matrix = np.arange(16).reshape(2, 8) % 5 / 4 - 0.25
    hidden = (Synapse(matrix, "maps", bias=[0.25, -0.5], front=(flatten,)), Synapse([[0.0, -0.5], [0.75, 0.0]], "hidden"))
    layers = (
        Layer("maps", (Synapse([[[[0.5, 1.25]]], [[[-0.75, 1.5]]]]),)),
        Layer("hidden", hidden, threshold=2.0, dv=HALF),
        dense("out", [[0.5, -0.25]], "hidden", dv=HALF, spiking=False),
    )
    inputs = np.random.default_rng(3).integers(0, 2, (4, 2, 1, 2, 3)).astype(np.float64)
    _from_a_file(trial, trial.deployment(network(4, *layers, input_shape=(1, 2, 3))), inputs)


@TOPIC.check()
def filters_from_a_file(trial: Trial) -> None:
    """A CubaLIF with two time constants, a bias into its current and a threshold of its own, written and read: the same bits."""
    layer = dense("n", [[1.0, -0.5], [0.75, 1.25]], bias=[0.25, 0.5], threshold=1.5, du=HALF_CURRENT, dv=HALF // 2)
    deployment = trial.deployment(network(6, layer, input_shape=(2,)))
    _from_a_file(trial, deployment, events("101101", "011010"))


@dataclass(eq=False)
class Rectifier(nir.ir.NIRNode):  # type: ignore[misc]  # nir has no types
    """A node type that NIR does not have and nobody knows, with all that nir asks of one."""

    slope: NDArray[np.float64]

    def __post_init__(self) -> None:
        self.input_type = {"input": np.array(self.slope.shape)}
        self.output_type = {"output": np.array(self.slope.shape)}


@TOPIC.check()
def unknown_nodes_are_refused(trial: Trial) -> None:
    """A node type without a rule is a coded finding of check(), and compile() refuses too: nothing is run in its place."""
    deployment = trial.deployment(network(2, dense("a", 1.5), dense("n", 1.5, "a")))
    nodes = {**deployment.graph.nodes, "n.weight": Rectifier(np.ones(1))}
    graph = nir.NIRGraph(nodes, list(deployment.graph.edges), type_check=False)
    finding = trial.refusal(deployment.replace(graph=graph))
    trial.demand(finding.code.startswith("SNX") and bool(finding.fix), "the finding has no code or says no fix")


@TOPIC.check("integers")
def floats_are_refused(trial: Trial) -> None:
    """A backend of integers refuses a float deployment with a code; it does not round it by itself."""
    trial.refusal(float_deployment(network(2, dense("n", 1.5))))
