"""Time per step and inference, where a published model supports it: Loihi 1, placed on its cores.

A step of Loihi ends with a barrier of the whole mesh, so it lasts as long as its busiest core, and the barrier (Davies et al.,
IEEE Micro 38(1), 2018; SANA-FE, Boyle et al., IEEE TCAD 44, 2025, simulates it so). A core works off its neurons and synaptic
operations one after the other::

    step = active x t_active + inactive x t_inactive + operations x t_operation + barrier

Taken at the mean load of the busiest core: the mean of the largest load is larger, so this is a lower estimate. Not in it:
waiting in the network, input and output.

For Loihi 2 a runtime model is published (Timcheck, Pierro and Shrestha, arXiv 2601.10035): a lower bound, the largest of several
times (updates, operations, memory, the most loaded link, the barrier). Its coefficients belong to the neuron programs and the
mapping that were measured, which a NIR network has neither of, so nothing is estimated with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.energy.charging import NOTHING, Amount
from snn_export.energy.cost_table import CHIP_TIMES, CostTable
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.placement.placement import PlacedCore, Placement
from snn_export.hardware_sims.placement.resources import ALWAYS_ON, PopulationNeeds, population_needs
from snn_export.reporting.energy_records import CoreLoad, EnergyOperations, LatencyEstimate, TimeFigure

_NANOSECONDS = 1e9
RUNTIME_MODEL = (
    "for Loihi 2 a runtime model is published (arXiv 2601.10035), a lower bound whose coefficients belong to the neuron programs "
    "and the mapping that were measured; a network that is not compiled by Intel's tools has neither"
)


def busiest_core(deployment: Deployment, placement: Placement, activity: Mapping[str, NDArray[Any]]) -> CoreLoad:
    """The core whose work takes longest in a step, on average over steps and samples.

    Args:
        deployment: the network.
        placement: of it.
        activity: mean spikes per neuron and inference, (*features), by population and input node.
    """
    if placement.chip.synapses is None:
        raise ValueError(f"networks are not placed on {placement.chip.name}")
    needs = population_needs(deployment, placement.chip.synapses)
    binary = deployment.contract.encoder.binary if deployment.contract.encoder.gain is not None else False
    loads = [_load(number, core, needs, activity, deployment, binary) for number, core in enumerate(placement.cores)]
    return max(loads, key=_weight)


def _weight(load: CoreLoad) -> float:
    """What a core's work is compared by: Loihi 1's published times, whatever the table that is charged later."""
    return 8.4 * load.active_updates + 5.3 * load.inactive_updates + 3.5 * (load.synops + load.graded)


def _load(
    number: int, core: PlacedCore, needs: Mapping[str, PopulationNeeds], activity: Mapping[str, NDArray[Any]],
    deployment: Deployment, binary: bool,
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
            if layer.source in deployment.layers or binary:
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
        return LatencyEstimate(reason=f"not estimated: the table {table.name} has no time for {', '.join(missing)}")
    if found.busiest is None:
        why = "not estimated: a step lasts as long as its busiest core, and the network is not placed on cores"
        why += f" ({found.unplaced})" if found.unplaced else ""
        return LatencyEstimate(reason=f"{why}; {RUNTIME_MODEL}" if found.target == "loihi2" else why)
    if found.placed_on != table.chip:
        return LatencyEstimate(
            reason=f"not estimated: the network is placed on {found.placed_on}, and the times of {table.name} are another "
            f"chip's; {RUNTIME_MODEL}"
        )
    step, steps = _step(found.busiest, table), found.steps + found.travel
    whole = step * steps
    graded = ", graded ones counted as if they were binary" if found.busiest.graded else ""
    return LatencyEstimate(
        reason=f"a lower estimate: the busiest core's neuron updates and synaptic operations{graded}, one after the other at "
        "their mean, then the barrier of the mesh; no waiting in the network, no input and output",
        step=_time(step),
        inference=_time(whole),
        throughput=_NANOSECONDS / whole.value,
        throughput_low=_NANOSECONDS / whole.high,
        throughput_high=_NANOSECONDS / whole.low,
        steps=steps,
        busiest_core=found.busiest.core,
        sources=tuple(dict.fromkeys(table.times[name].citation for name in CHIP_TIMES)),
    )


def _step(load: CoreLoad, table: CostTable) -> Amount:
    times = {name: Amount(item.value, item.low, item.high) for name, item in table.times.items()}
    work = (
        (times["neuron_update_active"], load.active_updates),
        (times["neuron_update_inactive"], load.inactive_updates),
        (times["synaptic_operation"], load.synops + load.graded),
        (times["barrier"], 1.0),
    )
    return sum((time * count for time, count in work), NOTHING)


def _time(amount: Amount) -> TimeFigure:
    return TimeFigure(value=amount.value, low=amount.low, high=amount.high)
