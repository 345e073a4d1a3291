"""Records of energy refuse counts that cannot be: a report is a file, and files are edited."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snn_export.models.diagnostics import UserError
from snn_export.reporting.energy_records import EnergyFigure, EnergyReport
from snn_export.reporting.json_file import read_report, report_text
from tests.toolchain.test_energy_page import report

Change = Callable[[dict[str, Any]], object]


def counts(**changed: object) -> Change:
    return lambda energy: energy["operations"].update(changed)


def first_layer(**changed: object) -> Change:
    return lambda energy: energy["operations"]["layers"][0].update(changed)


def first_step(**changed: object) -> Change:
    return lambda energy: energy["operations"]["by_step"][0].update(changed)


def part(name: str, **changed: object) -> Change:
    return lambda energy: energy["operations"][name].update(changed)


def first(name: str, **changed: object) -> Change:
    return lambda energy: energy["operations"][name][0].update(changed)


IMPOSSIBLE: dict[str, Change] = {
    "no sample": counts(samples=0),
    "fewer samples than none": counts(samples=-3),
    "no step": counts(steps=0),
    "no layer": counts(layers=[]),
    "no neuron": first_layer(neurons=0),
    "no update": first_layer(updates=0),
    "negative operations": first_layer(spike_operations=-(10**9)),
    "more spikes than updates": first_layer(spikes=10**12),
    "more effective than all": first_layer(effective_spike_operations=10**12),
    "more nonzero than all": first_layer(nonzero_weights=10**12),
    "a layer twice": lambda energy: counts(layers=energy["operations"]["layers"][:1] * 2)(energy),
    "a source twice": lambda energy: counts(journeys=energy["operations"]["journeys"][:1] * 2)(energy),
    "negative packets": first("journeys", packets=-1e9),
    "packets without end": first("journeys", packets=1e308),
    "more packets at home than all": first("journeys", within_router=1e12),
    "a core of negative work": first("cores", synops=-1.0),
    "a teacher of no sample": part("teacher", samples=0),
    "a teacher that skips more than it has": part("teacher", effective_macs=10**15),
    "a teacher that is right too often": part("teacher", correct=10**6),
    "steps by the hundred": lambda energy: counts(by_step=energy["operations"]["by_step"] * 100)(energy),
    "a step too few": lambda energy: counts(by_step=energy["operations"]["by_step"][1:])(energy),
    "a step with more operations than all": first_step(spike_operations=10**14),
    "a step with spikes of its own": first_step(spikes=0),
    "more right than there are": first_step(correct=10**9),
    "no exits": part("early_exit", exits=[]),
    "exits of other samples": part("early_exit", exits=[0, 0, 0, 1]),
    "a total out of order": lambda energy: energy.update(total=1.0, total_low=5.0, total_high=3.0),
    "a negative total": lambda energy: energy.update(total_low=-1.0),
    "a figure out of order": lambda energy: energy["figures"][0].update(value=5.0, low=10.0, high=7.0),
    "half a figure": lambda energy: energy["cmos"][0].update(value=None),
    "a comparison out of order": lambda energy: energy["comparisons"][0].update(own_low=1e15),
    "a time out of order": lambda energy: energy["latency"]["step"].update(low=1e15),
    "a share above one": lambda energy: energy["neurobench"].update(connection_sparsity=1.5),
}


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=list(IMPOSSIBLE))
def test_a_report_with_counts_that_cannot_be_is_refused(change: Change, tmp_path: Path) -> None:
    content = json.loads(report_text(report()))
    change(content["energy"])
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        read_report(tmp_path / "report.json")
    assert {item.code for item in caught.value.diagnostics} == {"SNX130"}
    assert "energy" in caught.value.diagnostics[0].where


def test_what_a_run_writes_is_read_back(tmp_path: Path) -> None:
    """Without this the test above could pass because nothing is accepted."""
    (tmp_path / "report.json").write_text(report_text(report()))
    assert read_report(tmp_path / "report.json") == report()


def test_sums_in_another_order_are_in_order() -> None:
    figure = EnergyFigure(
        component="", operation="", count=1.0, value=0.3, low=0.1 + 0.2, high=0.3, coefficient="", source=""
    )  # fmt: skip
    assert figure.low > figure.value
    assert EnergyReport.model_validate_json(report().energy.model_dump_json()) == report().energy
