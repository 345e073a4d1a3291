"""``snn-export recipes``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from snn_export.commands.options import Format, format_option

if TYPE_CHECKING:
    from snn_export.training.conversion.conversion import Conversion
    from snn_export.training.recipe import Recipe


@click.command("recipes")
@click.argument("name", required=False)
@format_option
def command(name: str | None, output_format: Format) -> None:
    """List the ways a student can learn, and what each needs.

    With NAME, one of them with its source, all its numbers, and what the source does not say; with the name composed, the loss
    terms that a recipe of your own is made of.

    Train with one by `snn-export train --recipe NAME`, or set training.recipe in snn-export.toml.
    """
    from snn_export.commands.output import print_json, print_table
    from snn_export.pipeline.choices import COMPOSED

    if name == COMPOSED:
        _tell_terms(output_format)
        return
    if name is not None:
        found = _described(name)
        if output_format == "json":
            print_json(found)
        else:
            _tell(found)
        return
    everything = [_described(each) for each in _names()]
    if output_format == "json":
        print_json(everything)
        return
    print_table(
        ("Recipe", "Trained", "Needs", "What it does"),
        ((item["name"], " or ".join(item["modes"]), ", ".join(item["needs"]) or "-", item["summary"]) for item in everything),
    )
    click.echo(
        "\nThe first way under Trained is the default; training.forward_mode chooses another."
        "\nsnn-export recipes NAME shows one with its source, its published settings and what was inferred;"
        "\nsnn-export recipes composed lists the loss terms that a recipe of your own is made of."
    )


def _names() -> tuple[str, ...]:
    from snn_export.training.conversion.registry import CONVERSIONS
    from snn_export.training.recipes.registry import recipe_names

    return (*(name for name in recipe_names() if name != "teacher"), *CONVERSIONS)


def _described(name: str) -> dict[str, Any]:
    """One recipe or conversion as plain data. A broken plug-in is described by its error."""
    from snn_export.models.diagnostics import UserError
    from snn_export.models.naming import suggestion
    from snn_export.training.conversion.registry import CONVERSIONS, load_conversion
    from snn_export.training.recipes.registry import load_recipe, recipe_names

    if name in CONVERSIONS:
        return _conversion(load_conversion(name))
    if name not in recipe_names():
        raise UserError(
            "SNX013", f"there is no recipe called '{name}'", where="recipe",
            why="a recipe names the loss terms and how gradients are computed", fix=suggestion(name, _names()),
        )  # fmt: skip
    try:
        return _recipe(load_recipe(name))
    except UserError as error:
        found = error.diagnostics[0]
        return {"name": name, "kind": "broken", "modes": ["broken"], "needs": [], "summary": f"{found.code}: {found.what}"}


def _recipe(recipe: Recipe) -> dict[str, Any]:
    from dataclasses import asdict

    needs = recipe.needs
    words = {
        "a teacher": recipe.needs_teacher,
        "stages of both": needs.taps and needs.teacher_taps,
        "stages": needs.taps and not needs.teacher_taps,
        "single steps": needs.steps,
    }
    return {
        "name": recipe.name,
        "kind": "recipe",
        "summary": recipe.summary,
        "modes": [recipe.forward_mode.value, *(mode for mode in _modes(recipe) if mode != recipe.forward_mode.value)],
        "needs": [word for word, needed in words.items() if needed],
        "terms": [{"weight": item.weight, "term": repr(item.term)} for item in recipe.terms],
        "settings": asdict(recipe.settings),
        "student": dict(recipe.student),
        "citation": recipe.citation,
        "published": recipe.published,
        "inferred": list(recipe.inferred),
    }


def _tell_terms(output_format: Format) -> None:
    """The loss terms and their parameters with the published values, and how a config composes them."""
    from snn_export.commands.output import print_json, print_table
    from snn_export.training.terms.registry import term_names

    found = {name: _parameters(name) for name in term_names()}
    if output_format == "json":
        print_json(found)
        return
    rows = ((name, " ".join(f"{key}={value}" for key, value in values.items()) or "-") for name, values in found.items())
    print_table(("Loss term", "Parameters, as published"), rows)
    click.echo(
        "\nEach has a weight too, 1 where nothing is said. In snn-export.toml:\n\n  [training]\n"
        '  recipe = "composed"\n  terms = ["cross_entropy", "attention_transfer weight=0.5 beta=500"]\n\n'
        'or --set training.recipe=composed --set \'training.terms=["cross_entropy", "attention_transfer weight=0.5"]\''
    )


def _parameters(name: str) -> dict[str, Any]:
    """Parameters of a loss term with their values, "(required)" for one that has none; of a broken plug-in its error."""
    from snn_export.models.diagnostics import UserError
    from snn_export.training.composing import published_parameters, required_parameters
    from snn_export.training.terms.registry import load_term

    try:
        term = load_term(name)
    except UserError as error:
        return {"broken": f"{error.code}: {error.diagnostics[0].what}"}
    values = {**dict.fromkeys(required_parameters(term), "(required)"), **published_parameters(term)}
    return {key: value if _plain(value) else str(value) for key, value in values.items()}


def _plain(value: object) -> bool:
    """Whether JSON has this value: a third party's default may be anything."""
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _modes(recipe: Recipe) -> list[str]:
    """Forward modes that the recipe allows."""
    from snn_export.training.recipe import ForwardMode

    return [mode.value for mode in ForwardMode if recipe.allows(mode)]


def _conversion(conversion: Conversion) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": conversion.name,
        "kind": "conversion",
        "summary": conversion.summary,
        "modes": ["converted"],
        "needs": ["labels; trains its own ANN"],
        "terms": [],
        "settings": asdict(conversion.settings),
        "student": {"dv": 0, "reset": "subtract"},
        "citation": conversion.citation,
        "published": conversion.published,
        "inferred": list(conversion.inferred),
    }


def _tell(found: Mapping[str, Any]) -> None:
    """One recipe, for people."""
    click.echo(f"{found['name']}: {found['summary']}")
    if found["kind"] == "broken":
        return
    click.echo(f"\nSource     {found['citation']}")
    if found["published"]:
        click.echo(f"Published  {found['published']}")
    click.echo(f"Trained    {' or '.join(found['modes'])}")
    click.echo(f"Needs      {', '.join(found['needs']) or 'nothing but labels'}")
    for index, item in enumerate(found["terms"]):
        click.echo(f"{'Loss       ' if not index else '         + '}{item['weight']:g} {item['term']}")
    click.echo("\nSettings, unless snn-export.toml says otherwise:")
    for name, value in found["settings"].items():
        click.echo(f"  {name} = {value}")
    if found["student"]:
        click.echo(f"\nStudent of the source: {', '.join(f'{name} = {value}' for name, value in found['student'].items())}")
    if found["inferred"]:
        click.echo("\nNot found in the source, and filled in here:")
        for line in found["inferred"]:
            click.echo(f"  - {line}")
