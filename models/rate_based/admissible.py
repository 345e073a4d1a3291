"""Which networks rates can carry: only linear operations between populations of LIF or IF neurons."""

from __future__ import annotations

from collections.abc import Iterator

import snntorch
from torch import nn

from snn_export.models.delay import Delay
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import lif_rule_of
from snn_export.models.neurons.recurrent import Recurrent
from snn_export.models.unroll import LINEAR_LAYERS, Population, leaves

IN_ITS_PLACE: dict[type[nn.Module], str] = {
    nn.MaxPool1d: "use a convolution with a stride",
    nn.MaxPool2d: "use average pooling, nn.AvgPool2d",
    nn.AvgPool1d: "use a convolution with a stride",
    Delay: "leave the delay out, or train with forward_mode = bptt",
    nn.Dropout: "leave dropout out, or train with forward_mode = bptt",
    nn.Dropout1d: "leave dropout out, or train with forward_mode = bptt",
    nn.Dropout2d: "leave dropout out, or train with forward_mode = bptt",
}


def check_rate_based(layers: nn.Sequential) -> None:
    """Refuse layers that rate-based training cannot carry, with all findings at once.

    Raises:
        UserError: SNX280 for an operation between neurons that is not linear, SNX281 for a neuron without a known slope, SNX282
            for a readout that does not weigh all steps alike.
    """
    found = list(findings(layers))
    if found:
        raise UserError.from_diagnostics(tuple(found))


def findings(layers: nn.Sequential) -> Iterator[Diagnostic]:
    """Why rates cannot carry these layers; nothing where they can."""
    for name, layer in leaves(layers):
        where = f"layers.{name}"
        if isinstance(layer, Integrator):
            if layer.spec.dv or layer.filtered:
                yield Diagnostic(
                    "SNX282", f"the readout '{name}' leaks or filters", where=where,
                    why="its last membrane weighs late steps more than early ones, which a mean over time cannot tell",
                    fix="end the network with a plain Integrator(), or train with forward_mode = bptt",
                )  # fmt: skip
        elif isinstance(layer, LINEAR_LAYERS):
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and not layer.affine:
                yield Diagnostic(
                    "SNX280", f"batch-norm '{name}' has no weight and bias", where=where,
                    why="the rate pass scales by them", fix=f"build it as nn.{type(layer).__name__}(..., affine=True)",
                )  # fmt: skip
        elif lif_rule_of(layer) is None:
            yield _cannot_pass(name, layer) if not _is_neuron(layer) else _unknown_neuron(name, layer)


def _is_neuron(layer: nn.Module) -> bool:
    return isinstance(layer, (snntorch.SpikingNeuron, Recurrent, Population))


def _cannot_pass(name: str, layer: nn.Module) -> Diagnostic:
    fix = next((text for kind, text in IN_ITS_PLACE.items() if isinstance(layer, kind)), "")
    return Diagnostic(
        "SNX280", f"'{name}' is a {type(layer).__name__}, which rates cannot pass", where=f"layers.{name}",
        why="rate-based training runs mean rates through the layers: mean and layer change places where it is linear and treats "
        f"all steps alike, and such layers are {', '.join(kind.__name__ for kind in LINEAR_LAYERS)}",
        fix=fix or "keep to convolutions, linear layers, batch-norm, average pooling and sums between neurons",
    )  # fmt: skip


def _unknown_neuron(name: str, layer: nn.Module) -> Diagnostic:
    return Diagnostic(
        "SNX281", f"'{name}' is a {type(layer).__name__} whose rate has no known slope", where=f"layers.{name}",
        why="the slope of a rate is known for LIF and IF neurons without recurrence or synaptic filter, reset in the step of the "
        "spike, with fixed decay and threshold and a surrogate of snn_export.models.surrogates",
        fix="use Leaky(reset_mechanism='zero', reset_delay=False, spike_grad=Surrogate('sigmoid', 4.0)), or train with "
        "forward_mode = bptt",
    )  # fmt: skip
