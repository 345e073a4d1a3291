"""Make every connection one weight layer of its own.

What a chip has between two populations is one layer of synapses. Here chains of linear nodes are composed into one node:
convolution with pooling into one convolution where that is exact, anything with a Linear into one Linear, the rest into one
matrix; a Scale goes into its neighbour. A weight node that several sources share is repeated for each of them, so that each
connection ends in the neuron by itself (chips read a port of weights as bits: two spikes into the same weight would count
once); one that drives several populations is repeated for each. Biases are carried to the end of the chain and counted once.

A matrix drives a population of maps as it is: NIR gives a neuron node the shape of its parameters.
"""

from __future__ import annotations

from typing import ClassVar, final

from snn_export.export.chains import rewired
from snn_export.export.deployment import Deployment
from snn_export.export.passes.pass_ import Exactness, with_graph


@final
class ComposeLinear:
    """One weight node per connection, beside flattens and delays, and one connection per weight node."""

    name: ClassVar[str] = "compose_linear"
    exactness: ClassVar[Exactness] = "EXACT"

    def __call__(self, deployment: Deployment) -> Deployment:
        """The composed deployment; the same one where there is nothing to compose.

        Raises:
            UserError: SNX260 for a chain whose exact form is too large a matrix, SNX264 for a delay per feature inside a chain,
                SNX209 for a connection without weights (run ``insert_weights`` before).
        """
        graph, magnitudes, merged = rewired(
            deployment.graph, deployment.shapes, deployment.contract.dt, deployment.fold_magnitude, deployment.merged
        )
        if graph is deployment.graph:
            return deployment
        return with_graph(deployment, graph, fold_magnitude=magnitudes, merged=merged)
