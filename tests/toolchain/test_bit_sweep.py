"""The sweep over weight bits: its figures are those of the runs it stands for."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

import snn_export
from snn_export.commands.quantize import sweep_of
from snn_export.models.diagnostics import UserError
from tests.conftest import FinishedRun
from tests.conftest import snn_export as command
from tests.networks import dense_net, read


def test_rows_are_what_quantising_by_hand_gives() -> None:
    rng = np.random.default_rng(0)
    deployment, calibration, inputs = read(dense_net(), (4,)), rng.uniform(0, 1, (40, 4)), rng.uniform(0, 1, (60, 4))
    labels = snn_export.simulate(deployment, inputs, "reference").predictions
    told = []
    found = snn_export.sweep_bits(
        deployment, calibration, inputs, labels, bits=(8, 2), input_range=(0, 1), progress=lambda *what: told.append(what)
    )
    assert found.samples == found.float_correct == 60
    assert [row.bits for row in found.rows] == [8, 2]
    assert told == [(1, 2, "8 bits: searching scales"), (2, 2, "2 bits: searching scales")]
    reference = snn_export.simulate(deployment, inputs, "reference").layers
    for row in found.rows:
        quantised = snn_export.quantize(deployment, calibration, weight_bits=row.bits, input_range=(0, 1))
        trace = snn_export.simulate(quantised, inputs)
        assert row.searched is not None
        assert row.searched.correct == np.count_nonzero(trace.predictions == labels)
        assert row.binding == quantised.contract.quantisation.binding
        assert row.input_bits == quantised.contract.encoder.bits
        assert set(row.searched.spike_error) == {"lif1", "lif2"}
        for name, error in row.searched.spike_error.items():
            one, other = reference[name].spikes, trace.layers[name].spikes
            assert error == (one != other).sum() / (one.sum() + other.sum())
        assert row.searched.worst_spike_error == max(row.searched.spike_error.values())
    first, last = (row.searched.worst_spike_error for row in found.rows)  # type: ignore[union-attr]
    assert first < last


def test_fine_tuned_forms_have_figures_of_their_own() -> None:
    rng = np.random.default_rng(0)
    deployment, inputs = read(dense_net(), (4,)), rng.uniform(0, 1, (60, 4))
    labels = rng.integers(0, 3, 60)
    tune = partial(snn_export.fine_tune, inputs=inputs, labels=labels, epochs=1, validation=(inputs, labels), learning_rate=0.05)
    found = snn_export.sweep_bits(deployment, inputs, inputs, labels, bits=(4,), fine_tune=tune)
    (row,) = found.rows
    assert row.searched is not None
    assert row.fine_tuned is not None
    assert row.fine_tuned.spike_error != row.searched.spike_error


def test_a_grid_that_holds_nothing_is_a_row_and_no_end() -> None:
    """All weights positive but one tiny negative: with one bit of both signs everything vanishes."""
    deployment = read(dense_net(), (4,))
    node = deployment.graph.nodes["fc2"]
    node.weight[:] = np.abs(node.weight) + 0.1
    node.weight[0, 0] = -1e-4
    inputs = np.random.default_rng(0).uniform(0, 1, (10, 4))
    found = snn_export.sweep_bits(deployment, inputs, inputs, bits=(8, 1))
    assert found.float_correct is None
    assert found.rows[0].searched is not None
    assert found.rows[0].searched.correct is None
    assert found.rows[1].searched is None
    assert "no scale" in found.rows[1].refusal


def test_labels_must_fit() -> None:
    inputs = np.zeros((3, 4))
    with pytest.raises(UserError) as caught:
        snn_export.sweep_bits(read(dense_net(), (4,)), inputs + 0.5, inputs, np.zeros(2))
    assert caught.value.code == "SNX007"


@pytest.mark.parametrize(
    ("text", "bits"), [("bits", (8, 7, 6, 5, 4, 3)), ("bits=8,6", (8, 6)), (" bits = 1 , 2", (1, 2)), ("bits=3", (3,))]
)
def test_what_can_be_swept(text: str, bits: tuple[int, ...]) -> None:
    assert sweep_of(text) == bits


@pytest.mark.parametrize(("text", "code"), [("bit", "SNX001"), ("bits=", "SNX001"), ("bits=8;6", "SNX001"), ("bits=9", "SNX307")])
def test_what_cannot(text: str, code: str) -> None:
    with pytest.raises(UserError) as caught:
        sweep_of(text)
    assert caught.value.code == code


def test_the_digits_keep_their_accuracy_down_to_three_bits(finished_run: FinishedRun) -> None:
    """The command, on the test samples: a table for people, the same figures for programs."""
    file = finished_run.folder / "export" / "float.nir"
    arguments = ("quantize", file, "--sweep", "bits=8,3", "--on", "test")
    done = command(*arguments, "--format", "json", cwd=finished_run.root)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["samples"] == 360
    by_bits = {row["bits"]: row for row in found["rows"]}
    assert by_bits[8]["searched"]["correct"] >= found["float_correct"] - 1
    assert by_bits[3]["searched"]["correct"] >= found["float_correct"] - 18
    assert max(by_bits[8]["searched"]["spike_error"].values()) < max(by_bits[3]["searched"]["spike_error"].values())
    assert "[1/2] sweep" in done.stderr
    table = command(*arguments, cwd=finished_run.root).stdout
    assert table.splitlines()[0].split()[:2] == ["bits", "correct"]
    for bits, row in by_bits.items():
        line = next(line for line in table.splitlines() if line.split()[0] == str(bits))
        assert f"{row['searched']['correct']}/360" in line
