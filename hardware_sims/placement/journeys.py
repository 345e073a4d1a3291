"""How far packets travel on a placement, and over which links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snn_export.hardware_sims.placement.mesh import Mesh, links
from snn_export.hardware_sims.placement.traffic import Traffic

Counts = NDArray[np.int64]

TO_HOST = "to the host"
"""The messages of the readout, beside the sources of packets."""


@dataclass(frozen=True)
class Journeys:
    """Where the packets of one source go, per inference.

    Attributes:
        packets: all, those to their own core included.
        within_router: packets that stay at their router: to their own core, or to one that shares it.
        east_west, north_south: hops along rows and columns of a chip.
        between_chips: hops from a chip to the next.
        spike_hops: all hops, those between chips weighted.
    """

    packets: float
    within_router: float
    east_west: float
    north_south: float
    between_chips: float
    spike_hops: float


@dataclass(frozen=True)
class Link:
    """Packets per inference from a router to its neighbour; rows and columns over all chips."""

    row: int
    column: int
    to_row: int
    to_column: int
    packets: float
    between_chips: bool


def _flows(traffic: Traffic, mesh: Mesh, slots: Counts) -> Iterator[tuple[str, Counts, Counts, Counts]]:
    """By source: routers of both ends (row * columns + column over all chips) and packets; the host's messages last."""
    router = mesh.router_of()[slots]
    port = np.full(len(slots), mesh.port, np.int64)
    for name, found in traffic.between.items():
        begin, end = np.nonzero(found)
        yield name, router[begin], router[end], found[begin, end]
    for name, arriving in traffic.from_host.items():
        yield name, port, router, arriving
    leaving = np.asarray(sum(traffic.to_host.values()), np.int64) + np.zeros(len(slots), np.int64)
    yield TO_HOST, router, port, leaving


def journeys_of(traffic: Traffic, mesh: Mesh, slots: Counts) -> Mapping[str, Journeys]:
    """By source of packets: populations sources first, the input node, always-on sources, and :data:`TO_HOST`.

    Args:
        traffic: packets between cores.
        mesh: the routers.
        slots: (cores,).
    """
    return {
        name: _journeys(mesh, begin, end, packets, traffic.unit) for name, begin, end, packets in _flows(traffic, mesh, slots)
    }


def _journeys(mesh: Mesh, begin: Counts, end: Counts, packets: Counts, unit: int) -> Journeys:
    east_west, north_south, between = mesh.hops(begin, end)
    weighted = mesh.weighted(east_west, north_south, between)

    def total(hops: Counts) -> float:
        return int((packets * hops).sum()) / unit

    near = (begin == end).astype(np.int64)
    return Journeys(*map(total, (np.ones_like(packets), near, east_west, north_south, between, weighted)))


def links_of(traffic: Traffic, mesh: Mesh, slots: Counts) -> tuple[Link, ...]:
    """Links that carry packets, row by row: those along rows first, then those along columns. Arguments as for the journeys."""
    flows = list(_flows(traffic, mesh, slots))
    found = links(mesh, *(np.concatenate([flow[part] for flow in flows]) for part in (1, 2, 3)))
    result = []
    for packets, (down, right), reverse in (
        (found.east, (0, 1), False), (found.west, (0, 1), True), (found.south, (1, 0), False), (found.north, (1, 0), True),
    ):  # fmt: skip
        for row, column in zip(*np.nonzero(packets), strict=True):
            ends = [(int(row), int(column)), (int(row) + down, int(column) + right)]
            begin, end = ends[::-1] if reverse else ends
            routers = np.array([np.ravel_multi_index(at, mesh.shape) for at in (begin, end)], np.int64)
            _, _, between = mesh.hops(routers[:1], routers[1:])
            result.append(Link(*begin, *end, int(packets[row, column]) / traffic.unit, bool(between.any())))
    return tuple(result)
