"""Quantise to the Loihi grid: one scale S per population, shared by all connections into it.

    weight_int = step * round(w S / (2^e step))   one of the integers of ``models/weight_grid.py``; e: exponent of the layer
    vth        = round(theta S)                   17 bits
    bias       = mantissa << exponent, nearest to 64 S b; 13-bit mantissa, one exponent 0..7 per population
    current    = 2 round(b S / 2)                 a bias in front of a synaptic filter: an always-on current
    level      = round(x gain)                    graded input; its weights are on the grid S / gain

The largest S is set by the first limit it meets: weights, threshold, bias, 24 bits of u or v, or a readout that must never
fire. Larger S is a finer grid, but a coarser one sometimes represents a network better by chance, a power of two is kept
where it costs nothing, and with few bits per weight a grid that clips the largest weights represents the others better; so a few
candidates per population are compared by what they do to the network on calibration data.
The number of input levels is chosen together with S: a finer input leaves less of the weight range (semantics: for a 3x3x3
first layer 8-bit pixels leave |w| <= 19, 6 bits 77, 4 bits 254).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np

from snn_export.export import bounds, encoding, grid
from snn_export.export.chips import chip_of
from snn_export.export.contract import Quantisation
from snn_export.export.deployment import Deployment
from snn_export.export.graph import weight_array
from snn_export.export.passes.pass_ import Exactness
from snn_export.export.passes.rounding import NETX_BIAS_EXPONENT, GridRules, InputRange, integers, scale_limits
from snn_export.export.targets import ChipName
from snn_export.models import arithmetic
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec
from snn_export.models.weight_grid import WEIGHT_BITS, weight_grid

Score = Callable[[Deployment], float]

CLIPPING = (1.25, 1.6, 2.0, 2.5)
"""Factors by which a scale may pass what the largest weight allows, which is then clipped."""


@final
@dataclass(frozen=True)
class Quantize:
    """Search scales and input levels, and put the network on the grid.

    Attributes:
        target: chip. Both have the integer neuron described in ``models/arithmetic.py``; what each takes besides stands in
            ``export/chips.py``: graded input, and resets by subtraction where neurons are programmable.
        score: how far a quantised candidate is from the float network on calibration data; smaller is better.
        input_range: declared range of real inputs.
        weight_bits: 1..8, sign included where a layer has weights of both signs; one bit then holds -256 and 0.
        bias_exponent: one exponent for all biases; None: one per population. 6 is for lava-dl's netx: no weight exponents either.
    """

    target: ChipName
    score: Score
    input_range: InputRange
    weight_bits: int = WEIGHT_BITS
    bias_exponent: int | None = None
    name: ClassVar[str] = "quantize"
    exactness: ClassVar[Exactness] = "APPROXIMATE"

    @property
    def rules(self) -> GridRules:
        """What the integers must obey."""
        return GridRules(self.weight_bits, self.bias_exponent, self.input_range)

    def __call__(self, deployment: Deployment) -> Deployment:
        """A quantised deployment that cannot overflow.

        Raises:
            UserError: SNX246 a graph that is not ready, SNX247 and SNX278 an input the chip cannot take, SNX306 no scale fits,
                SNX307 weight bits and SNX314 a bias exponent out of range, SNX203 reset, SNX201 a membrane with another rest
                than 0.
        """
        self._check_settings()
        _check_ready(deployment, self.target, self.input_range)
        best: tuple[tuple[float, int], Deployment] | None = None
        refusal = ("input", "the declared input range is empty or not finite")
        for encoder in input_grids(deployment.contract.encoder, self.input_range, chip_of(self.target).graded_input_bits):
            limits = {name: scale_limits(deployment, encoder, name, self.rules) for name in deployment.layers}
            candidate = self._build(deployment, encoder, {name: min(found.values()) for name, found in limits.items()})
            if isinstance(candidate, str):
                refusal = (candidate, "where its bias and states fit the registers, every weight or the threshold rounds to zero")
                continue
            key = (self.score(candidate), encoder.bits)
            if best is None or key < best[0]:
                best = key, candidate
        if best is None:
            raise _no_scale(*refusal)
        return self._refine(deployment, best[1], best[0][0])

    def _check_settings(self) -> None:
        weight_grid(self.weight_bits, "mixed")
        if self.bias_exponent is not None and not 0 <= self.bias_exponent <= arithmetic.BIAS_EXPONENT_MAX:
            raise UserError(
                "SNX314", f"a bias exponent of {self.bias_exponent}", where="bias_exponent",
                why=f"the chip shifts a bias mantissa by 0 to {arithmetic.BIAS_EXPONENT_MAX} bits",
                fix=f"use {NETX_BIAS_EXPONENT} for lava-dl's netx, or None to let every population choose",
            )  # fmt: skip

    def _refine(self, deployment: Deployment, chosen: Deployment, best: float) -> Deployment:
        """Coordinate search over populations, sources first. A power of two wins a tie."""
        for name in deployment.layers:
            scales = {layer: population.scale for layer, population in chosen.populations.items()}
            for scale in self._candidates(deployment, chosen, name):
                candidate = self._build(deployment, chosen.contract.encoder, {**scales, name: scale})
                if isinstance(candidate, str):
                    continue
                score = self.score(candidate)
                if score < best or (score == best and _is_power_of_two(scale)):
                    chosen, best = candidate, score
        return chosen

    def _candidates(self, deployment: Deployment, chosen: Deployment, name: str) -> Iterator[float]:
        """Scales to try: the power of two below, three more, and with few weight bits some that clip the largest weights."""
        scale = chosen.populations[name].scale
        yield 2.0 ** math.floor(math.log2(scale))
        for factor in (0.9, 0.8, 0.7):
            yield scale * factor
        limits = scale_limits(deployment, chosen.contract.encoder, name, self.rules)
        weights = [limit for what, limit in limits.items() if what.startswith("weight")]
        if self.weight_bits < WEIGHT_BITS and weights:
            rest = [limit for limit in limits.values() if limit not in weights]
            for factor in CLIPPING:
                yield min([scale * factor, *rest])

    def _build(self, deployment: Deployment, encoder: EncoderSpec, scales: Mapping[str, float]) -> Deployment | str:
        """The deployment at these scales, each lowered until its integer bounds hold; or the population with no such scale.

        Bounds grow with the scale up to rounding, so the quotient of limit and bound says how far down to go; the two per cent
        are for the rounding.
        """
        scales = dict(scales)
        while True:
            quantised = self._at(deployment, encoder, scales)
            for name in deployment.layers:
                if _vanishes(deployment, quantised, name):
                    return name
            found = bounds.all_bounds(quantised)
            unsafe = [name for name, bound in found.items() if not bound.safe]
            if not unsafe:
                return self._with_binding(deployment, quantised, found)
            for name in unsafe:
                scales[name] *= 0.98 * min(1.0, *found[name].headroom.values())

    def _at(self, deployment: Deployment, encoder: EncoderSpec, scales: Mapping[str, float]) -> Deployment:
        synapses, populations = integers(deployment, encoder, scales, self.rules)
        quantisation = Quantisation(target=self.target, weight_bits=self.weight_bits, scale=dict(scales), binding={})
        placed = grid.on_grid(deployment, encoder, synapses, populations)
        return placed.replace(contract=placed.contract.model_copy(update={"quantisation": quantisation}))

    def _with_binding(
        self, deployment: Deployment, quantised: Deployment, found: Mapping[str, bounds.PopulationBounds]
    ) -> Deployment:
        """State for every population the limit that a growing scale would meet first: a register, or 24 bits of state."""
        binding = {}
        for name, population in quantised.populations.items():
            limits = scale_limits(deployment, quantised.contract.encoder, name, self.rules)
            limits |= {what: population.scale * factor for what, factor in found[name].headroom.items()}
            binding[name] = min(limits, key=lambda what: limits[what])
        scales = {name: population.scale for name, population in quantised.populations.items()}
        stated = Quantisation(target=self.target, weight_bits=self.weight_bits, scale=scales, binding=binding)
        return quantised.replace(contract=quantised.contract.model_copy(update={"quantisation": stated}))


def _vanishes(deployment: Deployment, quantised: Deployment, population: str) -> bool:
    """True where all weights of a connection, or the threshold, were rounded to zero: that is another network."""
    spiking = deployment.contract.neurons[population].spiking
    if spiking and not quantised.populations[population].threshold and grid.threshold_of(deployment.graph.nodes[population]) > 0:
        return True
    synapses = [name for name, (target, _) in grid.synapse_targets(deployment).items() if target == population]
    return any(np.any(weight_array(deployment.graph.nodes[name])) and not np.any(quantised.synapses[name].weight)
               for name in synapses)  # fmt: skip


def input_grids(encoder: EncoderSpec, seen: InputRange, most_bits: int) -> Iterator[EncoderSpec]:
    """Level grids to try: powers of two first, then grids that end exactly at the largest input, up to ``most_bits`` bits.

    Spikes are a grid already, and a host computes with real numbers: then there is one.
    """
    if not (math.isfinite(seen.low) and math.isfinite(seen.high)):
        return
    if encoder.kind in ("rate", "bias"):
        yield encoder
        return
    if encoder.kind == "events":
        if seen.low == math.floor(seen.low) and seen.high == math.floor(seen.high):
            yield replace(encoder, gain=1.0, low=min(0, round(seen.low)), high=max(1, round(seen.high)))
        return
    largest = max(abs(seen.low), abs(seen.high))
    if largest == 0:
        return
    gains = [2.0**e for e in range(-8, 24)] + [((1 << bits) - 1) / largest for bits in range(1, most_bits + 1)]
    for gain in gains:
        low, high = min(0, round(seen.low * gain)), max(0, round(seen.high * gain))
        if 1 <= max(-low, high) < 1 << most_bits:
            found = replace(encoder, gain=gain, low=low, high=high)
            if found.bits <= most_bits:
                yield found


def _check_ready(deployment: Deployment, target: ChipName, seen: InputRange) -> None:
    if deployment.quantised:
        raise _not_ready("deployment", "it is quantised already", "quantise the float deployment it came from")
    grid.check_decays(deployment)
    encoder = deployment.contract.encoder
    graded = encoder.kind == "direct" or (encoder.kind == "events" and (seen.low < 0 or seen.high > 1))
    chip = chip_of(target)
    if graded and not chip.graded_input_bits:
        raise UserError.from_diagnostics((encoding.graded_input_finding(f"{encoder.kind} input in {seen.low:g}..{seen.high:g}"),))
    if filtered := encoding.filtered_host_findings(deployment):
        raise UserError.from_diagnostics(tuple(filtered))
    for name, spec in deployment.contract.neurons.items():
        finding = spec.reset_finding(name, chip.programmable_neurons)
        if finding is not None:
            raise UserError.from_diagnostics((finding,))
        if grid.is_filtered(deployment, name) and np.any(deployment.graph.nodes[name].v_leak):
            raise UserError(
                "SNX201",
                f"v_leak of {name} is not zero",
                where=name,
                why="the canonical neuron rests at zero; nothing here would apply another value",
                fix="shift the threshold and the bias so that it is zero",
            )


def _is_power_of_two(scale: float) -> bool:
    return math.frexp(scale)[0] == 0.5


def _no_scale(where: str, why: str) -> UserError:
    return UserError(
        "SNX306",
        f"no scale puts {where} on the grid",
        where=where,
        why=why,
        fix="reduce the input range, T or the size of the weights",
    )


def _not_ready(where: str, why: str, fix: str) -> UserError:
    return UserError("SNX246", "this deployment cannot be quantised", where=where, why=why, fix=fix)
