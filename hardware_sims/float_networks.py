"""What the backends share that step a network in float32 neurons: the network they run, and what keeps any of them from it."""

from __future__ import annotations

from snn_export.export.deployment import Deployment
from snn_export.export.graph import least_delay
from snn_export.export.grid_units import in_grid_units
from snn_export.models.diagnostics import Diagnostic, diagnostics_of

ON_GRID = "the integers as they are, float32 state: no truncation of the decay, no wrap, no saturation"
"""Of a quantised deployment, for the provenance of a trace."""


def float_network(deployment: Deployment) -> Deployment:
    """The float deployment that is run: a quantised one in the units of its grid. Raises as :func:`in_grid_units`."""
    return in_grid_units(deployment) if deployment.quantised else deployment


def unreadable(deployment: Deployment) -> list[Diagnostic]:
    """Why nothing more can be asked about a graph: shapes that do not fit, connections that cannot be followed."""
    questions = (lambda: deployment.shapes, lambda: deployment.connections)
    return list(dict.fromkeys(item for question in questions for item in diagnostics_of(question)))


def graph_findings(deployment: Deployment, backend: str) -> list[Diagnostic]:
    """What keeps a deployment from running in float32 neurons, whoever's they are; all at once.

    The faults of the graph (:func:`unreadable`), delays that are no whole steps, inputs that a host turns into integer biases
    (SNX293), and what cannot be said in grid units.
    """
    if broken := unreadable(deployment):
        return broken
    found = [
        item
        for incoming in deployment.connections.values()
        for connection in incoming
        for item in diagnostics_of(lambda c=connection: least_delay(deployment.graph, c, deployment.contract.dt))  # type: ignore[misc]
    ]
    if deployment.quantised and deployment.host_synapses:
        found.append(Diagnostic(
            "SNX293", "the host turns inputs into integer biases", where="contract.encoder",
            why=f"{backend} computes integers in float32 neurons, which have no host and no bias registers",
            fix="run the float deployment it came from, or run this one on reference or loihi",
        ))  # fmt: skip
    if deployment.quantised and not found:
        found += diagnostics_of(lambda: in_grid_units(deployment))
    return found
