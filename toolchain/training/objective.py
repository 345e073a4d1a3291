"""A recipe bound to two networks: its terms, with the layers they train."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.training.outputs import BatchOutputs
from snn_export.training.pairing import Pairing
from snn_export.training.recipe import Recipe


class Objective(nn.Module):
    """The loss of a recipe for one pair of networks. Its parameters are those of the terms' companions."""

    def __init__(self, recipe: Recipe, pairing: Pairing, seed: int) -> None:
        """Build the companions, with weights decided by ``seed``; UserError SNX342 where a term does not fit the networks."""
        super().__init__()
        self.recipe = recipe
        self.pairing = pairing
        self.companions = nn.ModuleDict()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for index, weighted in enumerate(recipe.terms):
                companion = weighted.term.companion(pairing)
                if companion is not None:
                    self.companions[str(index)] = companion

    def forward(self, outputs: BatchOutputs) -> Tensor:
        """Weighted sum of the terms for one batch, a scalar."""
        values = []
        for index, weighted in enumerate(self.recipe.terms):
            key = str(index)
            companion = self.companions[key] if key in self.companions else None  # noqa: SIM401 - ModuleDict has no get
            value = weighted.term(replace(outputs, companion=companion, pairing=self.pairing))
            if not isinstance(value, Tensor) or value.ndim:
                raise _no_scalar(weighted.term.name, value)
            values.append(weighted.weight * value)
        return torch.stack(values).sum()


def _no_scalar(name: str, value: object) -> UserError:
    """SNX358 for a term of a third party that gives something else than one number per batch."""
    found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(type(value).__name__)
    return UserError(
        "SNX358", f"the loss term '{name}' gives {found}", where=f"terms.{name}",
        why="the loss is a weighted sum of scalars, one per term and batch", fix="end the term's __call__ with .mean() or .sum()",
    )  # fmt: skip
