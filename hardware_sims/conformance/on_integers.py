"""A backend that computes floats and a chip's integers, held to the kit a second time: on quantised deployments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, final

from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.simulator import Availability, Capabilities, Simulator
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.models.diagnostics import Diagnostic


def forms(simulator: Simulator) -> tuple[Simulator, ...]:
    """What the kit is to be run on: the simulator, and once more as one of integers where it computes those differently."""
    return (simulator,) if simulator.capabilities().on_integers is None else (simulator, OnIntegers(simulator))


@final
class OnIntegers:
    """``simulator`` as it is on quantised deployments; its ``expected_failures_on_integers`` are expected of it."""

    def __init__(self, simulator: Simulator) -> None:
        self._inner = simulator
        self.name = f"{simulator.name} (integers)"
        self.expected_failures: Mapping[str, str] = getattr(simulator, "expected_failures_on_integers", {})

    def capabilities(self) -> Capabilities:
        """Those of the simulator, with the arithmetic of its integers."""
        found = self._inner.capabilities()
        return replace(found, arithmetic=found.on_integers or found.arithmetic, on_integers=None)

    def availability(self) -> Availability:
        """That of the simulator."""
        return self._inner.availability()

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """As the simulator."""
        return self._inner.check(deployment)

    def compile(self, deployment: Deployment) -> Any:
        """As the simulator."""
        return self._inner.compile(deployment)

    def run(self, program: Any, inputs: NDArray[Any], record: Collection[Record]) -> Trace:
        """As the simulator."""
        return self._inner.run(program, inputs, record)
