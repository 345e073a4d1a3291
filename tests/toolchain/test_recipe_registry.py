"""Recipes by name: those of this program, and those of third parties."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
from snn_export.training import plug_ins
from snn_export.training.augmentation import Augmentation
from snn_export.training.recipe import ForwardMode, Recipe
from snn_export.training.recipes import registry
from snn_export.training.recipes.registry import RECIPES, BrokenRecipe, load_recipe, recipe_names, recipe_or_broken

RATE_BASED = {"hybrid_blockwise", "esd", "dsr"}
STEPPING = {"tser", "temporal_decoupling"}
ALONE = {"no_teacher", "teacher", "esd", "dsr"}
"""Recipes that need no teacher."""

WORKING = """
from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.terms.logits import CrossEntropy
RECIPE = Recipe("{name}", ForwardMode.BPTT, (WeightedTerm(CrossEntropy()),), "third party")
"""


def plug_in(monkeypatch: pytest.MonkeyPatch, folder: Path, **sources: str) -> None:
    """Register one module per name, as an installed package would."""
    points = []
    for name, source in sources.items():
        (folder / f"plug_in_{folder.name}_{name}.py".replace("-", "_")).write_text(source, encoding="utf-8")
        points.append(EntryPoint(name, f"plug_in_{folder.name}_{name}:RECIPE".replace("-", "_"), registry.GROUP))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(plug_ins, "entry_points", lambda group: points if group == registry.GROUP else [])


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_where_it_comes_from(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.citation
    assert recipe.summary
    assert len(recipe.summary) < 70
    assert recipe.inferred
    assert (recipe.forward_mode is ForwardMode.RATE) == (name in RATE_BASED)
    assert recipe.needs_teacher == (name not in ALONE)
    if name not in ("no_teacher", "plain_kd", "teacher"):
        assert recipe.published
        assert (recipe.settings.optimizer, recipe.settings.schedule) == ("sgd", "cosine")


@pytest.mark.parametrize("name", RECIPES)
def test_published_augmentation_and_student_can_be_made(name: str) -> None:
    recipe = load_recipe(name)
    Augmentation(steps=recipe.settings.augmentation)
    student = build_student("convnet", input_shape=(1, 8, 8), classes=2, width=2, **recipe.student)
    assert all(getattr(student.config, field) == value for field, value in recipe.student.items())


@pytest.mark.parametrize("name", RECIPES)
def test_all_but_those_of_single_steps_and_of_rates_can_change_the_mode(name: str) -> None:
    recipe = load_recipe(name)
    if name == "dsr":
        with pytest.raises(UserError) as error:
            recipe.in_mode(ForwardMode.BPTT)
        assert error.value.code == "SNX357"
        return
    assert recipe.in_mode(ForwardMode.BPTT).forward_mode is ForwardMode.BPTT
    if name not in STEPPING:
        assert recipe.in_mode(ForwardMode.RATE).forward_mode is ForwardMode.RATE
        return
    with pytest.raises(UserError) as error:
        recipe.in_mode(ForwardMode.RATE)
    assert error.value.code == "SNX340"


def test_every_recipe_has_a_fingerprint_of_its_own_without_the_student() -> None:
    described = {name: load_recipe(name).describe() for name in RECIPES}
    assert len(set(described.values())) == len(RECIPES)
    assert "ActivationMap(tau=2.0, form='code')" in described["ckdsnn_code"]
    assert "SpikeRepresentation()" in described["dsr"]
    assert "take_weights" in described["idsnn"]
    assert not any("dv" in text or "triangle" in text for text in described.values())


def test_the_published_student_is_no_part_of_what_a_recipe_is() -> None:
    recipe = load_recipe("esd")
    other = replace(recipe, student={})
    assert recipe.student != other.student
    assert (recipe, hash(recipe), recipe.describe()) == (other, hash(other), other.describe())
    # Processes of a distributed run are handed it in this form.
    assert pickle.loads(pickle.dumps(recipe)).describe() == recipe.describe()


def test_names_are_listed_in_order_with_third_parties_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert recipe_names() == tuple(RECIPES)
    plug_in(monkeypatch, tmp_path, zeta=WORKING.format(name="zeta"), alpha="raise RuntimeError")
    assert recipe_names() == (*RECIPES, "alpha", "zeta")


def test_a_third_partys_recipe_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path, third=WORKING.format(name="third"))
    assert load_recipe("third").citation == "third party"
    assert isinstance(recipe_or_broken("third"), Recipe)


@pytest.mark.parametrize(
    "source",
    [
        "import package_that_does_not_exist", "raise SystemExit('buy a licence')",
        "raise RuntimeError('no licence')", "this is no python", "x = 1", "RECIPE = 3",
        WORKING.format(name="another"),
    ],
)  # fmt: skip
def test_a_broken_one_is_listed_with_its_error_and_breaks_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    plug_in(monkeypatch, tmp_path, broken=source, sound=WORKING.format(name="sound"))
    assert {"broken", "sound"} <= set(recipe_names())
    with pytest.raises(UserError) as error:
        load_recipe("broken")
    assert error.value.code == "SNX346"
    found = recipe_or_broken("broken")
    assert isinstance(found, BrokenRecipe)
    assert "broken" in found.diagnostic.what
    assert found.diagnostic.where.endswith("_broken:RECIPE")
    assert load_recipe("sound").name == "sound"
    assert load_recipe("plain_kd").name == "plain_kd"


def test_a_third_party_cannot_take_a_built_in_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug_in(monkeypatch, tmp_path, plain_kd="raise RuntimeError")
    assert load_recipe("plain_kd").citation.startswith("Hinton")
    assert recipe_names() == tuple(RECIPES)


@pytest.mark.parametrize("load", [load_recipe, recipe_or_broken])
def test_an_unknown_name_is_suggested_a_known_one(load: object) -> None:
    assert callable(load)
    with pytest.raises(UserError, match="did you mean 'ckdsnn'") as error:
        load("ckdsn")
    assert error.value.code == "SNX013"


def test_listing_recipes_imports_none_of_them() -> None:
    code = (
        "import sys; from snn_export.training.recipes import registry; registry.recipe_names();"
        "loaded = [name for name in sys.modules if name.startswith('snn_export.training.')];"
        "expected = ['snn_export.training.' + name for name in ('plug_ins', 'recipes', 'recipes.registry')];"
        "assert sorted(loaded) == expected, loaded;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
