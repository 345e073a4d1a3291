"""Training recipes by name: each is one file that defines RECIPE, and one line in the table. Reading this imports none of them.

Third parties add theirs through the entry point group ``snn_export.recipes``, as ``module:RECIPE``. A plug-in that cannot be
imported is not skipped: it is listed as broken with its error, and asking for it raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.naming import suggestion

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


@dataclass(frozen=True)
class BrokenRecipe:
    """Stands in for a registered recipe that cannot be loaded, with the reason."""

    name: str
    diagnostic: Diagnostic


def locations() -> dict[str, str]:
    """``module:RECIPE`` of every known recipe by name; built-in names cannot be taken by a plug-in."""
    found = {point.name: point.value for point in entry_points(group=GROUP)}
    return {**found, **RECIPES}


def recipe_names() -> tuple[str, ...]:
    """Names of all known recipes, broken ones too: those of this program in their order, then those of third parties sorted."""
    return (*RECIPES, *sorted(locations().keys() - RECIPES.keys()))


def load_recipe(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        UserError: SNX013 with a suggestion for an unknown name, SNX346 for one of a third party that cannot be loaded.
    """
    known = locations()
    if name not in known:
        raise UserError(
            "SNX013", f"there is no recipe called '{name}'", where="recipe",
            why="a recipe names the loss terms and how gradients are computed", fix=suggestion(name, known),
        )  # fmt: skip
    module, _, attribute = known[name].partition(":")
    try:
        found = getattr(import_module(module), attribute or "RECIPE")
    except Exception as error:  # a plug-in may raise anything while it is imported
        if name in RECIPES:
            raise
        raise _broken(name, known[name], f"{type(error).__name__}: {error}") from error
    return _checked(name, known[name], found)


def recipe_or_broken(name: str) -> Recipe | BrokenRecipe:
    """As :func:`load_recipe`, but a recipe that cannot be loaded is returned as one that says why; SNX013 stays an error."""
    try:
        return load_recipe(name)
    except UserError as error:
        if error.code != "SNX346":
            raise
        return BrokenRecipe(name, error.diagnostics[0])


def _checked(name: str, location: str, found: object) -> Recipe:
    """``found`` if it is a recipe of that name; SNX346 otherwise."""
    from snn_export.training.recipe import Recipe

    if not isinstance(found, Recipe):
        raise _broken(name, location, f"it is a {type(found).__name__}, not a Recipe")
    if found.name != name:
        raise _broken(name, location, f"the recipe there calls itself '{found.name}'")
    return found


def _broken(name: str, location: str, what: str) -> UserError:
    return UserError(
        "SNX346", f"the recipe '{name}' cannot be loaded: {what}", where=location,
        why="the package that registers it is broken or incomplete", fix="repair or uninstall that package",
    )  # fmt: skip
