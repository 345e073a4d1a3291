"""What a count leaves out or takes for granted, in sentences for a report."""

from __future__ import annotations

from snn_export.energy.operations import carries_values
from snn_export.reporting import formatting
from snn_export.reporting.energy_records import EnergyOperations


def of_the_count(found: EnergyOperations) -> tuple[str, ...]:
    """What is true of every inference."""
    notes = [
        "An update counts as active where the neuron spikes. If active meant that anything arrives or there is a bias, "
        "nearly every update would be: the upper end of the range.",
        "All synapses are charged; the lower end leaves out those with a weight of zero.",
        f"On the chip every neuron is updated in {found.steps + found.travel} steps: {found.steps} of its own and "
        f"{found.travel} in which spikes travel through the other layers. Not charged: clearing the state between inputs.",
        "The ANN twin has the layers as they were before the export merged any: an average pool first, then its convolution. "
        "Where zeros are skipped, all multiplications of merged layers count. The teacher is counted as it is.",
    ]
    if found.data_frames > 1:
        notes.append(
            f"The data change over time, so the ANN twin runs on each of the {found.data_frames} frames by itself. It has no "
            "memory from frame to frame, nobody has trained it, and a network that sees all frames at once may take far less."
        )
    if found.host_macs:
        notes.append(
            f"The host computes the first layer ({formatting.amount(found.host_macs / found.samples)} MACs per inference) and "
            "writes the results as biases, a message each. No table of a chip prices its work; on the terms of an ordinary "
            "chip its MACs and weights count for this network as for the ANN twin."
        )
    if any(carries_values(found, item) for item in found.journeys):
        notes.append(
            "Packets that carry a value and are no binary spike (graded input, membranes that the host reads) have no published "
            "figure: they and their hops are counted and not charged."
        )
    return tuple(notes)


def of_stopping_early(found: EnergyOperations) -> tuple[str, ...]:
    """What is true of fewer steps; nothing where steps were not counted one by one."""
    if not found.by_step:
        return ()
    notes = [
        "All layers of a chip work at once, so the curve and the early exit hold what the layers in front of the readout "
        "have done by the time that it stops, further steps of theirs included. On the terms of an ordinary chip layers are "
        "worked off one after the other, each as many steps as the readout takes.",
        f"The knee of the curve was chosen by how many of {found.validation_samples} validation samples are right after each "
        "step."
        if found.validation_samples
        else "The knee of the curve was read off the samples of this report: no other sample has confirmed it.",
    ]
    if found.journeys:
        notes.append(
            "Packets and hops of fewer steps are taken in proportion to what each source sends: a placement tells them per "
            "inference."
        )
    return tuple(notes)
