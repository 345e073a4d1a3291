"""Spikes between cores per inference: what a placement keeps local.

A spike is one packet to every core that holds a synapse of its neuron, and one to the host where the host reads spikes. The
host's input enters through a port of the mesh, and so do sources that carry biases of the current, which fire in every step;
membranes that are read out leave through it.

Every sum is one of integers, so that the same network gives the same placement whatever adds it up: spikes over all samples of a
run are counted as they are, and everything is exact; rates, which are means and may be fractions, in units of 2^-16 spikes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.placement.resources import ALWAYS_ON, Part, heard_by, part_indices
from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion

UNIT = 1 << 16
"""Parts that a spike is counted in where rates are given."""

MOST_SPIKES = 1 << 28
"""Of all neurons of a population in one inference: times the cores and hops of any mesh they stay below 2^63."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Activity:
    """Spikes per neuron and inference, (neurons,) in units of 1 / ``unit``, by population and input node.

    to_host: messages to the host, of the readout. assumed: sources without measured activity. unit: :data:`UNIT`, or the samples
    over which spikes were counted.
    """

    spikes: Mapping[str, Counts]
    to_host: Mapping[str, Counts]
    assumed: tuple[str, ...]
    unit: int = UNIT


@dataclass(frozen=True, eq=False)
class Traffic:
    """Packets per inference in units of 1 / ``unit``.

    between: by source population, (cores, cores), from each core to each.
    from_host: by source outside the chip, (cores,). to_host: by population, (cores,).
    """

    between: Mapping[str, Counts]
    from_host: Mapping[str, Counts]
    to_host: Mapping[str, Counts]
    unit: int = UNIT

    @property
    def total(self) -> Counts:
        """(cores, cores), over all populations."""
        return np.asarray(sum(self.between.values()), np.int64)

    @property
    def host(self) -> Counts:
        """(cores,), to and from the host."""
        return np.asarray(sum((*self.from_host.values(), *self.to_host.values())), np.int64)


def host_axons(deployment: Deployment) -> dict[str, int]:
    """By population, output axons that each of its neurons has towards the host: one where its spikes are read out."""
    readout = deployment.contract.readout
    return {readout.node: 1} if readout.rule == "spike_count" else {}


def activity_of(deployment: Deployment, measured: Mapping[str, NDArray[Any]] | None, samples: int | None = None) -> Activity:
    """Activity of every source: as measured, else one spike per neuron and step.

    Args:
        deployment: the network.
        measured: mean spikes per neuron and inference, or, with ``samples``, spikes over so many inferences as integers.
        samples: see there; at least 1.

    Raises:
        UserError: SNX456 for a name that is no source, another number of neurons, or numbers that are no rates.
    """
    steps, given, unit = deployment.contract.steps, dict(measured or {}), samples or UNIT
    source = next(name for name, node in deployment.graph.nodes.items() if isinstance(node, nir.Input))
    neurons = {name: int(np.prod(deployment.shapes[name])) for name in (source, *deployment.layers)}
    for name in given:
        if name not in neurons:
            raise _unusable(name, "no population has that name", suggestion(name, tuple(neurons)))
    spikes, assumed = {}, []
    for name, size in neurons.items():
        if name in given:
            spikes[name] = _checked(name, given[name], size, deployment.shapes[name], samples)
            continue
        silent = name in deployment.contract.neurons and not deployment.contract.neurons[name].spiking
        spikes[name] = np.full(size, 0 if silent else steps * unit, np.int64)
        if not silent:
            assumed.append(name)
    return Activity(spikes, _to_host(deployment, spikes, unit), tuple(assumed), unit)


def _to_host(deployment: Deployment, spikes: Mapping[str, Counts], unit: int) -> dict[str, Counts]:
    """Messages of the readout: its spikes, or its membranes, read in the last step or in every one."""
    readout = deployment.contract.readout
    if readout.rule == "spike_count":
        return {readout.node: spikes[readout.node]}
    reads = 1 if readout.rule == "membrane_last" else deployment.contract.steps
    return {readout.node: np.full_like(spikes[readout.node], reads * unit)}


def _checked(name: str, rates: NDArray[Any], neurons: int, shape: tuple[int, ...], samples: int | None) -> Counts:
    array = np.asarray(rates)
    if array.dtype.kind not in ("fiub" if samples is None else "iu") or array.shape not in (shape, (neurons,)):
        what = f"it is an array of {array.dtype} of shape {array.shape}"
        raise _unusable(name, what, f"give spikes per neuron in the shape {shape}")
    values, most = array.astype(np.float64).reshape(-1), MOST_SPIKES * min(samples or 1, UNIT)
    if not np.isfinite(values).all() or values.min(initial=0.0) < 0 or values.sum() >= most:
        what = "its numbers are negative, not finite or larger than any count"
        raise _unusable(name, what, "give mean spikes per neuron and inference")
    return np.rint(values * UNIT).astype(np.int64) if samples is None else array.astype(np.int64).reshape(-1)


def _unusable(name: str, what: str, fix: str) -> UserError:
    return UserError(
        "SNX456", f"the activity of '{name}' cannot be used: {what}", where="activity",
        why="cores are placed by how many spikes per inference each neuron sends", fix=fix,
    )  # fmt: skip


def traffic_of(cores: Sequence[Sequence[Part]], activity: Activity, steps: int) -> Traffic:
    """Packets between cores, and between cores and the host.

    Args:
        cores: parts by core.
        activity: of every source.
        steps: of one inference: always-on sources fire in each.
    """
    owners = _owners(cores, activity)
    between = {name: np.zeros((len(cores), len(cores)), np.int64) for name in owners}
    from_host: dict[str, Counts] = {}
    for target, parts in enumerate(cores):
        for source in dict.fromkeys(source for part in parts for source in part.population.sources):
            heard = heard_by([part for part in parts if source in part.population.sources], source)
            if source in owners:
                sent = activity.spikes[source][heard]
                np.add.at(between[source][:, target], owners[source][heard], sent)
                continue
            always = source.startswith(ALWAYS_ON)
            spikes = steps * activity.unit * int(heard.sum()) if always else int(activity.spikes[source][heard].sum())
            from_host.setdefault(source, np.zeros(len(cores), np.int64))[target] += spikes
    to_host = {
        name: np.bincount(owners[name], weights=messages.astype(np.float64), minlength=len(cores)).astype(np.int64)
        for name, messages in activity.to_host.items()
    }
    return Traffic(between, from_host, to_host, activity.unit)


def _owners(cores: Sequence[Sequence[Part]], activity: Activity) -> dict[str, Counts]:
    """By population, (neurons,): the core of each neuron."""
    found: dict[str, Counts] = {}
    for number, parts in enumerate(cores):
        for part in parts:
            name = part.population.name
            found.setdefault(name, np.full(len(activity.spikes[name]), -1, np.int64))[part_indices(part)] = number
    return found
