"""Recipes written as a table of loss terms."""

from __future__ import annotations

import math
from dataclasses import is_dataclass
from importlib import import_module
from pkgutil import iter_modules

import pytest

from snn_export.models.diagnostics import UserError
from snn_export.training import terms as terms_package
from snn_export.training.composing import compose, parameters_of
from snn_export.training.recipe import ForwardMode
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.term import LossTerm
from snn_export.training.terms.attention_transfer import AttentionTransfer
from snn_export.training.terms.registry import TERMS, load_term


def test_a_table_becomes_the_recipe_it_describes() -> None:
    recipe = compose("mine", "rate", {"cross_entropy": {}, "attention_transfer": {"weight": 2, "beta": 500}})
    assert recipe.name == "mine"
    assert recipe.forward_mode is ForwardMode.RATE
    assert [item.weight for item in recipe.terms] == [1.0, 2.0]
    assert recipe.terms[1].term == AttentionTransfer(beta=500.0)
    assert recipe.needs.taps
    assert recipe.needs_teacher


def test_a_published_recipe_can_be_written_as_a_table() -> None:
    table = {"cross_entropy": {}, "knowledge_distillation": {"tau": 3, "weight": 0.3}, "block_wise": {}}
    composed, published = compose("hybrid_blockwise", "rate", table), load_recipe("hybrid_blockwise")
    assert composed.describe() == published.describe()


def test_whole_numbers_are_numbers_and_leave_one_fingerprint() -> None:
    one, other = (compose("x", "bptt", {"knowledge_distillation": {"tau": tau}}).describe() for tau in (2, 2.0))
    assert one == other


@pytest.mark.parametrize(
    ("table", "where", "hint"),
    [
        ({"cros_entropy": {}}, "terms.cros_entropy", "did you mean 'cross_entropy'"),
        ({"block_wise": {"ta": 1.0}}, "terms.block_wise.ta", "did you mean 'tau'"),
        ({"block_wise": {"wieght": 1.0}}, "terms.block_wise.wieght", "did you mean 'weight'"),
        ({"block_wise": {"tau": "3"}}, "terms.block_wise.tau", "type float"),
        ({"block_wise": {"tau": True}}, "terms.block_wise.tau", "type float"),
        ({"activation_map": {"form": 3}}, "terms.activation_map.form", "type str"),
        ({"cross_entropy": {"weight": math.inf}}, "terms.cross_entropy.weight", "finite"),
        ({"cross_entropy": 3}, "terms.cross_entropy", "cross_entropy = {weight = 1.0}"),
        ({"cross_entropy": {"tau": 3.0}}, "terms.cross_entropy.tau", "weight"),
        ({}, "terms", "cross_entropy"),
    ],
)
def test_what_cannot_be_made_is_refused_with_its_place(table: dict[str, dict[str, object]], where: str, hint: str) -> None:
    with pytest.raises(UserError) as error:
        compose("mine", "bptt", table)
    assert error.value.code == "SNX344"
    assert error.value.diagnostics[0].where == where
    assert hint in error.value.diagnostics[0].fix


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        compose("mine", "bppt", {"cros_entropy": {}, "block_wise": {"ta": 1.0, "kd": "much"}})
    assert [finding.where for finding in error.value.diagnostics] == [
        "forward_mode", "terms.cros_entropy", "terms.block_wise.ta", "terms.block_wise.kd",
    ]  # fmt: skip


def test_values_out_of_range_and_steps_on_rates_are_refused() -> None:
    with pytest.raises(UserError) as error:
        compose("mine", "bptt", {"block_wise": {"tau": 0}})
    assert error.value.code == "SNX345"
    with pytest.raises(UserError) as error:
        compose("mine", "rate", {"decoupled_steps": {}})
    assert error.value.code == "SNX340"


def test_every_term_of_the_package_can_be_composed() -> None:
    for module in iter_modules(terms_package.__path__):
        for found in vars(import_module(f"{terms_package.__name__}.{module.name}")).values():
            if isinstance(found, type) and issubclass(found, LossTerm) and found is not LossTerm:
                assert load_term(found.name) is found
                assert is_dataclass(found)
    for name in TERMS:
        term = load_term(name)
        mode = "bptt" if term.needs.steps else "rate"
        recipe = compose("one", mode, {name: {"weight": 0.5}})
        assert recipe.terms[0].term == term()
        assert "weight" not in parameters_of(term)
