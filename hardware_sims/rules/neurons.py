"""What a population of a chip shares, and how it is reset: rules of quantised networks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import nir
import numpy as np

from snn_export.export.chips import chip_of
from snn_export.export.gains import threshold_array
from snn_export.export.graph import delay_steps
from snn_export.hardware_sims.loihi.rules import resets_on
from snn_export.hardware_sims.rules.network import Network
from snn_export.models.diagnostics import Diagnostic, diagnostics_of


def resets_fit_the_chip(network: Network) -> Iterator[Diagnostic]:
    """Spiking populations reset to zero in the step of the spike; where a chip's neurons may be programs, also by subtraction."""
    return resets_on(network.deployment, chip_of(network.target).programmable_neurons)


def thresholds_are_shared(network: Network) -> Iterator[Diagnostic]:
    """The neurons of a population have one threshold: it is one register."""
    for name, node in network.deployment.graph.nodes.items():
        values = np.unique(threshold_array(node))
        if name in network.deployment.populations and values.size > 1:
            yield Diagnostic(
                "SNX245",
                f"{name} has {values.size} different thresholds, {values[0]:g} to {values[-1]:g}; a population has 1",
                where=name,
                why="the threshold is one register for all neurons of a population",
                fix="use one threshold per population, or quantise the float network again: it splits populations that differ",
            )


def delays_are_whole_steps(network: Network) -> Iterator[Diagnostic]:
    """A delay is a whole number of steps, 0 or more."""
    for name, node in network.deployment.graph.nodes.items():
        if isinstance(node, nir.Delay):
            yield from diagnostics_of(partial(delay_steps, name, node, network.deployment.contract.dt))
