"""Training recipes by name: each is one file that defines RECIPE, and one line in the table. Reading this imports none of them.

Third parties add theirs through the entry point group ``snn_export.recipes``, as ``module:RECIPE``. A plug-in that cannot be
imported is not skipped: it is listed as broken with its error, and asking for it raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.naming import suggestion
from snn_export.training.plug_ins import Registry

if TYPE_CHECKING:
    from snn_export.training.recipe import Recipe

GROUP = "snn_export.recipes"

_HERE = "snn_export.training.recipes"

RECIPES: Mapping[str, str] = {
    name: f"{_HERE}.{name}:RECIPE"
    for name in (
        "no_teacher",
        "plain_kd",
        "teacher",
        "hybrid_blockwise",
        "ckdsnn",
        "ckdsnn_code",
        "lasnn",
        "esd",
        "bkdsnn",
        "hta_kl",
        "tser",
        "temporal_decoupling",
        "idsnn",
        "dsr",
    )
}
"""The recipes of this program, as ``module:RECIPE``."""

REGISTRY = Registry("recipe", GROUP, RECIPES)


@dataclass(frozen=True)
class BrokenRecipe:
    """Stands in for a registered recipe that cannot be loaded, with the reason."""

    name: str
    diagnostic: Diagnostic


def recipe_names() -> tuple[str, ...]:
    """Names of all known recipes, broken ones too: those of this program in their order, then those of third parties sorted."""
    return REGISTRY.names()


def load_recipe(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        UserError: SNX013 with a suggestion for an unknown name, SNX346 for one of a third party that cannot be loaded.
    """
    if name not in (known := recipe_names()):
        raise UserError(
            "SNX013", f"there is no recipe called '{name}'", where="recipe",
            why="a recipe names the loss terms and how gradients are computed", fix=suggestion(name, known),
        )  # fmt: skip
    recipe: Recipe = REGISTRY.load(name, _misfit)
    return recipe


def recipe_or_broken(name: str) -> Recipe | BrokenRecipe:
    """As :func:`load_recipe`, but a recipe that cannot be loaded is returned as one that says why; SNX013 stays an error."""
    try:
        return load_recipe(name)
    except UserError as error:
        if error.code != "SNX346":
            raise
        return BrokenRecipe(name, error.diagnostics[0])


def _misfit(name: str, found: object) -> str:
    """What keeps a third party's object from being the recipe ``name``; empty where nothing does."""
    from snn_export.training.recipe import Recipe

    if not isinstance(found, Recipe):
        return f"it is a {type(found).__name__}, not a Recipe"
    return "" if found.name == name else f"the recipe there calls itself '{found.name}'"
