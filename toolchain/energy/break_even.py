"""Published rates below which spiking pays, beside the measured ones. They are conclusions of models, not laws."""

from __future__ import annotations

from snn_export.energy.operations import spikes_per_synapse
from snn_export.reporting.energy_records import EnergyOperations

RATE = 0.057
"""Spikes per neuron and step below which an SNN of T = 5 beats the quantised ANN (Yan et al., arXiv 2409.08290 v4)."""
STEPS = 5
COMPETITIVE_SPIKES = (0.15, 1.38)
"""Spikes per synapse and inference (Dampfhoffer et al., 2023): the stricter and the more lenient ANN implementation."""


def firing_rate(found: EnergyOperations) -> float:
    """Spikes per neuron and step of the layers that spike; 0 where none does."""
    spiking = [layer for layer in found.layers if layer.spiking]
    updates = sum(layer.updates for layer in spiking)
    return sum(layer.spikes for layer in spiking) / updates if updates else 0.0


def sentences(found: EnergyOperations) -> tuple[str, ...]:
    """Each published rate with its source, the measured one, and the side that this network is on."""
    rate, measured = firing_rate(found), spikes_per_synapse(found)
    bits = found.steps.bit_length()  # ceil(log2(T + 1)) for every T >= 1
    side = "below" if rate < RATE else "above"
    steps = "" if found.steps == STEPS else f", though that limit is for T = {STEPS}"
    low, high = COMPETITIVE_SPIKES
    verdict = "above both" if measured > high else "below both" if measured < low else "between the two"
    return (
        f"Measured firing rate of the spiking layers: {100 * rate:.1f} % per step, at T = {found.steps}. "
        f"Against a quantised ANN of ceil(log2(T + 1)) bits (here {bits}), an SNN at T = {STEPS} needs less than "
        f"about {100 * RATE:.1f} % (Yan, Bai, Tang and Wong, arXiv 2409.08290 v4; earlier versions: 6.4 %). "
        f"This network lies {side} it{steps}.",
        f"Measured: {measured:.3f} spikes per synapse and inference. With memory accesses counted, integrate-and-fire networks "
        f"compete only below {low} to {high}, depending on the ANN's implementation, and leaky neurons cost more (Dampfhoffer et "
        f"al., Are SNNs really more energy-efficient than ANNs?, IEEE TETCI 7(3), 2023). This network lies {verdict}.",
    )
