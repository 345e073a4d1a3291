"""Simulator: the protocol every backend fulfils, and the small records it speaks in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.export.deviation import Deviation
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.models.diagnostics import Diagnostic

Arithmetic = Literal["float32", "float64", "loihi_integer", "other"]


@dataclass(frozen=True)
class Capabilities:
    """What a backend computes with; readable without importing what it runs on.

    arithmetic: of its state. Two backends with "loihi_integer" must agree bit for bit; "other" promises nothing of the kind.
    needs_integers: it runs quantised deployments only.
    """

    arithmetic: Arithmetic
    needs_integers: bool
    description: str
    isolated: bool = False
    """True where it lives in an environment of its own, made by ``snn-export backends install NAME``."""
    on_integers: Arithmetic | None = None
    """Of its state on a quantised deployment, where that is another one than on floats."""

    def arithmetic_on(self, deployment: Deployment) -> Arithmetic:
        """What it computes a deployment's state with."""
        return self.on_integers or self.arithmetic if deployment.quantised else self.arithmetic


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run here. ``versions`` of what it runs on; ``reason`` and ``fix`` where it cannot."""

    ok: bool
    reason: str = ""
    fix: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Simulator(Protocol):
    """A backend. Five questions, in the order in which they are asked.

    ``run`` takes inputs (T, B, *shape), or (B, *shape) for direct encoding, in the contract's real units, applies the
    contract's encoder, and returns a Trace in local time. A backend that breaks raises
    :class:`snn_export.hardware_sims.simulator.BackendError`.

    What it cannot do it may state as an attribute ``expected_failures``, a mapping from the name of a conformance check to a
    reason, and ``expected_failures_on_integers`` where its capabilities name another arithmetic for those; see
    :mod:`snn_export.hardware_sims.conformance.kit`. What its neurons do otherwise than the contract a method ``deviations`` may
    declare, see :class:`Deviating`. What it imports it may name as ``packages``, names of distributions, so that
    ``snn-export targets`` can tell without importing them whether they are there. A method ``self_test`` finds out whether
    those behave as its code takes them to; see :mod:`snn_export.hardware_sims.self_test`.
    """

    name: str

    def capabilities(self) -> Capabilities:
        """What it computes with."""
        ...

    def availability(self) -> Availability:
        """Whether it can run here; never raises."""
        ...

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """Everything that keeps this deployment from running here, all at once; empty where it can run."""
        ...

    def compile(self, deployment: Deployment) -> Any:
        """A program for :meth:`run`. Raises UserError with the findings of :meth:`check`."""
        ...

    def run(self, program: Any, inputs: NDArray[Any], record: Collection[Record]) -> Trace:
        """Run a program."""
        ...


@runtime_checkable
class Deviating(Protocol):
    """A backend whose neurons do something else than the contract on some networks, and that says what."""

    def deviations(self, deployment: Deployment) -> Mapping[str, Deviation]:
        """By population; empty where it does as the contract says. Asked only where ``check`` finds nothing."""
        ...


class BackendError(Exception):
    """A backend that was there and broke: crashed, hung, or answered with something else than a trace.

    Carries a diagnostic of family 4 and the path of the log that was kept.
    """

    def __init__(self, diagnostic: Diagnostic, log: str | None = None) -> None:
        self.diagnostic = diagnostic
        self.log = log
        super().__init__(str(diagnostic))

    def __reduce__(self) -> tuple[object, ...]:
        return (BackendError, (self.diagnostic, self.log))
