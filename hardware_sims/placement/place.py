"""Cores on the mesh, so that spikes travel few hops.

    spike-hops = sum over pairs of cores of packets x hops  +  sum over cores of packets to and from the host x hops to the port

This is a quadratic assignment problem, which nobody solves exactly at this size. From each of several starts
(:mod:`snn_export.hardware_sims.placement.starts`) two cores are exchanged, or one is moved to an empty slot, as long as that
saves hops; the best result is then disturbed a given number of times, and kept where exchanges lead to a better one. All numbers
are integers, and the only random choice is drawn from a seed: the same traffic gives the same placement.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from snn_export.hardware_sims.placement.mesh import Mesh
from snn_export.hardware_sims.placement.starts import starts

Counts = NDArray[np.int64]

KICK = 3
"""Cores that are moved in a circle when a placement is disturbed."""


class _Arrangement:
    """Cores on slots, and what an exchange would save.

    traffic: (cores, cores), symmetric, nothing on the diagonal. host: (cores,). at: (slots,), the core there or -1. hops:
    (cores,), of each core's packets.
    """

    def __init__(self, traffic: Counts, host: Counts, distances: Counts, port: Counts, slots: Counts) -> None:
        self.traffic, self.host, self.distances, self.port = traffic, host, distances, port
        self.neighbours = [np.flatnonzero(row) for row in traffic]
        self.weights = [row[found] for row, found in zip(traffic, self.neighbours, strict=True)]
        self._sparse = sparse.csr_array(traffic)
        self.move_to(slots)

    def move_to(self, slots: Counts) -> None:
        """Put every core on the slot given."""
        self.slots = slots.copy()
        self.at = np.full(len(self.port), -1, np.int64)
        self.at[slots] = np.arange(len(slots))
        self.hops = np.array([self._of(core) for core in range(len(slots))], np.int64)

    def _of(self, core: int) -> int:
        """Hops of one core's packets."""
        hops = int(self.weights[core] @ self.distances[self.slots[core], self.slots[self.neighbours[core]]])
        return hops + int(self.host[core] * self.port[self.slots[core]])

    def cost(self) -> int:
        """Spike-hops."""
        return spike_hops(self.traffic, self.host, self.distances, self.port, self.slots)

    def settle(self, cores: Iterable[int]) -> None:
        """Exchange as long as that saves hops, beginning with these cores; a core is asked again when a neighbour has moved."""
        waiting = deque(cores)
        queued = np.zeros(len(self.slots), bool)
        queued[list(waiting)] = True
        while waiting:
            core = waiting.popleft()
            queued[core] = False
            slot, saved = self._best(core)
            if saved <= 0:
                continue
            other, here = int(self.at[slot]), int(self.slots[core])
            self._put(core, slot, other, here)
            moved = [core] if other < 0 else [core, other]
            for asked in np.unique(np.concatenate([moved, *(self.neighbours[c] for c in moved)])):
                if not queued[asked]:
                    queued[asked] = True
                    waiting.append(int(asked))

    def _put(self, core: int, slot: int, other: int, here: int) -> None:
        for moving, old, new in ((core, here, slot), (other, slot, here)):
            if moving >= 0:
                neighbours = self.neighbours[moving]
                nearer = self.distances[new, self.slots[neighbours]] - self.distances[old, self.slots[neighbours]]
                self.hops[neighbours] += self.weights[moving] * nearer
                self.slots[moving] = new
            self.at[new] = moving
        for moved in (core, other):
            if moved >= 0:
                self.hops[moved] = self._of(moved)

    def _best(self, core: int) -> tuple[int, int]:
        """The slot to which a core moves best, changing places with whoever is there, and the hops that this saves."""
        here, neighbours, weights = int(self.slots[core]), self.neighbours[core], self.weights[core]
        goes = self.distances[:, self.slots[neighbours]] @ weights + self.host[core] * self.port  # (slots,): hops there
        comes = self._sparse @ self.distances[here, self.slots] + self.host * self.port[here]  # (cores,): of whoever comes here
        apart = 2 * self.traffic[core] * self.distances[here, self.slots]  # two that change places stay as far from each other
        change = goes - self.hops[core]
        change[self.slots] += comes - self.hops + apart
        change[here] = 0
        slot = int(np.argmin(change))
        return slot, -int(change[slot])


def spike_hops(traffic: Counts, host: Counts, distances: Counts, port: Counts, slots: Counts) -> int:
    """Hops of all packets. traffic: (cores, cores), symmetric: what goes either way; host, slots: (cores,)."""
    between = int((np.triu(traffic, 1) * distances[np.ix_(slots, slots)]).sum())
    return between + int((host * port[slots]).sum())


def arranged(traffic: Counts, host: Counts, mesh: Mesh, kicks: int, seed: int) -> Counts:
    """(cores,): a slot of the mesh for every core.

    Args:
        traffic: (cores, cores), packets from each core to each; those to itself do not count.
        host: (cores,), packets to and from the host.
        mesh: with room for all.
        kicks: how many times the best placement is disturbed.
        seed: of the disturbances.
    """
    both = traffic + traffic.T
    np.fill_diagonal(both, 0)
    distances, port = mesh.distances(), mesh.from_port()
    best: tuple[int, Counts] | None = None
    for start in starts(both, mesh):
        arrangement = _Arrangement(both, host, distances, port, start)
        arrangement.settle(range(len(both)))
        found = arrangement.cost(), arrangement.slots.copy()
        if best is None or found[0] < best[0]:
            best = found
    if best is None:
        return np.zeros(0, np.int64)
    return _disturbed(_Arrangement(both, host, distances, port, best[1]), best[0], kicks, seed)


def _disturbed(arrangement: _Arrangement, cost: int, kicks: int, seed: int) -> Counts:
    """The best placement after so many disturbances."""
    rng, best = np.random.default_rng(seed), arrangement.slots.copy()
    size = min(KICK, len(best))
    for _ in range(kicks if len(best) > 1 else 0):
        cores = rng.choice(len(best), size, replace=False)
        slots = best.copy()
        slots[cores] = best[np.roll(cores, 1)]
        arrangement.move_to(slots)
        arrangement.settle(int(core) for core in np.unique(np.concatenate([cores, *(arrangement.neighbours[c] for c in cores)])))
        found = arrangement.cost()
        if found <= cost:
            cost, best = found, arrangement.slots.copy()
    return best
