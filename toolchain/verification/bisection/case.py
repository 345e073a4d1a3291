"""A network and its inputs: what is run on both backends, and what is made smaller."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_export.export.deployment import Deployment, array_digest, weights_in
from snn_export.export.extracting import neurons
from snn_export.export.thinning import biased_nodes, delays, weight_nodes


@dataclass(frozen=True)
class Size:
    """How large a case is. ``inputs``: values other than zero that enter it; ``weights``: those other than zero."""

    layers: int
    neurons: int
    steps: int
    samples: int
    features: int
    inputs: int
    weights: int
    biases: int
    delays: int

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Case:
    """A deployment and inputs (S, B, *shape), S = T steps, or 1 where one input serves all."""

    deployment: Deployment
    inputs: NDArray[Any]

    @cached_property
    def key(self) -> str:
        """SHA-256 of network and inputs: equal for cases that behave alike."""
        return hashlib.sha256(f"{self.deployment.fingerprint};{array_digest(self.inputs)}".encode()).hexdigest()

    @cached_property
    def size(self) -> Size:
        """Its size."""
        network = self.deployment
        return Size(
            layers=len(network.layers),
            neurons=neurons(network),
            steps=network.contract.steps,
            samples=int(self.inputs.shape[1]),
            features=int(np.prod(network.input_shape)),
            inputs=int(np.count_nonzero(self.inputs)),
            weights=sum(int(np.count_nonzero(weights_in(network, name))) for name in weight_nodes(network)),
            biases=len(biased_nodes(network)),
            delays=len(delays(network)),
        )
