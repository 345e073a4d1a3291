"""Trial: one check's way to the simulator under test. It asks, runs and compares, and knows at which stage something failed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.conformance.networks import Network, float_deployment, on_integers
from snn_export.hardware_sims.simulator import BackendError, Deviating, Simulator
from snn_export.hardware_sims.trace import LayerTrace, Record, Trace
from snn_export.models.diagnostics import Diagnostic, UserError

Array = NDArray[Any]
Stage = Literal["refused", "compile failed", "run failed", "mismatch", "passed", "nothing exercised", "not applicable"]
Expected = str | Sequence[str] | Array
"""Spikes: "0110" of a single neuron, ["01", "11"] of several, or an array (T, B, *features)."""

EVERYTHING: tuple[Record, ...] = ("spikes", "membrane", "current")
MEMBRANE_BOUND: Mapping[str, float] = {"float64": 2.0**-44, "float32": 2.0**-18, "loihi_integer": 0.0, "other": 2.0**-6}
"""By arithmetic: how far a membrane may be from the expected one, relative to the larger of 1 and its size.

The parameters are exact in float32, so a backend that computes the canonical form is exact; the bounds leave room for one that
reaches the same decays through exp(-dt/tau) or a division. Spikes have no bound.
"""
_SHOWN = 120


class CheckError(Exception):
    """The end of a check before its end: the stage, what was seen there, and the finding's code where there is one.

    of_values: spikes, counts or states were others than the ones written out; the only mismatch that a neuron can explain.
    """

    def __init__(self, stage: Stage, detail: str, finding: Diagnostic | None = None, *, of_values: bool = False) -> None:
        self.stage, self.detail, self.finding, self.of_values = stage, detail, finding, of_values
        super().__init__(f"{stage}: {detail}")


@final
class Trial:
    """A simulator in the hands of a check.

    Attributes:
        integers: the simulator runs quantised deployments: :meth:`deployment` makes them.
        exercised: something was compared that could have been wrong.
        runs: of a simulator that declares deviations, every run of the check: network, inputs, what was asked for, trace.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.simulator, self.capabilities = simulator, simulator.capabilities()
        self.integers = self.capabilities.needs_integers or self.capabilities.arithmetic == "loihi_integer"
        self.exercised = False
        self.runs: list[tuple[Deployment, Array, frozenset[Record], Trace]] = []

    # --- from a network to a trace -----------------------------------------------------------------------------------

    def deployment(self, net: Network | Deployment, **grid: Any) -> Deployment:
        """A network as this simulator takes it: floats, or integers made with the options of ``networks.on_integers``."""
        made = float_deployment(net) if isinstance(net, Network) else net
        return on_integers(made, **grid) if self.integers and not made.quantised else made

    def compile(self, deployment: Deployment) -> Any:
        """A program. Raises CheckError "refused" with the first finding, or "compile failed"."""
        findings = [item for item in self.findings(deployment) if item.severity == "error"]
        if findings:
            raise CheckError("refused", _told(findings[0]), findings[0])
        try:
            return self.simulator.compile(deployment)
        except UserError as error:
            raise CheckError("refused", _told(error.diagnostics[0]), error.diagnostics[0]) from error
        except Exception as error:  # a backend may raise anything
            raise _broken("compile failed", error) from error

    def findings(self, deployment: Deployment) -> list[Diagnostic]:
        """What ``check`` says. Raises CheckError "compile failed" where it raises anything itself."""
        try:
            return list(self.simulator.check(deployment))
        except Exception as error:  # check() collects findings and never raises
            raise _broken("compile failed", error, "check() raised ") from error

    def go(self, program: Any, deployment: Deployment, inputs: Array, record: Collection[Record] = EVERYTHING) -> Trace:
        """Run a program and see that the trace is whole. Raises CheckError "run failed" or "mismatch"."""
        try:
            trace = self.simulator.run(program, inputs, record)
        except UserError as error:
            raise CheckError("run failed", _told(error.diagnostics[0]), error.diagnostics[0]) from error
        except Exception as error:  # a backend may raise anything
            raise _broken("run failed", error) from error
        self._check_whole(trace, deployment, int(inputs.shape[-len(deployment.input_shape) - 1]))
        if isinstance(self.simulator, Deviating):
            self.runs.append((deployment, np.array(inputs), frozenset(record), trace))
        return trace

    def run(self, deployment: Deployment, inputs: Array, record: Collection[Record] = EVERYTHING) -> Trace:
        """Compile and run."""
        return self.go(self.compile(deployment), deployment, inputs, record)

    def _check_whole(self, trace: Any, deployment: Deployment, batch: int) -> None:
        """Every population is there, and what is there has the shape (T, B, *features)."""
        self.demand(isinstance(trace, Trace), f"run() returned {type(trace).__name__}, not a Trace")
        for what, whole in (("predictions", (batch,)), ("readout", (batch, *np.shape(trace.readout)[1:]))):
            found = np.shape(getattr(trace, what))
            self.demand(found == whole, f"the {what} have the shape {found}, not one per sample")
        for name in deployment.layers:
            self.demand(name in trace.layers, f"the trace has no layer {name!r}, only {', '.join(trace.layers)}")
            layer, shape = trace.layers[name], (batch, *deployment.shapes[name])
            self.demand(
                np.shape(layer.counts) == shape, f"counts of {name!r} have the shape {np.shape(layer.counts)}, not {shape}"
            )
            for what in EVERYTHING:
                values, whole = getattr(layer, what), (deployment.contract.steps, *shape)
                if values is not None:
                    self.demand(np.shape(values) == whole, f"{what} of {name!r} have the shape {np.shape(values)}, not {whole}")

    # --- what must hold ----------------------------------------------------------------------------------------------

    def demand(self, holds: bool, otherwise: str, *, of_values: bool = False) -> None:
        """Raise CheckError "mismatch" unless something holds. ``of_values``: see :class:`CheckError`."""
        if not holds:
            raise CheckError("mismatch", otherwise, of_values=of_values)

    def expect(
        self,
        net: Network | Deployment,
        inputs: Array,
        spikes: Mapping[str, Expected],
        membrane: Mapping[str, Any] | None = None,
        **grid: Any,
    ) -> Trace:
        """Run a network and compare; see :meth:`compare`. ``grid``: as for :meth:`deployment`."""
        deployment = self.deployment(net, **grid)
        trace = self.run(deployment, inputs)
        self.compare(trace, spikes, membrane)
        return trace

    def compare(self, trace: Trace, spikes: Mapping[str, Expected], membrane: Mapping[str, Any] | None = None) -> None:
        """Compare layers of a trace with expected spikes, and with expected membranes where the simulator records them.

        Args:
            trace: of a run.
            spikes: by layer.
            membrane: by layer, real units: (T,) of a single neuron, (T, features) of one sample, or (T, B, *features).
        """
        for name, expected in spikes.items():
            self.compare_spikes(trace, name, expected)
        for name, values in (membrane or {}).items():
            self.compare_state(trace, name, "membrane", values)

    def compare_spikes(self, trace: Trace, name: str, expected: Expected) -> None:
        """Compare one layer's spikes, and its counts with them."""
        layer = trace.layers[name]
        wanted = spike_array(expected).astype(bool)
        if layer.spikes is None:
            raise CheckError("mismatch", f"spikes of {name!r} were asked for and not recorded")
        wanted = self._in_shape(wanted, np.shape(layer.spikes), name)
        self.exercised |= bool(wanted.any())
        self._same(np.asarray(layer.spikes, bool), wanted, f"spikes of {name!r}", of_values=True)
        self._same(np.asarray(layer.counts), wanted.sum(axis=0), f"counts of {name!r}", of_values=True)

    def compare_state(self, trace: Trace, name: str, what: Literal["membrane", "current"], values: Any) -> None:
        """Compare a layer's membranes or currents with expected ones in real units; nothing where they are not recorded."""
        layer: LayerTrace = trace.layers[name]
        found = getattr(layer, what)
        if found is None:
            return
        found, expected = np.asarray(found), np.asarray(values, np.float64)
        expected = self._in_shape(expected, found.shape, name)
        if self.capabilities.arithmetic == "loihi_integer":
            self.demand(found.dtype.kind == "i", f"{what} of {name!r} holds {found.dtype}, not integers")
            expected = expected / layer.unit
        else:
            found = found * layer.unit
        self.exercised = True
        bound = MEMBRANE_BOUND[self.capabilities.arithmetic] * np.maximum(1.0, np.abs(expected))
        self._same(found, expected, f"{what} of {name!r}", np.abs(found - expected) <= bound, of_values=True)

    def same_trace(self, one: Trace, other: Trace, whose: str, samples: Array | None = None) -> None:
        """Two traces agree bit for bit in everything recorded; ``samples``: of ``one``, in the order of ``other``."""
        for name, layer in one.layers.items():
            for what in (*EVERYTHING, "counts"):
                first, second = getattr(layer, what), getattr(other.layers[name], what)
                if first is None or second is None:
                    self.demand(first is second, f"{what} of {name!r} is recorded in one of {whose} only")
                    continue
                axis = 0 if what == "counts" else 1
                first = first if samples is None else np.take(first, samples, axis)
                self._same(np.asarray(second), np.asarray(first), f"{what} of {name!r} in {whose}")
                self.exercised |= bool(np.any(first))
        for what in ("readout", "predictions"):
            first, second = np.asarray(getattr(one, what)), np.asarray(getattr(other, what))
            self._same(second, first if samples is None else first[samples], f"the {what} in {whose}")

    def refusal(self, deployment: Deployment) -> Diagnostic:
        """The finding with which a deployment is refused: by check(), and by compile() too. Raises CheckError otherwise."""
        findings = [item for item in self.findings(deployment) if item.severity == "error"]
        self.demand(bool(findings), "check() finds nothing to object to")
        try:
            self.simulator.compile(deployment)
        except UserError:
            self.exercised = True
            return findings[0]
        except Exception as error:  # a backend may raise anything
            raise _broken("compile failed", error) from error
        raise CheckError("mismatch", f"check() refuses with {findings[0].code}, and compile() makes a program all the same")

    def user_error_of_run(self, program: Any, inputs: Array, record: Collection[Any] = EVERYTHING) -> UserError:
        """The coded refusal of inputs that cannot be run. Raises CheckError where they run, or anything else is raised."""
        try:
            trace = self.simulator.run(program, inputs, record)
        except UserError as error:
            self.exercised = True
            return error
        except Exception as error:  # a backend may raise anything
            raise _broken("run failed", error) from error
        raise CheckError("mismatch", f"it ran, and returned {type(trace).__name__}")

    # --- comparing ---------------------------------------------------------------------------------------------------

    def _in_shape(self, expected: Array, shape: tuple[int, ...], name: str) -> Array:
        """Expected values (T,), (T, features) or whole, in the shape of what was found."""
        if expected.size != int(np.prod(shape)):
            raise ValueError(f"expected values of {name} have the shape {expected.shape}, the trace {shape}")
        return expected.reshape(shape)

    def _same(self, found: Array, expected: Array, what: str, equal: Array | None = None, *, of_values: bool = False) -> None:
        equal = np.asarray(found == expected) if equal is None else equal
        if found.shape == expected.shape and equal.all():
            return
        if found.shape != expected.shape:
            raise CheckError("mismatch", f"{what}: shape {found.shape}, expected {expected.shape}")
        where = tuple(int(i) for i in np.argwhere(~equal)[0])
        raise CheckError(
            "mismatch",
            f"{what}: {int((~equal).sum())} of {equal.size} values differ, first at {_place(where, equal.ndim, what)}: "
            f"expected {_number(expected[where])}, got {_number(found[where])}",
            of_values=of_values,
        )


def spike_array(expected: Expected) -> Array:
    """Spike trains as an array: "011" (T, 1, 1), one string per neuron (T, 1, N), arrays as they are."""
    if isinstance(expected, str):
        return spike_array([expected])
    if isinstance(expected, np.ndarray):
        return expected
    rows = [[int(letter) for letter in train] for train in expected]
    return np.array(rows, np.float64).T[:, None, :]


def events(*trains: str) -> Array:
    """Input events (T, 1, N) of one sample from one train per feature; digits are graded levels."""
    return spike_array(list(trains))


def _place(where: tuple[int, ...], axes: int, what: str) -> str:
    names = ("step", "sample") if not what.startswith(("counts", "the")) else ("sample",)
    named = [f"{name} {at}" for name, at in zip(names, where, strict=False)]
    rest = where[len(names) :]
    return ", ".join([*named, *([f"neuron {rest[0] if len(rest) == 1 else rest}"] if rest and axes > len(names) else [])])


def _number(value: Any) -> str:
    return str(int(value)) if isinstance(value, np.bool_) else f"{value:.10g}" if isinstance(value, np.floating) else str(value)


def _told(finding: Diagnostic) -> str:
    return f"{finding.code} {finding.what}"


def _broken(stage: Stage, error: Exception, before: str = "") -> CheckError:
    if isinstance(error, BackendError):
        return CheckError(stage, before + _told(error.diagnostic), error.diagnostic)
    first = (str(error).splitlines() or [""])[0][:_SHOWN]
    return CheckError(stage, f"{before}{type(error).__name__}: {first}")
