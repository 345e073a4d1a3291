"""The mesh: where routers lie, how far apart they are, and which links a spike takes.

Cores share routers; routers form a grid, chips a grid of such grids. A spike goes along its row first, then along its column
(dimension order). A hop between neighbouring routers counts 1, one between chips ``interchip``; cores of one router are no hop
apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from snn_export.hardware_sims.chips.chip_table import MeshTable

Counts = NDArray[np.int64]

PORT_TOLD = "the host's port is at the first router of the first chip"
"""Where :attr:`Mesh.port` is, in words."""


@dataclass(frozen=True)
class Mesh:
    """Slots for cores, numbered chip by chip, row by row, router by router.

    Attributes:
        rows, columns: routers of one chip.
        cores_per_router: slots at each.
        chip_rows, chip_columns: chips.
        interchip: hops that a hop between two chips counts.
    """

    rows: int
    columns: int
    cores_per_router: int
    chip_rows: int = 1
    chip_columns: int = 1
    interchip: int = 1

    @property
    def chips(self) -> int:
        """Chips."""
        return self.chip_rows * self.chip_columns

    @property
    def cores_per_chip(self) -> int:
        """Slots of one chip."""
        return self.rows * self.columns * self.cores_per_router

    @property
    def slots(self) -> int:
        """Cores that it has room for."""
        return self.chips * self.cores_per_chip

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of routers over all chips."""
        return self.chip_rows * self.rows, self.chip_columns * self.columns

    @property
    def port(self) -> int:
        """Router of the host's port, as row * columns + column over all chips."""
        return 0

    def routers(self) -> tuple[Counts, Counts]:
        """(slots,): row and column, over all chips, of the router of every slot."""
        slot = np.arange(self.slots)
        router, per_chip = slot // self.cores_per_router, self.rows * self.columns
        chip, local = router // per_chip, router % per_chip
        row = chip // self.chip_columns * self.rows + local // self.columns
        return row, chip % self.chip_columns * self.columns + local % self.columns

    def router_of(self) -> Counts:
        """(slots,): the router of every slot, as row * columns + column over all chips."""
        row, column = self.routers()
        return np.asarray(row * self.shape[1] + column, np.int64)

    def hops(self, begin: Counts, end: Counts) -> tuple[Counts, Counts, Counts]:
        """Hops between routers along rows of a chip, along columns of one, and from chip to chip.

        Args:
            begin: routers, as row * columns + column over all chips; any shape.
            end: of a shape that goes with it.
        """
        (row, column), (to_row, to_column) = np.divmod(begin, self.shape[1]), np.divmod(end, self.shape[1])
        across_columns = np.abs(column // self.columns - to_column // self.columns)
        across_rows = np.abs(row // self.rows - to_row // self.rows)
        east_west, north_south = np.abs(column - to_column) - across_columns, np.abs(row - to_row) - across_rows
        return east_west, north_south, across_columns + across_rows

    def weighted(self, east_west: Counts, north_south: Counts, between: Counts) -> Counts:
        """All of these hops, those between chips weighted."""
        return np.asarray(east_west + north_south + self.interchip * between, np.int64)

    def distances(self) -> Counts:
        """(slots, slots): hops between cores, those between chips weighted."""
        routers, of_slot = np.arange(self.shape[0] * self.shape[1]), self.router_of()
        return self.weighted(*self.hops(routers[:, None], routers))[np.ix_(of_slot, of_slot)]

    def from_port(self) -> Counts:
        """(slots,): hops between each core and the host's port."""
        return self.weighted(*self.hops(np.asarray(self.port, np.int64), self.router_of()))


def mesh_of(table: MeshTable, cores: int, interchip: int) -> Mesh:
    """The mesh with room for this many cores: as few chips as hold them, in the rectangle that is nearest to a square."""
    chips = table.chips_for(cores)
    rows = next(n for n in range(isqrt(chips), 0, -1) if chips % n == 0)
    return Mesh(table.rows, table.columns, table.cores_per_router, rows, chips // rows, interchip)


@dataclass(frozen=True, eq=False)
class Links:
    """Packets over the links between neighbouring routers.

    east, west: (rows, columns - 1), at [r, c] over the link between columns c and c + 1 of row r.
    south, north: (rows - 1, columns), at [r, c] over the link between rows r and r + 1 of column c.
    """

    east: Counts
    west: Counts
    south: Counts
    north: Counts


def links(mesh: Mesh, begin: Counts, end: Counts, packets: Counts) -> Links:
    """Traffic of packets between routers.

    Args:
        mesh: the routers.
        begin: (n,), router of one end, as row * columns + column over all chips.
        end: (n,), router of the other.
        packets: (n,), between these two.
    """
    rows, columns = mesh.shape
    (row, column), (to_row, to_column) = np.divmod(begin, columns), np.divmod(end, columns)
    east, west = _passing(row, column, to_column, packets, (rows, columns))
    south, north = _passing(to_column, row, to_row, packets, (columns, rows))
    return Links(east, west, south.T.copy(), north.T.copy())


def _passing(line: Counts, start: Counts, stop: Counts, packets: Counts, shape: tuple[int, int]) -> tuple[Counts, Counts]:
    """(lines, positions - 1): packets that pass from a position to the next one upwards, and downwards."""
    found = []
    for low, high, moving in ((start, stop, stop > start), (stop, start, stop < start)):
        begun = np.zeros(shape, np.int64)
        np.add.at(begun, (line[moving], low[moving]), packets[moving])
        np.add.at(begun, (line[moving], high[moving]), -packets[moving])
        found.append(begun.cumsum(axis=1)[:, :-1])
    return found[0], found[1]
