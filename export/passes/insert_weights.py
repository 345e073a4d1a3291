"""Give every connection without weights a weight node: a Scale of ones.

A NIR edge between two populations adds spikes as they are. On a chip that is one synapse of weight 1 per neuron.
"""

from __future__ import annotations

from typing import ClassVar, final

from snn_export.export.chains import explicit
from snn_export.export.deployment import Deployment
from snn_export.export.passes.pass_ import Exactness, with_graph


@final
class InsertWeights:
    """Put a Scale of ones before the target of every connection that has no weight and no pooling.

    Where flattens or delays stand on the way, the Scale comes first: behind the source, in the source's shape.
    """

    name: ClassVar[str] = "insert_weights"
    exactness: ClassVar[Exactness] = "EXACT"

    def __call__(self, deployment: Deployment) -> Deployment:
        """A deployment in which every connection has something to multiply with; the same one where that holds already."""
        graph = explicit(deployment.graph, deployment.shapes)
        return deployment if graph is deployment.graph else with_graph(deployment, graph)
