"""Where the changes between the float network and the integer one come from: one numeric effect at a time.

The ladder from the float network to the full integer one is climbed in two opposite orders. What an effect adds depends on what
was on before it; the difference of its two increments is its interaction with the others. Neither increment names a cause: an
effect is one only if the full integer network loses at least half of its changed spikes when this effect *alone* is switched off.
Then the layers are tried one by one in the same way.

A changed spike is a position (layer, neuron, step, sample) at which a network's spikes differ from the float network's.

One row is of another kind. Where membranes meet their threshold to the last bit, the float network itself decides by the rounding
of its sums; in the units of the grid, where such sums are whole numbers, the same network may fire otherwise. These spikes are
counted as *float rounding*: to switch it off is to compute the float network in the units of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from snn_export.export import effects, encoding
from snn_export.export.deployment import Deployment
from snn_export.export.effects import AS_PARAMETERS, FIRE, INPUT, Forms, Switches
from snn_export.export.graph import input_node
from snn_export.hardware_sims.trace import Trace
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec
from snn_export.reporting.report import Attribution, Effect, EffectLeftOut, EffectOnLayer
from snn_export.verification import attribution_fixes, attribution_words
from snn_export.verification.attribution_runs import CHUNK_BYTES, Counts, Progress, Runs
from snn_export.verification.attribution_words import FLOAT_ROUNDING, HALF, NO_FEW, Seen, Together

DEFAULT_SAMPLES: Final = 64
FEW: Final = 3
"""Effects that are switched off together, at most, where no single one is the cause."""

Array = NDArray[Any]


def attribute(
    float_deployment: Deployment,
    quantised_deployment: Deployment,
    inputs: Array,
    labels: Array | None = None,
    *,
    integer_trace: Trace | None = None,
    samples: int = DEFAULT_SAMPLES,
    reference: str = "folded",
    target: str = "loihi",
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress = lambda message: None,
) -> Attribution:
    """Measure what every numeric effect between two forms of a network changes, by itself and with the others.

    Takes about three runs of the interpreter for every effect that can change anything, and one per layer for the cause.

    Args:
        float_deployment: the form that was quantised: what :func:`snn_export.library.prepared` makes of any float deployment.
        quantised_deployment: the form that was made from it.
        inputs: (B, *shape) or (T, B, *shape), real units.
        labels: (B,) class indices; None: no accuracy.
        integer_trace: spikes of a run of an integer backend on the first of these inputs; None runs ``loihi`` for it.
        samples: at most so many, the first ones.
        reference: name of the float end in the report.
        target: name of the integer end.
        chunk_bytes: memory for one run; the result does not depend on it.
        progress: told what runs.

    Raises:
        UserError: SNX505 where the two are not forms of one network; SNX007 for labels that do not fit; inputs as
            :func:`snn_export.export.encoding.signal`.
        ValueError: for less than one sample.
    """
    if samples < 1:
        raise ValueError(f"an attribution over {samples} samples")
    shaped = encoding.shaped(float_deployment, inputs)
    count = min(samples, shaped.shape[1])
    axis = np.ndim(inputs) - len(float_deployment.input_shape) - 1
    forms, chosen = _forms(float_deployment, quantised_deployment, np.take(inputs, range(count), axis=axis))
    truth = None if labels is None else _checked(np.asarray(labels), shaped.shape[1])[:count]
    seen = attribution_words.seen(forms, forms.encoded(chosen))
    left_out = effects.constant(forms, seen.changed_values > 0)
    climb = _climbed(forms, chosen, truth, left_out, (chunk_bytes, progress), integer_trace)
    return _record(climb, replace(seen, overflows=climb.full.overflows), left_out, (reference, target))


def _forms(floats: Deployment, integers: Deployment, inputs: Array) -> tuple[Forms, Array]:
    """The pair, and inputs that do not depend on how they are cut: the spikes of rate encoding are drawn here, once."""
    found = effects.forms_of(floats, integers)
    if integers.contract.encoder.kind == "rate":
        inputs = encoding.signal(integers, inputs)
        floats = _with_encoder(floats, EncoderSpec("events"))
        integers = _with_encoder(integers, EncoderSpec("events", gain=1.0, low=0, high=1))
        found = effects.forms_of(floats, integers)
    return found, inputs


def _with_encoder(deployment: Deployment, encoder: EncoderSpec) -> Deployment:
    return deployment.replace(contract=deployment.contract.model_copy(update={"encoder": encoder}))


def _checked(labels: Array, samples: int) -> Array:
    if labels.shape != (samples,):
        raise UserError(
            "SNX007", f"labels of shape {labels.shape} for {samples} samples", where="attribute(labels)",
            why="every sample needs its class", fix="pass one label per sample, or None",
        )  # fmt: skip
    return labels


@dataclass(frozen=True, eq=False)
class _Climb:
    """Everything that was measured on the way. ``base``: what stays on, changing nothing; ``included``: the effects in order."""

    runs: Runs
    base: frozenset[str]
    included: tuple[str, ...]

    @property
    def full(self) -> Counts:
        """Of the full integer network."""
        return self.runs.counts[self.runs.full]

    @property
    def tied(self) -> bool:
        """Whether the float network rounds some sum across its threshold."""
        return bool(self.runs.counts[self.runs.none].changed.any())

    @property
    def rows(self) -> tuple[str, ...]:
        """Effects that are listed."""
        return (FLOAT_ROUNDING, *self.included) if self.tied else self.included

    def counts(self, on: frozenset[str]) -> Counts:
        """Of the network with these effects, on top of what changes nothing."""
        return self.runs.counts[Switches(self.base | (on - {FLOAT_ROUNDING}))]

    def changed(self, on: frozenset[str]) -> Array:
        """Changed spikes by layer."""
        found = self.counts(on)
        return found.changed_on_grid if self.tied and FLOAT_ROUNDING not in on else found.changed


def _climbed(
    forms: Forms,
    inputs: Array,
    labels: Array | None,
    left_out: dict[str, str],
    how: tuple[int, Progress],
    trace: Trace | None,
) -> _Climb:
    """Run both orders, and every effect's absence."""
    neurons, fixed = forms.floats.contract.neurons, frozenset(left_out) & AS_PARAMETERS
    included = tuple(effect for effect in effects.ORDER if effect not in left_out)
    layers = tuple(name for name in forms.integers.layers if neurons[name].spiking or FIRE in included)
    everything = frozenset(included)
    runs = Runs(forms, inputs, labels, layers, (Switches(fixed), Switches(fixed | everything)), *how)
    sets = [frozenset(included[: number + 1]) for number in range(len(included))]
    sets += [frozenset(included[number:]) for number in range(len(included))]
    sets += [everything - {effect} for effect in included]
    runs.climb([Switches(fixed | on) for on in sets], trace)
    return _Climb(runs, fixed, included)


def _record(climb: _Climb, seen: Seen, left_out: dict[str, str], ends: tuple[str, str]) -> Attribution:
    rows, changed = _rows(climb, seen), int(climb.full.changed.sum())
    found = max(rows, key=lambda row: row.removed or 0.0, default=None)
    cause = found if found is not None and (found.removed or 0.0) >= HALF else None
    trials = () if cause is None else _trials(climb, seen, cause.name)
    best = min(trials, key=lambda trial: trial.changed, default=None)
    layer = best.layer if best is not None and best.changed < changed else None
    if cause is not None:
        rows = tuple(row.model_copy(update={"layers": trials}) if row is cause else row for row in rows)
    few = NO_FEW if cause is not None or not changed else _few(climb, rows)
    reasons = [EffectLeftOut(name=name, why=why) for name, why in left_out.items()]
    if not climb.tied:
        why = "computed in the units of the grid the float network fires alike: no sum is rounded across a threshold"
        reasons.append(EffectLeftOut(name=FLOAT_ROUNDING, why=why))
    blamed = few.names if cause is None else (cause.name,)
    where = layer or climb.runs.layers[int(climb.full.changed.argmax())] if climb.runs.layers else ""
    return Attribution(
        reference=ends[0],
        target=ends[1],
        samples=climb.runs.samples,
        layers=climb.runs.layers,
        changed=changed,
        changed_by_layer=tuple(int(n) for n in climb.full.changed),
        spikes=climb.runs.spikes + climb.full.spikes,
        effects=rows,
        left_out=tuple(reasons),
        remainder=climb.runs.remainder,
        cause=None if cause is None else cause.name,
        layer=layer,
        sentence=attribution_words.sentence(rows, changed, None if cause is None else cause.name, layer, few)
        + attribution_words.unexplained(climb.runs.remainder, ends[1]),
        fix="; and ".join(attribution_fixes.fix(climb.runs.forms, seen, name, where) for name in blamed),
    )


def _rows(climb: _Climb, seen: Seen) -> tuple[Effect, ...]:
    """Every effect: its increments in both orders, and what is left without it alone."""
    order, everything = climb.rows, frozenset(climb.rows)
    total, rows = int(climb.full.changed.sum()), []
    for number, name in enumerate(order):
        before, now = frozenset(order[:number]), frozenset(order[: number + 1])
        after, back = frozenset(order[number + 1 :]), frozenset(order[number:])
        forward = int(climb.changed(now).sum()) - int(climb.changed(before).sum())
        backward = int(climb.changed(back).sum()) - int(climb.changed(after).sum())
        without = int(climb.changed(everything - {name}).sum())
        gone = (
            not climb.counts(frozenset()).first_gone if name == FLOAT_ROUNDING else climb.counts(everything - {name}).first_gone
        )
        rows.append(
            Effect(
                name=name,
                told=attribution_words.told(climb.runs.forms, seen, name),
                forward=forward,
                backward=backward,
                interaction=forward - backward,
                without=without,
                removed=(total - without) / total if total else None,
                forward_by_layer=tuple(int(n) for n in climb.changed(now)),
                accuracy=100.0 * climb.counts(now).correct / climb.runs.samples if climb.runs.labelled else None,
                explains_first=bool(total) and gone,
            )
        )
    return tuple(rows)


def _few(climb: _Climb, rows: tuple[Effect, ...]) -> Together:
    """Where no effect is the cause: the one that removes most, and others, one by one, until half is gone without them all."""
    removed = {row.name: row.removed or 0.0 for row in rows if row.name != FLOAT_ROUNDING}
    if not removed:
        return NO_FEW
    best = max(removed, key=lambda name: removed[name])
    found, total = Together((best,), removed[best]), int(climb.full.changed.sum())
    while found.removed < HALF and len(found.names) < FEW:
        choices = {name: Switches(climb.runs.full.on - {*found.names, name}) for name in removed if name not in found.names}
        if not choices:
            break
        climb.runs.spare([choice for choice in choices.values() if choice not in climb.runs.counts])
        left = {name: int(climb.runs.counts[choice].changed.sum()) for name, choice in choices.items()}
        best = min(left, key=lambda name: left[name])
        if 1.0 - left[best] / total <= found.removed:
            break
        found = Together((*found.names, best), 1.0 - left[best] / total)
    return found


def _trials(climb: _Climb, seen: Seen, cause: str) -> tuple[EffectOnLayer, ...]:
    """The cause switched off in one layer after the other, everything else staying integer."""
    forms, total = climb.runs.forms, int(climb.full.changed.sum())
    layers = climb.runs.layers
    if cause == INPUT:
        source = input_node(forms.integers.graph)
        layers = tuple(name for name in layers if any(c.source == source for c in forms.integers.connections[name]))
    if cause == FLOAT_ROUNDING:
        left = [total - int(n) for n in climb.full.changed - climb.full.changed_on_grid]
    else:
        choices = [Switches(climb.runs.full.on, cause, name) for name in layers]
        climb.runs.spare(choices)
        left = [int(climb.runs.counts[choice].changed.sum()) for choice in choices]
    return tuple(
        EffectOnLayer(layer=name, changed=changed, told=attribution_words.told_of_layer(forms, seen, cause, name))
        for name, changed in zip(layers, left, strict=True)
    )
