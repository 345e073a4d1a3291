"""Training recipes by name. A recipe is one file here that defines RECIPE, and one line in the table."""

from __future__ import annotations

from importlib import import_module

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion
from snn_export.training.recipe import Recipe

RECIPES: dict[str, str] = {
    "no_teacher": "snn_export.training.recipes.no_teacher",
    "plain_kd": "snn_export.training.recipes.plain_kd",
    "teacher": "snn_export.training.recipes.teacher",
}


def load_recipe(name: str) -> Recipe:
    """The recipe called ``name``; UserError SNX013 with a suggestion for an unknown one."""
    if name not in RECIPES:
        raise UserError(
            "SNX013", f"there is no recipe called '{name}'", where="recipe",
            why="a recipe names the loss terms and how gradients are computed", fix=suggestion(name, RECIPES),
        )  # fmt: skip
    recipe: Recipe = import_module(RECIPES[name]).RECIPE
    return recipe
