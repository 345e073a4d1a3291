"""The smallest case on which two backends part: seeded faults end small and minimal, and nothing else is called a fault."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_export import library
from snn_export.export import interpreter, thinning
from snn_export.export.deployment import Deployment, weights_in
from snn_export.export.graph import replace_nodes
from snn_export.hardware_sims import registry
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec
from snn_export.verification.bisection import finding, reductions
from snn_export.verification.bisection.case import Case
from snn_export.verification.bisection.ddmin import ddmin, shorter_range
from snn_export.verification.bisection.finding import Bisection, bisect_backends
from snn_export.verification.bisection.judging import judgement
from snn_export.verification.bisection.shrinking import shrink
from snn_export.verification.bisection.trial import Bench
from snn_export.verification.example_inputs import example_inputs
from tests import faulty_backend
from tests.bisect_networks import conv_plan, dense_plan, with_the_odd_one
from tests.builders import Plan, deployment_from
from tests.builders import random_inputs as inputs_on_grid
from tests.networks import conv_deployment, delayed_net, dense_net, quantised, read, recurrent_net, residual_net, uniform

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The faulty backends as if a package had registered them."""
    known = registry.locations()
    ours = {f"faulty_{fault}": f"tests.faulty_backend:{fault}" for fault in (*faulty_backend.FAULTS, "floats")}
    monkeypatch.setattr(registry, "locations", lambda: {**known, **ours})


def is_minimal(found: Bisection) -> bool:
    """Asks both backends anew about everything that could still be taken away."""
    assert found.finding is not None
    case, network = found.finding.case, found.finding.case.deployment
    backends = simulator(found.reference), simulator(found.target)
    bench = Bench(*backends, judgement(*backends, network))
    assert bench.part_on(case) is not None
    for _, reduction in reductions.single_steps(case, found.finding.reference, found.finding.first.layer):
        smaller = reductions.made(reduction)
        if smaller is not None and bench.part_on(smaller) is not None:
            return False
    return True


# --- the search ------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(size=st.integers(1, 40), culprits=st.sets(st.integers(0, 39), max_size=4), least=st.integers(0, 1), data=st.data())
def test_ddmin_finds_the_items_that_matter_and_only_those(size: int, culprits: set[int], least: int, data: Any) -> None:
    culprits = {item for item in culprits if item < size}
    guess = data.draw(st.sets(st.integers(0, size - 1)))
    found = ddmin(range(size), lambda kept: culprits <= set(kept), [sorted(guess)], least)
    assert set(found) == culprits if culprits or least == 0 else len(found) == 1
    assert list(found) == sorted(found)


def test_ddmin_is_minimal_where_several_sets_would_do() -> None:
    keeps = lambda kept: sum(kept) >= 30
    found = ddmin(range(12), keeps)
    assert keeps(found)
    assert not any(keeps(rest) for rest in itertools.combinations(found, len(found) - 1))


def test_one_culprit_among_a_thousand_takes_few_tests() -> None:
    asked = []

    def keeps(kept: Collection[int]) -> bool:
        asked.append(kept)
        return 617 in kept

    assert ddmin(range(1000), keeps) == (617,)
    assert len(asked) <= 22


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 60), ends=st.tuples(st.integers(0, 59), st.integers(0, 59)))
def test_a_range_shrinks_to_what_matters(size: int, ends: tuple[int, int]) -> None:
    low, high = sorted(min(end, size - 1) for end in ends)
    assert shorter_range(0, size, lambda start, stop: start <= low and high < stop) == (low, high + 1)


# --- seeded faults ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["lif1", "lif2", "lif3", "lif4", "lif5"])
def test_one_wrong_weight_of_a_dense_network(layer: str) -> None:
    deployment, inputs = with_the_odd_one(dense_plan(np.random.default_rng(3)), layer, np.random.default_rng(5))
    found = bisect_backends(deployment, inputs, "loihi", "faulty_weight")
    assert found.before.layers == 5
    assert found.after is not None
    assert found.first is not None
    assert (found.after.layers, found.after.neurons, found.after.steps, found.after.weights) == (1, 1, 1, 1)
    assert found.first.layer == layer
    assert found.minimal
    assert is_minimal(found)
    assert found.counts.runs <= 60


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "fc1", "fc2"])
def test_one_wrong_weight_of_a_convolutional_network(layer: str) -> None:
    deployment, inputs = with_the_odd_one(conv_plan(np.random.default_rng(3)), layer, np.random.default_rng(5))
    found = bisect_backends(deployment, inputs, "loihi", "faulty_weight")
    assert found.after is not None
    assert found.case is not None
    assert found.after.layers == 1
    assert found.after.neurons <= 8
    assert found.after.steps <= 4
    assert found.after.weights == 1
    assert found.case.deployment.layers == (layer,)
    assert is_minimal(found)
    assert found.counts.runs <= 120


CAUGHT = {
    "dense": ("decay", "subtract", "late"),
    "conv": ("decay", "at_threshold", "subtract", "late", "stride", "padding"),
}


@pytest.mark.parametrize(("kind", "fault"), [(kind, fault) for kind, faults in CAUGHT.items() for fault in faults])
def test_other_faults(kind: str, fault: str) -> None:
    plan = (dense_plan if kind == "dense" else conv_plan)(np.random.default_rng(3))
    deployment, inputs = with_the_odd_one(plan, plan.layers[2].name, np.random.default_rng(5))
    found = bisect_backends(deployment, inputs, "loihi", f"faulty_{fault}")
    assert found.after is not None
    assert found.after.layers == 1
    assert found.after.neurons <= 8
    assert found.after.steps <= 4
    assert found.minimal
    assert is_minimal(found)
    if fault == "decay":
        assert found.after.steps == 2, "a decay shows in the step after"


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # neurons without leak as LIF, which no file can hold
@pytest.mark.parametrize("seed", range(12))
def test_random_networks_always_end_minimal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    deployment = conv_deployment(rng, steps=6)
    fault = ("decay", "subtract", "late", "stride")[seed % 4]
    found = bisect_backends(deployment, inputs_on_grid(rng, deployment, 3), "loihi", f"faulty_{fault}")
    if found.diverged:
        assert found.minimal
        assert is_minimal(found)
        assert found.after is not None
        assert found.after.layers == 1


def test_the_same_question_has_the_same_answer() -> None:
    deployment, inputs = with_the_odd_one(conv_plan(np.random.default_rng(3)), "conv2", np.random.default_rng(5))
    found = [bisect_backends(deployment, inputs, "loihi", "faulty_at_threshold") for _ in range(2)]
    cases = [item.case for item in found]
    assert cases[0] is not None
    assert cases[1] is not None
    assert cases[0].key == cases[1].key
    assert found[0].counts == found[1].counts


@pytest.mark.parametrize("kind", ["events", "rate", "bias"])
def test_other_encoders(kind: str) -> None:
    plan = dense_plan(np.random.default_rng(3), events=kind == "events")
    encoder = {"rate": EncoderSpec("rate"), "bias": EncoderSpec("bias", gain=1.0, low=0, high=1)}.get(kind)
    deployment = deployment_from(Plan(plan.input_shape, plan.layers, 16, 0, 1, kind == "events", encoder=encoder))
    found = bisect_backends(deployment, example_inputs(deployment, 3), "loihi", "faulty_decay")
    assert found.after is not None
    assert (found.after.layers, found.after.neurons, found.after.samples) == (1, 1, 1)
    assert is_minimal(found)


class NeedsTwoSamples:
    """Adds the state of the first sample to the second: no single sample shows it."""

    name = "reference"

    def __init__(self, **_: Any) -> None:
        self.real = simulator("loihi")
        self.capabilities, self.availability = self.real.capabilities, self.real.availability
        self.check, self.compile = self.real.check, self.real.compile

    def run(self, program: Any, inputs: Any, record: Collection[Record]) -> Trace:
        trace = self.real.run(program, inputs, record)
        if len(trace.predictions) > 1:
            next(iter(trace.layers.values())).membrane[:, 1] += 1  # type: ignore[index]
        return trace


def test_a_fault_that_needs_two_samples_keeps_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faulty_backend, "floats", NeedsTwoSamples)
    deployment = deployment_from(dense_plan(np.random.default_rng(3)))
    found = bisect_backends(deployment, inputs_on_grid(np.random.default_rng(1), deployment, 6), "loihi", "faulty_floats")
    assert found.after is not None
    assert found.after.samples == 2
    assert found.minimal


class OnlyInContext(NeedsTwoSamples):
    """Wrong in the second layer, and only where a first one leads to it: the layer alone does not show it."""

    def run(self, program: Any, inputs: Any, record: Collection[Record]) -> Trace:
        trace = self.real.run(program, inputs, record)
        names = list(trace.layers)
        if len(names) > 1:
            trace.layers[names[1]].membrane[0] += 1  # type: ignore[index]
        return trace


def test_a_fault_that_needs_its_surroundings_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faulty_backend, "floats", OnlyInContext)
    deployment = deployment_from(dense_plan(np.random.default_rng(3)))
    found = bisect_backends(deployment, inputs_on_grid(np.random.default_rng(1), deployment, 6), "loihi", "faulty_floats")
    assert found.after is not None
    assert (found.after.layers, found.after.neurons, found.after.steps) == (2, 2, 1)
    assert is_minimal(found)


class Fragile(NeedsTwoSamples):
    """Wrong everywhere; breaks on less than three neurons and refuses less than two steps."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.compile = self._compile

    def _compile(self, deployment: Deployment) -> Any:
        if deployment.contract.steps < 2:
            raise UserError("SNX203", "too short", where="here", why="it wants two", fix="none")
        return self.real.compile(deployment)

    def run(self, program: Any, inputs: Any, record: Collection[Record]) -> Trace:
        trace = self.real.run(program, inputs, record)
        if sum(layer.counts[0].size for layer in trace.layers.values()) < 3:
            raise RuntimeError("too small")
        for layer in trace.layers.values():
            layer.membrane[0] += 1  # type: ignore[index]
        return trace


def test_what_a_backend_refuses_or_breaks_on_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faulty_backend, "floats", Fragile)
    deployment = deployment_from(dense_plan(np.random.default_rng(3)))
    found = bisect_backends(deployment, inputs_on_grid(np.random.default_rng(1), deployment, 6), "loihi", "faulty_floats")
    assert found.after is not None
    assert (found.after.neurons, found.after.steps) == (3, 2)
    assert found.minimal
    assert found.counts.refused > 0
    assert found.counts.broken > 0


def test_time_that_is_over_leaves_the_best_so_far_and_says_so() -> None:
    deployment, inputs = with_the_odd_one(dense_plan(np.random.default_rng(3)), "lif3", np.random.default_rng(5))
    backends = simulator("loihi"), simulator("faulty_weight")
    ticks = itertools.count()
    bench = Bench(*backends, "bits", deadline=4.0, clock=lambda: float(next(ticks)))
    whole = Case(deployment, inputs[None])
    first, _ = bench.first_look(whole)
    assert first is not None
    shrunk = shrink(bench, first)
    assert not shrunk.minimal
    assert shrunk.finding.case.size.layers == 1
    again, _ = Bench(*backends, "bits").first_look(shrunk.finding.case)
    assert again is not None


def test_an_interruption_keeps_what_was_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment, inputs = with_the_odd_one(dense_plan(np.random.default_rng(3)), "lif3", np.random.default_rng(5))

    def interrupt(counts: Any) -> None:
        if counts.tests == 5:
            raise KeyboardInterrupt

    found = bisect_backends(deployment, inputs, "loihi", "faulty_weight", on_run=interrupt)
    assert found.interrupted
    assert not found.minimal
    assert found.exit_code == 130
    assert found.after is not None
    assert found.after.layers == 1


def test_samples_are_counted_from_the_first_whatever_fits_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "CHUNK_BYTES", 1)
    deployment, inputs = with_the_odd_one(dense_plan(np.random.default_rng(3)), "lif1", np.random.default_rng(5), samples=6)
    inputs[:4, 0] = 0  # the odd weight has no input before sample 4
    inputs[4, 0] = 1
    found = bisect_backends(deployment, inputs, "loihi", "faulty_weight")
    assert found.original is not None
    assert found.original.sample == 4
    assert found.compared.samples == 5
    assert found.after is not None
    assert found.after.samples == 1


class Changed(NeedsTwoSamples):
    """A real backend, given another network than it was asked to run."""

    name, real_name, change = "faulty_floats", "loihi", staticmethod(lambda deployment: deployment)

    def __init__(self, **_: Any) -> None:
        self.real = simulator(self.real_name)
        self.capabilities, self.availability, self.check = self.real.capabilities, self.real.availability, self.real.check

    def compile(self, deployment: Deployment) -> Any:
        return self.real.compile(self.change(deployment))

    def run(self, program: Any, inputs: Any, record: Collection[Record]) -> Trace:
        return replace(self.real.run(program, inputs, record), backend=self.name)


def without_biases(deployment: Deployment) -> Deployment:
    for name in thinning.biased_nodes(deployment):
        deployment = thinning.without_bias(deployment, name)
    return deployment


def without_waiting(deployment: Deployment) -> Deployment:
    nodes = {name: nir.Delay(np.zeros_like(deployment.graph.nodes[name].delay)) for name in thinning.delays(deployment)}
    return deployment.replace(graph=replace_nodes(deployment.graph, nodes))


def without_loops(deployment: Deployment) -> Deployment:
    recurrent = [c for incoming in deployment.connections.values() for c in incoming if c.recurrent]
    for name in {name for connection in recurrent for name in connection.path} & set(thinning.weight_nodes(deployment)):
        deployment = thinning.with_weights(deployment, name, np.zeros(weights_in(deployment, name).shape, bool))
    return deployment


NETS = {
    "residual": (residual_net, (2, 8, 6), (without_biases,)),
    "recurrent": (recurrent_net, (7,), (without_biases, without_loops)),
    "delayed": (delayed_net, (6,), (without_waiting, without_loops)),
}


@pytest.mark.parametrize("form", ["float", "integers", "integers in floats"])
@pytest.mark.parametrize(("name", "change"), [(name, change) for name, (_, _, changes) in NETS.items() for change in changes])
def test_residual_recurrent_and_delayed_networks(name: str, change: Any, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = "loihi" if form == "integers" else "reference"
    made = type("Made", (Changed,), {"real_name": real, "change": staticmethod(change)})
    monkeypatch.setattr(faulty_backend, "floats", made)
    make, shape, _ = NETS[name]
    inputs = uniform(np.random.default_rng(0), 4, *shape)
    deployment = library.prepared(read(make(1), shape, 10), inputs)
    found = bisect_backends(deployment if form == "float" else quantised(deployment), inputs, real, "faulty_floats")
    assert found.after is not None
    assert (found.after.layers, found.after.samples) == (1, 1)
    assert found.after.neurons <= 2
    assert found.after.steps <= 4
    assert is_minimal(found)


# --- what is no fault ------------------------------------------------------------------------------------------------


def test_backends_that_agree_say_what_was_compared() -> None:
    deployment = deployment_from(dense_plan(np.random.default_rng(3)))
    inputs = inputs_on_grid(np.random.default_rng(1), deployment, 6)
    found = bisect_backends(deployment, inputs, "loihi", "faulty_none")
    assert not found.diverged
    assert found.exit_code == 0
    assert found.compared.samples == 6
    assert found.compared.positions == found.compared.membranes == 6 * 16 * 210
    spikes = sum(int(layer.spikes.sum()) for layer in interpreter.run(deployment, inputs, "int64").values())
    assert found.compared.spikes == 2 * spikes


@pytest.mark.parametrize("target", ["norse", "snntorch"])
def test_rounding_between_float_backends_is_no_divergence(target: str) -> None:
    rng = np.random.default_rng(0)
    for make, shape in ((dense_net, (4,)), (residual_net, (2, 8, 6)), (recurrent_net, (7,))):
        deployment = library.prepared(read(make(1), shape, 12), uniform(rng, 8, *shape))
        found = bisect_backends(deployment, uniform(rng, 16, *shape), "reference", target)
        assert not found.diverged, found.first
        assert found.how == "rounding"


def test_a_fault_between_float_backends() -> None:
    rng = np.random.default_rng(0)
    deployment = library.prepared(read(dense_net(1), (4,), 12), uniform(rng, 8, 4))
    found = bisect_backends(deployment, uniform(rng, 16, 4), "reference", "faulty_floats")
    assert found.after is not None
    assert (found.after.layers, found.after.neurons) == (1, 1)
    assert found.after.steps <= 4
    assert is_minimal(found)


def test_integers_are_not_held_against_floats() -> None:
    deployment = deployment_from(dense_plan(np.random.default_rng(3)))
    inputs = inputs_on_grid(np.random.default_rng(1), deployment, 2)
    with pytest.raises(UserError, match="SNX510") as raised:
        bisect_backends(deployment, inputs, "loihi", "reference")
    assert raised.value.exit_code == 5


def test_silence_is_no_agreement() -> None:
    deployment = deployment_from(Plan((4,), dense_plan(np.random.default_rng(3), sizes=(4, 5)).layers, 4, 0, 3))
    quiet = {name: replace(value, threshold=131071) for name, value in deployment.populations.items()}
    with pytest.raises(UserError, match="SNX511"):
        bisect_backends(deployment.replace(populations=quiet), np.ones((2, 4)), "loihi", "faulty_none")


def test_a_backend_is_not_held_against_itself() -> None:
    deployment = deployment_from(dense_plan(np.random.default_rng(3)))
    with pytest.raises(UserError, match="SNX007"):
        bisect_backends(deployment, np.ones((1, 40)), "loihi", "loihi")
