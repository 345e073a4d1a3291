"""When things happen in one long Lava run: how far apart samples start, and how every population's state is reset.

Sample s starts in step s P, P >= T. A population with latency L works on it in the steps s P + L + 1 ... s P + L + T, and Lava's
LIFReset clears its u and v at the first of them. Undelayed connections of a feed-forward network carry whatever a population
fires outside its T steps to steps outside the T steps of its target, so there P = T. A connection with a delay of its own, or
one that closes a loop, is cleared in pauses up to s P + L(source); what it then still had to deliver of sample s - 1 arrives
L(target) - L(source) steps late at most, and P leaves that room.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from snn_export.export.deployment import Deployment

PADDING = 0.25
"""Part of a sample by which it may be lengthened so that LIFReset can do the periodic resets, too."""


@dataclass(frozen=True)
class Resets:
    """How one population is reset: LIFReset's interval, counted from the first step of a sample, and the local steps before which
    the worker pauses to clear u and v itself.
    """

    interval: int
    paused: tuple[int, ...] = ()


def period(deployment: Deployment) -> int:
    """Steps from the start of one sample to the start of the next."""
    contract = deployment.contract
    late = [
        contract.latency[wire.target] - contract.latency.get(wire.source, 0)
        for wires in deployment.wires.values()
        for wire in wires
        if wire.most > 0
    ]
    least = contract.steps + max([0, *late])
    intervals = [spec.reset_interval for spec in contract.neurons.values() if spec.reset_interval and not spec.reset_offset]
    common = math.lcm(*(interval for interval in intervals if interval < contract.steps))
    longer = -(-least // common) * common
    return longer if longer <= least * (1 + PADDING) else least


def resets(deployment: Deployment, population: str, spacing: int) -> Resets:
    """Resets of a population whose samples are ``spacing`` steps apart.

    One LIFReset does all of them where the periodic reset starts with the sample and fits between two of them.
    """
    spec = deployment.contract.neurons[population]
    interval = spec.reset_interval
    if interval and not spec.reset_offset and spacing % interval == 0:
        return Resets(interval)
    paused = tuple(step for step in range(1, deployment.contract.steps) if spec.resets_at(step))
    return Resets(spacing, paused)
