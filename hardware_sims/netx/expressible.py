"""What real netx can run as the contract says: what a ``.net`` file can hold, within the limits of Lava's registers."""

from __future__ import annotations

from collections.abc import Iterator

import nir
import numpy as np

from snn_export.export.deployment import Deployment
from snn_export.export.netx_layers import MAX_DELAY
from snn_export.export.netx_rules import Link, chain, file_delay, file_weight
from snn_export.export.netx_rules import findings as file_findings
from snn_export.models.arithmetic import DECAY_ONE, STATE_SHIFT, STATE_WRAP
from snn_export.models.diagnostics import Diagnostic

CONV_SUM_LIMIT = 1 << 23
"""Lava's Conv wraps its sum at 24 bits before it leaves the synapse."""
REGISTER_LIMIT = 1 << 31
"""Lava holds u and v in 32-bit integers and wraps u only once per step."""
DELAY_BYTES = 4 << 30
"""Lava's DelayDense unfolds its weights once per possible delay, in every step."""


def findings(deployment: Deployment) -> list[Diagnostic]:
    """Everything that keeps a deployment from running on netx as its contract says; empty where it can run."""
    found = file_findings(deployment)
    if found:
        return found
    return [item for link in chain(deployment) for item in (*_sums(deployment, link), *_memory(deployment, link))]


def _sums(deployment: Deployment, link: Link) -> Iterator[Diagnostic]:
    """Bounds from the real weights, whatever the input is."""
    encoder, total = deployment.contract.encoder, int(np.abs(deployment.current_bias(link.population)).max(initial=0))
    for wire in link.weights:
        largest = 1 if wire.source in deployment.populations else max(abs(encoder.low), abs(encoder.high))
        weight = np.abs(file_weight(deployment, wire.weight))
        bound = int(weight.reshape(len(weight), -1).sum(axis=1).max()) * largest
        if isinstance(deployment.graph.nodes[wire.weight], nir.Conv2d) and bound >= CONV_SUM_LIMIT:
            yield _too_large(
                wire.weight, f"sums of {wire.weight} can reach {bound}", f"Lava's Conv wraps its sum at {CONV_SUM_LIMIT}"
            )
        total += bound
    held = min(deployment.contract.steps, -(-DECAY_ONE // (deployment.populations[link.population].du + 1)))
    reach = (total << STATE_SHIFT) * held
    if reach + STATE_WRAP >= REGISTER_LIMIT:
        yield _too_large(link.population, f"the current of {link.population} can reach {reach}",
                         "Lava wraps u once per step and holds it in 32 bits, so it would leave the chip's 24 bits")  # fmt: skip


def _memory(deployment: Deployment, link: Link) -> Iterator[Diagnostic]:
    for wire in link.weights:
        node = deployment.graph.nodes[wire.weight]
        delayed = not isinstance(node, nir.Conv2d) and file_delay(deployment, wire) is not None
        size = 8 * node.weight.size * (MAX_DELAY + 1)
        if delayed and size > DELAY_BYTES:
            yield Diagnostic(
                "SNX258", f"the delays of {wire.weight} need {size >> 30} GiB in every step", wire.weight,
                f"Lava unfolds the weights {MAX_DELAY + 1} times", "run it on loihi, or delay a smaller layer",
            )  # fmt: skip


def _too_large(where: str, what: str, why: str) -> Diagnostic:
    return Diagnostic("SNX258", what, where, why, "use fewer input bits or a smaller scale")
