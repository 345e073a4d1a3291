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
    def slots(self) -> int:
        """Cores that it has room for."""
        return self.chips * self.rows * self.columns * self.cores_per_router

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of routers over all chips."""
        return self.chip_rows * self.rows, self.chip_columns * self.columns

    def routers(self) -> tuple[Counts, Counts]:
        """(slots,): row and column, over all chips, of the router of every slot."""
        slot = np.arange(self.slots)
        router, per_chip = slot // self.cores_per_router, self.rows * self.columns
        chip, local = router // per_chip, router % per_chip
        row = chip // self.chip_columns * self.rows + local // self.columns
        return row, chip % self.chip_columns * self.columns + local % self.columns

    def distances(self) -> Counts:
        """(slots, slots): hops between cores, those between chips weighted."""
        row, column = self.routers()
        y, x = self._stretched(row, self.rows), self._stretched(column, self.columns)
        return np.asarray(np.abs(y[:, None] - y) + np.abs(x[:, None] - x), np.int64)

    def from_port(self) -> Counts:
        """(slots,): hops between each core and the host's port, which is at the first router of the first chip."""
        row, column = self.routers()
        return self._stretched(row, self.rows) + self._stretched(column, self.columns)

    def _stretched(self, position: Counts, per_chip: int) -> Counts:
        """Positions along an axis where the way across a border counts ``interchip``."""
        return np.asarray(position + position // per_chip * (self.interchip - 1), np.int64)


def mesh_of(table: MeshTable, cores: int, interchip: int) -> Mesh:
    """The mesh with room for this many cores: as few chips as hold them, in the rectangle that is nearest to a square."""
    chips = max(1, -(-cores // table.cores))
    rows = next(n for n in range(isqrt(chips), 0, -1) if chips % n == 0)
    return Mesh(table.rows, table.columns, table.cores_per_router, rows, chips // rows, interchip)


@dataclass(frozen=True, eq=False)
class Links:
    """Traffic over the links between neighbouring routers.

    east, west: (rows, columns - 1), at [r, c] over the link between columns c and c + 1 of row r.
    south, north: (rows - 1, columns), at [r, c] over the link between rows r and r + 1 of column c.
    """

    east: Counts
    west: Counts
    south: Counts
    north: Counts


def links(mesh: Mesh, begin: Counts, end: Counts, spikes: Counts) -> Links:
    """Traffic of spikes between slots.

    Args:
        mesh: the routers.
        begin: (n,), router of one end, as row * columns + column over all chips.
        end: (n,), router of the other.
        spikes: (n,).
    """
    rows, columns = mesh.shape
    (row, column), (to_row, to_column) = np.divmod(begin, columns), np.divmod(end, columns)
    east, west = _passing(row, column, to_column, spikes, (rows, columns))
    south, north = _passing(to_column, row, to_row, spikes, (columns, rows))
    return Links(east, west, south.T.copy(), north.T.copy())


def _passing(line: Counts, start: Counts, stop: Counts, spikes: Counts, shape: tuple[int, int]) -> tuple[Counts, Counts]:
    """(lines, positions - 1): spikes that pass from a position to the next one upwards, and downwards."""
    found = []
    for low, high, moving in ((start, stop, stop > start), (stop, start, stop < start)):
        begun = np.zeros(shape, np.int64)
        np.add.at(begun, (line[moving], low[moving]), spikes[moving])
        np.add.at(begun, (line[moving], high[moving]), -spikes[moving])
        found.append(begun.cumsum(axis=1)[:, :-1])
    return found[0], found[1]
