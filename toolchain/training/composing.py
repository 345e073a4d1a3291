"""A recipe written as a table: names of loss terms, with a weight and parameters each. In TOML, for instance:

    cross_entropy = {}
    attention_transfer = {weight = 0.5, beta = 500.0}

What is left out of a term has its published value.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from functools import partial
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from snn_export.models.diagnostics import Diagnostic, UserError, diagnostics_of
from snn_export.models.naming import suggestion
from snn_export.training.recipe import ForwardMode, Recipe, WeightedTerm
from snn_export.training.term import LossTerm
from snn_export.training.terms.registry import load_term

WEIGHT = "weight"
LARGEST = 1e300
"""Of a number in a recipe: Python's whole numbers know no limit, its floats do."""


def compose(name: str, forward_mode: str, terms: Mapping[str, Mapping[str, object]]) -> Recipe:
    """A recipe called ``name`` from a table {term: {weight: 1.0, parameter: value}}, in the table's order.

    Args:
        name: by which results call it.
        forward_mode: "bptt" or "rate".
        terms: what is left out of a term has its published value; the weight is 1.

    Raises:
        UserError: SNX344 with all findings at once for unknown terms, parameters, values of another type and an unknown mode,
            SNX346 among them for a term of a third party that cannot be loaded; SNX345 for a value out of range; SNX340 where a
            term compares single steps and the mode has none.
    """
    found = list(_findings(forward_mode, terms))
    if found:
        raise UserError.from_diagnostics(tuple(found))
    weighted = tuple(_weighted(term, parameters) for term, parameters in terms.items())
    recipe = Recipe(
        name=name,
        forward_mode=ForwardMode(forward_mode),
        terms=weighted,
        citation="composed from loss terms; no published method",
        summary=" + ".join(terms),
    )
    recipe.check_mode()
    return recipe


def parse_terms(lines: Sequence[str]) -> dict[str, dict[str, object]]:
    """The table of :func:`compose` from lines such as ``attention_transfer weight=0.5 beta=500``; SNX344 for another form."""
    table: dict[str, dict[str, object]] = {}
    for line in lines:
        name, *settings = line.split() or [""]
        pairs = [setting.partition("=") for setting in settings]
        twice = len({key for key, _, _ in pairs}) < len(pairs)
        whole = all(key and sign and value for key, sign, value in pairs)
        if not name or "=" in name or name in table or twice or not whole:
            raise UserError(
                "SNX344", f"'{line}' is no line of a recipe", where="training.terms",
                why="a line is the name of a term, once, and then PARAMETER=VALUE, each once, for what is not as published",
                fix="for instance 'cross_entropy' and 'knowledge_distillation weight=0.3 tau=3'",
            )  # fmt: skip
        table[name] = {key: _value(value) for key, _, value in pairs}
    if not table:
        raise UserError(
            "SNX344", "a composed recipe without terms", where="training.terms", why="the loss is the sum of its terms",
            fix='for instance terms = ["cross_entropy", "knowledge_distillation weight=0.3 tau=3"]',
        )  # fmt: skip
    return table


def _value(text: str) -> object:
    """A number or a truth value where the text is one."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) else text


def parameters_of(term: type[LossTerm]) -> dict[str, Any]:
    """Parameters of a term beside the weight, with their types."""
    hints = get_type_hints(term)
    return {item.name: hints[item.name] for item in _fields(term)}


def published_parameters(term: type[LossTerm]) -> dict[str, Any]:
    """The values that the parameters of a term have where nothing is said; those that must be said are not among them."""
    made = {item.name: item.default_factory() for item in _fields(term) if item.default_factory is not MISSING}
    return {**{item.name: item.default for item in _fields(term) if item.default is not MISSING}, **made}


def required_parameters(term: type[LossTerm]) -> tuple[str, ...]:
    """Parameters of a term that have no value where nothing is said."""
    return tuple(name for name in parameters_of(term) if name not in published_parameters(term))


def _fields(term: type[LossTerm]) -> list[Field[Any]]:
    return [item for item in fields(term) if item.init]  # type: ignore[arg-type]  # every term is a dataclass


def _weighted(name: str, parameters: Mapping[str, object]) -> WeightedTerm:
    term = load_term(name)
    types_of = parameters_of(term)
    given = {key: _converted(value, types_of[key]) for key, value in parameters.items() if key != WEIGHT}
    weight = parameters.get(WEIGHT, 1.0)
    try:
        made = term(**given)
    except UserError:
        raise
    except Exception as error:  # a third party may refuse a value in any way
        raise UserError(
            "SNX345", f"the loss term '{name}' cannot be made with {given}", where=f"terms.{name}",
            why=f"{type(error).__name__}: {error}",
            fix="leave out what is not needed, or ask the package that the term comes from",
        ) from error  # fmt: skip
    return WeightedTerm(made, float(weight) if isinstance(weight, (int, float)) else 1.0)


def _findings(forward_mode: str, terms: Mapping[str, object]) -> Iterator[Diagnostic]:
    """What is wrong with a table, all of it. It comes from a file: its entries may be anything."""
    modes = [str(mode) for mode in ForwardMode]
    if forward_mode not in modes:
        yield Diagnostic(
            "SNX344", f"there is no forward mode {forward_mode!r}", where="forward_mode",
            why="gradients go through time (bptt) or through rates (rate)", fix=suggestion(str(forward_mode), modes),
        )  # fmt: skip
    if not terms:
        yield Diagnostic(
            "SNX344", "the recipe has no loss terms", where="terms", why="there is nothing to train for",
            fix="begin with cross_entropy = {}",
        )  # fmt: skip
    for name, parameters in terms.items():
        if unknown := diagnostics_of(partial(load_term, name)):
            yield from unknown
        elif not isinstance(parameters, Mapping):
            yield _wrong(name, f"{parameters!r} is no table", f"write {name} = {{weight = 1.0}}")
        else:
            yield from _parameter_findings(name, parameters)


def _parameter_findings(name: str, parameters: Mapping[str, object]) -> Iterator[Diagnostic]:
    term = load_term(name)
    known = {WEIGHT: float, **parameters_of(term)}
    for key in required_parameters(term):
        if key not in parameters:
            yield _wrong(f"{name}.{key}", f"it has no {key}", f"say {key}: the term has no value of its own for it")
    for key, value in parameters.items():
        if key not in known:
            yield _wrong(f"{name}.{key}", f"the term has no parameter '{key}'", suggestion(key, known))
        elif not _fits(value, known[key]):
            kind = getattr(known[key], "__name__", str(known[key]))
            yield _wrong(f"{name}.{key}", f"{value!r} is no {kind}", f"give a value of type {kind}")
        elif key == WEIGHT and not (math.isfinite(float(str(value))) and float(str(value)) >= 0):
            yield _wrong(f"{name}.{key}", f"the weight is {value}", "give a finite number such as 1.0, not below 0")


def _wrong(where: str, what: str, fix: str) -> Diagnostic:
    return Diagnostic(
        "SNX344", f"the loss term '{where.split('.', maxsplit=1)[0]}' cannot be made: {what}", where=f"terms.{where}",
        why="a term takes a weight and its own parameters", fix=fix,
    )  # fmt: skip


def _fits(value: object, kind: Any) -> bool:
    """Whether ``value`` may stand where ``kind`` is annotated; whole numbers are numbers, truth values are not."""
    if get_origin(kind) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(kind))
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, float) or (isinstance(value, int) and -LARGEST <= value <= LARGEST)
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    plain = get_origin(kind) or kind
    try:
        return isinstance(value, plain) if isinstance(plain, type) else True
    except TypeError:  # Any, and protocols, are types that nothing can be asked of
        return True


def _converted(value: object, kind: Any) -> object:
    """A whole number as a float where that is what the term holds: its ``repr`` is part of a fingerprint."""
    return float(value) if kind is float and isinstance(value, int) else value
