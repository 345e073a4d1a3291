"""Cost tables: what an operation costs, and where that figure comes from. One TOML file per chip or process."""

from __future__ import annotations

import os
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion

Basis = Literal["measured", "declared"]


class Coefficient(BaseModel):
    """Energy of one operation, in pJ, with everything a reader needs to doubt it.

    Attributes:
        value, low, high: pJ; low <= value <= high.
        node: process node.
        source, doi, year: publication; doi is "" where there is none.
        includes: what one such operation is, and what it is not.
        basis: measured on silicon, or declared by its authors (simulation, estimate).
        certainty: how far the figure can be trusted.
        range: what low and high stand for, or "no published range".
        range_source: publication of the range, "" where there is no range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    value: float = Field(ge=0, allow_inf_nan=False)
    low: float = Field(ge=0, allow_inf_nan=False)
    high: float = Field(ge=0, allow_inf_nan=False)
    unit: Literal["pJ"]
    node: str = Field(min_length=1)
    source: str = Field(min_length=1)
    doi: str
    year: int = Field(ge=1950)
    includes: str = Field(min_length=1)
    basis: Basis
    certainty: str = Field(min_length=1)
    range: str = Field(min_length=1)
    range_source: str

    @model_validator(mode="after")
    def _ordered(self) -> Coefficient:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low <= value <= high does not hold: {self.low}, {self.value}, {self.high}")
        if self.low < self.high and not self.range_source:
            raise ValueError("a range needs a range_source")
        return self

    @property
    def citation(self) -> str:
        """Source, DOI and nature of the figure, and of its range where it has one, for one cell of a report."""
        doi = f", doi:{self.doi}" if self.doi else ""
        spread = f"; range from {self.range_source}" if self.range_source else f"; {self.range}"
        return f"{self.source}{doi} ({self.node}; {self.basis}: {self.certainty}){spread}"


class CostTable(BaseModel):
    """Coefficients by operation. What ``no_figure`` names has none, with the reason: it is counted, never charged.

    Operations of a chip: synaptic_operation, neuron_update_active, neuron_update_inactive, spike_message,
    graded_operation, input_message. An operation that a table does not mention at all has no figure either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1)
    title: str = Field(min_length=1)
    limits: tuple[str, ...] = ()
    no_figure: dict[str, str] = Field(default_factory=dict)
    coefficients: dict[str, Coefficient]

    @model_validator(mode="after")
    def _disjoint(self) -> CostTable:
        both = sorted(set(self.no_figure) & set(self.coefficients))
        if both:
            raise ValueError(f"{both[0]} has a coefficient and is listed under no_figure")
        return self

    def reason(self, operation: str) -> str:
        """Why an operation has no figure."""
        return self.no_figure.get(operation, f"the table {self.name} has no figure for it")


def table_names() -> tuple[str, ...]:
    """Names of the tables that come with the program, sorted."""
    folder = files("snn_export.energy") / "tables"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_table(name: str) -> CostTable:
    """A table that comes with the program.

    Raises:
        UserError: SNX322 for an unknown name.
    """
    known = table_names()
    if name not in known:
        raise UserError(
            "SNX322", f"there is no cost table called '{name}'", where="energy.table",
            why="energy is charged by published coefficients, one table per chip or process",
            fix=suggestion(name, known),
        )  # fmt: skip
    return _parse((files("snn_export.energy") / "tables" / f"{name}.toml").read_text("utf-8"), f"{name}.toml")


def read_table(path: str | os.PathLike[str]) -> CostTable:
    """A table of your own, from a TOML file with the fields of :class:`CostTable`.

    Raises:
        UserError: SNX323 for a file that is missing, is no TOML, or lacks a field.
    """
    file = Path(path)
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(file.name, str(error)) from error
    return _parse(text, file.name)


def _parse(text: str, where: str) -> CostTable:
    try:
        return CostTable.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise _unusable(where, str(error)) from error
    except ValidationError as error:
        lines = ("{}: {}".format(".".join(map(str, item["loc"])) or "table", item["msg"]) for item in error.errors())
        raise _unusable(where, "; ".join(lines)) from error


def _unusable(where: str, what: str) -> UserError:
    return UserError(
        "SNX323", f"the cost table cannot be used: {what}", where=where,
        why="a figure without range, unit, source and what it includes would be a number nobody can check",
        fix="give every coefficient the fields of the tables that come with the program; `snn-export explain SNX323` shows one",
    )  # fmt: skip
