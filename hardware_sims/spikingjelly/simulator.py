"""The spikingjelly backend: a graph with its contract, its neurons SpikingJelly's own, in an environment of its own."""

from __future__ import annotations

from typing import Unpack, final

from snn_export.hardware_sims.isolated.backend import CellBackend, RunOptions
from snn_export.hardware_sims.spikingjelly.expressible import rules


@final
class SpikingJellySimulator(CellBackend):
    """SpikingJelly 2.0: IFNode, LIFNode, CUBALIFNode and its non-spiking nodes, stepped one by one.

    ODE        tau dv/dt = -(v - v_reset) + x
    update     v += (x - v)/tau, tau in steps; or v += x - v/tau; IF: v += x; filtered: c = alpha c + x, v = beta v + c
    spike      s = v >= theta: at the threshold too, a declared deviation
    reset      v = 0 or v -= theta where s, in the step of the spike; later ones are a declared deviation

    How each node is carried stands in ``expressible.py`` and, node by node, in :meth:`mapping` and in every trace.

    Args:
        strict: hand SpikingJelly's neurons a spike function of our own in place of theirs, v > theta, as the contract says.
        others: see :class:`~snn_export.hardware_sims.isolated.backend.CellBackend`.
    """

    name = "spikingjelly"
    description = "SpikingJelly 2.0's own neurons"
    meaning = (
        "runs networks on neurons that are, bit for bit, what SpikingJelly makes of a LIF, IF or CubaLIF in NIR; they fire "
        "at their threshold too"
    )

    def __init__(self, *, strict: bool = False, **others: Unpack[RunOptions]) -> None:
        super().__init__(rules(strict=strict), {"strict": strict}, **others)
