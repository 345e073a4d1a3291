"""Clear the state of populations every so many steps, as Lava's LIFReset and lava-dl's tSample do.

u and v become zero before the steps t with ``t % interval == offset`` are integrated. Spikes already on their way are not
touched: a loop or a delay carries them across the reset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, final

from snn_export.export.deployment import Deployment
from snn_export.export.passes.pass_ import Exactness
from snn_export.models.diagnostics import UserError


@final
@dataclass(frozen=True)
class ResetPeriodically:
    """Give populations a periodic reset; it changes the network, and bounds become tighter with it.

    Attributes:
        interval: steps between two resets, 1 or more.
        offsets: by population, the local step of the first reset, 0 <= offset < interval; populations left out get 0.
    """

    interval: int
    offsets: Mapping[str, int]
    name: ClassVar[str] = "reset_periodically"
    exactness: ClassVar[Exactness] = "APPROXIMATE"

    def __call__(self, deployment: Deployment) -> Deployment:
        """The deployment with resets. Raises SNX109 for numbers that do not fit, or a population that does not exist."""
        unknown = sorted(set(self.offsets) - set(deployment.layers))
        if unknown or self.interval < 1:
            raise UserError(
                "SNX109", f"a reset every {self.interval} steps" + (f" of {unknown[0]}" if unknown else ""),
                where="reset_periodically", why=f"the populations are {', '.join(deployment.layers)}; an interval is 1 or more",
                fix="name populations of the network and a positive interval",
            )  # fmt: skip
        neurons = {
            name: replace(spec, reset_interval=self.interval, reset_offset=self.offsets.get(name, 0))
            for name, spec in deployment.contract.neurons.items()
        }
        return deployment.replace(contract=deployment.contract.model_copy(update={"neurons": neurons}))
