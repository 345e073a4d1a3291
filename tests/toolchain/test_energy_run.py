from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from snn_export.config_schema import Config, EnergyConfig, PlacementConfig, to_toml
from snn_export.data.dataset import Dataset, Samples
from snn_export.energy.cost_table import load_table
from snn_export.energy.observer import Counted, EnergyObserver
from snn_export.energy.step_counts import answers_of
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.trace import Trace
from snn_export.models.diagnostics import UserError
from snn_export.pipeline import energy_run, steps, verification
from snn_export.pipeline.placing import Placements
from tests.builders import LayerPlan, Plan, deployment_from

SILENT = lambda line: None


def network() -> Deployment:
    rng = np.random.default_rng(4)
    hidden = LayerPlan("hidden", rng.integers(-60, 90, (12, 6)) * 2, threshold=200, dv=1024)
    out = LayerPlan("out", rng.integers(-90, 90, (4, 12)) * 2, source="hidden", dv=512)
    return deployment_from(Plan((6,), (hidden, out), steps=6, high=3))


def dataset() -> Dataset:
    """Test samples are no numbers: whoever reads them before the ladder does fails."""
    rng = np.random.default_rng(0)
    x, poison = rng.integers(0, 4, (40, 6)).astype(np.float32), np.full((5, 6), np.nan, np.float32)
    return Dataset(
        "tiny", x[:10], np.zeros(10, np.int64), x, rng.integers(0, 4, 40), poison, np.zeros(5, np.int64), 4, 0.0, 3.0
    )  # fmt: skip


def ran(deployment: Deployment, x: np.ndarray) -> Trace:
    runner = simulator("loihi")
    return runner.run(runner.compile(deployment), x, ("spikes", "membrane"))


def counted(config: Config, deployment: Deployment, x: np.ndarray) -> Counted:
    observer = EnergyObserver("loihi", deployment, config.energy.exit_margin)
    observer.chunk(x, {"loihi": ran(deployment, x)}, 0, dataset().y_val)
    return observer.counted


def test_the_threshold_is_chosen_on_validation_samples_and_never_on_test_samples() -> None:
    deployment, data, config = network(), dataset(), Config()
    tuned, chosen = energy_run.with_threshold(config, deployment, data, "loihi", SILENT)
    assert chosen is not None
    assert (chosen.samples, tuned.energy.exit_margin) == (40, chosen.threshold)
    assert chosen.correct >= chosen.correct_full
    assert config.energy.exit_margin is None, "the user's settings stay as they are"
    runner = simulator("loihi")
    full = runner.run(runner.compile(deployment), data.x_val).predictions
    assert chosen.correct_full == int((full == data.y_val).sum())


def test_a_threshold_that_was_set_is_taken_and_nothing_is_run() -> None:
    config = Config(energy=EnergyConfig(exit_margin=7.0))
    assert energy_run.with_threshold(config, network(), dataset(), "loihi", SILENT) == (config, None)
    report = energy_run.energy_report(network(), counted(config, network(), dataset().x_val), config, Path(), None, None)
    assert report.early_exit.threshold == 7.0
    assert (report.early_exit.chosen_on, report.early_exit.validation_accuracy) == (0, None)
    assert "validation" not in report.early_exit.rule


def test_without_the_integer_simulator_nothing_is_chosen_and_nothing_estimated() -> None:
    config = Config.model_validate({"verify": {"backends": {}}})
    assert energy_run.with_threshold(config, network(), dataset(), "loihi", SILENT) == (config, None)
    assert energy_run.energy_report(network(), None, config, Path(), None, None) is None


def test_the_report_is_placed_with_the_activity_that_was_measured(tmp_path: Path) -> None:
    deployment, data = network(), dataset()
    tuned, chosen = energy_run.with_threshold(Config(), deployment, data, "loihi", SILENT)
    found = counted(tuned, deployment, data.x_val)
    report = energy_run.energy_report(deployment, found, tuned, tmp_path, chosen, None)
    assert report.operations.placed_on == "loihi1"
    assert report.latency.inference is not None
    journeys = {item.source: item for item in report.operations.journeys}
    hidden = found.counts.layers["hidden"]
    assert journeys["hidden"].packets == hidden.messages / found.counts.samples, "to the last digit: spikes are integers"
    assert len(report.curve) == 6
    assert (report.early_exit.chosen_on, report.knee_chosen_on) == (40, 40)
    answers = answers_of("membrane_last", ran(deployment, data.x_val).layers["out"])
    assert report.operations.validation_correct == tuple((answers.classes == data.y_val).sum(axis=1))
    assert sum(report.early_exit.exits) == 40


def test_what_cannot_be_placed_is_said_and_estimated_all_the_same() -> None:
    wide = deployment_from(Plan((1, 70, 70), (LayerPlan("out", np.full((2, 4900), 2)),), high=1))
    table = load_table("loihi1")
    placements = Placements(wide, {}, PlacementConfig())
    placement, why = energy_run.placed(placements, table)
    assert placement is None
    assert why.startswith("SNX45")
    nameless, reason = energy_run.placed(placements, table.model_copy(update={"chip": ""}))
    assert (nameless, reason) == (None, "the table loihi1 names no chip")


def test_a_table_of_ones_own_is_found_beside_the_settings_and_makes_the_verification_stale(tmp_path: Path) -> None:
    folder = Path(energy_run.__file__).parents[1] / "energy" / "tables"
    (tmp_path / "mine.toml").write_bytes((folder / "loihi1.toml").read_bytes())
    config = Config(energy=EnergyConfig(table="mine.toml", exit_margin=1e9))
    found = counted(config, network(), dataset().x_val)
    report = energy_run.energy_report(network(), found, config, tmp_path, None, None)
    assert report.table_digest == load_table("loihi1").digest
    verify = next(step for step in steps.STEPS if step.name == "verify")
    before = verify.settings(config, tmp_path)
    (tmp_path / "mine.toml").write_text((folder / "loihi1.toml").read_text("utf-8") + "\n# another word\n")
    assert verify.settings(config, tmp_path) != before
    with pytest.raises(UserError, match="SNX323"):
        energy_run.energy_report(network(), found, config, tmp_path / "elsewhere", None, None)
    assert 'table = "mine.toml"' in to_toml(config)


def test_a_misspelt_chip_in_a_table_of_ones_own_is_refused(tmp_path: Path) -> None:
    published = (Path(energy_run.__file__).parents[1] / "energy" / "tables" / "loihi1.toml").read_text("utf-8")
    (tmp_path / "mine.toml").write_text(
        published.replace('"loihi1"', '"mine"', 1).replace('chip = "loihi1"', 'chip = "lohi1"'), encoding="utf-8"
    )
    config = Config(energy=EnergyConfig(table="mine.toml", exit_margin=1e9))
    with pytest.raises(UserError, match="no chip called 'lohi1'") as error:
        energy_run.energy_report(network(), counted(config, network(), dataset().x_val), config, tmp_path, None, None)
    assert error.value.code == "SNX323" and "did you mean 'loihi1'" in error.value.diagnostics[0].fix


def test_a_table_that_cannot_be_used_is_refused_before_anything_runs(tmp_path: Path) -> None:
    config = Config.model_validate({"energy": {"table": "none.toml"}, "data": {"source": "npz:none.npz"}})
    with pytest.raises(UserError, match="SNX323"):
        verification.verify_forms(verification.Forms(network(), None, None), config, tmp_path, SILENT, tmp_path)


def test_the_teacher_is_counted_with_what_it_gets_right() -> None:
    """Its accuracy stands beside that of an early exit."""
    teacher = torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        teacher.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    x = np.array([[1, 0, 0], [0, 1, 0], [0, 2, 1], [3, 0, 1]], np.float32)
    (rung,), _, macs = verification._teacher(teacher, Samples(x, np.array([0, 1, 1, 1])), Config())
    assert (macs.correct, macs.samples) == (rung.correct, rung.samples) == (3, 4)
