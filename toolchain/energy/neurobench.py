"""NeuroBench's metrics of a counted run, under its names (Yik et al., The NeuroBench framework, Nature Communications 16, 2025).

They agree with what NeuroBench 2.3 counts on a network that both can measure (``tests/toolchain/test_neurobench.py``). What
differs: its footprint is that of the PyTorch module in memory, with every buffer of snnTorch's neurons; here it is what is
deployed. Sparsities are not rounded here, there to four decimals. Sources that are always on and carry biases are no spikes, so
they are in no metric.
"""

from __future__ import annotations

from snn_export.reporting.energy_records import EnergyOperations, NeurobenchMetrics

_BYTE = 8


def metrics(found: EnergyOperations) -> NeurobenchMetrics:
    """Counts per inference, sparsities over all samples."""
    weights = sum(layer.weights for layer in found.layers)
    biases = sum(layer.biases for layer in found.layers)
    bits = found.weight_bits * weights + found.bias_bits * biases
    updates = sum(layer.updates for layer in found.layers)
    changes = [layer.membrane_changes for layer in found.layers]
    synapses = sum(layer.synapses + layer.input_synapses for layer in found.layers)
    return NeurobenchMetrics(
        footprint=-(-bits // _BYTE),
        connection_sparsity=1.0 - sum(layer.nonzero_weights for layer in found.layers) / weights if weights else 0.0,
        activation_sparsity=1.0 - sum(layer.spikes for layer in found.layers) / updates,
        effective_macs=found.graded(effective=True) / found.samples,
        effective_acs=found.spiked(effective=True) / found.samples,
        dense=float(synapses * found.steps),
        membrane_updates=None if None in changes else sum(item or 0 for item in changes) / found.samples,
    )
