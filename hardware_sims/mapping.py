"""How a backend carries each layer of a network: as it is, rewritten, put together from other parts, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from snn_export.export.deployment import Deployment

MappingKind = Literal["native", "rewritten", "emulated", "unsupported"]
KINDS: tuple[MappingKind, ...] = ("native", "rewritten", "emulated", "unsupported")


@dataclass(frozen=True)
class LayerMapping:
    """What became of one node of the graph.

    native       the backend's own import of the node is right
    rewritten    the network was changed into an equal one that the backend's own import reads right
    emulated     we put it together from the backend's parts, or from torch's, because its own import has no rule or a wrong one
    unsupported  nothing there computes it; the deployment is refused
    """

    kind: MappingKind
    why: str = ""


@runtime_checkable
class Mapped(Protocol):
    """A backend that says, node by node, how it carries a network."""

    def mapping(self, deployment: Deployment) -> Mapping[str, LayerMapping]:
        """By node of the graph, but for its input and output."""
        ...


def provenance_of(mapping: Mapping[str, LayerMapping]) -> str:
    """One line for a trace: "native: fc1, lif1; emulated: flatten"."""
    parts = []
    for kind in KINDS:
        names = [name for name, found in mapping.items() if found.kind == kind]
        if names:
            parts.append(f"{kind}: {', '.join(names)}")
    return "; ".join(parts)
