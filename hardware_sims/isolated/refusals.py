"""How a backend says that its package has no neuron for a population."""

from __future__ import annotations

from collections.abc import Iterable

from snn_export.hardware_sims.mapping import LayerMapping
from snn_export.models.diagnostics import Diagnostic


def no_neuron(package: str, population: str, what: str, why: str, fix: str) -> Diagnostic:
    """SNX296: what the population asks for, and why the package cannot compute it."""
    return Diagnostic("SNX296", f"{package} has no neuron for {population}: {what}", where=population, why=why, fix=fix)


def unsupported(findings: Iterable[Diagnostic]) -> dict[str, LayerMapping]:
    """By population that is refused: why."""
    return {finding.where: LayerMapping("unsupported", finding.why) for finding in findings}
