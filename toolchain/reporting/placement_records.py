"""What a report says about where a network lies on a chip; part of :class:`snn_export.reporting.report.Report`."""

from __future__ import annotations

from pydantic import Field

from snn_export.reporting.record import Record


class PlacedLimit(Record):
    """One limit of a core, and how much of it is used, as a share: 0..1."""

    resource: str = Field(description="in words")
    explained: str = Field(default="", description="what one of them is, where the words do not say it")
    capacity: int
    unit: str
    source: str
    mean: float = Field(description="over the cores that are used")
    most: float = Field(description="of the fullest core")


class PlacedPart(Record):
    """Neurons of one population on one core."""

    layer: str
    neurons: int


class ReportedCore(Record):
    """One core: its router's place over all chips, and what is on it. fullest: share of the limit that is used most."""

    chip: int
    row: int
    column: int
    slot: int
    parts: tuple[PlacedPart, ...]
    fullest: float
    fullest_by: str


class ReportedLayer(Record):
    """One population: its cores, and the limit that keeps it from fewer."""

    layer: str
    cores: int
    neurons: int
    encodings: str = Field(description="how its synapses are stored, by weight layer")
    binding: str = Field(description="the limit, in words")
    needed: int = Field(description="what would have been needed of it with fewer cores, or is needed on its one core")
    capacity: int
    remedies: tuple[str, ...]


class MeshLink(Record):
    """Packets per inference from a router to its neighbour; rows and columns over all chips."""

    row: int
    column: int
    to_row: int
    to_column: int
    packets: float
    between_chips: bool


class PlacementReport(Record):
    """A network on a chip. All traffic is per inference, with the activity that was measured."""

    chip: str
    chip_title: str
    chips: int
    cores: int
    rows: int = Field(description="of routers, over all chips")
    columns: int
    cores_per_router: int
    chip_rows: int = Field(description="rows of routers of one chip")
    chip_columns: int
    limits: tuple[PlacedLimit, ...]
    layers: tuple[ReportedLayer, ...]
    placed: tuple[ReportedCore, ...]
    links: tuple[MeshLink, ...]
    spike_hops: float = Field(description="hops of all packets")
    naive_spike_hops: float = Field(description="with the same cores row by row in the order of the layers")
    unchecked: tuple[str, ...] = Field(description="limits that the chip has and nobody publishes, with the reason")
    assumptions: tuple[str, ...]
