"""Quantise to the Loihi grid: one scale S per population, shared by all connections into it.

    weight_int = step * round(w S / step)   even integers in -256..254 for 8 bits, mixed signs (step = 2^(9 - bits))
    vth        = round(theta S)             17 bits
    bias       = mantissa << exponent, nearest to 64 S b; 13-bit mantissa, one exponent 0..7 per population
    level      = round(x gain)              graded input; its weights are on the grid S / gain

The largest S is set by the first limit it meets: weights, threshold, bias, 24 bits of u or v, or a readout that must never
fire. Larger S is a finer grid, but a coarser one sometimes represents a network better by chance, and a power of two is kept
where it costs nothing; so a few candidates per population are compared by what they do to the network on calibration data.
The number of input levels is chosen together with S: a finer input leaves less of the weight range (semantics: for a 3x3x3
first layer 8-bit pixels leave |w| <= 19, 6 bits 77, 4 bits 254).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import nir
import numpy as np

from snn_export.export import bounds, grid
from snn_export.export.contract import Quantisation
from snn_export.export.deployment import Deployment, IntegerPopulation, IntegerSynapse
from snn_export.export.passes.pass_ import Exactness
from snn_export.models import arithmetic
from snn_export.models.diagnostics import UserError
from snn_export.models.spec import EncoderSpec

Target = Literal["loihi1", "loihi2"]
Score = Callable[[Deployment], float]

LARGEST_BIAS = (arithmetic.BIAS_MANTISSA_MAX - 1) << arithmetic.BIAS_EXPONENT_MAX
MAX_INPUT_BITS = 8


@dataclass(frozen=True)
class InputRange:
    """Range of real inputs seen in calibration data; levels beyond it are clipped."""

    low: float
    high: float


@final
@dataclass(frozen=True)
class Quantize:
    """Search scales and input levels, and put the network on the grid.

    Attributes:
        target: chip. Both have the integer neuron described in ``models/arithmetic.py``; only loihi2 takes graded input.
        score: how far a quantised candidate is from the float network on calibration data; smaller is better.
        input_range: declared range of real inputs.
        weight_bits: 2..8, sign included.
    """

    target: Target
    score: Score
    input_range: InputRange
    weight_bits: int = 8
    name: ClassVar[str] = "quantize"
    exactness: ClassVar[Exactness] = "APPROXIMATE"

    def __call__(self, deployment: Deployment) -> Deployment:
        """A quantised deployment that cannot overflow.

        Raises:
            UserError: SNX246 a graph that is not ready, SNX306 no scale fits, SNX307 bits out of range, SNX203 reset.
        """
        if not 2 <= self.weight_bits <= 8:
            raise UserError(
                "SNX307",
                f"{self.weight_bits} weight bits",
                where="quantize",
                why="a synapse holds 2 to 8 bits here",
                fix="choose 2 to 8",
            )
        _check_ready(deployment, self.target, self.input_range)
        best: tuple[tuple[float, int], Deployment] | None = None
        refusal = ("input", "the declared input range is empty or not finite")
        for encoder in input_grids(deployment.contract.encoder, self.input_range):
            limits = {name: scale_limits(deployment, encoder, name, self.weight_bits) for name in deployment.layers}
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

    def _refine(self, deployment: Deployment, chosen: Deployment, best: float) -> Deployment:
        """Coordinate search over populations, sources first. A power of two wins a tie."""
        for name in deployment.layers:
            scales = {layer: population.scale for layer, population in chosen.populations.items()}
            for scale in _candidates(scales[name]):
                candidate = self._build(deployment, chosen.contract.encoder, {**scales, name: scale})
                if isinstance(candidate, str):
                    continue
                score = self.score(candidate)
                if score < best or (score == best and _is_power_of_two(scale)):
                    chosen, best = candidate, score
        return chosen

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
        synapses, populations = integers(deployment, encoder, scales, self.weight_bits)
        quantisation = Quantisation(target=self.target, weight_bits=self.weight_bits, scale=dict(scales), binding={})
        placed = grid.on_grid(deployment, encoder, synapses, populations)
        return placed.replace(contract=placed.contract.model_copy(update={"quantisation": quantisation}))

    def _with_binding(
        self, deployment: Deployment, quantised: Deployment, found: Mapping[str, bounds.PopulationBounds]
    ) -> Deployment:
        """State for every population the limit that a growing scale would meet first: a register, or 24 bits of state."""
        binding = {}
        for name, population in quantised.populations.items():
            limits = scale_limits(deployment, quantised.contract.encoder, name, self.weight_bits)
            limits |= {what: population.scale * factor for what, factor in found[name].headroom.items()}
            binding[name] = min(limits, key=lambda what: limits[what])
        scales = {name: population.scale for name, population in quantised.populations.items()}
        stated = Quantisation(target=self.target, weight_bits=self.weight_bits, scale=scales, binding=binding)
        return quantised.replace(contract=quantised.contract.model_copy(update={"quantisation": stated}))


def _vanishes(deployment: Deployment, quantised: Deployment, population: str) -> bool:
    """True where all weights of a connection, or the threshold, were rounded to zero: that is another network."""
    if not quantised.populations[population].threshold:
        return True
    synapses = [name for name, (target, _) in grid.synapse_targets(deployment).items() if target == population]
    return any(np.any(deployment.graph.nodes[name].weight) and not np.any(quantised.synapses[name].weight) for name in synapses)


def input_grids(encoder: EncoderSpec, seen: InputRange) -> Iterator[EncoderSpec]:
    """Level grids to try: powers of two first, then grids that end exactly at the largest input, 1 to 8 bits."""
    if not (math.isfinite(seen.low) and math.isfinite(seen.high)):
        return
    if encoder.kind == "events":
        if seen.low == math.floor(seen.low) and seen.high == math.floor(seen.high):
            yield EncoderSpec("events", 1.0, min(0, round(seen.low)), max(1, round(seen.high)))
        return
    largest = max(abs(seen.low), abs(seen.high))
    if largest == 0:
        return
    gains = [2.0**e for e in range(-8, 24)] + [((1 << bits) - 1) / largest for bits in range(1, MAX_INPUT_BITS + 1)]
    for gain in gains:
        low, high = min(0, round(seen.low * gain)), max(0, round(seen.high * gain))
        if 1 <= max(-low, high) < 1 << MAX_INPUT_BITS:
            found = EncoderSpec(encoder.kind, gain, low, high)
            if found.bits <= MAX_INPUT_BITS:
                yield found


def scale_limits(deployment: Deployment, encoder: EncoderSpec, population: str, weight_bits: int) -> dict[str, float]:
    """Largest scale each register of the chip allows, by name of the limit."""
    step = arithmetic.weight_step(weight_bits)
    gain, limits = grid.input_gain(deployment, population), {}
    largest_weight, largest_bias = 0.0, 0.0
    for name, (target, graded) in grid.synapse_targets(deployment).items():
        if target == population:
            node = deployment.graph.nodes[name]
            level = (encoder.gain or 1.0) if graded else 1.0
            largest_weight = max(largest_weight, float(np.abs(node.weight).max(initial=0.0)) * gain / level)
            largest_bias += float(np.abs(getattr(node, "bias", np.zeros(1))).max(initial=0.0)) * gain
    if largest_weight > 0:
        limits[f"weight ({weight_bits} bits)"] = (256 - step) / largest_weight
    if deployment.contract.neurons[population].spiking:
        threshold = grid.threshold_of(deployment.graph.nodes[population])
        limits["threshold (17 bits)"] = arithmetic.THRESHOLD_MAX / threshold
    if largest_bias > 0:
        limits["bias (13-bit mantissa, exponent 7)"] = LARGEST_BIAS / arithmetic.state_units(largest_bias)
    if not limits:
        limits["none (no weights)"] = 64.0
    return limits


def integers(
    deployment: Deployment, encoder: EncoderSpec, scales: Mapping[str, float], weight_bits: int
) -> tuple[dict[str, IntegerSynapse], dict[str, IntegerPopulation]]:
    """Round every parameter to the grid of its population's scale."""
    step = arithmetic.weight_step(weight_bits)
    synapses: dict[str, IntegerSynapse] = {}
    populations: dict[str, IntegerPopulation] = {}
    targets = grid.synapse_targets(deployment)
    for population in deployment.layers:
        scale, gain, spec = scales[population], grid.input_gain(deployment, population), deployment.contract.neurons[population]
        names = [name for name, (target, _) in targets.items() if target == population]
        biases = {
            name: np.asarray(getattr(deployment.graph.nodes[name], "bias", np.zeros(1))) * gain * arithmetic.state_units(scale)
            for name in names
        }
        largest = sum(float(np.abs(bias).max(initial=0.0)) for bias in biases.values())
        # One mantissa per connection is rounded up by at most a half, and the chip holds their sum.
        room = arithmetic.BIAS_MANTISSA_MAX - len(names) / 2
        exponent = max(0, math.ceil(math.log2(max(largest, 1.0) / room)))
        for name in names:
            node, level = deployment.graph.nodes[name], (encoder.gain or 1.0) if targets[name][1] else 1.0
            rounded = step * np.rint(node.weight * gain / level * scale / step)
            mantissa = np.rint(biases[name] / (1 << exponent)).astype(np.int16) if np.any(biases[name]) else None
            synapses[name] = IntegerSynapse(np.clip(rounded, -256, 256 - step).astype(np.int16), 0, mantissa)
        threshold = arithmetic.THRESHOLD_MAX
        if spec.spiking:
            threshold = round(grid.threshold_of(deployment.graph.nodes[population]) * scale)
        populations[population] = IntegerPopulation(threshold, spec.du, spec.dv, scale, exponent)
    return synapses, populations


def _check_ready(deployment: Deployment, target: Target, seen: InputRange) -> None:
    if deployment.quantised:
        raise _not_ready("deployment", "it is quantised already", "quantise the float deployment it came from")
    grid.check_decays(deployment)
    encoder = deployment.contract.encoder
    if target == "loihi1" and (encoder.kind == "direct" or seen.low < 0 or seen.high > 1):
        raise UserError(
            "SNX247",
            f"{encoder.kind} input in {seen.low:g}..{seen.high:g} needs graded input spikes",
            where="contract.encoder",
            why="Loihi 1 has binary spikes only",
            fix="choose target loihi2, or encode the input as spikes",
        )
    for name, spec in deployment.contract.neurons.items():
        finding = spec.reset_finding(name)
        if finding is not None:
            raise UserError.from_diagnostics((finding,))
        node = deployment.graph.nodes[name]
        feeding = [n for n, (goal, _) in grid.synapse_targets(deployment).items() if goal == name]
        if isinstance(node, nir.CubaLIF | nir.CubaLI) and any(
            np.any(getattr(deployment.graph.nodes[n], "bias", 0)) for n in feeding
        ):
            raise UserError(
                "SNX208",
                f"a bias enters the filtered current of {name}",
                where=name,
                why="the chip's bias is added to the membrane; moved there, most spikes change",
                fix="train the layer before a neuron with a synaptic filter with bias=False",
            )


def _candidates(scale: float) -> Iterator[float]:
    """Scales to try below a limit: the power of two, then three more."""
    yield 2.0 ** math.floor(math.log2(scale))
    for factor in (0.9, 0.8, 0.7):
        yield scale * factor


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
