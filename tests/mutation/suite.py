"""What becomes of a fault: caught or not, named or not, and by what it was seen first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from snn_export.reporting.report import Comparison, LayerComparison, Report
from tests.mutation import faults, record_faults
from tests.mutation.backends import verified
from tests.mutation.equivalence import proof
from tests.mutation.kinds import FAULTS, Fault, Injected
from tests.mutation.networks import Network, network

Side = Literal["target", "reference"]
SIDES: tuple[Side, ...] = ("target", "reference")
ALIKE = ("EXACT", "TIE", "WITHIN")
LISTED = (faults, record_faults)
"""Modules whose functions stand in FAULTS once they are imported, in this order."""


@dataclass(frozen=True)
class Outcome:
    """One fault in one layer, in the target or in the reference.

    Attributes:
        caught: no verdict of agreement, and an exit code that is not 0.
        named: the isolated comparison names the layer, in the right run; where nothing is left to compare, the comparison names
            the layer that was not compared.
        lag_found: the shift is found, and its gate fails; None where the fault shifts nothing.
        seen_by: the coarsest metric that shows it.
        told: the verdict and what was named.
        proof: why it changes nothing, where it was not caught.
    """

    fault: str
    network: str
    layer: str
    side: Side
    caught: bool
    named: bool
    lag_found: bool | None
    seen_by: str
    told: str
    proof: str | None = None
    compared: bool = True


def places(fault: Fault, where: Network) -> Iterator[tuple[str, Injected]]:
    """All layers a fault can be put into."""
    for layer in where.deployment.layers:
        injected = fault.into(where, layer)
        if injected is not None:
            yield layer, injected


def outcome(fault: Fault, where: Network, layer: str, injected: Injected, side: Side) -> Outcome:
    """Put a fault in and verify."""
    report = verified(where, injected.backend, side)
    (found,) = report.comparisons
    caught = found.verdict not in ALIKE and report.exit_code != 0
    if injected.compared:
        named = found.first_faulty_isolated == injected.layer and found.faulty_side == side
    else:
        named = found.verdict == "NOT_COMPARED" and found.first_faulty_layer == injected.layer
    itself = f"{found.first_faulty_isolated} by itself, in the {found.faulty_side}"
    told = f"{found.verdict}, exit {report.exit_code}, {itself}: {found.message}"
    return Outcome(
        fault.name, where.name, layer, side, caught, caught and named, _lag(report, injected, side), _seen_by(found), told,
        None if caught else proof(fault.name, where, layer, injected), injected.compared,
    )  # fmt: skip


def _lag(report: Report, injected: Injected, side: Side) -> bool | None:
    """Whether the shift of a layer is found: the reference's is the target's the other way round."""
    if injected.lag is None:
        return None
    (found,) = report.comparisons
    lag = _layer(found, injected.layer).lag
    gate = next((gate for gate in report.gates if gate.name == f"{found.target} declares its latency"), None)
    expected = injected.lag if side == "target" else -injected.lag
    return lag is not None and lag.best == expected and gate is not None and not gate.passed and injected.layer in gate.required


def _layer(found: Comparison, name: str) -> LayerComparison:
    return next(layer for layer in found.layers if layer.layer == name)


def _seen_by(found: Comparison) -> str:
    if found.verdict == "NOT_COMPARED":
        return "coverage"
    layer = next(
        (layer for layer in found.layers if layer.layer == (found.first_faulty_isolated or found.first_faulty_layer)), None
    )
    if layer is None:
        return "nothing"
    if layer.count_error_sum:
        return "counts"
    if layer.mismatched_spikes:
        return "spikes"
    if layer.mismatched_membranes:
        return "membranes"
    return "currents" if layer.mismatched_currents else "what the run says of itself"


def first_effective(fault: Fault, name: str) -> tuple[Network, str, Injected, Outcome] | None:
    """One place for a fault in a network, and what becomes of it in the target; None where there is none.

    Another layer from fault to fault. Layers in which it was not caught and provably changes nothing are passed over.
    """
    where = network(name)
    found = list(places(fault, where))
    start = list(FAULTS).index(fault.name)
    for offset in range(len(found)):
        layer, injected = found[(start + offset) % len(found)]
        seen = outcome(fault, where, layer, injected, "target")
        if seen.proof is None:
            return where, layer, injected, seen
    return None
