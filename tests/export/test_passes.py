"""Passes that claim to be exact are, the others are refused, and a pass that lies is caught."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import nir
import numpy as np
import pytest
import torch
from torch import nn

from snn_export.export import interpreter, nir_io
from snn_export.export.deployment import Deployment, MergedLayers
from snn_export.export.graph import remove_node, replace_nodes
from snn_export.export.grid import with_parameters
from snn_export.export.passes.absorb_average_pooling import AbsorbAveragePooling
from snn_export.export.passes.compose_linear import ComposeLinear
from snn_export.export.passes.pass_ import Exactness, compare_exactly, run_passes
from snn_export.export.passes.portable_form import PortableForm
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from tests.networks import conv_net, dense_net, leaky, named, quantised, read, recurrent_net, uniform

absorb = AbsorbAveragePooling()


def before_conv(pool: nn.Module, conv: nn.Conv2d, shape: tuple[int, ...] = (2, 12, 8)) -> Deployment:
    """input -> conv -> lif -> pool -> conv -> readout."""
    torch.manual_seed(0)
    first = nn.Conv2d(shape[0], conv.in_channels, 3, padding=1)
    return read(named(first=first, lif=leaky(400, 0.2), pool=pool, conv=conv, readout=Integrator()), shape)


def before_matrix(pool: nn.Module, shape: tuple[int, ...], features: int) -> Deployment:
    torch.manual_seed(0)
    first, matrix = nn.Conv2d(shape[0], 3, 3, padding=1), nn.Linear(features, 4)
    return read(named(first=first, lif=leaky(400, 0.2), pool=pool, flat=nn.Flatten(), fc=matrix, readout=Integrator()), shape)


def poolings(deployment: Deployment) -> list[str]:
    return [n for n, node in deployment.graph.nodes.items() if isinstance(node, nir.AvgPool2d | nir.SumPool2d)]


def assert_same(before: Deployment, after: Deployment, seed: int = 0) -> None:
    inputs = uniform(np.random.default_rng(seed), 6, *before.input_shape, low=-1)
    first, second = interpreter.run(before, inputs), interpreter.run(after, inputs)
    assert first["lif"].spikes.any()
    for name, activity in first.items():
        np.testing.assert_array_equal(activity.spikes, second[name].spikes)
        np.testing.assert_allclose(activity.membrane, second[name].membrane, rtol=0, atol=1e-11)


ABSORBED = {
    "plain": (nn.AvgPool2d(2), nn.Conv2d(3, 4, 3), (2, 12, 8)),
    "padded": (nn.AvgPool2d(2), nn.Conv2d(3, 4, (3, 2), padding=(1, 2)), (2, 12, 8)),
    "not square": (nn.AvgPool2d((3, 2)), nn.Conv2d(3, 4, (2, 3), stride=(2, 1), padding=(1, 0)), (2, 12, 8)),
    "groups": (nn.AvgPool2d((2, 4)), nn.Conv2d(4, 6, (3, 1), groups=2), (2, 12, 8)),
    "rows left over": (nn.AvgPool2d(2), nn.Conv2d(3, 4, 2, stride=2), (2, 13, 9)),
    "same, odd kernel": (nn.AvgPool2d(2), nn.Conv2d(3, 4, 3, padding="same"), (2, 12, 8)),
    "many columns left over": (nn.AvgPool2d(4), nn.Conv2d(3, 4, 1), (2, 15, 11)),
}


@pytest.mark.parametrize("case", ABSORBED)
def test_pooling_before_a_convolution_is_absorbed_exactly(case: str) -> None:
    before = before_conv(*ABSORBED[case])
    after = absorb(before)
    assert poolings(before) == ["pool"]
    assert not poolings(after)
    assert after.shapes["conv"] == before.shapes["conv"]
    assert_same(before, after)


@pytest.mark.parametrize(("shape", "features"), [((2, 6, 4), 18), ((2, 7, 5), 18), ((1, 5, 8), 24)])
def test_pooling_before_a_matrix_is_absorbed_exactly(shape: tuple[int, ...], features: int) -> None:
    before = before_matrix(nn.AvgPool2d(2), shape, features)
    after = absorb(before)
    assert not poolings(after)
    assert_same(before, after)


def test_sum_pooling_is_not_divided() -> None:
    average = before_conv(nn.AvgPool2d(2), nn.Conv2d(3, 4, 3))
    size = np.array([2, 2])
    sums = average.replace(graph=replace_nodes(average.graph, {"pool": nir.SumPool2d(size, size, size * 0)}))
    assert_same(sums, absorb(sums))


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_two_poolings_in_a_row_are_absorbed_whatever_their_names(names: tuple[str, str], tmp_path: Any) -> None:
    """A file lists nodes by name, not in order of flow."""
    pools = {name: nn.AvgPool2d(2) for name in names}
    layers = named(first=nn.Conv2d(2, 3, 1), lif=leaky(400, 0.2), **pools, conv=nn.Conv2d(3, 2, 2), readout=Integrator())
    before = nir_io.read(nir_io.write(read(layers, (2, 12, 8)), tmp_path / "net.nir"))
    assert_same(before, absorb(before))


LEFT = {
    "overlapping": (nn.AvgPool2d(3, stride=2), nn.Conv2d(3, 4, 2)),
    "gaps": (nn.AvgPool2d(2, stride=3), nn.Conv2d(3, 4, 2)),
    "padded pool": (nn.AvgPool2d(2, padding=1), nn.Conv2d(3, 4, 2)),
    "dilated": (nn.AvgPool2d(2), nn.Conv2d(3, 4, 2, dilation=2)),
    "odd rows and padding": (nn.AvgPool2d((5, 2)), nn.Conv2d(3, 4, 2, padding=1)),
    "odd columns and padding": (nn.AvgPool2d((2, 3)), nn.Conv2d(3, 4, 2, padding=1)),
    "uneven same": (nn.AvgPool2d(2), nn.Conv2d(3, 4, 2, padding="same")),
}


@pytest.mark.parametrize("case", LEFT)
def test_pooling_that_would_change_the_network_is_left_and_composed_exactly(case: str) -> None:
    before = before_conv(*LEFT[case])
    assert absorb(before) is before
    after = ComposeLinear()(before)
    assert not poolings(after)
    assert_same(before, after)


@pytest.mark.parametrize("case", sorted({*ABSORBED, *LEFT}))
def test_merged_layers_remember_what_they_multiplied(case: str, tmp_path: Any) -> None:
    """Counted by torch: pool first, then convolve. What is left to compose becomes a matrix whose zeros are no synapses."""
    pool, conv, *shape = {**ABSORBED, **LEFT}[case]
    before = before_conv(pool, conv, *shape)
    with torch.no_grad():
        pooled = torch.ones_like(pool(torch.zeros(1, *before.shapes["lif"])))
        ones = copy.deepcopy(conv)
        nn.init.ones_(ones.weight)
        nn.init.zeros_(ones.bias)
        expected = int(ones(pooled).sum())
    after = ComposeLinear()(absorb(before))
    matrix = isinstance(after.graph.nodes["conv"], nir.Linear | nir.Affine)
    assert after.merged["conv"] == MergedLayers(expected, conv.weight.numel(), sparse=matrix)
    assert nir_io.read(nir_io.write(after, tmp_path / "net.nir")).merged == after.merged
    assert set(quantised(after).merged) == {"conv"}


def test_pooling_straight_before_a_neuron_is_left_and_becomes_a_convolution() -> None:
    layers = named(
        first=nn.Conv2d(2, 3, 3), lif=leaky(400, 0.2), pool=nn.AvgPool2d((3, 2), stride=2, padding=1), lif2=leaky(300, 0.3),
        flat=nn.Flatten(), fc=nn.Linear(48, 2), out=Integrator(),
    )  # fmt: skip
    before = read(layers, (2, 9, 8))
    assert absorb(before) is before
    after = ComposeLinear()(before)
    assert after.graph.nodes["pool"].groups == 3
    assert_same(before, after)


def test_pooling_that_feeds_two_layers_is_left_and_becomes_two_connections() -> None:
    deployment = before_conv(nn.AvgPool2d(2), nn.Conv2d(3, 4, 3))
    graph = deployment.graph
    twin = {**graph.nodes, "conv_b": graph.nodes["conv"]}
    edges = [*graph.edges, ("pool", "conv_b"), ("conv_b", "readout")]
    before = deployment.replace(graph=nir.NIRGraph(twin, edges, type_check=False))
    assert absorb(before) is before
    after = ComposeLinear()(before)
    assert not poolings(after)
    assert [wire.source for wire in after.wires["readout"]] == ["lif", "lif"]
    assert_same(before, after)


@pytest.mark.parametrize(("net", "shape"), [(dense_net, (4,)), (conv_net, (2, 9, 7))])
def test_portable_form_has_unit_gain_and_the_same_spikes(net: Any, shape: tuple[int, ...]) -> None:
    before = read(net(), shape)
    after = run_passes(before, [PortableForm()], uniform(np.random.default_rng(0), 8, *shape))
    for name, node in after.graph.nodes.items():
        if isinstance(node, nir.LIF):
            assert (node.r == 1.0).all()
            assert not (before.graph.nodes[name].r == 1.0).any()
    assert after.contract.lineage.passes[-1] == "portable_form"
    assert after.contract.lineage.parents == (before.fingerprint,)


@pytest.mark.parametrize(("net", "shape", "per"), [(dense_net, (4,), (6,)), (conv_net, (2, 9, 7), (4, 1, 1))])
def test_portable_form_gives_every_neuron_its_own_gain_where_it_has_its_own_weights(net: Any, shape: Any, per: Any) -> None:
    deployment = read(net(), shape)
    node = deployment.graph.nodes["lif1"]
    rates = node.r * np.linspace(0.5, 2, per[0]).reshape(per)
    uneven = nir.LIF(node.tau, rates, node.v_leak, node.v_threshold, node.v_reset)
    before = deployment.replace(graph=replace_nodes(deployment.graph, {"lif1": uneven}))
    after = run_passes(before, [PortableForm()], uniform(np.random.default_rng(0), 8, *shape, high=2.0))
    assert (after.graph.nodes["lif1"].r == 1.0).all()
    assert PortableForm()(after) is after


def test_portable_form_of_filtered_and_recurrent_neurons() -> None:
    before = read(recurrent_net(), (7,))
    after = run_passes(before, [PortableForm()], uniform(np.random.default_rng(0), 8, 7, low=-1, high=3))
    node, spec = after.graph.nodes["hidden"], after.contract.neurons["hidden"]
    np.testing.assert_allclose(node.w_in, 1 / (1 - spec.alpha), rtol=1e-12)
    assert (node.r == 1.0).all()
    for name in ("fc1", "hidden.weights"):  # weights and biases both divided by (1 - beta)
        for key in ("weight", "bias"):
            wanted = getattr(before.graph.nodes[name], key) / (1 - spec.beta)
            np.testing.assert_allclose(getattr(after.graph.nodes[name], key), wanted, rtol=1e-12)


def test_portable_form_refuses_a_shared_or_uneven_gain() -> None:
    deployment = read(dense_net(), (4,))
    maps = read(conv_net(), (2, 9, 7))
    node = maps.graph.nodes["lif1"]
    uneven = nir.LIF(node.tau, node.r * (1 + np.arange(9)[:, None] % 2), node.v_leak, node.v_threshold, node.v_reset)
    with pytest.raises(UserError) as caught:
        PortableForm()(maps.replace(graph=replace_nodes(maps.graph, {"lif1": uneven})))
    assert caught.value.code == "SNX242"
    graph = deployment.graph
    shared = nir.NIRGraph(
        {**graph.nodes, "extra": graph.nodes["lif1"]}, [*graph.edges, ("fc1", "extra"), ("extra", "fc2")], type_check=False
    )
    neurons = {**deployment.contract.neurons, "extra": deployment.contract.neurons["lif1"]}
    contract = deployment.contract.model_copy(update={"neurons": neurons})
    with pytest.raises(UserError) as caught:
        PortableForm()(deployment.replace(graph=shared, contract=contract))
    assert caught.value.code == "SNX242"


class Meddling:
    """Claims to be exact and changes one weight."""

    name: ClassVar[str] = "meddling"
    exactness: ClassVar[Exactness] = "EXACT"

    def __init__(self, node: str, amount: float) -> None:
        self._node, self._amount = node, amount

    def __call__(self, deployment: Deployment) -> Deployment:
        node = deployment.graph.nodes[self._node]
        weight = node.weight.copy()
        weight.flat[0] += self._amount
        changed = {self._node: with_parameters(node, weight, node.bias)}
        return deployment.replace(graph=replace_nodes(deployment.graph, changed))


@pytest.mark.parametrize(("node", "layer"), [("fc1", "lif1"), ("fc2", "lif2"), ("fc3", "readout")])
@pytest.mark.parametrize("amount", [0.3, 1e-6])
def test_pass_that_lies_is_caught_at_its_layer(node: str, layer: str, amount: float) -> None:
    inputs = uniform(np.random.default_rng(0), 40, 4, high=2.0)
    with pytest.raises(UserError, match=f"meddling changed the network at {layer}") as caught:
        run_passes(read(dense_net(), (4,)), [Meddling(node, amount)], inputs)
    assert caught.value.code == "SNX303"


def test_pass_that_loses_a_population_is_caught() -> None:
    class Losing(Meddling):
        name: ClassVar[str] = "losing"

        def __call__(self, deployment: Deployment) -> Deployment:
            return deployment.replace(graph=remove_node(deployment.graph, "lif1", {}))

    with pytest.raises(UserError, match="lif1") as caught:
        run_passes(read(dense_net(), (4,)), [Losing("", 0)], uniform(np.random.default_rng(0), 2, 4))
    assert caught.value.code == "SNX303"


def test_approximate_pass_is_not_held_to_exactness() -> None:
    class Honest(Meddling):
        exactness: ClassVar[Exactness] = "APPROXIMATE"

    after = run_passes(read(dense_net(), (4,)), [Honest("fc1", 0.3)], uniform(np.random.default_rng(0), 2, 4))
    assert after.contract.lineage.passes[-1] == "meddling"


def test_integer_graphs_are_compared_bit_for_bit() -> None:
    deployment = quantised(read(dense_net(), (4,)))
    inputs = uniform(np.random.default_rng(0), 10, 4)
    synapse = deployment.synapses["fc3"]
    weight = synapse.weight.copy()
    weight.flat[np.argmax(np.abs(weight[0]))] -= 2
    off_by_one = {**deployment.synapses, "fc3": type(synapse)(weight, 0, synapse.bias_mantissa)}
    assert compare_exactly(deployment, deployment, inputs).fault is None
    assert compare_exactly(deployment, deployment.replace(synapses=off_by_one), inputs).fault == "readout"


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_is_folded_as_torch_computes_it(affine: bool, bias: bool) -> None:
    torch.manual_seed(1)
    layers = named(
        conv=nn.Conv2d(2, 4, 3, bias=bias), bn1=nn.BatchNorm2d(4, affine=affine), lif=leaky(300, 0.5), flat=nn.Flatten(),
        fc=nn.Linear(96, 3, bias=bias), bn2=nn.BatchNorm1d(3, affine=affine), readout=Integrator(),
    )  # fmt: skip
    for name in ("bn1", "bn2"):
        norm = layers.get_submodule(name)
        for parameter in (*norm.parameters(), norm.running_mean):
            nn.init.uniform_(parameter, -1.5, 1.5)
        nn.init.uniform_(norm.running_var, 0.3, 3.0)
    layers = layers.double()
    deployment = read(layers, (2, 8, 6), steps=1)
    x = uniform(np.random.default_rng(0), 5, 2, 8, 6)
    with torch.no_grad():
        current = layers.get_submodule("bn1")(layers.get_submodule("conv")(torch.from_numpy(x)))
        spikes = (current > 0.5).double()
        out = layers.get_submodule("bn2")(layers.get_submodule("fc")(spikes.flatten(1)))
    found = interpreter.run(deployment, x)
    np.testing.assert_array_equal(found["lif"].spikes[0], spikes.numpy() > 0)
    np.testing.assert_allclose(found["readout"].membrane[0], out.numpy(), rtol=0, atol=1e-12)
    assert set(deployment.fold_magnitude) == {"conv", "fc"}
