"""The spyx backend: real Spyx 1.0 neurons on JAX's CPU build, in an environment of their own behind a worker process."""

from __future__ import annotations

from typing import Unpack, final

from snn_export.hardware_sims.isolated.backend import CellBackend, RunOptions
from snn_export.hardware_sims.spyx.expressible import rules


@final
class SpyxSimulator(CellBackend):
    """Spyx's LIF, IF, CuBaLIF, PSU_LIF and LI, told the contract's decays; the linear nodes are torch's.

    ODE        tau dv/dt = -v + r i
    update     u = alpha u + x ;  v = beta v + u, gains and biases in front of it
    spike      s = v > theta (strict); returned one step later, which is removed: a trace is in local time
    reset      by subtraction, in the step of the spike or one step late, or none: exact. Spyx has no reset to zero: such a
               contract runs with the declared deviation that it subtracts, or with ``zero_reset``

    What Spyx's own NIR import makes of each node stands in ``expressible.py``; of a quantised deployment it runs the integers
    with float32 state.

    Args:
        zero_reset: where the contract resets to zero, set the membranes of neurons that fired to zero between two calls of Spyx's
            modules: their state is in the caller's hands.
        others: see :class:`~snn_export.hardware_sims.isolated.backend.CellBackend`.
    """

    name = "spyx"
    description = "real Spyx 1.0 neurons on JAX"
    meaning = "a network that subtracts runs on Spyx as exported; one that resets to zero differs by the deviation it declares"

    def __init__(self, *, zero_reset: bool = False, **others: Unpack[RunOptions]) -> None:
        super().__init__(rules(zero_reset=zero_reset), {"zero_reset": zero_reset}, **others)
