"""Time per step and inference, where a published model supports it: Loihi 1, placed on its cores.

A step of Loihi ends with a barrier of the whole mesh, so it lasts as long as its busiest core, and the barrier (Davies et al.,
IEEE Micro 38(1), 2018; SANA-FE, Boyle et al., IEEE TCAD 44, 2025, simulates it so). A core works off its neurons and synaptic
operations one after the other::

    step = active x t_active + inactive x t_inactive + operations x t_operation + barrier(tiles)

The barrier is published for 1 and for 32 tiles, a whole chip; with so many in use as the placement takes it is interpolated
linearly. For several chips none is published, and nothing is estimated.

Taken at the mean load of the busiest core: the mean of the largest load is larger, so this is a lower estimate. Not in it:
waiting in the network, input and output.

Which core is the busiest depends on the times of a table, and those at the low end of its ranges may name another one than those
at the high end. So the record keeps every core that may be: one that no other exceeds in active updates, inactive updates and
operations alike.

For Loihi 2 a runtime model is published (Timcheck, Pierro and Shrestha, arXiv 2601.10035): a lower bound, the largest of several
times (updates, operations, memory, the most loaded link, the barrier). Its coefficients belong to the neuron programs and the
mapping that were measured, which a NIR network has neither of, so nothing is estimated with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.energy.charging import NOTHING, Amount
from snn_export.energy.cost_table import CHIP_TIMES, ONE_TILE, TITLES, CostTable
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.chips.chip_table import load_chip
from snn_export.hardware_sims.placement.placement import PlacedCore, Placement
from snn_export.hardware_sims.placement.resources import ALWAYS_ON, PopulationNeeds, population_needs
from snn_export.reporting.energy_records import CoreLoad, EnergyOperations, LatencyEstimate, TimeFigure

MOST_CORES = 128
"""Cores that a record keeps at most: those of a whole Loihi."""
_FINEST = 1e-3
_NANOSECONDS = 1e9
RUNTIME_MODEL = (
    "for Loihi 2 a runtime model is published (arXiv 2601.10035), a lower bound whose coefficients belong to the neuron programs "
    "and the mapping that were measured; a network that is not compiled by Intel's tools has neither"
)


def core_loads(
    deployment: Deployment, placement: Placement, activity: Mapping[str, NDArray[Any]], binary_input: bool
) -> tuple[CoreLoad, ...]:
    """What every core does in a step, on average over steps and samples.

    Args:
        deployment: the network.
        placement: of it.
        activity: mean spikes per neuron and inference, (*features), by population and input node.
        binary_input: the input is spikes, as :attr:`snn_export.energy.counts.Counts.binary_input` has it.
    """
    if placement.chip.synapses is None:
        raise ValueError(f"networks are not placed on {placement.chip.name}")
    needs = population_needs(deployment, placement.chip.synapses)
    return tuple(_load(number, core, needs, activity, deployment, binary_input) for number, core in enumerate(placement.cores))


def may_be_busiest(loads: Sequence[CoreLoad]) -> tuple[CoreLoad, ...]:
    """The cores of which one is the busiest whatever a table's times, in the order in which they came.

    At most :data:`MOST_CORES`: where there are more, cores are left out that another one comes close to in everything, so that
    the longest step of those that stay is shorter by as little as possible (0.1 %, 0.2 %, 0.4 % ... at most).
    """
    share = 0.0
    while len(kept := _not_covered(loads, share)) > MOST_CORES:
        share = 2 * share or _FINEST
    return tuple(loads[number] for number in sorted(kept))


def _not_covered(loads: Sequence[CoreLoad], share: float) -> list[int]:
    """Indices of loads such that each of the others is exceeded by one of them, if that is raised by ``share``, in every kind."""
    work = np.array([[load.active_updates, load.inactive_updates, load.synops + load.graded] for load in loads]).reshape(-1, 3)
    kept: list[int] = []
    for number in np.argsort(-work.sum(axis=1), kind="stable"):  # whoever exceeds another one in everything comes before it
        if not (work[kept] * (1 + share) >= work[number]).all(axis=1).any():
            kept.append(int(number))
    return kept


def _load(
    number: int, core: PlacedCore, needs: Mapping[str, PopulationNeeds], activity: Mapping[str, NDArray[Any]],
    deployment: Deployment, binary_input: bool,
) -> CoreLoad:  # fmt: skip
    steps = deployment.contract.steps
    active, neurons, synops, graded = 0.0, 0, 0.0, 0.0
    for piece in core.pieces:
        population = needs[piece.population]
        inside = np.zeros(population.shape, bool)
        inside[tuple(slice(*edge) for edge in piece.box)] = True
        active += float(np.asarray(activity[piece.population]).reshape(-1)[inside.reshape(-1)].sum()) / steps
        neurons += piece.neurons
        for layer in population.layers:
            sizes, heard = layer.reach.sizes(piece.box), layer.reach.heard(piece.box)
            if layer.source.startswith(ALWAYS_ON):
                synops += float(sizes.sum())
                continue
            operations = float((np.asarray(activity[layer.source]).reshape(-1)[heard] * sizes).sum()) / steps
            if layer.source in deployment.layers or binary_input:
                synops += operations
            else:
                graded += operations
    where = ", ".join(f"{piece.neurons} neurons of {piece.population}" for piece in core.pieces)
    return CoreLoad(
        core=f"core {number}: {where}", active_updates=active, inactive_updates=neurons - active, synops=synops, graded=graded
    )


def estimate_latency(found: EnergyOperations, table: CostTable) -> LatencyEstimate:
    """The estimate, or the reason why there is none."""
    missing = [name for name in CHIP_TIMES if name not in table.times]
    if missing:
        return LatencyEstimate(reason=f"not estimated: the table {table.told} has no time for {', '.join(missing)}")
    if not found.cores:
        why = "not estimated: a step lasts as long as its busiest core, and the network is not placed on cores"
        why += f" ({found.unplaced})" if found.unplaced else ""
        return LatencyEstimate(reason=f"{why}; {RUNTIME_MODEL}" if found.target == "loihi2" else why)
    if found.placed_on != table.chip:
        return LatencyEstimate(
            reason=f"not estimated: the network is placed on {found.placed_on}, and the times of {table.told} are another "
            f"chip's; {RUNTIME_MODEL}"
        )
    if found.placed_chips > 1:
        return LatencyEstimate(
            reason=f"not estimated: the network takes {found.placed_chips} chips, and no barrier is published for more than one"
        )
    barrier = _barrier(found, table)
    each = [_step(load, table) for load in found.cores]
    busiest = max(zip(each, found.cores, strict=True), key=lambda pair: pair[0].value)[1]
    step = barrier + Amount(max(item.value for item in each), max(item.low for item in each), max(item.high for item in each))
    steps = found.steps + found.travel
    whole = step * steps
    terms = _terms(found, table)
    return LatencyEstimate(
        reason=_model(found, terms, busiest),
        terms=terms,
        step=_time(step),
        inference=_time(whole),
        throughput=_NANOSECONDS / whole.value if whole.low else None,
        throughput_low=_NANOSECONDS / whole.high if whole.low else None,
        throughput_high=_NANOSECONDS / whole.low if whole.low else None,
        steps=steps,
        busiest_core=busiest.core,
        sources=tuple(dict.fromkeys(table.times[name].citation for name in (*CHIP_TIMES, ONE_TILE) if name in table.times)),
    )


def _terms(found: EnergyOperations, table: CostTable) -> str:
    """Whose times they are, where the network was made for another chip, or for none; else empty."""
    if found.target == table.chip:
        return ""
    chip = TITLES.get(table.chip, table.chip)
    whose = f"{chip}'s times" if table.shipped else f"the times of {table.told}"
    return f"by {whose}, were it placed on {chip} ({found.placed_cores} core{'' if found.placed_cores == 1 else 's'})"


def _model(found: EnergyOperations, terms: str, busiest: CoreLoad) -> str:
    graded = ", graded ones counted as if they were binary" if busiest.graded else ""
    tiles = f" with {found.placed_tiles} tile{'' if found.placed_tiles == 1 else 's'} in use" if found.placed_tiles else ""
    told = (
        f"a lower estimate{f' {terms}' if terms else ''}: the busiest core's neuron updates and synaptic operations{graded}, one "
        f"after the other at their mean, then the barrier of the mesh{tiles}; no waiting in the network, no input "
        "and output"
    )
    return f"{told}; {RUNTIME_MODEL}" if found.target == "loihi2" else told


def _barrier(found: EnergyOperations, table: CostTable) -> Amount:
    """The barrier with as many tiles as are used; that of a whole chip where a table has only that one."""
    times = {name: Amount(item.value, item.low, item.high) for name, item in table.times.items()}
    whole, one = times["barrier"], times.get(ONE_TILE)
    mesh = load_chip(found.placed_on).mesh
    if one is None or mesh is None or not found.placed_tiles:
        return whole
    tiles = mesh.rows * mesh.columns
    share = min(1.0, (found.placed_tiles - 1) / (tiles - 1)) if tiles > 1 else 1.0
    return one * (1 - share) + whole * share


def _step(load: CoreLoad, table: CostTable) -> Amount:
    """Of one core, without the barrier."""
    times = {name: Amount(item.value, item.low, item.high) for name, item in table.times.items()}
    work = (
        (times["neuron_update_active"], load.active_updates),
        (times["neuron_update_inactive"], load.inactive_updates),
        (times["synaptic_operation"], load.synops + load.graded),
    )
    return sum((time * count for time, count in work), NOTHING)


def _time(amount: Amount) -> TimeFigure:
    return TimeFigure(value=amount.value, low=amount.low, high=amount.high)
