"""Backends whose neurons do something else than the contract: by how much, and the proof that nothing else separates them.

Beside such a backend stands a rung of its own, its model: the float64 reference with what the backend declares switched on. Two
links belong to it. What runs the same network without the deviations is compared with the backend: that is what they change on
these inputs. The model is compared with the backend: they must be equal up to rounding, or the declaration is incomplete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from snn_export.export.deviation import Deviation, deviating, sentences
from snn_export.hardware_sims.mapping import Mapped
from snn_export.hardware_sims.registry import simulator
from snn_export.hardware_sims.simulator import Deviating
from snn_export.reporting.report import CarriedNetwork, CarriedNode
from snn_export.verification.ladder import LadderResult, Link, Rung


def model_of(rung: Rung) -> Rung | None:
    """The model of a backend's rung; None where the backend declares nothing for this network, or refuses it."""
    declared = _declared(rung)
    if not declared:
        return None
    try:
        network = deviating(rung.deployment, declared)
    except ValueError:  # it declares what is no deviation: it is held to the network itself
        return None
    told = f"the reference, with what {rung.backend} does otherwise: {'; '.join(sentences(declared))}"
    return replace(
        rung, name=f"{rung.name}_model", backend="reference", deployment=network, simulator=simulator("reference"),
        description=told, model_of=rung.name, required=True,  # the reference is always there
    )  # fmt: skip


def links(anchor: Rung, model: Rung, target: Rung) -> list[Link]:
    """What the deviations change, and the proof that they are all there are.

    anchor: runs the network as it is.
    """
    because = f"{target.backend} declares: {'; '.join(sentences(_declared(target)))}"
    return [Link(anchor.name, target.name, "approximate", because), Link(model.name, target.name, "float")]


def carried(ladder: LadderResult) -> tuple[CarriedNetwork, ...]:
    """How each backend that says so carries the network it ran."""
    models = {result.rung.model_of: result.rung.name for result in ladder.rungs if result.rung.model_of}
    found = []
    for result in ladder.rungs:
        rung = result.rung
        if result.status is not None or not isinstance(rung.simulator, Mapped):
            continue
        nodes = tuple(
            CarriedNode(node=name, kind=layer.kind, why=layer.why)
            for name, layer in rung.simulator.mapping(rung.deployment).items()
        )
        told = sentences(_declared(rung))
        found.append(CarriedNetwork(
            rung=rung.name, backend=rung.backend, nodes=nodes, deviations=told, model=models.get(rung.name)
        ))  # fmt: skip
    return tuple(found)


def _declared(rung: Rung) -> Mapping[str, Deviation]:
    """What a backend declares; nothing where it is absent, refuses the network or breaks, which the ladder says in its place."""
    backend = rung.simulator
    if not isinstance(backend, Deviating) or not backend.availability().ok:
        return {}
    try:
        return {} if backend.check(rung.deployment) else backend.deviations(rung.deployment)
    except Exception:  # a plug-in may raise anything; without a declaration it is held to the network itself
        return {}
