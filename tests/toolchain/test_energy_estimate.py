from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from snn_export.energy.cost_table import load_table
from snn_export.energy.counts import Counts, count
from snn_export.energy.estimate import estimate
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.trace import LayerTrace, Trace
from snn_export.models.diagnostics import UserError
from snn_export.reporting.energy_records import EnergyReport
from tests.builders import LayerPlan, Plan, deployment_from


def network(high: int = 15, steps: int = 4) -> Deployment:
    """3 inputs -> 2 hidden -> 2 out; one zero weight in each layer."""
    hidden = LayerPlan("hidden", np.array([[2, 0, 4], [6, 8, 10]]))
    out = LayerPlan("out", np.array([[2, 4], [0, 6]]), source="hidden")
    return deployment_from(Plan((3,), (hidden, out), steps=steps, high=high))


def counted(deployment: Deployment) -> Counts:
    fired = {"hidden": np.array([[3, 1], [0, 2]]), "out": np.array([[1, 0], [0, 0]])}
    layers = {name: LayerTrace(value) for name, value in fired.items()}
    trace = Trace("test", layers, np.zeros((2, 2)), np.zeros(2, np.int64), 0)
    return count(deployment, trace, np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))


def report(high: int = 15) -> EnergyReport:
    deployment = network(high)
    return estimate(deployment, counted(deployment), load_table("loihi1"))


def figures(energy: EnergyReport) -> dict[str, object]:
    return {figure.component: figure for figure in energy.figures}


def test_a_tiny_network_in_picojoule_by_hand() -> None:
    energy = report()
    assert [(f.component, f.count) for f in energy.figures[:4]] == [
        ("synaptic operations", 6.0),
        ("active neuron updates", 3.5),
        ("inactive neuron updates", 12.5 + 4 * 2),
        ("spike messages within a tile", 3.0),
    ]
    assert energy.operations.travel == 2, "the steps in which spikes travel: all four neurons are updated in them too"
    assert energy.total == pytest.approx(6 * 23.6 + 3.5 * 81 + 20.5 * 52 + 3 * 1.7)
    assert energy.total_low == pytest.approx(4.5 * 23.6 + 3.5 * 72.8 + 20.5 * 51.2 + 3 * 1.7), "without the zero weights"
    assert energy.total_high == pytest.approx(6 * 35.5 + 3.5 * 142.1 + 20.5 * 81 + 3 * 111)
    assert energy.layers[1].value == pytest.approx(6 * 23.6 + 0.5 * 81 + 11.5 * 52)
    assert energy.layers[1].inactive_updates == 11.5
    assert energy.samples == 2


@pytest.mark.parametrize("high", [1, 15])
def test_layers_add_up_to_the_total_and_ranges_are_ordered(high: int) -> None:
    energy = report(high)
    for field, total in (("value", energy.total), ("low", energy.total_low), ("high", energy.total_high)):
        assert sum(getattr(layer, field) for layer in energy.layers) == pytest.approx(total)
    for figure in (*energy.figures, *energy.baselines, *energy.layers):
        if figure.value is not None:
            assert 0 <= figure.low <= figure.value <= figure.high
    assert energy.total_low < energy.total < energy.total_high


def test_graded_operations_are_listed_and_never_charged_as_spikes() -> None:
    graded, binary = report(15), report(1)
    found = figures(graded)["graded operations"]
    assert (found.count, found.value, found.low, found.high) == (12.0, None, None, None)
    assert "graded operations" not in figures(binary)
    assert binary.total - graded.total == pytest.approx(12 * 23.6), "the same values as binary spikes do have a figure"
    (equivalent,) = [f for name, f in figures(graded).items() if "8-bit MACs" in name]
    assert "not in the total" in equivalent.component
    assert (equivalent.count, equivalent.value) == (12.0, pytest.approx(12 * 0.23))
    assert [figure.value for figure in graded.figures if figure.component == "input messages"] == [None]


def test_the_ann_twin_multiplies_once_per_synapse_not_once_per_step() -> None:
    baselines = {figure.component: figure for figure in report().baselines}
    assert baselines["ANN twin, FP32, arithmetic"].count == 10
    assert baselines["ANN twin, FP32, arithmetic"].value == pytest.approx(10 * 4.6)
    int8 = baselines["ANN twin, INT8, arithmetic"]
    assert (int8.value, int8.high) == (pytest.approx(10 * 0.23), pytest.approx(10 * 0.3))
    skipped = baselines["ANN twin, INT8, arithmetic, zeros skipped"]
    assert skipped.count == (2 + 2 + 1) / 2 + 3, "nonzero inputs times nonzero weights, then the nonzero weights behind"
    memory = baselines["ANN twin, INT8, with memory"]
    assert memory.value == pytest.approx(10 * (0.23 + 2 * 8 * 10 / 64))
    moved = 10 + 3 + 2 * (2 + 2)  # weights, inputs, and every activation written and read
    assert memory.low == pytest.approx(10 * 0.23 + min(moved, 20) * 8 * 10 / 64), "no more than the operands"
    assert memory.high == pytest.approx(10 * (0.3 + (2 * 8 + 2 * 32) * 10 / 64))
    other = network(steps=9)
    again = estimate(other, counted(other), load_table("loihi1"))
    assert again.baselines == report().baselines, "an ANN has no steps"


def test_a_kernel_is_stored_once_and_multiplied_often() -> None:
    """4 x 4 pixels, 3 x 3 kernel, padding 1: 9 weights, (3 x 4 - 2)^2 = 100 multiplications."""
    deployment = deployment_from(Plan((1, 4, 4), (LayerPlan("lif", np.full((1, 1, 3, 3), 2), padding=(1, 1)),), high=15))
    trace = Trace("test", {"lif": LayerTrace(np.zeros((1, 1, 4, 4), np.int64))}, np.zeros((1, 1)), np.zeros(1, np.int64), 0)
    energy = estimate(deployment, count(deployment, trace, np.ones((1, 1, 4, 4))), load_table("loihi1"))
    memory = {figure.component: figure for figure in energy.baselines}["ANN twin, FP32, with memory"]
    assert memory.count == 100
    assert memory.low == pytest.approx(100 * 4.6 + (9 + 16 + 2 * 16) * 32 * 10 / 64), "kernel, input, output written and read"


def test_loihi_2_is_told_that_these_are_not_its_figures() -> None:
    assert "no energy per operation is published for Loihi 2" in report().label
    assert any("Loihi 2" in limit for limit in report().limits)
    deployment = network()
    quantisation = deployment.contract.quantisation.model_copy(update={"target": "loihi1"})
    deployment = deployment.replace(contract=deployment.contract.model_copy(update={"quantisation": quantisation}))
    energy = estimate(deployment, counted(deployment), load_table("loihi1"))
    assert energy.label == "estimate from operation counts; Loihi 1's published coefficients"
    assert not any("Loihi 2" in limit for limit in energy.limits)


def test_limits_name_what_is_not_charged() -> None:
    text = " ".join(report().limits)
    for word in ("hops", "static", "x86", "Barrier", "clearing the state"):
        assert word in text


def test_break_even_stands_beside_the_measured_rate() -> None:
    rate, synapse = report().break_even
    assert "21.9 % per step, at T = 4" in rate
    assert "5.7 %" in rate
    assert "above it" in rate
    assert "1.500 spikes per synapse" in synapse
    assert "0.15 to 1.38" in synapse
    assert "above both" in synapse
    silent = network()
    nothing = Trace(
        "test", {n: LayerTrace(np.zeros((1, 2), np.int64)) for n in silent.layers}, np.zeros((1, 2)), np.zeros(1, int), 0
    )
    quiet = estimate(silent, count(silent, nothing, np.zeros((1, 3))), load_table("loihi1"))
    assert "below it" in quiet.break_even[0]
    assert "below both" in quiet.break_even[1]


def test_a_readout_that_never_fires_does_not_dilute_the_firing_rate() -> None:
    deployment = network()
    neurons = {name: replace(spec, spiking=name != "out") for name, spec in deployment.contract.neurons.items()}
    deployment = deployment.replace(contract=deployment.contract.model_copy(update={"neurons": neurons}))
    sentence = estimate(deployment, counted(deployment), load_table("loihi1")).break_even[0]
    assert "37.5 % per step" in sentence, "6 spikes of 2 neurons in 4 steps of 2 samples"


def test_counts_of_another_network_are_refused() -> None:
    with pytest.raises(UserError, match="SNX321"):
        estimate(network(), counted(network(steps=9)), load_table("loihi1"))


def test_a_table_without_a_figure_leaves_it_out_of_the_total_and_says_why() -> None:
    table = load_table("loihi1")
    kept = {name: value for name, value in table.coefficients.items() if name == "synaptic_operation"}
    partial = table.model_copy(update={"coefficients": kept, "no_figure": {"spike_message": "nobody measured it"}})
    deployment = network()
    energy = estimate(deployment, counted(deployment), partial)
    assert energy.total == pytest.approx(6 * 23.6)
    assert figures(energy)["spike messages within a tile"].source == "nobody measured it"
    empty = estimate(deployment, counted(deployment), table.model_copy(update={"coefficients": {}}))
    assert (empty.total, empty.total_low, empty.layers[0].value) == (None, None, None)


def test_an_estimate_needs_no_torch() -> None:
    code = (
        "import sys, snn_export.energy.estimate, snn_export.energy.counts, snn_export.energy.baselines;"
        "from snn_export.energy.cost_table import load_table; load_table('loihi1');"
        "print(sorted(m for m in ('torch', 'snntorch', 'matplotlib') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
