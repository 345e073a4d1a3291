"""What to do about an effect: a setting of this program that makes it smaller, with the number to set."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from snn_export.export import bounds, grid
from snn_export.export.effects import (
    BIASES,
    DECAYS,
    FIRE,
    INPUT,
    LATENCY,
    OVERFLOW,
    RESET,
    THRESHOLDS,
    TRUNCATION,
    WEIGHTS,
    Forms,
)
from snn_export.export.graph import input_node
from snn_export.export.passes.rounding import GridRules, InputRange, scale_limits
from snn_export.models import arithmetic
from snn_export.models.weight_grid import WEIGHT_BITS
from snn_export.verification.attribution_words import FLOAT_ROUNDING, Seen, tuned, weight_bits

ROOM: Final = 2.5
"""A scale that could grow by more than this is none that ``quantize`` looks for: its search stays within a factor of two."""


def fix(forms: Forms, seen: Seen, effect: str, layer: str) -> str:
    """A setting that makes an effect smaller. ``layer``: the one that matters most."""
    if effect == WEIGHTS:
        return _weights(forms, layer)
    if effect == INPUT:
        return _inputs(forms, seen)
    if effect == BIASES and (exponent := _bias_exponent(forms, layer)) is not None:
        held = forms.integers.populations[layer].bias_exponent
        return f"leave quantize.bias_exponent unset: {layer} then takes {exponent} in place of {held}, and finer steps"
    if effect in (THRESHOLDS, BIASES, TRUNCATION):
        return _scale(forms, layer)
    if effect == DECAYS:
        return _decays(forms, layer)
    if effect == RESET:
        rule = forms.integers.contract.neurons[layer].reset
        other = '; or quantise for loihi2, whose neurons can subtract (quantize.target = "loihi2")' if rule == "zero" else ""
        return f'train with the reset that the chip does: model.reset = "{rule}"{other}'
    return {
        OVERFLOW: "quantise the float network again (snn-export quantize): the scales it chooses are proven not to overflow",
        FIRE: "quantise the float network again (snn-export quantize): it keeps readouts below the threshold they must not reach",
        LATENCY: "give both forms the same Delay nodes: quantise the float network as it is",
        FLOAT_ROUNDING: "nothing needs mending: the integers are exact there; compare with the rung called quantised",
    }[effect]


def _weights(forms: Forms, layer: str) -> str:
    bits = weight_bits(forms)
    if tuned(forms):
        return "compare with the network before fine-tuning: training moved the weights on purpose, so its spikes are others"
    if _room(forms, layer)[0] >= ROOM:
        return _scale(forms, layer)
    train = "snn-export quantize --fine-tune 5 trains on this grid, for accuracy and not for the float network's spikes"
    if bits < WEIGHT_BITS:
        return f"set quantize.weight_bits = {WEIGHT_BITS} in place of {bits}; where the chip has no more room, {train}"
    return f"weights have all {WEIGHT_BITS} bits of a synapse: {train}; training.weight_decay narrows the range they must cover"


def _inputs(forms: Forms, seen: Seen) -> str:
    encoder = forms.integers.contract.encoder
    if seen.clipped:
        return (
            "quantise with the range that the inputs have: input_range=(low, high) of quantize, or data scaled into its own range"
        )
    if encoder.kind == "bias":
        return _scale(forms, next(iter(forms.biases)))
    source = input_node(forms.integers.graph)
    first = [name for name, ways in forms.integers.connections.items() if any(way.source == source for way in ways)]
    if encoder.kind == "direct" and seen.steady and not any(grid.is_filtered(forms.integers, name) for name in first):
        return "set quantize.input_as_bias = true: the host computes the first layer, and its sums get 13 bits"
    step = 1 / (encoder.gain or 1.0)
    return f"round the data to the encoder's steps of {step:.4g} before training, so that both forms see the same"


def _bias_exponent(forms: Forms, layer: str) -> int | None:
    """The exponent that the largest bias needs, where a larger one is held; None where it is as small as it can be."""
    largest = float(np.max(np.abs(forms.biases[layer].floats[1]), initial=0.0))
    needed = max(0, math.ceil(math.log2(max(largest, 1.0) / arithmetic.BIAS_MANTISSA_MAX)))
    return needed if needed < forms.integers.populations[layer].bias_exponent else None


def _scale(forms: Forms, layer: str) -> str:
    """The parameters of a layer are coarse because its scale is small: what holds it there."""
    scale, (limit, binding) = forms.integers.populations[layer].scale, _room(forms, layer)
    if limit >= ROOM:
        return (
            f"quantise the float network again (snn-export quantize): the scale of {layer} is {scale:.4g} and could be "
            f"{limit:.3g} times larger before {binding} limits it"
        )
    held = f"the scale of {layer} is {scale:.4g}, held there by {binding}"
    if "24 bits" in binding:
        return f"lower model.steps or the range of the inputs: {held}"
    if "bias" in binding:
        return f"leave quantize.bias_exponent unset, or train with a larger model.threshold: {held}"
    return f"train with a larger model.threshold, or with more training.weight_decay, so that no weight is large: {held}"


def _room(forms: Forms, layer: str) -> tuple[float, str]:
    """The factor by which a layer's scale may grow, and the limit that it meets then."""
    encoder, population = forms.integers.contract.encoder, forms.integers.populations[layer]
    gain = encoder.gain or 1.0
    rules = GridRules(weight_bits(forms), None, InputRange(encoder.low / gain, encoder.high / gain))
    limits = {what: size / population.scale for what, size in scale_limits(forms.floats, encoder, layer, rules).items()}
    limits |= bounds.population_bounds(forms.integers, layer).headroom
    binding = min(limits, key=lambda what: limits[what])
    return limits[binding], binding


def _decays(forms: Forms, layer: str) -> str:
    held = forms.integers.populations[layer]
    beta = arithmetic.decay_from_integer(held.dv)
    return f"train with the decay that the chip holds: model.dv = {held.dv} (beta {beta:.6g}), so that both forms step alike"
