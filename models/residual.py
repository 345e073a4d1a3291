"""Two paths from the same spikes, added as currents where they meet."""

from __future__ import annotations

from torch import nn

from snn_export.models.diagnostics import UserError


class ResidualSum(nn.Module):
    """The sum of a main path and a shortcut: y = main(x) + shortcut(x), to be followed by a neuron.

    ``main`` may hold neurons; ``shortcut`` is a projection, or nothing.

    It has no ``forward``: its paths may hold neurons, which need time; :func:`snn_export.models.unroll.unroll` runs it.

    Shapes: both paths map (B, *features) to one and the same shape. On a chip each path ends in synapses of its own onto the
    same neurons: currents are added, which is exact, and the shorter path is made to wait for the longer one. A shortcut
    without weights (``nn.Identity``) becomes one synapse of weight 1 per neuron.

    Source: He et al., Deep residual learning for image recognition, CVPR 2016; for spiking networks with currents that are
    added in front of a neuron, Hu et al., Advancing spiking neural networks toward deep residual learning, 2021.
    """

    def __init__(self, main: nn.Sequential, shortcut: nn.Sequential | nn.Identity | None = None) -> None:
        """Join two paths; without ``shortcut`` the input itself is added. UserError SNX210 for paths of another type."""
        super().__init__()
        given = nn.Identity() if shortcut is None else shortcut
        if not isinstance(main, nn.Sequential) or not isinstance(given, (nn.Sequential, nn.Identity)):
            raise UserError(
                "SNX210", f"ResidualSum({type(main).__name__}, {type(given).__name__}) has no known meaning",
                where="ResidualSum", why="each path is a stack of named layers; the shortcut may be nothing at all",
                fix="pass nn.Sequential paths, and nn.Identity() for a shortcut without weights",
            )  # fmt: skip
        self.main = main
        self.shortcut = given
