"""Split populations whose neurons have different thresholds into populations that a chip can hold."""

from __future__ import annotations

from typing import ClassVar, final

from snn_export.export.deployment import Deployment
from snn_export.export.passes.pass_ import Exactness, with_graph
from snn_export.export.splitting import split


@final
class SplitPopulations:
    """One population per set of neurons with equal decays and threshold; see :mod:`snn_export.export.splitting`.

    Parts are named ``name.part1``, ``name.part2``, ..., numbers that other nodes have left out; the contract's origin still
    names the whole.
    """

    name: ClassVar[str] = "split_populations"
    exactness: ClassVar[Exactness] = "EXACT"

    def __call__(self, deployment: Deployment) -> Deployment:
        """A deployment of uniform populations; the same one where they all are.

        Raises:
            UserError: SNX261 for the readout, and for connections that would become too large.
        """
        graph, parts = split(deployment.graph, deployment.contract.dt)
        if not parts:
            return deployment
        whole = {part: name for name, some in parts.items() for part in some}
        old = deployment.contract
        neurons = {name: spec for name, spec in old.neurons.items() if name not in parts}
        origin = {name: source for name, source in old.origin.items() if name not in parts}
        neurons |= {part: old.neurons[name] for part, name in whole.items()}
        origin |= {part: old.origin.get(name, name) for part, name in whole.items()}
        kept = {name: value for name, value in deployment.fold_magnitude.items() if name in graph.nodes}
        merged = {name: value for name, value in deployment.merged.items() if name in graph.nodes}
        return with_graph(deployment, graph, neurons=neurons, origin=origin, fold_magnitude=kept, merged=merged)
