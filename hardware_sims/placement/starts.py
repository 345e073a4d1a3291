"""Orders in which cores are laid on the mesh before they are improved.

Neighbours in the order of the layers exchange the most spikes, so the order is laid along curves whose neighbours are neighbours
on the mesh: rows to and fro, columns to and fro, and a Hilbert curve (Jin et al., Mapping very large scale spiking neuron network
to neuromorphic hardware, ASPLOS 2023, doi:10.1145/3582016.3582038, place so). The last start knows the traffic: cores and mesh
are halved together, again and again, each time so that little traffic crosses (Kernighan and Lin, An efficient heuristic
procedure for partitioning graphs, Bell System Technical Journal 49(2), 1970, as networkx has it).
"""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx
import numpy as np
from networkx.algorithms.community import kernighan_lin_bisection
from numpy.typing import NDArray

from snn_export.hardware_sims.placement.mesh import Mesh

Counts = NDArray[np.int64]
Router = tuple[int, int]

ITERATIONS = 10
"""Sweeps of one bisection."""


def starts(traffic: Counts, mesh: Mesh) -> Iterator[Counts]:
    """(cores,): the slot of every core, one array per start. traffic: (cores, cores), symmetric."""
    cores = len(traffic)
    yield np.arange(cores, dtype=np.int64)
    rows, columns = _compact(mesh, cores)
    by_row = [(r, c if r % 2 == 0 else columns - 1 - c) for r in range(rows) for c in range(columns)]
    by_column = [(r if c % 2 == 0 else rows - 1 - r, c) for c in range(columns) for r in range(rows)]
    for curve in (by_row, by_column, hilbert(rows, columns)):
        yield _along(curve, mesh)[:cores]
    yield _bisected(traffic, mesh, rows, columns)


def _compact(mesh: Mesh, cores: int) -> tuple[int, int]:
    """Rows and columns of the routers nearest to the port that have room for so many cores."""
    needed = -(-cores // mesh.cores_per_router)
    every = ((r, max(1, -(-needed // r))) for r in range(1, mesh.shape[0] + 1))
    return min((found for found in every if found[1] <= mesh.shape[1]), key=lambda found: (sum(found), found[0] * found[1]))


def _along(curve: list[Router], mesh: Mesh) -> Counts:
    """Slots in the order of their routers on a curve."""
    row, column = mesh.routers()
    order = np.full(mesh.shape, len(curve))
    for place, router in enumerate(curve):
        order[router] = place
    return np.argsort(order[row, column], kind="stable").astype(np.int64)


def hilbert(rows: int, columns: int) -> list[Router]:
    """A curve through all routers of a rectangle in steps between neighbours, some diagonal where a side is odd.

    The generalised Hilbert curve: a rectangle is halved along its longer side where it is long, else walked as a U of three.
    """
    found: list[Router] = []

    def _walk(at: Router, along: Router, across: Router) -> None:
        length, width = abs(sum(along)), abs(sum(across))
        step, side = (_sign(along[0]), _sign(along[1])), (_sign(across[0]), _sign(across[1]))
        if width == 1 or length == 1:
            move, count = (step, length) if width == 1 else (side, width)
            found.extend((at[0] + i * move[0], at[1] + i * move[1]) for i in range(count))
            return
        half, middle = (along[0] // 2, along[1] // 2), (across[0] // 2, across[1] // 2)
        if 2 * length > 3 * width:
            if abs(sum(half)) % 2 and length > 2:
                half = (half[0] + step[0], half[1] + step[1])
            _walk(at, half, across)
            _walk(_plus(at, half), _minus(along, half), across)
            return
        if abs(sum(middle)) % 2 and width > 2:
            middle = (middle[0] + side[0], middle[1] + side[1])
        _walk(at, middle, half)
        _walk(_plus(at, middle), along, _minus(across, middle))
        corner = (at[0] + along[0] - step[0] + middle[0] - side[0], at[1] + along[1] - step[1] + middle[1] - side[1])
        _walk(corner, (-middle[0], -middle[1]), _minus(half, along))

    if columns >= rows:
        _walk((0, 0), (0, columns), (rows, 0))
    else:
        _walk((0, 0), (rows, 0), (0, columns))
    return found


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _plus(a: Router, b: Router) -> Router:
    return a[0] + b[0], a[1] + b[1]


def _minus(a: Router, b: Router) -> Router:
    return a[0] - b[0], a[1] - b[1]


def _bisected(traffic: Counts, mesh: Mesh, rows: int, columns: int) -> Counts:
    """Slots of all cores after halving cores and mesh together."""
    row, column = mesh.routers()
    inside = np.flatnonzero((row < rows) & (column < columns))
    result = np.zeros(len(traffic), np.int64)
    waiting = [(np.arange(len(traffic)), inside)]
    while waiting:
        cores, slots = waiting.pop()
        heights, widths = np.unique(row[slots]), np.unique(column[slots])
        if len(heights) * len(widths) == 1 or len(cores) <= 1:
            result[cores] = slots[: len(cores)]
            continue
        tall = len(heights) > len(widths)
        first = row[slots] < heights[len(heights) // 2] if tall else column[slots] < widths[len(widths) // 2]
        near, far = slots[first], slots[~first]
        share = -(-len(cores) * len(near) // len(slots))
        part = _halved(traffic, cores, max(len(cores) - len(far), min(len(near), share)))
        waiting += [(cores[part], near), (cores[~part], far)]
    return result


def _halved(traffic: Counts, cores: Counts, size: int) -> NDArray[np.bool_]:
    """(cores,): True for the ``size`` cores of one half, chosen so that little traffic leaves it; those in front come first."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(cores)))
    inside = np.triu(traffic[np.ix_(cores, cores)], 1)
    begin, end = np.nonzero(inside)
    graph.add_weighted_edges_from(zip(begin.tolist(), end.tolist(), inside[begin, end].tolist(), strict=True))
    start = set(range(size)), set(range(size, len(cores)))
    halves = kernighan_lin_bisection(graph, start, max_iter=ITERATIONS, weight="weight") if all(start) else start
    chosen = min((half for half in halves if len(half) == size), key=sum)
    return np.isin(np.arange(len(cores)), list(chosen))
