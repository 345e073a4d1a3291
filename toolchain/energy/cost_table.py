"""Cost tables: what an operation costs, and where that figure comes from. One TOML file per chip or process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from snn_export.hardware_sims.chips.chip_table import chip_names
from snn_export.models import toml_text, validation
from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion
from snn_export.text_safety import printable

Basis = Literal["measured", "declared"]
Kind = Literal["chip", "process", "comparison"]

CHIP_OPERATIONS = MappingProxyType(
    {
        "synaptic_operation": "one synapse served by one binary spike",
        "neuron_update_active": "one step of a neuron that spikes",
        "neuron_update_inactive": "one step of a neuron that does not spike",
        "spike_message": "one spike carried within a tile",
        "hop_east_west": "one spike over one tile boundary along a row",
        "hop_north_south": "one spike over one tile boundary along a column",
        "hop_between_chips": "one spike from a chip to the next",
        "graded_operation": "one synapse served by one graded value",
        "input_message": "one input value or spike brought into the chip",
        "readout_value": "one value read by the host",
    }
)
"""What a chip's table may price. An operation that it does not mention is counted and shown without a figure."""
CHIP_TIMES = ("synaptic_operation", "neuron_update_active", "neuron_update_inactive", "barrier")
"""What a latency needs."""
ONE_TILE = "barrier_one_tile"
"""The barrier where a single tile is used; with it ``barrier`` is that of a whole chip, and what lies between is interpolated."""
TITLES = MappingProxyType({"loihi1": "Loihi 1", "loihi2": "Loihi 2"})
"""What chips are called in sentences; another one by its name."""
LARGEST = 1e12
"""Of a coefficient: a joule, or a quarter of an hour. Products with counts stay finite."""
PROCESS_OPERATIONS = (
    "fp32_add", "fp32_multiply", "int8_add", "int8_multiply", "int32_add", "int32_multiply", "cache_8_kib_64_bit",
)  # fmt: skip


class Coefficient(BaseModel):
    """Energy of one operation in pJ, or its time in ns, with everything a reader needs to doubt it.

    Attributes:
        value, low, high: low <= value <= high.
        unit: pJ for energies, ns for times.
        node: process node.
        source, doi, year: publication; doi is "" where there is none.
        includes: what one such operation is, and what it is not.
        basis: measured on silicon, or declared by its authors (simulation, estimate).
        certainty: how far the figure can be trusted.
        range: what low and high stand for, or "no published range".
        range_source: publication of the range, "" where there is no range.
        title: what is named by it where the key is no operation but a chip; "": the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    value: float = Field(ge=0, le=LARGEST, allow_inf_nan=False)
    low: float = Field(ge=0, le=LARGEST, allow_inf_nan=False)
    high: float = Field(ge=0, le=LARGEST, allow_inf_nan=False)
    unit: Literal["pJ", "ns"]
    node: str = Field(min_length=1)
    source: str = Field(min_length=1)
    doi: str
    year: int = Field(ge=1950)
    includes: str = Field(min_length=1)
    basis: Basis
    certainty: str = Field(min_length=1)
    range: str = Field(min_length=1)
    range_source: str
    title: str = ""

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

    @property
    def told(self) -> str:
        """Value, unit and range in words, e.g. ``23.6 pJ (23.6 to 35.5)``."""
        spread = f" ({self.low:g} to {self.high:g})" if self.low < self.high else ""
        return f"{self.value:g} {self.unit}{spread}"


class CostTable(BaseModel):
    """Coefficients by operation. What ``no_figure`` names has none, with the reason: it is counted, never charged.

    Attributes:
        name, title: as it is asked for, and as it is called in a report.
        kind: "chip" prices the operations of :data:`CHIP_OPERATIONS`, "process" those of an ordinary accelerator, "comparison" a
            synaptic operation on several chips.
        chip: name of the chip table that its hops and times belong to; "" where it has neither.
        limits: what the figures leave out, in sentences.
        coefficients: energies by operation, or by chip in a comparison.
        times: times by operation; a latency is estimated only where all of :data:`CHIP_TIMES` are there.
        digest: SHA-256 of the file; not a field of it.
        file: name of the file, "" for a table that comes with the program; not a field of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1)
    title: str = Field(min_length=1)
    kind: Kind = "chip"
    chip: str = ""
    limits: tuple[str, ...] = ()
    no_figure: dict[str, str] = Field(default_factory=dict)
    coefficients: dict[str, Coefficient]
    times: dict[str, Coefficient] = Field(default_factory=dict)
    digest: str = ""
    file: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> CostTable:
        both = sorted(set(self.no_figure) & set(self.coefficients))
        if both:
            raise ValueError(f"{both[0]} has a coefficient and is listed under no_figure")
        known: dict[Kind, tuple[str, ...]] = {"chip": tuple(CHIP_OPERATIONS), "process": PROCESS_OPERATIONS, "comparison": ()}
        if self.kind != "comparison":
            _only_known("coefficients", self.coefficients, known[self.kind])
            _only_known("no_figure", self.no_figure, known[self.kind])
        _only_known("times", self.times, (*CHIP_TIMES, ONE_TILE) if self.kind == "chip" else ())
        for table, unit in ((self.coefficients, "pJ"), (self.times, "ns")):
            wrong = [name for name, item in table.items() if item.unit != unit]
            if wrong:
                raise ValueError(f"{wrong[0]} is given in {table[wrong[0]].unit}; it must be in {unit}")
        return self

    @property
    def process(self) -> str:
        """Process node of the energies, all of them where there are several."""
        return ", ".join(dict.fromkeys(item.node for item in self.coefficients.values()))

    @property
    def shipped(self) -> bool:
        """Whether it is one of the tables that come with the program, to the byte."""
        return any(self.digest == load_table(name).digest for name in table_names())

    @property
    def told(self) -> str:
        """Its name, and that of its file where it is the user's."""
        return f"{self.name} (file {self.file})" if self.file else self.name

    def reason(self, operation: str) -> str:
        """Why an operation has no figure."""
        return self.no_figure.get(operation, f"the table {self.told} has no figure for it")


def _only_known(where: str, given: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"{where}.{unknown[0]} is no operation that is counted; {suggestion(unknown[0], known)}")


def table_names(kind: Kind | None = None) -> tuple[str, ...]:
    """Names of the tables that come with the program, sorted; of one kind, or all."""
    folder = files("snn_export.energy") / "tables"
    names = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return tuple(name for name in names if kind is None or load_table(name).kind == kind)


@lru_cache
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
            fix=f"{suggestion(name, table_names('chip'))}; or name a file of your own: energy.table = \"my.toml\"",
        )  # fmt: skip
    return _parse((files("snn_export.energy") / "tables" / f"{name}.toml").read_bytes(), f"{name}.toml")


def read_table(path: str | os.PathLike[str]) -> CostTable:
    """A table of your own, from a TOML file with the fields of :class:`CostTable`.

    Raises:
        UserError: SNX323 for a file that is missing, is no TOML, lacks a field, or bears the name of another table.
    """
    file = Path(path)
    try:
        found = _parse(toml_text.content(file), file.name)
    except toml_text.UnreadableTomlError as error:
        raise _unusable(file.name, str(error)) from error
    if found.shipped:
        return found
    if found.name.lower() in table_names():
        raise UserError(
            "SNX323", f"the cost table cannot be used: {found.name} is the name of a table that comes with the program",
            where=f"{file.name}: name", why="its figures are not that table's, and a report would show them under its name",
            fix=f'give it a name and a title of its own, e.g. name = "my-{found.name}"',
        )  # fmt: skip
    return found.model_copy(update={"file": file.name})


def is_file(table: str) -> bool:
    """Whether a setting names a file, and not a table that comes with the program."""
    return table.endswith(".toml")


def find_table(table: str, base: Path) -> CostTable:
    """The chip's table that a setting names: one that comes with the program, or a file, relative to ``base``.

    Raises:
        UserError: SNX322, SNX323 as :func:`load_table` and :func:`read_table`; SNX323 for a chip that is not known; SNX470 for a
            table of another kind.
    """
    found = read_table(base / Path(table).expanduser()) if is_file(table) else load_table(table)
    if found.kind != "chip":
        raise UserError(
            "SNX470", f"the table {found.name} prices no chip", where="energy.table",
            why={"process": "it holds the arithmetic of an ordinary accelerator: the baselines are charged with it",
                 "comparison": "it holds one figure for each of several chips, for a comparison only"}[found.kind],
            fix=f"choose one of {', '.join(table_names('chip'))}, or a file of your own with kind = \"chip\"",
        )  # fmt: skip
    if found.chip and found.chip not in chip_names():
        raise UserError(
            "SNX323", f"the cost table cannot be used: there is no chip called '{found.chip}'", where=f"{found.name}: chip",
            why="hops and times of a table belong to a chip that networks are placed on",
            fix=f"{suggestion(found.chip, chip_names())}; or leave chip out where the table prices neither hops nor times",
        )  # fmt: skip
    return found


def told(table: str) -> str:
    """A setting for a report: of a file its name, without where on this machine it lies."""
    return Path(table).name if is_file(table) else table


def _parse(content: bytes, where: str) -> CostTable:
    try:
        fields = toml_text.parsed(content)
        for name in ("digest", "file"):
            if name in fields:
                raise _unusable(where, f"{name}: it is worked out from the file and cannot stand in it")
        steering = next((path for path, text in _texts(fields) if "\n" in text or printable(text) != text), None)
        if steering is not None:
            raise _unusable(where, f"{steering}: it holds line breaks or control characters, which could steer a terminal")
        return CostTable.model_validate({**fields, "digest": hashlib.sha256(content).hexdigest()})
    except toml_text.UnreadableTomlError as error:
        raise _unusable(where, str(error)) from error
    except ValidationError as error:
        raise _unusable(where, validation.told(error, "table")) from error


def _texts(node: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a file, keys included, with its path."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield "a key", key
            yield from _texts(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, path)


def _unusable(where: str, what: str) -> UserError:
    return UserError(
        "SNX323", f"the cost table cannot be used: {what}", where=where,
        why="a figure without range, unit, source and what it includes would be a number nobody can check",
        fix="give every coefficient the fields of the tables that come with the program; `snn-export explain SNX323` shows one",
    )  # fmt: skip
