"""Placements in a verification: one search per chip, both outcomes on the resource page, and nothing else swallowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_export.config_schema import Config, EnergyConfig, PlacementConfig
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.placement import placement as placing_on_chips
from snn_export.hardware_sims.placement.placement import Placement, PlacementSettings
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.pipeline import energy_run, placing, steps
from snn_export.pipeline.placing import Placements
from tests.builders import LayerPlan, Plan, deployment_from
from tests.hardware_sims.test_placement_properties import tiny_chip
from tests.toolchain.test_energy_run import counted, dataset, network

DEFAULTS = PlacementConfig()


def fitting() -> tuple[Deployment, Placements]:
    deployment = network()
    activity = {"input": np.ones(6, int), "hidden": np.full(12, 2), "out": np.zeros(4, int)}
    return deployment, Placements(deployment, activity, DEFAULTS)


def too_wide() -> Deployment:
    """Its neurons hear more sources than a core of Loihi 1 has input axons."""
    return deployment_from(Plan((1, 70, 70), (LayerPlan("out", np.full((2, 4900), 2)),), high=1))


def targeting(deployment: Deployment, chip: str) -> Deployment:
    quantisation = deployment.contract.quantisation
    assert quantisation is not None
    contract = deployment.contract.model_copy(update={"quantisation": quantisation.model_copy(update={"target": chip})})
    return deployment.replace(contract=contract)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Chips that were searched, in order."""
    found: list[str] = []

    def place(deployment: Any, chip: Any, *rest: Any) -> Placement:
        found.append(chip.name)
        return placing_on_chips.place(deployment, chip, *rest)

    monkeypatch.setattr(placing, "place", place)
    return found


def test_a_placed_network_fills_the_resource_page() -> None:
    deployment, placements = fitting()
    report, missing = placing.on_the_target(targeting(deployment, "loihi1"), placements)
    assert missing == () and report is not None
    assert (report.chip, report.chips, report.cores) == ("loihi1", 1, 1)
    assert [layer.layer for layer in report.layers] == ["hidden", "out"]
    assert {layer.binding for layer in report.layers} <= {"neurons", "input axons", "bits of synapses"}, "tables always hold one"
    axons = next(limit for limit in report.limits if limit.resource == "input axons")
    assert (axons.capacity, axons.explained) == (4096, "distinct source neurons that reach the core")
    assert axons.most == pytest.approx((6 + 12) / 4096)


def test_a_refused_network_is_not_modelled_and_says_how_to_mend_it() -> None:
    deployment = targeting(too_wide(), "loihi1")
    report, (item,) = placing.on_the_target(deployment, Placements(deployment, {}, DEFAULTS))
    assert report is None
    assert (item.status, item.what) == ("NOT_MODELLED", "placement on cores, spike hops, chip memory limits")
    assert item.why.startswith("SNX453 one neuron of out needs 4,900 input axons, where a core holds 4,096: ")
    assert "groups in its convolution" in item.fix


def test_what_was_not_counted_is_not_placed() -> None:
    report, (item,) = placing.on_the_target(network(), None)
    assert report is None and item.status == "NOT_MODELLED" and "failed gates" in item.fix


def test_a_chip_is_searched_once_whether_the_network_fits_or_not(searches: list[str]) -> None:
    _, placements = fitting()
    assert placements.on("loihi1") is placements.on("loihi1")
    refused = Placements(too_wide(), {}, DEFAULTS)
    assert isinstance(refused.on("loihi1"), Diagnostic) and refused.on("loihi1") is refused.on("loihi1")
    assert isinstance(placements.on("loihi2"), Placement)
    assert searches == ["loihi1", "loihi1", "loihi2"]


def test_resources_and_energy_of_one_chip_share_a_search(searches: list[str]) -> None:
    deployment, config = targeting(network(), "loihi1"), Config(energy=EnergyConfig(exit_margin=1.0))
    found = counted(config, deployment, dataset().x_val)
    placements = Placements(deployment, found.fired, config.placement, found.counts.samples)
    report, _ = placing.on_the_target(deployment, placements)
    energy = energy_run.energy_report(deployment, found, config, Path(), None, None, placements)
    assert report is not None and energy is not None and energy.operations is not None
    assert (report.chip, energy.operations.placed_on) == ("loihi1", "loihi1")
    assert searches == ["loihi1"]


def test_only_refusals_of_a_placement_are_told_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    _, placements = fitting()
    with pytest.raises(UserError, match="SNX450"):
        placements.on("lohi1")

    def broken(*_: Any) -> None:
        raise UserError("SNX209", "two layers", where="a", why="no reason", fix="none")

    monkeypatch.setattr(placing, "place", broken)
    with pytest.raises(UserError, match="SNX209"):
        placements.on("loihi1")


def test_settings_decide_how_many_chips_may_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 + 4 neurons on chips of one core each of 10 neurons."""
    monkeypatch.setattr(placing, "load_chip", lambda name: tiny_chip(rows=1, columns=1, share=1, neurons=10))
    deployment = network()
    one = Placements(deployment, {}, PlacementConfig(chips=1)).on("loihi1")
    assert isinstance(one, Diagnostic)
    assert one.code == "SNX455" and "--set placement.chips=2" in one.fix
    two = Placements(deployment, {}, PlacementConfig(chips=2, interchip=9)).on("loihi1")
    assert isinstance(two, Placement)
    assert (two.chips, two.mesh.interchip) == (2, 9)


def test_defaults_of_the_settings_are_those_of_a_placement_and_a_change_makes_the_verification_stale(tmp_path: Path) -> None:
    settings = PlacementSettings()
    assert DEFAULTS.model_dump() == {"chips": settings.chips, "interchip": settings.interchip, "kicks": settings.kicks}
    verify = next(step for step in steps.STEPS if step.name == "verify")
    more = Config(placement=PlacementConfig(chips=64))
    assert verify.settings(Config(), tmp_path) != verify.settings(more, tmp_path)
