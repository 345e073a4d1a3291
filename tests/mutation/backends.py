"""Backends with a fault in them, and how the verifier gets at them: by name, as at any other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import snn_export
from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.interpreter import Activity, Step
from snn_export.hardware_sims import registry
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.simulator import Availability, Capabilities, Simulator
from snn_export.hardware_sims.trace import LayerTrace, Record, Trace, layer_trace, read_out
from snn_export.models import arithmetic
from snn_export.models.diagnostics import Diagnostic
from snn_export.reporting.report import Report
from tests.mutation.networks import Network

Array = NDArray[Any]
NAME = "faulty"


@dataclass(eq=False)
class Faulty:
    """A real backend, given another network or other inputs, or whose answer is changed.

    It claims to compute what the real one does, and answers under a name of its own.
    """

    real: Simulator
    network: Callable[[Deployment], Deployment] = lambda deployment: deployment
    inputs: Callable[[Array], Array] = lambda inputs: inputs
    answer: Callable[[Trace], Trace] = lambda trace: trace
    name: str = NAME

    def capabilities(self) -> Capabilities:
        return self.real.capabilities()

    def availability(self) -> Availability:
        return self.real.availability()

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        return self.real.check(deployment)

    def compile(self, deployment: Deployment) -> tuple[Deployment, Any]:
        return deployment, self.real.compile(self.network(deployment))

    def run(self, program: tuple[Deployment, Any], inputs: Array, record: Collection[Record]) -> Trace:
        asked, real = program
        trace = self.real.run(real, self.inputs(inputs), record)
        layers = {  # in the order of the network that was asked for, and as if it had run
            name: replace(trace.layers[name], latency=asked.contract.latency[name])
            for name in asked.layers
        }  # fmt: skip
        return self.answer(replace(trace, backend=self.name, layers=layers))


@dataclass(frozen=True)
class Equations:
    """One step of Loihi's neuron in parts that can be exchanged; as they stand, the equations of ``models/arithmetic.py``.

    floor: the decays round toward minus infinity. from_threshold: v >= theta. late: the reset comes in the next step.
    biases: how often the bias is added.
    """

    floor: bool = False
    from_threshold: bool = False
    late: bool = False
    wraps: bool = True
    saturates: bool = True
    biases: int = 1

    def step(self, deployment: Deployment, name: str) -> Step:
        """One step of a population."""
        population, spec = deployment.populations[name], deployment.contract.neurons[name]
        bias, threshold = self.biases * deployment.bias(name), population.threshold << arithmetic.STATE_SHIFT
        fires = arithmetic.fires_from if self.from_threshold else arithmetic.fires

        def reset(v: Array, fired: Array) -> Array:
            done: Array = (
                arithmetic.reset_by_subtraction(v, fired, threshold) if spec.microcode else arithmetic.reset_to_zero(v, fired)
            )
            return done

        def step(u: Array, v: Array, x: Array) -> tuple[Array, Array, Array, int]:
            if self.late:
                v = reset(v, fires(v, threshold))
            wide_u = self._kept(u, arithmetic.DECAY_MAX - population.du) + (x << arithmetic.STATE_SHIFT)
            u = self._bounded(wide_u, self.wraps)
            wide_v = self._kept(v, arithmetic.DECAY_ONE - population.dv) + u + bias
            v = self._bounded(wide_v, not self.saturates)
            overflows = arithmetic.current_overflows(wide_u).sum() + arithmetic.membrane_overflows(wide_v).sum()
            fired = fires(v, threshold)
            return u, v if self.late else reset(v, fired), fired, int(overflows)

        return step

    def _kept(self, state: Array, keep: int) -> Array:
        kept: Array = (state * keep) >> arithmetic.DECAY_BITS if self.floor else arithmetic.decay_toward_zero(state, keep)
        return kept

    @staticmethod
    def _bounded(state: Array, wraps: bool) -> Array:
        bounded: Array = arithmetic.wrap_current(state) if wraps else arithmetic.saturate_membrane(state)
        return bounded


@dataclass(eq=False)
class Interpreted:
    """Loihi's integers stepped in NumPy, with equations of our own in some layers.

    remembers: a layer whose state is not cleared between samples.
    """

    equations: Mapping[str, Equations] = field(default_factory=dict)
    remembers: str = ""
    name: str = "interpreted"

    def capabilities(self) -> Capabilities:
        return Capabilities("loihi_integer", needs_integers=True, description="equations in NumPy")

    def availability(self) -> Availability:
        return Availability(True, versions={"numpy": np.__version__})

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        return []

    def compile(self, deployment: Deployment) -> Deployment:
        return deployment

    def run(self, program: Deployment, inputs: Array, record: Collection[Record]) -> Trace:
        signals = interpreter.input_signals(program, inputs)
        steps = {name: self.equations.get(name, Equations()).step(program, name) for name in program.layers}
        if not self.remembers:
            return self._trace(program, interpreter.run_with(program, signals, steps, "int64"), record)
        steps[self.remembers] = remembering(steps[self.remembers], program.contract.steps)
        runs = [
            interpreter.run_with(program, {name: signal[:, b : b + 1] for name, signal in signals.items()}, steps, "int64")
            for b in range(next(iter(signals.values())).shape[1])
        ]
        return self._trace(program, {name: joined([run[name] for run in runs]) for name in program.layers}, record)

    def _trace(self, program: Deployment, run: Mapping[str, Activity], record: Collection[Record]) -> Trace:
        last = run[program.contract.readout.node]
        layers = {
            name: layer_trace(
                found.spikes, found.membrane.astype(np.int32), found.current.astype(np.int32), record, overflows=found.overflows,
                unit=program.populations[name].unit, latency=program.contract.latency[name],
            )
            for name, found in run.items()
        }  # fmt: skip
        return Trace(self.name, layers, *read_out(program.contract.readout, last.spikes, last.membrane), {})


def remembering(step: Step, length: int) -> Step:
    """A step of a neuron that starts a sample with the state in which the one before ended."""
    calls, kept = 0, list[Array]()

    def advance(u: Array, v: Array, x: Array) -> tuple[Array, Array, Array, int]:
        nonlocal calls
        if calls % length == 0 and kept:
            u, v = kept
        calls += 1
        found = step(u, v, x)
        kept[:] = found[:2]
        return found

    return advance


def joined(runs: list[Activity]) -> Activity:
    """Samples that ran one by one."""
    spikes, current, membrane = (
        np.concatenate([getattr(run, what) for run in runs], axis=1) for what in ("spikes", "current", "membrane")
    )
    return Activity(spikes, current, membrane, sum(run.overflows for run in runs))


@dataclass(eq=False)
class FloatState:
    """The network's integers with float state, presented as integers: a floating-point model in disguise."""

    name: str = "float state"

    def capabilities(self) -> Capabilities:
        return Capabilities("loihi_integer", needs_integers=True, description="says so")

    def availability(self) -> Availability:
        return Availability(True)

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        return []

    def compile(self, deployment: Deployment) -> Deployment:
        return deployment

    def run(self, program: Deployment, inputs: Array, record: Collection[Record]) -> Trace:
        trace = simulator("reference").run(program, inputs, record)
        layers = {}
        for name, layer in trace.layers.items():
            unit = program.populations[name].unit
            states = {
                what: None if state is None else np.rint(state / unit).astype(np.int32)
                for what, state in (("membrane", layer.membrane), ("current", layer.current))
            }
            layers[name] = replace(layer, unit=unit, **states)  # type: ignore[arg-type]
        return replace(trace, layers=layers)


def changed(trace: Trace, layer: str, **fields: Any) -> Trace:
    """A trace with something else recorded of one layer; counts follow the spikes."""
    found: LayerTrace = replace(trace.layers[layer], **fields)
    if "spikes" in fields and found.spikes is not None:
        found = replace(found, counts=found.spikes.sum(axis=0, dtype=np.int64))
    return replace(trace, layers={**trace.layers, layer: found})


_CURRENT: list[Simulator] = []


def current(**_: Any) -> Simulator:
    """What the registry makes while a faulty backend is in place."""
    return _CURRENT[-1]


@contextmanager
def registered(backend: Simulator) -> Iterator[None]:
    """Known to the registry as :data:`NAME`. An exception it raises ends the test: it counts as built in."""
    known = cast(dict[str, str], registry.BUILT_IN)
    _CURRENT.append(backend)
    known[NAME] = f"{__name__}:current"
    try:
        yield
    finally:
        _CURRENT.pop()
        del known[NAME]


def verified(network: Network, backend: Simulator, side: str = "target") -> Report:
    """The verdict of the library's ``verify`` on a faulty backend as the target, or as the reference."""
    ends = (network.reference, NAME) if side == "target" else (NAME, network.reference)
    with registered(backend):
        return snn_export.verify(network.deployment, network.inputs, reference=ends[0], targets=[ends[1]])
