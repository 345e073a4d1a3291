"""Chip tables: what a core of a chip holds, how its cores lie, and where each figure comes from. One TOML file per chip.

What weights, thresholds and states may be stands in :mod:`snn_export.export.chips`, which takes it from the code that applies it.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from snn_export.hardware_sims.chips.core_resources import RESOURCES
from snn_export.models import toml_text, validation
from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion

Certainty = Literal["published", "measured", "reported", "model"]
"""published: by the maker; measured: on the chip by somebody else; reported: in a package or the press; model: assumed here."""
Encoding = Literal["sparse", "dense", "shared"]


class Sourced(BaseModel):
    """Something that a reader may want to doubt.

    Attributes:
        source, doi, url: where it stands; "" for no DOI or address.
        year: of the source.
        certainty: see :data:`Certainty`.
        note: what else is to be known; "" for nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    source: str = Field(min_length=1)
    doi: str = ""
    url: str = ""
    year: int = Field(ge=1950)
    certainty: Certainty
    note: str = ""

    @property
    def citation(self) -> str:
        """Source, DOI or address, year and certainty, for one cell of a report."""
        return f"{self.reference} ({self.year}, {self.certainty})"

    @property
    def reference(self) -> str:
        """Source, DOI or address."""
        return self.source + (f", doi:{self.doi}" if self.doi else f", {self.url}" if self.url else "")


class Limit(Sourced):
    """One limit. ``value``: the largest amount, or one per core, or the values allowed; ``unit`` says of what."""

    value: int | tuple[int, ...]
    unit: str = Field(min_length=1)

    @model_validator(mode="after")
    def _positive(self) -> Limit:
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        if not values or min(values) < 1:
            raise ValueError("a limit is a positive number, or several")
        return self


class MeshTable(Sourced):
    """Routers of one chip, and how many cores share one."""

    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    cores_per_router: int = Field(ge=1)

    @property
    def cores(self) -> int:
        """Cores of the chip."""
        return self.rows * self.columns * self.cores_per_router

    def chips_for(self, cores: int) -> int:
        """The fewest chips, one at least, that have so many cores."""
        return max(1, -(-cores // self.cores))


class SynapseTable(Sourced):
    """How synapses and neurons take memory.

    A list of n entries of e bits takes, per block of ``block_entries`` (0: one block), n e + ``block_header`` bits, rounded up to
    words of ``word`` bits.

    Attributes:
        encodings: what a list may be. sparse: a weight and an index per synapse. dense: a weight for every neuron of the part.
            shared: a convolution's lists serve all axons that reach the same kernel positions.
        weight_fields, index_fields: widths that exist; the narrowest one that holds the value is taken.
        delay_field: widest delay, in bits; lists without delays have none.
        base_reach: offsets between neurons that axons may share a list over; 0 for all.
        kernel_once: shared lists are the kernel itself, stored once per core and part.
        neuron_state: bits per neuron that lie in the same memory.
    """

    encodings: tuple[Encoding, ...] = Field(min_length=1)
    weight_fields: tuple[int, ...] = Field(min_length=1)
    index_fields: tuple[int, ...] = Field(min_length=1)
    delay_field: int = Field(ge=0)
    block_entries: int = Field(ge=0)
    block_header: int = Field(ge=0)
    word: int = Field(ge=1)
    base_reach: int = Field(ge=0)
    kernel_once: bool
    neuron_state: int = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> SynapseTable:
        if "sparse" not in self.encodings:
            raise ValueError("sparse lists are what every connection can take, so encodings must name them")
        if list(self.weight_fields) != sorted(self.weight_fields) or list(self.index_fields) != sorted(self.index_fields):
            raise ValueError("weight_fields and index_fields are in ascending order")
        return self


class ChipTable(BaseModel):
    """A chip as data.

    Attributes:
        name, title: as it is asked for, and as it is called.
        limits: by name. Those that :data:`snn_export.hardware_sims.chips.core_resources.RESOURCES` names are held by a
            placement, the others are facts.
        not_published: what has no published limit, with the reason: a placement does not check it and says so.
        covered: what needs no limit of its own, with the reason.
        mesh, synapses: None where the chip has limits only and no placement is made for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1)
    title: str = Field(min_length=1)
    limits: dict[str, Limit]
    not_published: dict[str, str] = Field(default_factory=dict)
    covered: dict[str, str] = Field(default_factory=dict)
    mesh: MeshTable | None = None
    synapses: SynapseTable | None = None

    @model_validator(mode="after")
    def _complete(self) -> ChipTable:
        if (self.mesh is None) != (self.synapses is None):
            raise ValueError("a chip that networks are placed on has both a mesh and synapses")
        if self.mesh is None:
            return self
        for resource in RESOURCES:
            stated = [table for table in (self.limits, self.not_published, self.covered) if resource in table]
            if len(stated) != 1:
                raise ValueError(f"{resource} stands in {len(stated)} of limits, not_published and covered; it must stand in one")
        several = [name for name in RESOURCES if name in self.limits and not isinstance(self.limits[name].value, int)]
        if several:
            raise ValueError(f"{several[0]} must have one value for all cores")
        if "neurons" not in self.limits:
            raise ValueError("neurons must have a limit: a placement counts cores by it")
        if self.synapses and (self.capacities["neurons"] - 1).bit_length() > max(self.synapses.index_fields):
            raise ValueError("index_fields do not reach every neuron of a core")
        return self

    @property
    def capacities(self) -> dict[str, int]:
        """Largest amount per core of every resource that has a limit, in the order of :data:`RESOURCES`."""
        return {name: value for name in RESOURCES if name in self.limits and isinstance(value := self.limits[name].value, int)}


def chip_names() -> tuple[str, ...]:
    """Names of the chips that come with the program, sorted."""
    folder = files("snn_export.hardware_sims.chips")
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_chip(name: str) -> ChipTable:
    """A chip that comes with the program.

    Raises:
        UserError: SNX450 for an unknown name.
    """
    known = chip_names()
    if name not in known:
        raise UserError(
            "SNX450", f"there is no chip called '{name}'", where="chip",
            why="limits, mesh and memory of a chip are data, one file per chip", fix=suggestion(name, known),
        )  # fmt: skip
    return _parse((files("snn_export.hardware_sims.chips") / f"{name}.toml").read_bytes(), Path(f"{name}.toml"))


def read_chip(path: str | os.PathLike[str]) -> ChipTable:
    """A chip of your own, from a TOML file with the fields of :class:`ChipTable`.

    Raises:
        UserError: SNX451 for a file that is missing, is no TOML, lacks a field, or is called otherwise than its chip.
    """
    file = Path(path)
    try:
        return _parse(toml_text.content(file), file)
    except toml_text.UnreadableTomlError as error:
        raise _unusable(file.name, str(error)) from error


def _parse(content: bytes, file: Path) -> ChipTable:
    try:
        found = ChipTable.model_validate(toml_text.parsed(content))
    except toml_text.UnreadableTomlError as error:
        raise _unusable(file.name, str(error)) from error
    except ValidationError as error:
        raise _unusable(file.name, validation.told(error, "chip")) from error
    if found.name != file.stem:  # a copy that keeps its name would be taken for the chip it was copied from
        raise _unusable(file.name, f'name = "{found.name}" is not the name of its file, "{file.stem}"')
    return found


def _unusable(where: str, what: str) -> UserError:
    return UserError(
        "SNX451", f"the chip table cannot be used: {what}", where=where,
        why="a limit without value, unit, source and year is a number nobody can check",
        fix="give the file the fields of the chips that come with the program; `snn-export explain SNX451` shows one",
    )  # fmt: skip
