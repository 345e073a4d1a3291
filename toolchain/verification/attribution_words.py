"""What an attribution says: every effect with the numbers behind it, and the sentence a person can act on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from snn_export.export import grid
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
    Encoded,
    Forms,
)
from snn_export.models import arithmetic
from snn_export.models.spec import NeuronSpec
from snn_export.models.weight_grid import signs_of, weight_grid
from snn_export.reporting import formatting
from snn_export.reporting.report import Effect

FLOAT_ROUNDING: Final = "float rounding"
HALF: Final = 0.5
"""Share of the changed spikes that must be gone without an effect for it to be named as the cause."""
WORTH_TELLING: Final = 0.05
"""Share of the changed spikes from which on it is told that an effect hides them."""


@dataclass(frozen=True)
class Seen:
    """What the inputs and the run showed: input values, those the grid changed, those outside its range, overflow events.

    steady: the input is the same in every step.
    """

    values: int
    changed_values: int
    clipped: int
    steady: bool = True
    overflows: int = 0


@dataclass(frozen=True)
class Together:
    """A few effects, and the share of the changed spikes that is gone when all of them are off."""

    names: tuple[str, ...] = ()
    removed: float = 0.0


NO_FEW: Final = Together()


def seen(forms: Forms, encoded: Encoded) -> Seen:
    """Count what encoding did to the inputs."""
    encoder = forms.integers.contract.encoder
    pairs = (encoded.signal, *encoded.host.values())
    changed = sum(int(np.count_nonzero(one != other)) for one, other in pairs)
    raw: NDArray[Any] = np.rint(encoded.signal.floats)
    clipped = 0 if encoder.gain is None else int(np.count_nonzero((raw < encoder.low) | (raw > encoder.high)))
    return Seen(sum(np.size(one) for one, _ in pairs), changed, clipped, steady=len(encoded.signal.floats) == 1)


def told(forms: Forms, seen: Seen, effect: str) -> str:
    """An effect in words, with the numbers of the whole network."""
    if effect == INPUT:
        return _inputs(forms, seen)
    if effect == WEIGHTS:
        purpose = "; fine-tuning moved them on purpose" if tuned(forms) else ""
        return f"weights are held in {_bits(weight_bits(forms))}{purpose}"
    if effect in (THRESHOLDS, DECAYS):
        return f"in {_furthest(forms, effect)}, the furthest off, {told_of_layer(forms, seen, effect, _furthest(forms, effect))}"
    return {
        FLOAT_ROUNDING: "the float network's own rounding, where a membrane meets its threshold to the last bit",
        BIASES: "a bias is a 13-bit mantissa with one exponent for its layer, or an even integer into a filtered current",
        TRUNCATION: "what u and v keep in a step loses its fraction, toward zero",
        OVERFLOW: f"u wraps and v saturates at 24 bits: {formatting.count(seen.overflows)} times",
        RESET: "the two forms reset their neurons by other rules",
        LATENCY: "the two forms delay spikes by other numbers of steps",
        FIRE: "the two forms fire by other rules, or a readout fires that should only integrate",
    }[effect]


def told_of_layer(forms: Forms, seen: Seen, effect: str, layer: str) -> str:
    """The numbers behind an effect in one layer; empty where there are none."""
    if effect == WEIGHTS:
        return _weights(forms, layer)
    if effect == THRESHOLDS:
        theta, held = (float(np.max(part)) / forms.units[layer] for part in forms.thresholds[layer])
        units = round(forms.thresholds[layer].chip) >> arithmetic.STATE_SHIFT
        return f"the threshold {theta:.4g} is held as {units} units of {held / units if units else 0:.3g}: {_off(theta, held)}"
    if effect == DECAYS:
        return "; ".join(_decays(forms, layer)) or "the decays are equal"
    if effect == BIASES:
        return _biases(forms, layer)
    if effect == TRUNCATION:
        return _truncation(forms, layer)
    if effect in (RESET, FIRE):
        return _rules(forms, layer)
    return {INPUT: _inputs(forms, seen), LATENCY: "", OVERFLOW: "", FLOAT_ROUNDING: ""}[effect]


def sentence(effects: Sequence[Effect], changed: int, cause: str | None, layer: str | None, together: Together = NO_FEW) -> str:
    """What the figures say, with the number that a cause is named for; ``together``: what matters where there is none."""
    count = f"{formatting.count(changed)} changed spike{'' if changed == 1 else 's'}"
    if not changed:
        return "The integer network fires as the float network does: no spike changes on these samples."
    found = next((effect for effect in effects if effect.name == cause), None)
    if found is not None:
        start = f"{found.name.capitalize()} is the cause: without it alone, {_share(found.removed)} of the {count} disappear"
        trial = next((trial for trial in found.layers if trial.layer == layer), None)
        if trial is None:
            return f"{start}, though no single layer accounts for it; {found.told}."
        part = _share((changed - trial.changed) / changed)
        numbers = f"; {trial.told or found.told}" if trial.told or found.told else ""
        return f"{start}, and without it in {layer} alone, {part}{numbers}."
    return f"No single effect is the cause of the {count}: {_few(effects, together)}."


def _few(effects: Sequence[Effect], together: Together) -> str:
    """What the few effects that matter remove, alone and together, and which effects hide what others do."""
    removed = {effect.name: effect.removed or 0.0 for effect in effects}
    words = (
        f"without {together.names[0]} alone, {_share(max(0.0, removed[together.names[0]]))} disappear"
        if together.names
        else "none removes any"
    )
    if len(together.names) > 1:
        joined = f"{', '.join(together.names[:-1])} and {together.names[-1]}"
        words += f"; without {joined} together, {_share(together.removed)}"
    if together.removed < HALF:
        words += ", and no few of them explain half"
    hidden = [f"{name} ({_share(-share)} more change without it)" for name, share in removed.items() if share <= -WORTH_TELLING]
    return words + (f"; part of the change is undone by {' and '.join(hidden)}" if hidden else "")


def unexplained(remainder: int, target: str) -> str:
    """What to add to the sentence where something is missing in the list."""
    if not remainder:
        return ""
    return f" {formatting.count(remainder)} spikes of {target} differ from all effects together: something is not in this list."


def tuned(forms: Forms) -> bool:
    """Whether the integers were trained on."""
    return forms.integers.contract.lineage.fine_tuned


def weight_bits(forms: Forms) -> int:
    """Bits per weight of the integer form."""
    held = forms.integers.contract.quantisation
    return held.weight_bits if held else 8


def _bits(count: int) -> str:
    return f"{count} bit{'' if count == 1 else 's'}"


def _share(value: float | None) -> str:
    """Whole percent, rounded down: a share is never told larger than it is."""
    return f"{int(100 * (value or 0.0))} %"


def _off(wanted: float, held: float) -> str:
    if not wanted:
        return f"off by {held - wanted:.3g}"
    return f"{abs(held / wanted - 1):.2%} too {'high' if held > wanted else 'low'}".replace("%", " %")


def _inputs(forms: Forms, seen: Seen) -> str:
    encoder = forms.integers.contract.encoder
    share = f"{formatting.count(seen.changed_values)} of {formatting.count(seen.values)}"
    if encoder.kind == "bias":
        return f"the host's sums become biases with a 13-bit mantissa; {share} are rounded"
    beyond = f", {formatting.count(seen.clipped)} of them outside its range" if seen.clipped else ""
    step = 1 / (encoder.gain or 1.0)
    return f"inputs are held as {encoder.low}..{encoder.high} in steps of {step:.4g}; {share} values are changed{beyond}"


def _furthest(forms: Forms, effect: str) -> str:
    """Layer whose threshold or decays lie furthest from the float network's, relative to their size."""
    pairs = forms.thresholds if effect == THRESHOLDS else forms.kept

    def distance(layer: str) -> float:
        one, other = (np.asarray(part, np.float64) for part in pairs[layer])
        return float(np.max(np.abs(one - other) / np.maximum(np.abs(one), 1e-300)))

    return max(pairs, key=distance)


def _weights(forms: Forms, layer: str) -> str:
    """Of the weight node into a layer that is furthest off: error and step, in the units of the float network's weights."""
    bits, found = weight_bits(forms), []
    for name, (population, _) in grid.synapse_targets(forms.integers).items():
        floats, held = forms.weights[name]
        if population != layer:
            continue
        node = forms.floats.graph.nodes[name]
        real = np.abs(np.asarray(getattr(node, "weight", getattr(node, "scale", None)), np.float64))
        unit = float(real.max() / np.abs(floats).max()) if np.any(floats) else 0.0
        step = weight_grid(bits, signs_of(held)).step << forms.integers.synapses[name].weight_exponent
        error = np.abs(floats - held)
        found.append((float(error.max()) * unit, step * unit, int(np.count_nonzero(error > 0.5 * step * (1 + 1e-9)))))
    if not found:
        return ""
    error_max, size, beyond = max(found)
    what = "moved further, by training" if tuned(forms) else "clipped to the largest"
    clipped = f", {formatting.count(beyond)} {what}" if beyond else ""
    return f"its weights are off by up to {error_max:.3g}, in steps of {size:.3g} ({_bits(bits)}){clipped}"


def _decays(forms: Forms, layer: str) -> list[str]:
    floats, chip = forms.kept[layer]
    return [
        f"{name} {one / arithmetic.DECAY_ONE:.6g} is held as {other:.0f}/{arithmetic.DECAY_ONE}"
        for name, one, other in zip(("alpha", "beta"), floats, chip, strict=True)
        if one != other
    ]


def _biases(forms: Forms, layer: str) -> str:
    pair, unit = forms.biases[layer], forms.units[layer]
    error = max(float(np.max(np.abs(one - other), initial=0.0)) for one, other in zip(pair.floats, pair.chip, strict=True))
    exponent = forms.integers.populations[layer].bias_exponent
    of = f", with a threshold of {_threshold(forms, layer):.4g}" if layer in forms.thresholds else ""
    return f"a bias is off by up to {error / unit:.3g}, in steps of {(1 << exponent) / unit:.3g} (exponent {exponent}){of}"


def _truncation(forms: Forms, layer: str) -> str:
    lost = 1.0 / forms.units[layer]
    theta = _threshold(forms, layer) if layer in forms.thresholds else 0.0
    of = f", {lost / theta:.2%} of its threshold".replace("%", " %") if theta else ""
    return f"a step loses up to {lost:.3g}{of}; the scale of {layer} is {forms.integers.populations[layer].scale:.4g}"


def _threshold(forms: Forms, layer: str) -> float:
    return float(np.max(forms.thresholds[layer].floats)) / forms.units[layer]


def _rules(forms: Forms, layer: str) -> str:
    one, other = (form.contract.neurons[layer] for form in (forms.floats, forms.integers))
    return f"the float network resets {_reset(one)}, the integer one {_reset(other)}" if one.spiking else ""


def _reset(spec: NeuronSpec) -> str:
    how = {"zero": "to zero", "subtract": "by subtraction", "none": "never"}[spec.reset]
    return f"{how}, a step late" if spec.reset_delay else how
