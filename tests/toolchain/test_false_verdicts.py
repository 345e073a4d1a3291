"""Ways in which something wrong, or not compared, could have passed: each was found by trying, and each must fail now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng
from numpy.typing import NDArray

from snn_export import library
from snn_export.config_schema import BackendConfig, Config, VerifyConfig
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.simulator import Simulator
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.models.diagnostics import UserError
from snn_export.pipeline.verification import Forms, ladder_of
from snn_export.reporting.report import Report
from snn_export.verification import assemble
from snn_export.verification.compare import ComparisonTally, Kind, Tolerance
from snn_export.verification.gates import Criteria
from snn_export.verification.isolated import Form
from snn_export.verification.ladder import Link, Rung, run_ladder
from snn_export.verification.lags import believed_lag, lag_mismatches
from tests.export.test_split_populations import CASES, of
from tests.networks import dense_net, quantised, read, uniform

ALL = Tolerance(100.0, 100.0)
INPUTS = uniform(default_rng(0), 30, 4, high=2.0)
Change = Callable[[Trace], Trace]


def floats() -> Deployment:
    return read(dense_net(), (4,))


def integers() -> Deployment:
    return quantised(floats(), high=2.0)


class Answering:
    """A backend of another name that runs as a built-in one does, and answers with something else."""

    def __init__(self, inner: str, change: Change, name: str = "plugin") -> None:
        self._inner, self._change, self.name = simulator(inner), change, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run(self, program: Any, inputs: NDArray[Any], record: Any) -> Trace:
        return replace(self._change(self._inner.run(program, inputs, record)), backend=self.name)


def rung(name: str, backend: str, deployment: Deployment, made: Any = None) -> Rung:
    chosen: Simulator = made or simulator(backend)
    return Rung(name, backend, deployment, chosen, "")


def judged(rungs: Sequence[Rung], link: Link, inputs: NDArray[Any] = INPUTS, **criteria: Any) -> Report:
    ladder = run_ladder(rungs, [link], inputs, None)
    around = assemble.Surroundings("net", "data", rungs[0].name, inputs)
    asked = Criteria(backends={item.name: item.backend for item in rungs}, **criteria)
    return assemble.report(rungs[-1].deployment, ladder, asked, around)


def with_layer(trace: Trace, name: str, **fields: Any) -> Trace:
    return replace(trace, layers={**trace.layers, name: replace(trace.layers[name], **fields)})


def without(trace: Trace, name: str) -> Trace:
    return replace(trace, layers={key: layer for key, layer in trace.layers.items() if key != name})


def verdicts(report: Report) -> Mapping[str, str]:
    (comparison,) = report.comparisons
    return {layer.layer: layer.verdict for layer in comparison.layers}


def run(deployment: Deployment, backend: str = "loihi") -> Trace:
    chosen = simulator(backend)
    return chosen.run(chosen.compile(deployment), INPUTS, ("spikes", "membrane", "current"))


def tally(deployment: Deployment, kind: Kind) -> ComparisonTally:
    return ComparisonTally(kind, deployment, Form(deployment, "int64") if kind == "exact" else None)


# --- layers and membranes that nobody compared ------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["lif1", "readout"])
def test_a_layer_that_neither_run_shows_was_not_compared(lost: str) -> None:
    network = integers()
    rungs = [rung(name, name, network, Answering("loihi", lambda trace: without(trace, lost), name)) for name in ("one", "other")]
    report = judged(rungs, Link("one", "other", "exact"))
    assert (report.exit_code, verdicts(report)[lost]) == (5, "NOT_COMPARED")
    assert report.comparisons[0].first_faulty_layer == lost
    assert "neither trace has such a layer" in report.comparisons[0].message


@pytest.mark.parametrize("kind", ["exact", "float"])
def test_membranes_of_some_samples_are_not_those_of_all(kind: Kind) -> None:
    network, backends = (integers(), ("loihi",) * 2) if kind == "exact" else (floats(), ("reference", "snntorch"))
    first, second = (run(network, backend) for backend in backends)
    found = tally(network, kind)
    found.add(INPUTS, first, second)
    assert {layer.verdict for layer in found.finish(ALL)} == {"EXACT"}
    found.add(INPUTS, first, with_layer(second, "lif1", membrane=None))
    assert {layer.layer: layer.verdict for layer in found.finish(ALL)}["lif1"] == "NOT_COMPARED"


def test_a_flip_that_nobody_explained_is_no_tie() -> None:
    """Without all membranes nothing is held to the rounding of its sums: every flip used to read as one that rounding made."""
    network = floats()
    first, second = run(network, "reference"), run(network, "snntorch")
    flipped = ~np.asarray(second.layers["lif1"].spikes)
    wrong = with_layer(second, "lif1", spikes=flipped, counts=flipped.sum(axis=0, dtype=np.int64))
    found = tally(network, "float")
    found.add(INPUTS, first, with_layer(wrong, "lif2", membrane=None))
    assert {layer.layer: layer.verdict for layer in found.finish(ALL)} == {
        "lif1": "DRIFT", "lif2": "NOT_COMPARED", "readout": "NOT_COMPARED",
    }  # fmt: skip


def test_currents_that_were_not_recorded_are_not_told_to_agree() -> None:
    network = integers()
    silent = Answering("loihi", lambda trace: replace(
        trace, layers={name: replace(layer, current=None) for name, layer in trace.layers.items()}
    ))  # fmt: skip
    report = judged(
        [rung("loihi", "loihi", network), rung("plugin", "plugin", network, silent)], Link("loihi", "plugin", "exact")
    )
    (gate,) = (gate for gate in report.gates if "bit for bit" in gate.name)
    assert "currents" not in gate.measured


# --- what a backend says about its own run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda trace: replace(trace, predictions=(trace.predictions + 1) % 3),
        lambda trace: replace(trace, predictions=np.full_like(trace.predictions, 99)),
        lambda trace: replace(trace, predictions=trace.predictions - 3),
        lambda trace: replace(trace, predictions=trace.predictions + 0.5),
    ],
)
@pytest.mark.parametrize("side", ["plugin is the target", "plugin is the reference"])
def test_a_float_backend_that_decides_against_its_own_readout_is_caught(change: Change, side: str) -> None:
    network = floats()
    rungs = [rung("reference", "reference", network), rung("plugin", "plugin", network, Answering("snntorch", change))]
    if side.endswith("reference"):
        rungs.reverse()
    report = judged(rungs, Link(rungs[0].name, rungs[1].name, "float"))
    assert (report.exit_code, verdicts(report)) == (1, {"lif1": "EXACT", "lif2": "EXACT", "readout": "DRIFT"})
    found = report.comparisons[0]
    assert (found.first_faulty_isolated, found.faulty_side) == ("readout", "target" if rungs[1].name == "plugin" else "reference")


def test_decisions_within_rounding_are_left_to_it() -> None:
    network = floats()
    trace = run(network, "reference")
    close = np.asarray(trace.layers["readout"].membrane).copy()
    close[-1, :, 1] = close[-1, :, 0] * (1 + 1e-7)
    close[-1, :, 2] = -np.abs(close[-1, :, 0]) - 1
    first = with_layer(replace(trace, predictions=np.zeros_like(trace.predictions)), "readout", membrane=close)
    found = tally(network, "float")
    found._check_decisions(first, replace(first, predictions=first.predictions + 1))
    assert found.denied == {}


def test_half_a_spike_is_a_difference() -> None:
    network = integers()
    right = run(network)
    whole = np.asarray(right.layers["lif1"].spikes).astype(np.float64)
    half = whole.copy()
    half[tuple(np.argwhere(whole > 0)[0])] = 0.5
    found = tally(network, "exact")
    found.add(INPUTS, with_layer(right, "lif1", several=whole), with_layer(right, "lif1", several=half))
    assert {layer.layer: layer.verdict for layer in found.finish(ALL)}["lif1"] == "DRIFT"


# --- no traceback for what a plug-in or a setting asks for ------------------------------------------------------------------


def test_a_layer_that_no_form_has_is_not_compared() -> None:
    network = integers()

    def ghost(trace: Trace) -> Trace:
        return replace(trace, layers={**trace.layers, "ghost": LayerTrace(np.zeros(len(trace.predictions), np.int64))})

    rungs = [rung("loihi", "loihi", network), rung("plugin", "plugin", network, Answering("loihi", ghost))]
    report = judged(rungs, Link("loihi", "plugin", "exact"))
    assert (report.exit_code, verdicts(report)["ghost"]) == (5, "NOT_COMPARED")
    assert not any("ghost" in item.what for item in report.coverage), "it did not stay silent: nobody looked"


@pytest.mark.parametrize("pair", [("loihi", "folded"), ("folded", "loihi")])
def test_bits_demanded_of_a_network_of_floats_are_not_shown(pair: tuple[str, str]) -> None:
    rungs = {"folded": rung("folded", "reference", floats()), "loihi": rung("loihi", "loihi", integers())}
    report = judged([rungs[name] for name in pair], Link(*pair, "exact"), exact=(pair,))
    assert report.exit_code == 5


@pytest.mark.parametrize("case", ["dense", "recurrent"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_form_in_parts_can_be_judged_against_the_whole(case: str, turned: bool) -> None:
    """Whichever form comes first, its layers are not looked up in the other."""
    whole, inputs = of(case), default_rng(0).uniform(0.0, 2.0, (12, *CASES[case][1]))
    cut = library.prepared(whole, inputs)
    rungs = [rung("whole", "reference", whole), rung("cut", "reference", cut)]
    if turned:
        rungs.reverse()
    report = judged(rungs, Link(rungs[0].name, rungs[1].name, "approximate"), inputs)
    assert report.passed
    assert set(verdicts(report)) == set(cut.layers)


def test_layers_stand_in_the_network_s_order_whatever_a_trace_does() -> None:
    network = integers()
    turned = Answering("loihi", lambda trace: replace(trace, layers=dict(reversed(list(trace.layers.items())))))

    def wrong(trace: Trace) -> Trace:
        spikes = {name: ~np.asarray(layer.spikes) for name, layer in trace.layers.items() if name != "readout"}
        for name, flipped in spikes.items():
            trace = with_layer(trace, name, spikes=flipped, counts=flipped.sum(axis=0, dtype=np.int64))
        return trace

    rungs = [rung("plugin", "plugin", network, turned), rung("wrong", "wrong", network, Answering("loihi", wrong, "wrong"))]
    report = judged(rungs, Link("plugin", "wrong", "exact"))
    assert tuple(verdicts(report)) == network.layers
    assert report.comparisons[0].first_faulty_layer == "lif1"


# --- shifts in time -----------------------------------------------------------------------------------------------------------


def lag_of(reference: NDArray[np.bool_], got: NDArray[np.bool_]) -> int | None:
    found = believed_lag(lag_mismatches(reference, got), 0)
    return None if found is None else found.best


def test_spikes_that_repeat_come_neither_early_nor_late() -> None:
    """A neuron that fires every second step, half a period off: one step early is one step late."""
    steps = np.arange(20)
    for period in (2, 3):
        reference, got = (((steps + phase) % period == 0)[:, None, None] for phase in (0, 1))
        assert lag_of(reference, got) == 0
        assert lag_of(reference, reference) is None
    assert lag_of(*(((steps + phase) % 5 == 0)[:, None, None] for phase in (1, 0))) == 1


def test_few_late_spikes_are_no_wrong_latency() -> None:
    """Quantisation makes a spike late here and there. What agrees in all other samples speaks against a wrong declaration."""
    network = floats()
    first = run(network, "reference")
    shape = np.asarray(first.layers["lif1"].spikes).shape
    spikes, late = np.zeros(shape, bool), np.zeros(shape, bool)
    spikes[3, :, 0] = late[3, :, 0] = True
    late[3, :3, 0], late[4, :3, 0] = False, True
    sides = [with_layer(first, "lif1", spikes=fired, counts=fired.sum(axis=0, dtype=np.int64)) for fired in (spikes, late)]
    found = ComparisonTally("approximate", network)
    found.add(INPUTS, *sides)
    (lag,) = (layer.lag for layer in found.finish(ALL) if layer.layer == "lif1")
    assert lag is not None
    assert (lag.best, lag.mismatched) == (0, 6)


def test_shifts_of_several_spikes_are_counted_whole() -> None:
    reference = default_rng(1).integers(0, 4, (12, 2, 3)).astype(np.float64)
    shifts = lag_mismatches(reference, np.roll(reference, 1, axis=0))
    assert shifts is not None
    assert (int(shifts[4]), shifts.dtype) == (0, np.int64)


# --- what the settings name ---------------------------------------------------------------------------------------------------


def test_a_reference_that_does_not_run_is_not_replaced() -> None:
    """It used to be the first rung, without a word."""
    network = integers()
    forms = Forms(quantised=network, folded=None, student=None)
    backends = {"loihi": BackendConfig()}
    with pytest.raises(UserError) as caught:
        ladder_of(forms, Config(verify=VerifyConfig(reference="norse", backends=backends)), lambda _: None)
    assert (caught.value.code, "norse" in caught.value.diagnostics[0].what) == ("SNX025", True)
    for named, taken in (("student", "quantised"), ("reference", "quantised"), ("loihi", "loihi")):
        config = Config(verify=VerifyConfig(reference=named, backends=backends))
        assert ladder_of(forms, config, lambda _: None)[2].raster.reference == taken


@pytest.mark.parametrize(
    "fields",
    [
        {"unit": 0.0}, {"unit": float("nan")}, {"unit": -1.0}, {"several": lambda spikes: spikes * 0.5},
        {"several": lambda spikes: -1.0 * spikes}, {"several": lambda spikes: spikes + 1.0},
    ],
    ids=["no unit", "NaN", "negative unit", "half a spike", "less than none", "spikes where none are"],
)  # fmt: skip
def test_numbers_that_no_run_can_have_are_no_trace(fields: dict[str, Any]) -> None:
    def change(trace: Trace) -> Trace:
        spikes = np.asarray(trace.layers["lif1"].spikes, np.float64)
        made = {key: value(spikes) if callable(value) else value for key, value in fields.items()}
        counts = made["several"].sum(axis=0).astype(np.int64) if "several" in made else trace.layers["lif1"].counts
        return with_layer(trace, "lif1", counts=counts, **made)

    network = integers()
    rungs = [rung("loihi", "loihi", network), rung("plugin", "plugin", network, Answering("loihi", change))]
    report = judged(rungs, Link("loihi", "plugin", "exact"))
    assert report.comparisons[0].verdict == "ERROR"
    assert "SNX406" in report.comparisons[0].message
    assert report.exit_code == 4
