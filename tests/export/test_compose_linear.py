"""Chains between populations become one weight node each, and nothing else changes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest
from numpy.random import Generator

from snn_export.export import chains
from snn_export.export.contract import ExecutionContract
from snn_export.export.deployment import Deployment
from snn_export.export.graph import Edge, latencies, shapes
from snn_export.export.passes.compose_linear import ComposeLinear
from snn_export.export.passes.insert_weights import InsertWeights
from snn_export.export.passes.pass_ import compare_exactly, run_passes
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec, NeuronSpec, ReadoutSpec
from tests.networks import read, residual_net, uniform

DT = 1e-3
PASSES = (InsertWeights(), ComposeLinear())


def lif(shape: tuple[int, ...], dv: int = 600, threshold: float = 0.4) -> nir.LIF:
    ones = np.ones(shape)
    return nir.LIF(ones * DT * 4096 / dv, ones * 4096 / dv, ones * 0, ones * threshold, ones * 0)


def deployment(shape: tuple[int, ...], nodes: dict[str, Any], edges: list[Edge], steps: int = 8) -> Deployment:
    """A float deployment of nodes; a population is given by its LIF or, as the readout "out", by None."""
    table = {"input": nir.Input({"input": np.array(shape)}), **nodes, "output": nir.Output({"output": np.array([1])})}
    table["out"] = nir.I(np.full(1, 1 / DT))
    edges = [*edges, ("out", "output")]
    graph = nir.NIRGraph(table, edges, type_check=False)
    table["out"] = nir.I(np.full(shapes(graph)["out"], 1 / DT))
    graph = nir.NIRGraph(table, edges, type_check=False)
    neurons = {name: NeuronSpec(600) for name, node in nodes.items() if isinstance(node, nir.LIF)}
    contract = ExecutionContract(
        dt=DT, steps=steps, latency=latencies(graph, DT), encoder=EncoderSpec(), readout=ReadoutSpec("out"),
        neurons={**neurons, "out": NeuronSpec(0, reset="none", spiking=False)},
    )  # fmt: skip
    return Deployment(graph, contract)


def chain(*names: str) -> list[Edge]:
    return list(pairwise(names))


def composed(before: Deployment, seed: int = 0) -> Deployment:
    """What the passes make of it, which has one weight node of its own per connection and is exactly equal."""
    inputs = uniform(np.random.default_rng(seed), 5, *before.input_shape, low=-1, high=2)
    after = run_passes(before, PASSES, inputs)
    used = [wire.weight for wires in after.wires.values() for wire in wires]
    assert len(set(used)) == len(used), "a weight node with two sources or two targets"
    outcome = compare_exactly(before, after, inputs)
    assert outcome.fault is None, outcome
    return after


def affine(rng: Generator, out: int, given: int) -> nir.Affine:
    return nir.Affine(rng.normal(size=(out, given)) / 2, rng.normal(size=out) / 4)


def conv(rng: Generator, out: int, given: int, size: tuple[int, int] = (3, 2), **geometry: Any) -> nir.Conv2d:
    fields = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, **geometry}
    return nir.Conv2d(None, rng.normal(size=(out, given // fields["groups"], *size)) / 2, bias=rng.normal(size=out) / 4, **fields)


def test_layers_behind_layers_are_one_layer_with_all_their_biases() -> None:
    rng = np.random.default_rng(0)
    nodes = {
        "a": affine(rng, 6, 4),
        "b": affine(rng, 5, 6),
        "n": lif((5,)),
        "c": affine(rng, 3, 5),
        "scale": nir.Scale(rng.normal(size=3)),
    }
    after = composed(deployment((4,), nodes, chain("input", "a", "b", "n", "c", "scale", "out")))
    assert {name for name in after.graph.nodes if name not in ("input", "output", "n", "out")} == {"b", "c"}
    np.testing.assert_allclose(after.graph.nodes["b"].bias, nodes["b"].weight @ nodes["a"].bias + nodes["b"].bias)


def test_a_convolution_behind_an_unpadded_one_stays_a_convolution() -> None:
    rng = np.random.default_rng(1)
    nodes = {"a": conv(rng, 4, 2, stride=(2, 1), padding=(1, 1)), "b": conv(rng, 3, 4, dilation=(1, 2)), "n": lif((3, 3, 8))}
    nodes |= {"flat": nir.Flatten({"input": np.array([3, 3, 8])}, 0, -1), "c": affine(rng, 2, 72)}
    after = composed(deployment((2, 9, 9), nodes, chain("input", "a", "b", "n", "flat", "c", "out")))
    assert isinstance(after.graph.nodes["b"], nir.Conv2d)
    assert after.graph.nodes["b"].weight.shape == (3, 2, 7, 4)


def test_a_bias_that_padding_makes_uneven_needs_a_matrix_that_drives_maps() -> None:
    rng = np.random.default_rng(2)
    nodes = {
        "a": conv(rng, 4, 2),
        "b": conv(rng, 3, 4, padding=(1, 1)),
        "n": lif((3, 5, 6)),
        "c": conv(rng, 2, 3),
        "m": lif((2, 3, 5)),
    }
    nodes |= {"flat": nir.Flatten({"input": np.array([2, 3, 5])}, 0, -1), "d": affine(rng, 2, 30)}
    after = composed(deployment((2, 7, 6), nodes, chain("input", "a", "b", "n", "c", "m", "flat", "d", "out")))
    assert isinstance(after.graph.nodes["b"], nir.Affine)
    assert after.shapes["n"] == (3, 5, 6)
    assert isinstance(after.graph.nodes["c"], nir.Conv2d), "the layers behind it stay convolutions"


def test_a_scale_goes_into_its_neighbour_where_it_can() -> None:
    rng = np.random.default_rng(3)
    per_channel = np.broadcast_to(rng.normal(size=(4, 1, 1)), (4, 6, 5)).copy()
    nodes = {
        "s1": nir.Scale(rng.normal(size=(2, 7, 6))), "a": conv(rng, 4, 2, (2, 2), groups=2), "s2": nir.Scale(per_channel),
        "n": lif((4, 6, 5)), "s3": nir.Scale(per_channel), "b": conv(rng, 2, 4, groups=2), "m": lif((2, 4, 4)),
        "s4": nir.Scale(rng.normal(size=(2, 4, 4))), "flat": nir.Flatten({"input": np.array([2, 4, 4])}, 0, -1),
        "c": affine(rng, 2, 32),
    }  # fmt: skip
    after = composed(deployment((2, 7, 6), nodes, chain("input", "s1", "a", "s2", "n", "s3", "b", "m", "s4", "flat", "c", "out")))
    kinds = {name: type(node).__name__ for name, node in after.graph.nodes.items()}
    assert kinds["a"] == "Affine", "a factor per pixel is no convolution"
    assert kinds["b"] == "Conv2d"
    assert not any(name.startswith("s") for name in kinds)


def test_a_scale_alone_stays_a_diagonal() -> None:
    rng = np.random.default_rng(4)
    nodes = {
        "a": affine(rng, 5, 3),
        "n": lif((5,)),
        "s": nir.Scale(rng.normal(size=5)),
        "t": nir.Scale(np.array(0.5)),
        "m": lif((5,)),
    }
    after = composed(deployment((3,), {**nodes, "b": affine(rng, 2, 5)}, chain("input", "a", "n", "s", "t", "m", "b", "out")))
    assert isinstance(after.graph.nodes["s"], nir.Scale)
    np.testing.assert_allclose(after.graph.nodes["s"].scale, nodes["s"].scale / 2)


def test_a_layer_with_two_sources_becomes_two_connections_and_its_bias_counts_once() -> None:
    rng = np.random.default_rng(5)
    nodes = {"a": affine(rng, 5, 3), "n": lif((5,)), "b": affine(rng, 5, 3), "m": lif((5,), 600, 0.3), "c": affine(rng, 2, 5)}
    edges = [*chain("input", "a", "n", "c", "out"), *chain("input", "b", "m", "c")]
    after = composed(deployment((3,), nodes, edges))
    into = {wire.source: after.graph.nodes[wire.weight] for wire in after.wires["out"]}
    assert set(into) == {"n", "m"}
    np.testing.assert_array_equal(into["n"].weight, into["m"].weight)
    np.testing.assert_allclose(into["n"].bias + into["m"].bias, nodes["c"].bias)


def test_a_layer_with_two_targets_is_repeated_with_its_bias() -> None:
    rng = np.random.default_rng(6)
    nodes = {"a": affine(rng, 5, 3), "n": lif((5,)), "m": lif((5,), 600, 0.2), "b": affine(rng, 2, 5), "c": affine(rng, 2, 5)}
    edges = [*chain("input", "a", "n", "b", "out"), ("a", "m"), ("m", "c"), ("c", "out")]
    after = composed(deployment((3,), nodes, edges))
    first, second = (after.graph.nodes[after.wires[name][0].weight] for name in ("n", "m"))
    np.testing.assert_array_equal(first.bias, second.bias)


def test_a_connection_without_weights_becomes_a_synapse_per_neuron() -> None:
    rng = np.random.default_rng(7)
    nodes = {"a": affine(rng, 5, 5), "n": lif((5,)), "d": nir.Delay(np.full(5, 2 * DT)), "m": lif((5,)), "b": affine(rng, 2, 5)}
    edges = [*chain("input", "a", "n", "d", "m", "b", "out"), ("n", "m"), ("input", "m")]
    after = composed(deployment((5,), nodes, edges))
    assert {type(after.graph.nodes[wire.weight]).__name__ for wire in after.wires["m"]} == {"Scale"}
    assert sorted(wire.most for wire in after.wires["m"]) == [0, 0, 2]


def test_delays_are_kept_and_joined() -> None:
    rng = np.random.default_rng(8)
    nodes = {
        "a": affine(rng, 6, 4), "n": lif((6,)), "d1": nir.Delay(np.arange(6) * DT), "b": affine(rng, 5, 6),
        "d2": nir.Delay(np.full(5, 2 * DT)), "c": affine(rng, 3, 5), "d3": nir.Delay(np.array([0, 1, 3]) * DT), "m": lif((3,)),
        "e": affine(rng, 2, 3),
    }  # fmt: skip
    for key in ("b", "c"):
        nodes[key] = nir.Linear(nodes[key].weight)
    after = composed(deployment((4,), nodes, chain("input", "a", "n", "d1", "b", "d2", "c", "d3", "m", "e", "out"), steps=14))
    (wire,) = after.wires["m"]
    np.testing.assert_array_equal(wire.before, np.arange(6) + 2)
    np.testing.assert_array_equal(wire.after, [0, 1, 3])


def test_a_delay_per_feature_between_two_layers_is_refused() -> None:
    rng = np.random.default_rng(9)
    nodes = {
        "a": affine(rng, 6, 4),
        "d": nir.Delay(np.arange(6) * DT),
        "b": affine(rng, 5, 6),
        "n": lif((5,)),
        "c": affine(rng, 2, 5),
    }
    with pytest.raises(UserError) as caught:
        composed(deployment((4,), nodes, chain("input", "a", "d", "b", "n", "c", "out")))
    assert (caught.value.code, caught.value.diagnostics[0].where) == ("SNX264", "b")


def test_a_matrix_beyond_the_limit_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(10)
    pool = nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    nodes = {"a": conv(rng, 3, 2), "n": lif((3, 5, 5)), "pool": pool, "b": conv(rng, 4, 3, (3, 3), padding=(1, 1))}
    nodes |= {"m": lif((4, 2, 2)), "flat": nir.Flatten({"input": np.array([4, 2, 2])}, 0, -1), "c": affine(rng, 2, 16)}
    before = deployment((2, 7, 6), nodes, chain("input", "a", "n", "pool", "b", "m", "flat", "c", "out"))
    assert isinstance(composed(before).graph.nodes["b"], nir.Affine)
    monkeypatch.setattr(chains, "MATRIX_LIMIT", 16 * 75 - 1)
    with pytest.raises(UserError, match="pool") as caught:
        composed(before)
    assert caught.value.code == "SNX260"


def test_nothing_to_do_gives_the_same_deployment_back() -> None:
    before = composed(read(residual_net(), (2, 8, 6)))
    assert ComposeLinear()(InsertWeights()(before)) is before


@pytest.mark.parametrize("seed", range(25))
def test_random_chains_of_maps(seed: int) -> None:
    """Two to four random windows and scales in a row, and a residual edge around them where shapes allow."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.choice([2, 4])), int(rng.integers(7, 11)), int(rng.integers(7, 11)))
    nodes: dict[str, Any] = {"first": conv(rng, shape[0], shape[0], (1, 1)), "n": lif(shape)}
    names, given = ["input", "first", "n"], shape
    for index in range(int(rng.integers(2, 5))):
        node = _random_map(rng, given)
        probe = nir.NIRGraph({"i": nir.Input({"input": np.array(given)}), "x": node}, [("i", "x")], type_check=False)
        try:
            given = shapes(probe)["x"]
        except UserError:
            continue
        nodes[f"x{index}"] = node
        names.append(f"x{index}")
    nodes |= {
        "m": lif(given),
        "flat": nir.Flatten({"input": np.array(given)}, 0, -1),
        "last": affine(rng, 2, int(np.prod(given))),
    }
    composed(deployment(shape, nodes, chain(*names, "m", "flat", "last", "out")), seed)


def _random_map(rng: Generator, given: tuple[int, ...]) -> Any:
    kind = rng.integers(4)
    if kind == 0:
        size = rng.integers(1, 4, 2)
        return (nir.AvgPool2d, nir.SumPool2d)[rng.integers(2)](
            size, rng.integers(1, 3, 2), np.minimum(rng.integers(0, 2, 2), size // 2)
        )
    if kind == 1:
        return nir.Scale(rng.normal(size=(given[0], 1, 1)) * np.ones(given))
    groups = int(rng.choice([1, 2])) if given[0] % 2 == 0 else 1
    size = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    padding = "same" if kind == 3 else (int(rng.integers(0, 2)), int(rng.integers(0, 2)))
    return conv(rng, 4, given[0], size, padding=padding, groups=groups)
