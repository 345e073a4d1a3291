"""Give every connection without weights a weight node: a Scale of ones.

A NIR edge between two populations adds spikes as they are. On a chip that is one synapse of weight 1 per neuron.
"""

from __future__ import annotations

from typing import ClassVar, final

import nir
import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.export.graph import POOL_TYPES, SYNAPSE_TYPES
from snn_export.export.passes.pass_ import Exactness, with_graph


@final
class ExplicitWeights:
    """Put a Scale of ones before the target of every connection that has no weight and no pooling.

    Where flattens or delays stand on the way, the Scale comes first: behind the source, in the source's shape.
    """

    name: ClassVar[str] = "explicit_weights"
    exactness: ClassVar[Exactness] = "EXACT"

    def __call__(self, deployment: Deployment) -> Deployment:
        """A deployment in which every connection has something to multiply with; the same one where that holds already."""
        graph = deployment.graph
        nodes, edges = dict(graph.nodes), list(graph.edges)
        for incoming in deployment.connections.values():
            for connection in incoming:
                if any(isinstance(graph.nodes[name], (*SYNAPSE_TYPES, *POOL_TYPES)) for name in connection.path):
                    continue
                first = connection.path[0] if connection.path else connection.target
                name = f"{first}.from.{connection.source}"
                if (connection.source, first) not in edges:
                    continue  # another connection runs through the same edge, which has its Scale by now
                nodes[name] = nir.Scale(np.ones(deployment.shapes[connection.source]))
                place = edges.index((connection.source, first))
                edges[place : place + 1] = [(connection.source, name), (name, first)]
        if len(nodes) == len(graph.nodes):
            return deployment
        return with_graph(deployment, nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False))
