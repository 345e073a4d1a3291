"""The report of the recipes benchmark: its figures, and words that follow them. Rows are made up, the plan is the real one."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from snn_export.training.recipes.registry import load_recipe
from tests.benchmark_modules import benchmark

measures = benchmark("recipes_measures")
plan = benchmark("recipes_plan")
report = benchmark("recipes_report")

SAMPLES = 1000
HARDNESS = np.random.default_rng(0).permutation(SAMPLES)
"""The same samples are hard for every network, as they are in truth: that is what pairing makes use of."""
Rows = dict[str, dict[str, Any]]


def packed(right: NDArray[np.bool_]) -> str:
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def scored(kind: str, accuracy: float) -> dict[str, Any]:
    right = np.less(HARDNESS, round(accuracy * SAMPLES))
    return {f"{kind}_accuracy": float(right.mean()), f"{kind}_right": packed(right), "test_samples": SAMPLES}


def made_up(row: Any, accuracy: float = 0.9) -> dict[str, Any]:
    """A row as ``recipes_row.py`` writes it."""
    experiment = plan.EXPERIMENTS[row.data]
    result: dict[str, Any] = {
        "row": asdict(row), "data": f"fingerprint of {row.data}", "torch": "2.0",
        "settings": json.loads(json.dumps(asdict(replace(experiment.settings, seed=row.seed)))),
        "validation_best": accuracy, "validation_last": accuracy - 0.01, "best_epoch": 3, "seconds_per_epoch": 2.0,
        "fully_spiking": row.mode != "ann", **scored("test", accuracy),
    }  # fmt: skip
    if row.mode == "ann":
        return result
    result |= {"steps": 4, "firing_rates": {"lif1": 0.1, "lif2": 0.3}, "peak_memory_bytes": 300 * 2**20}
    result |= {"deployed": "loihi2", "decisions_changed": 0.0, **scored("integer", accuracy)}
    if row.mode == "conversion":
        return result | {"curve": {str(steps): accuracy for steps in plan.STEPS_OF_CONVERSION}, "source_accuracy": accuracy}
    taught = row.recipe not in ("no_teacher", "esd", "dsr")
    return result | {"teacher": "wide", "teacher_accuracy": 0.95} if taught else result | {"teacher": None}


def everything() -> Rows:
    return {row.key: made_up(row) for data in plan.EXPERIMENTS for row in plan.rows(data)}


def set_accuracy(rows: Rows, start: str, accuracy: float, **more: Any) -> None:
    """Give all rows whose keys begin with ``start`` an accuracy, in float and on integers, and further fields."""
    chosen = [row for key, row in rows.items() if key.startswith(start)]
    assert chosen
    for row in chosen:
        row.update(scored("test", accuracy))
        row.update(scored("integer", accuracy) if "integer_right" in row else {})
        row.update(more)


def costs(**changed: float) -> dict[str, Any]:
    """As ``recipes_costs.py`` writes them: 2 s per epoch, or ``no_teacher_bptt=9.0``."""
    names = {f"{row.recipe}-{row.mode}" for data in plan.EXPERIMENTS for row in plan.rows(data)}
    epochs = {name: {"median": changed.get(name.replace("-", "_"), 2.0), "minimum": 1.0, "rounds": 5} for name in names}
    return {"epochs": epochs, "batches": 12, "torch": "2.0", "load_before": 0.1}


def text_of(rows: Rows, measured: dict[str, Any] | None = None) -> str:
    lines = {data: measures.groups(rows, data, measured or costs()) for data in plan.EXPERIMENTS}
    trials = {row: rows[row.key] for row in plan.TRIALS if row.key in rows}
    found: str = report.document(lines, other=measures.unplanned(rows), trials=trials)
    return found


def section(text: str, title: str) -> str:
    """From the heading that contains ``title`` to the next."""
    found = re.search(rf"^## [^\n]*{re.escape(title)}.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no section '{title}'"
    return found.group()


# --- figures ---------------------------------------------------------------------------------------------------------


def brute_force(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    rng = np.random.default_rng(1)
    drawn = [(one - other)[rng.integers(0, len(one), len(one))].mean() for _ in range(10_000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return 100 * float(low), 100 * float(high)


@pytest.mark.parametrize(("seeds", "samples"), [(1, 300), (3, 300), (3, 60)])
def test_the_interval_is_that_of_resampling(seeds: int, samples: int) -> None:
    rng = np.random.default_rng(2)
    hard = rng.random(samples)
    one, other = ((rng.random((seeds, samples)) + hard < limit).mean(axis=0) for limit in (1.3, 1.2))
    found = measures.difference(one, other)
    low, high = brute_force(one, other)
    assert found.points == pytest.approx(100 * (one.mean() - other.mean()))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.08 * (high - low))


def test_the_interval_is_paired() -> None:
    """Two networks that differ on one sample of a thousand differ by little, however many both get wrong."""
    one = (HARDNESS < 500).astype(float)
    other = (HARDNESS < 499).astype(float)
    assert measures.difference(one, other).high <= 0.4


def test_the_interval_is_the_same_every_time() -> None:
    one, other = np.random.default_rng(3).random((2, 50)).round()
    assert measures.difference(one, other) == measures.difference(one, other)


def test_different_test_samples_are_not_compared() -> None:
    with pytest.raises(ValueError, match="3 test samples cannot be compared with 4"):
        measures.difference(np.ones(3), np.ones(4))


def test_it_reads_which_samples_were_right_as_rows_are_written() -> None:
    data = SimpleNamespace(test=SimpleNamespace(y=np.arange(13) % 3))
    found = np.where(np.arange(13) == 5, 0, data.test.y)
    written = benchmark("recipes_row")._accuracy("test", found, data)
    assert measures.right(written, "test").tolist() == (found == data.test.y).tolist()


def test_seeds_are_averaged_with_their_spread() -> None:
    rows = everything()
    for seed, accuracy in enumerate((0.80, 0.82, 0.87)):
        set_accuracy(rows, f"cifar10-ckdsnn-rate-{seed}", accuracy)
    assert "| `ckdsnn` | rate | 4 | 3 | 83.00 ± 3.61 | -7.00 [" in text_of(rows)


def test_samples_of_two_data_sets_are_refused() -> None:
    rows = everything()
    rows["digits-plain_kd-rate-0"]["data"] = "another"
    with pytest.raises(ValueError, match="rows of 'digits' were measured on 2 different data sets"):
        text_of(rows)


# --- what is there ---------------------------------------------------------------------------------------------------


def test_a_whole_table_misses_nothing() -> None:
    text = text_of(everything() | {row.key: {"validation_best": 0.5} for row in plan.TRIALS})
    assert f"{len(everything())} of {len(everything())} rows" in text
    assert "None." in section(text, "Missing rows")
    assert "missing" not in text.lower().replace("missing rows", "")


def test_missing_rows_are_listed() -> None:
    rows = everything()
    whole = len(rows)
    del rows["cifar10-plain_kd-rate-1"], rows["digits-dsr-rate-0"]
    text = text_of(rows)
    assert f"{whole - 2} of {whole} rows" in text
    assert section(text, "Missing rows").splitlines()[2:4] == [
        "- digits: dsr, rate (seed 0)",
        "- cifar10: plain_kd, rate (seed 1)",
    ]
    assert "| `plain_kd` | rate | 4 | 2 of 3 |" in text
    assert "| `dsr` | rate |  | 0 of 1 | missing |" in text


def test_every_row_of_the_plan_is_in_the_table_without_any_result() -> None:
    text = text_of({})
    for data in plan.EXPERIMENTS:
        for row in plan.rows(data):
            assert f"| `{row.recipe}` | {row.mode} |  | 0 of" in section(text, data)
    for title in ("rate-based", "conversion at T", "on the chip"):
        assert "open" in section(text, title)
    assert "No claim has been tried yet." in text


def test_rows_of_another_budget_and_of_no_plan_are_named() -> None:
    rows = everything()
    assert "Rows of another budget" not in text_of(rows)
    assert "no plan asks for" not in text_of(rows)
    rows["digits-plain_kd-rate-0"]["settings"]["epochs"] = 1
    rows["fsdd-no_teacher-bptt-0"]["student"] = ["recurrent", {"width": 1}]
    rows["digits-unheard_of-rate-0"] = rows["digits-dsr-rate-0"]
    text = text_of(rows)
    assert "- digits-plain_kd-rate-0\n- fsdd-no_teacher-bptt-0\n" in section(text, "Rows of another budget")
    assert "- digits-unheard_of-rate-0" in section(text, "Rows that no plan asks for")


def test_a_refusal_is_an_answer_and_not_missing() -> None:
    rows = everything()
    for seed in plan.MAIN_SEEDS:
        row = rows[f"fsdd-lasnn-bptt-{seed}"]
        kept = {name: row[name] for name in ("row", "data", "torch")}
        rows[f"fsdd-lasnn-bptt-{seed}"] = kept | {"refused": "SNX342", "why_refused": "no feature maps"}
    text = text_of(rows)
    assert f"{len(rows)} of {len(rows)} rows" in text
    assert "None." in section(text, "Missing rows")
    assert "| `lasnn` | bptt |  | 0 of 3 | refused: SNX342 |" in section(text, "fsdd")
    found = section(text, "Which methods help")
    assert next(line for line in found.splitlines() if line.startswith("| `lasnn`")).endswith("| refused: SNX342 |")
    assert "refused: SNX342 on fsdd" in found


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "words"),
    [(0.86, "yes. "), (0.897, "no. "), (0.95, "no. ")],
    ids=["far below", "within the margin", "above"],
)
def test_whether_rates_cost_accuracy(rate: float, words: str) -> None:
    rows = everything()
    set_accuracy(rows, "cifar10-no_teacher-rate", rate)
    found = section(text_of(rows), "rate-based")
    assert f"**cifar10**: {words}" in found
    assert ("is not below" in found.split("**cifar10**")[1].split("**fsdd**")[0]) == (words == "no. ")
    assert "**fsdd**: not asked" in found


def test_the_margin_is_the_interval_where_that_is_larger() -> None:
    """0.6 points below on 10 of 1000 samples: more than half a point, less than half the interval."""
    rows = everything()
    right = HARDNESS < 900
    worse = right.copy()
    worse[np.flatnonzero(right)[:73]] = False
    worse[np.flatnonzero(~right)[:67]] = True
    for seed in plan.MAIN_SEEDS:
        row = rows[f"cifar10-no_teacher-rate-{seed}"]
        row.update(test_right=packed(worse), test_accuracy=float(worse.mean()))
    assert "**cifar10**: no. " in section(text_of(rows), "rate-based")


@pytest.mark.parametrize(
    ("student", "outcome"), [(0.95, "Distillation wins."), (0.85, "Conversion wins."), (0.90, "Neither wins.")]
)
def test_students_against_conversion(student: float, outcome: str) -> None:
    rows = everything()
    set_accuracy(rows, "cifar10-hybrid_blockwise-rate", student, validation_best=0.99)
    found = section(text_of(rows), "conversion at T").split("**cifar10**")[1].split("**fsdd**")[0]
    assert "is hybrid_blockwise, rate" in found
    assert outcome in found


def test_the_best_student_is_chosen_by_validation() -> None:
    rows = everything()
    set_accuracy(rows, "cifar10-lasnn-rate", 0.99, validation_best=0.5)
    set_accuracy(rows, "cifar10-ckdsnn-rate", 0.91, validation_best=0.95)
    set_accuracy(rows, "cifar10-bkdsnn-rate", 0.99, validation_best=0.99)  # one seed alone: luck would choose it
    assert "**cifar10**: the best distilled student, chosen by its validation accuracy among those with 3 seeds, is ckdsnn" in (
        section(text_of(rows), "conversion at T")
    )


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        ((0.5, 0.6, 0.7, 0.8, 0.95, 0.95, 0.95), "QCFS catches up with the student at T = 16, 4 times its steps."),
        ((0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8), "QCFS does not catch up with the student within T = 64."),
        ((0.5, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95), "QCFS is as accurate as the student from T = 2 on."),
    ],
)
def test_when_conversion_catches_up(curve: tuple[float, ...], words: str) -> None:
    rows = everything()
    found = {str(steps): value for steps, value in zip(plan.STEPS_OF_CONVERSION, curve, strict=True)}
    set_accuracy(rows, "cifar10-qcfs-conversion", 0.9, curve=found)
    assert words in section(text_of(rows), "conversion at T").split("**cifar10**")[1]


@pytest.mark.parametrize(("source", "words"), [(0.85, "cost accuracy before"), (0.9, "not a weak one"), (0.95, "brought some")])
def test_what_the_source_of_a_conversion_costs(source: float, words: str) -> None:
    rows = everything()
    set_accuracy(rows, "cifar10-qcfs-conversion", 0.9, source_accuracy=source)
    set_accuracy(rows, "digits-qcfs-conversion", 0.9, source_accuracy=0.9)
    assert words in section(text_of(rows), "conversion at T").split("**cifar10**")[1]


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        (0.95, "**better**: +5.00 points"),
        (0.85, "**worse**: -5.00 points"),
        (0.90, "no difference shown: 0.00 points"),
        (0.901, "no difference shown: +0.10 points"),
    ],
)
def test_which_methods_help(accuracy: float, words: str) -> None:
    rows = everything()
    set_accuracy(rows, "digits-ckdsnn-rate", accuracy)
    found = section(text_of(rows), "Which methods help")
    line = next(line for line in found.splitlines() if line.startswith("| `ckdsnn`"))
    assert line.split(" | ")[1].startswith(words)
    assert f"{3 if accuracy > 0.9 else 0} of 3" in line.split(" | ")[1]
    failed = found.split("Claims that did not reproduce at this scale:")[1]
    assert ("ckdsnn on digits" in failed) == (accuracy < 0.95)


def reproduced(rows: Rows, method: str, data: str, measured: dict[str, Any] | None = None) -> bool:
    found = section(text_of(rows, measured), "Which methods help")
    line = next(line for line in found.splitlines() if line.startswith(f"- `{method}`"))
    match = re.search(rf"(not reproduced|reproduced|not decided) on {data}", line)
    assert match
    assert match.group(1) != "not decided"
    return match.group(1) == "reproduced"


@pytest.mark.parametrize(("seconds", "held"), [(9.0, True), (1.0, False)])
def test_the_claim_of_cheaper_training_is_held_to_the_seconds(seconds: float, held: bool) -> None:
    rows = everything()
    measured = costs(hybrid_blockwise_bptt=seconds)
    assert reproduced(rows, "hybrid_blockwise", "cifar10", measured) is held
    set_accuracy(rows, "cifar10-hybrid_blockwise-rate", 0.8)
    assert not reproduced(rows, "hybrid_blockwise", "cifar10", measured)


def test_without_measured_costs_none_are_told() -> None:
    text = text_of(everything(), {"epochs": {}})
    assert "An epoch on rates" not in text
    assert "the cost was not compared" in text
    assert "An epoch on rates is 4.5 times faster." in text_of(everything(), costs(no_teacher_bptt=9.0))


def test_trials_are_told_beside_what_they_changed() -> None:
    rows = everything()
    trial = plan.TRIALS[0]
    set_accuracy(rows, "cifar10-ckdsnn-rate-0", 0.5, validation_best=0.41)
    assert f"- `{trial.recipe}` on cifar10, activation_map at 0.01: missing (with the published weights 41.0 %" in text_of(rows)
    rows[trial.key] = {"validation_best": 0.64, "row": asdict(trial)}
    found = text_of(rows)
    assert "activation_map at 0.01: 64.0 % (with the published weights 41.0 %, no teacher 90.0 %)" in found
    assert "no plan asks for" not in found
    assert plan.Row("digits", "esd", "rate", 1).key == "digits-esd-rate-1"
    assert len({row.key for row in plan.TRIALS}) == len(plan.TRIALS)


def test_a_trial_changes_the_weights_it_names() -> None:
    row_module, recipe = benchmark("recipes_row"), load_recipe("ckdsnn")
    changed = row_module.reweighted(recipe, {"activation_map": 0.01})
    assert [item.weight for item in changed.terms] == [1.0, 0.01, 1.0]
    assert [item.term for item in changed.terms] == [item.term for item in recipe.terms]
    with pytest.raises(ValueError, match="has no term maps"):
        row_module.reweighted(recipe, {"maps": 1.0})
    for trial in plan.TRIALS:
        row_module.reweighted(load_recipe(trial.recipe), dict(trial.weights))


def test_costs_are_measured_for_every_row_that_is_trained() -> None:
    found = benchmark("recipes_costs").costs("digits", batches=1, rounds=1)
    trained = {f"{row.recipe}-{row.mode}" for row in plan.rows("digits") if row.recipe not in ("max_norm", "calibration")}
    assert set(found["epochs"]) == trained | {"hybrid_blockwise-bptt"}
    assert all(item["median"] > 0 for item in found["epochs"].values())


def test_the_claim_of_fewer_steps_names_its_baseline() -> None:
    rows = everything()
    low = dict.fromkeys(map(str, plan.STEPS_OF_CONVERSION), 0.5)
    set_accuracy(rows, "cifar10-max_norm-conversion", 0.5, curve=low | {"64": 0.95})
    assert not reproduced(rows, "lasnn", "cifar10")
    assert "max_norm is as accurate at T = 64, 16 times the steps, qcfs at T = 1" in text_of(rows)
    set_accuracy(rows, "cifar10-max_norm-conversion", 0.5, curve=low)
    assert "not decided on cifar10 (max_norm has not caught up at T = 64, 16 times the steps)" in text_of(rows)
    for accuracy, found in ((0.5, "has not caught up"), (0.95, "is as accurate")):
        set_accuracy(rows, "cifar10-max_norm-conversion", 0.5, curve=low | {"128": accuracy})
        assert reproduced(rows, "lasnn", "cifar10")
        assert f"reproduced on cifar10 (max_norm {found} at T = 128, 32 times the steps" in text_of(rows)
    assert max(plan.STEPS_OF_BALANCING) / 4 >= 20, "else the claim could not come true"


def test_both_forms_of_ckdsnn_are_judged_and_one_seed_is_called_so() -> None:
    rows = everything()
    set_accuracy(rows, "digits-ckdsnn-rate", 0.8)
    set_accuracy(rows, "digits-ckdsnn_code-rate", 0.95)
    found = section(text_of(rows), "Which methods help")
    assert "- `ckdsnn_code` - the same, in the form of the released code: reproduced on digits (+5.00 points" in found
    assert "to plain_kd, 1 seed)" in found
    assert "ckdsnn on digits" in found.split("did not reproduce at this scale: ")[1]
    assert "ckdsnn_code on digits" not in found.split("did not reproduce at this scale: ")[1]


def test_rows_of_another_teacher_are_named() -> None:
    rows = everything()
    rows["cifar10-lasnn-rate-1"]["teacher_accuracy"] = 0.9
    found = text_of(rows)
    assert "with 95.0 % on the test set (trained 2 times from the same seed" in found
    assert "processors that round differently: 90.0 % in lasnn 1)" in found
    assert found.count("processors") == 1


def test_whether_accuracy_survives_on_integers() -> None:
    rows = everything()
    assert "**cifar10**: yes." in section(text_of(rows), "on the chip")
    rows["cifar10-esd-rate-2"].update(scored("integer", 0.894))
    found = section(text_of(rows), "on the chip").split("**cifar10**")[1]
    assert found.startswith(": yes. None of ")
    assert "1 lose more: esd, rate seed 2 (-0.60, beyond chance)." in found
    for seed in plan.MAIN_SEEDS:
        rows[f"cifar10-esd-rate-{seed}"].update(scored("integer", 0.894))
    found = section(text_of(rows), "on the chip").split("**cifar10**")[1]
    assert found.startswith(": not everywhere. 1 of ")
    assert "lines lose more than 0.5 points: esd, rate (-0.60 [" in found
    assert "; beyond chance esd, rate." in found


def test_a_loss_that_the_test_set_does_not_show_is_called_so() -> None:
    rows = everything()
    right = np.less(HARDNESS, 900)
    found = right.copy()
    found[np.flatnonzero(right)[:40]] = False  # decisions that changed for the worse,
    found[np.flatnonzero(~right)[:33]] = True  # and nearly as many for the better
    rows["cifar10-hta_kl-rate-0"] |= {"integer_right": packed(found), "integer_accuracy": float(found.mean())}
    text = section(text_of(rows), "on the chip").split("**cifar10**")[1]
    assert text.startswith(": as far as the test samples tell. 1 of")
    assert "hta_kl, rate (-0.70 [" in text
    assert "; none beyond chance." in text
    assert "1 lose more: hta_kl, rate (-0.70)." in text


def test_an_integer_network_that_is_better_loses_nothing() -> None:
    rows = everything()
    rows["cifar10-hta_kl-rate-0"].update(scored("integer", 0.92))
    found = section(text_of(rows), "on the chip").split("**cifar10**")[1]
    assert found.startswith(": yes. None of ")
    assert "1 gain more than 0.5, hta_kl, rate the most (+2.00)." in found
    assert "No single run of the" in found


def test_training_on_the_grid_is_said_with_what_it_brought() -> None:
    rows = everything()
    assert "No row was trained on after quantisation." in section(text_of(rows), "on the chip")
    for seed, before in ((0, 0.88), (1, 0.86)):
        rows[f"cifar10-esd-rate-{seed}"] |= {"fine_tuned_epochs": 1, "integer_accuracy_before_fine_tuning": before}
    found = section(text_of(rows), "on the chip").split("**cifar10**")[1]
    assert "were trained on the grid for 1 epoch more" in found
    assert "on average -3.00 points to float before, 0.00 after." in found


def test_refusals_and_microcode_are_said() -> None:
    rows = everything()
    for seed in plan.MAIN_SEEDS:
        row = rows[f"digits-qcfs-conversion-{seed}"]
        for name in ("integer_accuracy", "integer_right", "decisions_changed"):
            del row[name]
        row["deployed"] = "refused: SNX350"
    rows["digits-max_norm-conversion-0"]["deployed"] = "loihi2 microcode"
    text = text_of(rows)
    found = section(text, "on the chip").split("**cifar10**")[0]
    assert "Refused, not replaced by another network: qcfs (SNX350)." in found
    assert "as neuron programs: max_norm." in found
    assert "| refused: SNX350 | - | - |" in section(text, "digits")
    assert "90.00 (1 seed), microcode" in section(text, "digits")


# --- files -----------------------------------------------------------------------------------------------------------


def test_it_writes_the_document_and_its_pictures(tmp_path: Path) -> None:
    results = tmp_path / "recipes.json"
    results.write_text(json.dumps({"rows": everything()}), encoding="utf-8")
    report.write_report(results, tmp_path / "recipes_costs.json")
    names = {path.name for path in tmp_path.iterdir()}
    pictures = {
        "recipes_digits.svg",
        "recipes_digits_steps.svg",
        "recipes_cifar10.svg",
        "recipes_cifar10_steps.svg",
        "recipes_fsdd.svg",
    }
    assert names == {"recipes.json", "recipes.md", *pictures}
    text = (tmp_path / "recipes.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((.*?\.svg)\)", text)) == pictures
    before = {name: (tmp_path / name).read_bytes() for name in names}
    report.write_report(results, tmp_path / "recipes_costs.json")
    assert {name: (tmp_path / name).read_bytes() for name in names} == before


def test_a_report_of_nothing_lists_everything(tmp_path: Path) -> None:
    report.write_report(tmp_path / "recipes.json", tmp_path / "none.json")
    assert [path.name for path in tmp_path.iterdir()] == ["recipes.md"]
    assert "0 of " in (tmp_path / "recipes.md").read_text(encoding="utf-8")
