"""A spiking network that trains as real numbers and runs as integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_export.models.arithmetic import state_units
from snn_export.models.delay import Delay
from snn_export.models.neurons.integer_lif import IntegerSynaptic, SpikeGradient
from snn_export.models.quantised.layer import QuantisedLayer, as_integers, exact_type
from snn_export.models.quantised.plan import Delays, Onto, PopulationPlan, StudentPlan, WirePlan
from snn_export.models.quantised.safety import Integers, safe_integers


@dataclass(frozen=True, eq=False)
class EncodedInput:
    """What reaches the network: integer levels (S, B, *shape), S = T steps or 1 where they are the same in every step.

    host: biases that a host computed from the input, by population, (B, *features) membrane units.
    """

    levels: Tensor
    host: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LayerIntegers:
    """Integers of a layer: weight before its exponent, biases (out,) by what they are added to."""

    weight: NDArray[np.int64]
    biases: Mapping[Onto, NDArray[np.int64]]


Encode = Callable[[Tensor], EncodedInput]

Observer = Callable[[str, Tensor, Tensor, Tensor], None]
"""Called as ``observe(population, spikes, current, membrane)``, each (T, B, *features), whole numbers, without gradient."""


class QuantisedStudent(nn.Module):
    """A network whose forward pass is the chip's: integer weights, integer state, and the real parameters behind them.

    What it fires, and every u and v, equals what the integer simulator computes from :meth:`integers`, bit for bit: both call
    ``models/arithmetic.py``. Scales, thresholds, decays and the input's grid are fixed; weights and biases learn, and never
    leave the limits in which the network is proven safe (``models/quantised/safety.py``).

    Shapes: inputs as ``encode`` takes them, (B, *shape) as a rule; logits (B, K) in real units.
    """

    def __init__(self, plan: StudentPlan, encode: Encode, spike_grad: SpikeGradient | None = None) -> None:
        """Start on the integers of ``plan``. ``spike_grad``: a surrogate of ``snntorch.surrogate``."""
        super().__init__()
        self._plan, self._encode = plan, encode
        self._names = tuple(plan.layers)
        self.layers = nn.ModuleList(QuantisedLayer(layer) for layer in plan.layers.values())
        self._neurons = {name: _neuron(population, spike_grad) for name, population in plan.populations.items()}

    @property
    def plan(self) -> StudentPlan:
        """What it was built from."""
        return self._plan

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, K): what the readout rule ranks, real units, a membrane divided by T as the float students do."""
        history = self._run(self._encode(inputs), None)[self._plan.readout]
        plan, unit = self._plan, state_units(self._plan.populations[self._plan.readout].scale)
        if plan.rule == "spike_count":
            return history.spikes.sum(dim=0).flatten(1)
        membrane = history.membrane / unit
        if plan.rule == "membrane_last":
            return (membrane[-1] / plan.steps).flatten(1)
        return (membrane.mean(dim=0) if plan.rule == "membrane_mean" else membrane.amax(dim=0)).flatten(1)

    def run(self, encoded: EncodedInput, observe: Observer) -> None:
        """Run without gradient; ``observe`` sees every population."""
        with torch.no_grad():
            self._run(encoded, observe)

    def integers(self) -> dict[str, LayerIntegers]:
        """The integers of every layer by name, as they are run: rounded, and within the limits."""
        with torch.no_grad():
            found = {name: values for population in self._plan.populations for name, values in self._integers(population).items()}
        return {
            name: LayerIntegers(
                as_integers(values.weight),
                {plan.onto: as_integers(bias) for plan, bias in zip(self._plan.layers[name].biases, values.biases, strict=True)},
            )
            for name, values in found.items()
        }

    def _layer(self, name: str) -> QuantisedLayer:
        layer: QuantisedLayer = self.layers[self._names.index(name)]  # type: ignore[assignment]
        return layer

    def _integers(self, population: str) -> dict[str, Integers]:
        plan = self._plan.populations[population]
        return safe_integers(plan, {wire.layer: self._layer(wire.layer) for wire in plan.wires})

    def _run(self, encoded: EncodedInput, observe: Observer | None) -> dict[str, _History]:
        plan = self._plan
        signals: dict[str, Tensor] = {plan.input_name: encoded.levels}
        found: dict[str, _History] = {}
        for stage in plan.stages:
            members = [self._member(name, stage, signals, encoded) for name in stage]
            for t in range(plan.steps):
                for member in members:
                    member.advance(t, {other.plan.name: other for other in members})
            for member in members:
                found[member.plan.name] = history = member.history()
                signals[member.plan.name] = history.spikes
                if observe is not None:
                    observe(member.plan.name, history.spikes, history.current, history.membrane)
        return found

    def _member(self, name: str, stage: Sequence[str], signals: Mapping[str, Tensor], encoded: EncodedInput) -> _Member:
        """A population with everything from outside its stage already summed, in a type that holds every partial sum."""
        plan, integers = self._plan.populations[name], self._integers(name)
        batch, number = encoded.levels.shape[1], exact_type(self._sum_bound(plan, integers))
        outside, bias, loops = torch.zeros(1, batch, *plan.shape, dtype=number), torch.zeros(plan.shape), []
        for layer_name, values in integers.items():
            layer = self._layer(layer_name)
            for kind, value in zip(layer.bias_plans, values.biases, strict=True):
                spread = layer.spread_bias(value).reshape(plan.shape)
                if kind.onto == "current":
                    outside = outside + spread
                else:
                    bias = bias + spread * float(1 << plan.bias_exponent)
        for wire in plan.wires:
            layer, weight = self._layer(wire.layer), integers[wire.layer].weight.to(number)
            if wire.source in stage:
                loops.append(_Loop(wire, layer, weight))
            else:
                sums = _sums(layer, weight, wire, signals[wire.source], self._plan.steps)
                outside = outside + sums.reshape(len(sums), batch, *plan.shape)
        host = encoded.host.get(name)
        return _Member(plan, self._neurons[name], outside, bias if host is None else bias + host.to(bias.dtype), loops)

    def _sum_bound(self, population: PopulationPlan, integers: Mapping[str, Integers]) -> float:
        """Largest |partial sum| in front of a population, all wires and currents added in any order."""
        bound = 0.0
        for wire in population.wires:
            largest = max(abs(wire.low), abs(wire.high))
            bound += self._layer(wire.layer).sum_bound(integers[wire.layer].weight, largest)
        for name, values in integers.items():
            plans = zip(self._layer(name).bias_plans, values.biases, strict=True)
            bound += sum(float(bias.detach().abs().max()) for plan, bias in plans if plan.onto == "current" and bias.numel())
        return bound

    def extra_repr(self) -> str:
        """What decides its behaviour beside the parameters."""
        plan = self._plan
        registers = (
            f"{p.name}: {p.neuron}, vth={p.threshold}, S={p.scale!r}, e={p.bias_exponent}, {p.limits}, "
            + ", ".join(f"{w.source}->{w.layer} {_text(w.before)}+{_text(w.after)} in {w.low}..{w.high}" for w in p.wires)
            for p in plan.populations.values()
        )
        return f"steps={plan.steps}, readout={plan.readout} by {plan.rule}\n" + "\n".join(registers)


@dataclass(frozen=True, eq=False)
class _History:
    """Spikes, u and v of a population, (T, B, *features)."""

    spikes: Tensor
    current: Tensor
    membrane: Tensor


class _Member:
    """A population while its stage is stepped."""

    def __init__(
        self, plan: PopulationPlan, neuron: IntegerSynaptic, outside: Tensor, bias: Tensor, loops: Sequence[_Loop]
    ) -> None:
        self.plan, self._neuron, self._outside, self._bias, self._loops = plan, neuron, outside, bias, loops
        self._u, self._v = neuron.init_synaptic()
        self.spikes: list[Tensor] = []
        self._currents: list[Tensor] = []
        self._membranes: list[Tensor] = []

    def advance(self, t: int, members: Mapping[str, _Member]) -> None:
        """Integrate, fire and reset in local step ``t``."""
        a = self._outside[min(t, len(self._outside) - 1)]
        for loop in self._loops:
            arrived = loop.arriving(t, members[loop.wire.source].spikes)
            a = a if arrived is None else a + arrived.reshape(a.shape)
        if self.plan.neuron.resets_at(t):
            self._u, self._v = self._neuron.init_synaptic()
        # What is left when all is added fits: the population's limits keep it far below 2^24.
        spikes, self._u, self._v = self._neuron(a.to(torch.float32), self._u, self._v, self._bias)
        self.spikes.append(spikes)
        self._currents.append(self._u)
        self._membranes.append(self._v)

    def history(self) -> _History:
        """Everything it did."""
        return _History(torch.stack(self.spikes), torch.stack(self._currents), torch.stack(self._membranes))


class _Loop:
    """A wire between populations that are stepped together: spikes are looked up as they were, sums are kept for later."""

    def __init__(self, wire: WirePlan, layer: QuantisedLayer, weight: Tensor) -> None:
        self.wire, self._layer, self._weight = wire, layer, weight
        self._sums: dict[int, Tensor | None] = {}

    def arriving(self, t: int, spikes: Sequence[Tensor]) -> Tensor | None:
        """Synaptic sums of step ``t``, (B, *output_shape); None where nothing can have arrived yet."""
        return _delayed_at(t, self.wire.after, self._layer.geometry.output_shape, lambda at: self._sum(at, spikes))

    def _sum(self, t: int, spikes: Sequence[Tensor]) -> Tensor | None:
        if t not in self._sums:
            shape = self._layer.geometry.input_shape
            heard = _delayed_at(t, self.wire.before, shape, lambda at: spikes[at].reshape(-1, *shape))
            self._sums[t] = None if heard is None else self._layer.apply_weight(heard, self._weight)
        return self._sums[t]


def _delayed_at(t: int, delays: Delays, shape: tuple[int, ...], at: Callable[[int], Tensor | None]) -> Tensor | None:
    """Value of a signal at step ``t`` after delays, one for all or one per feature (*shape); None before its first step."""
    if isinstance(delays, int):
        return at(t - delays) if t >= delays else None
    total: Tensor | None = None
    per_feature = torch.from_numpy(np.broadcast_to(delays, shape).copy())
    for delay in np.unique(delays).tolist():
        value = at(t - delay) if t >= delay else None
        if value is not None:
            part = value * (per_feature == delay)
            total = part if total is None else total + part
    return total


def _sums(layer: QuantisedLayer, weight: Tensor, wire: WirePlan, signal: Tensor, steps: int) -> Tensor:
    """Synaptic sums (S, B, *output_shape) of a whole signal (S, B, *features), S = T or 1."""
    x = _later(signal.reshape(*signal.shape[:2], *layer.geometry.input_shape), wire.before, steps)
    out = layer.apply_weight(x.flatten(0, 1), weight).reshape(*x.shape[:2], *layer.geometry.output_shape)
    return _later(out, wire.after, steps)


def _later(signal: Tensor, delays: Delays, steps: int) -> Tensor:
    if not np.any(delays):
        return signal
    whole = signal.expand(steps, *signal.shape[1:]) if len(signal) == 1 else signal
    later: Tensor = Delay(delays if isinstance(delays, int) else torch.from_numpy(delays))(whole)
    return later


def _neuron(population: PopulationPlan, spike_grad: SpikeGradient | None) -> IntegerSynaptic:
    spec = population.neuron
    return IntegerSynaptic(
        spec.du, spec.decay_register, population.threshold, reset="subtract" if spec.microcode else "zero",
        spiking=spec.spiking, spike_grad=spike_grad,
    )  # fmt: skip


def _text(delays: Delays) -> str:
    return str(delays) if isinstance(delays, int) else str(delays.tolist())
