"""Where a run computes. Devices, processes and precision are Lightning Fabric's business."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from snn_export.models.diagnostics import UserError

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Devices:
    """accelerator "auto", "cpu" or "cuda"; count of devices on each of ``nodes`` machines.

    With one device on one machine a run is a plain process. With more it is distributed data parallel (DDP): every process has
    a copy of the model and a part of each batch, gradients are averaged. On one machine the processes are started here; on
    several, start the program on each with torchrun, whose environment Fabric reads.
    """

    accelerator: str = "cpu"
    count: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        if self.accelerator not in ("auto", "cpu", "cuda") or self.count < 1 or self.nodes < 1:
            raise UserError(
                "SNX017", f"there are no devices {self}", where="devices",
                why="accelerator is auto, cpu or cuda; count and nodes are at least 1", fix="use Devices() for one processor",
            )  # fmt: skip
        if self.accelerator == "cuda" and torch.cuda.device_count() < self.count:
            raise UserError(
                "SNX017", f"{self.count} GPUs were asked for and {torch.cuda.device_count()} are there", where="devices",
                why="torch sees no more", fix="ask for as many as there are, or use accelerator = cpu",
            )  # fmt: skip

    @property
    def distributed(self) -> bool:
        """True for more than one process."""
        return self.count * self.nodes > 1

    def fabric(self, precision: Precision) -> Fabric:
        """Fabric for these devices; it is not launched yet."""
        from lightning_fabric import Fabric

        if self.nodes > 1 and "LOCAL_RANK" not in os.environ:
            raise UserError(
                "SNX017", f"{self.nodes} machines were asked for, and nothing says which of them this is", where="nodes",
                why="a program on several machines is started on each of them, and told its place by torchrun",
                fix=f"start it with torchrun --nnodes {self.nodes} --nproc-per-node {self.count} on every machine",
            )  # fmt: skip
        settings: dict[str, Any] = {}
        if self.distributed:
            started_outside = "LOCAL_RANK" in os.environ
            settings = {"strategy": "ddp" if started_outside else "ddp_spawn"}
        return Fabric(
            accelerator=self.accelerator,
            devices=self.count,
            num_nodes=self.nodes,
            precision=precision,
            **settings,
        )


def peak_memory() -> int:
    """Bytes: the most memory this process has held so far, or the most torch has held on its GPU where there is one in use."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(largest if sys.platform == "darwin" else largest * 1024)
