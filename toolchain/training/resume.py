"""The checkpoint of a training run: everything the next epoch depends on, in one file.

Model, best model and optimiser are tensors; the epoch and its history stand in the JSON record. The learning rate and every
random draw are functions of (seed, epoch, step), so nothing else has to be saved for a resumed run to continue bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snn_export import models, training
from snn_export.data.dataset import Samples, array_fingerprint
from snn_export.models.diagnostics import UserError
from snn_export.training.checkpoint import read_tensors, write_tensors
from snn_export.training.code_digest import code_beside
from snn_export.training.learner import Learner
from snn_export.training.recipe import Recipe
from snn_export.training.settings import TrainingSettings

CHECKPOINT_NAME = "training.safetensors"

_FORMAT = 3
_PARTS = ("model", "best", "optimizer")


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch: mean training loss, validation loss and score, accuracy on the training samples, wall time.

    For classification the validation loss is the mean cross-entropy (nats), the score the accuracy (0..1). The accuracy on the
    training samples is None where targets are no classes.
    """

    epoch: int
    loss: float
    validation_loss: float
    validation_accuracy: float
    accuracy: float | None = None
    seconds: float = field(compare=False, default=0.0)

    @property
    def rank(self) -> tuple[float, float, int]:
        """Larger is better: accuracy, then a lower validation loss, then the earlier epoch."""
        return (self.validation_accuracy, -self.validation_loss, -self.epoch)


@dataclass
class TrainingState:
    """Where a run stands after ``len(history)`` epochs. ``best_weights``: of all that learns, companions too, by their names."""

    optimizer: torch.optim.Optimizer
    history: list[EpochRecord] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best(self) -> EpochRecord:
        """The epoch whose weights are kept."""
        return max(self.history, key=lambda record: record.rank)


def run_fingerprint(
    model: nn.Module,
    train: Samples,
    validation: Samples,
    recipe: Recipe,
    settings: TrainingSettings,
    *,
    teacher: nn.Module | None,
    origin: str = "",
) -> str:
    """SHA-256 of all that decides a run's outcome: both networks, data, recipe, settings, the code that trains, its engines.

    origin: what else decides it and neither the weights nor the text of ``model`` shows. The code that trains is this program's,
    and every module that a term, a task or a hook of the recipe comes from.
    """
    import snntorch

    parts = {
        "model": _network(model),
        "origin": origin,
        "teacher": None if teacher is None else _network(teacher),
        "code": [_code_digest(), *_code_of_others(recipe)],
        "data": array_fingerprint((train.x, train.y, validation.x, validation.y)),
        "recipe": recipe.describe(),
        "settings": asdict(settings),
        "engines": [torch.__version__, snntorch.__version__],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _network(model: nn.Module) -> list[str]:
    """Weights, structure and settings of a network: two may share the first two and compute something else."""
    state = model.state_dict()
    weights = array_fingerprint(state[name].cpu().numpy() for name in sorted(state))
    settings = [repr(getattr(model, name)) for name in ("config", "steps") if hasattr(model, name)]
    return [weights, str(model), *settings]


@cache
def _code_digest() -> str:
    """SHA-256 of the source of models and training: a checkpoint of a loss that was since mended is not taken over."""
    found = hashlib.sha256()
    for package in (models, training):
        for folder in package.__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def _code_of_others(recipe: Recipe) -> list[str]:
    """SHA-256 of the modules of a recipe's parts that are no part of this program, and of what lies beside them."""
    hooks = [hook.func if isinstance(hook, partial) else hook for hook in (recipe.prepare, recipe.before_epoch)]
    parts = [*(weighted.term for weighted in recipe.terms), recipe.task, recipe.slopes, *hooks]
    names = {str(getattr(part, "__module__", "")) for part in parts if part is not None}
    found = []
    for name in sorted(names):
        path = getattr(sys.modules.get(name), "__file__", None)
        if name.split(".")[0] != "snn_export" and path is not None:
            found += [f"{name}: {digest}" for digest in code_beside(name, Path(path)).values()]
    return found


def save_state(folder: Path, fingerprint: str, learner: Learner, state: TrainingState) -> None:
    """Write the checkpoint of ``folder`` atomically: what learns, the best model so far, the optimiser."""
    tensors = {f"model/{name}": tensor.cpu() for name, tensor in learner.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best_weights.items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{slot}": value.cpu() for slot, value in slots.items()}
    record = {"format": _FORMAT, "fingerprint": fingerprint, "history": [asdict(entry) for entry in state.history]}
    write_tensors(folder / CHECKPOINT_NAME, tensors, record)


def restore_state(folder: Path, fingerprint: str, learner: Learner, state: TrainingState) -> str:
    """Bring ``learner`` and ``state`` to where the checkpoint of ``folder`` stands; returns one line on what was done.

    A checkpoint that is damaged or belongs to a run with other data or settings is left aside: the line says so, and training
    starts from the beginning. The line is empty where there is no checkpoint.
    """
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return ""
    try:
        content = read_tensors(path)
        belongs = content.record.get("format") == _FORMAT and content.record.get("fingerprint") == fingerprint
        if not belongs:
            return f"{path.name} belongs to a run with other data, weights or settings: starting from the first epoch"
        _apply(content.tensors, content.record, learner, state)
    except (UserError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return f"{path.name} cannot be used ({reason}): starting from the first epoch"
    return f"continuing after epoch {len(state.history)} from {path.name}"


def _apply(tensors: Mapping[str, Tensor], record: Mapping[str, Any], learner: Learner, state: TrainingState) -> None:
    """Copy a checkpoint's content. Everything is read before anything is changed."""
    history = [EpochRecord(**entry) for entry in record["history"]]
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for name, tensor in tensors.items():
        part, key = name.split("/", 1)
        parts[part][key] = tensor
    optimizer = state.optimizer.state_dict()
    optimizer["state"] = {}
    for key, tensor in parts["optimizer"].items():
        index, slot = key.split("/", 1)
        optimizer["state"].setdefault(int(index), {})[slot] = tensor
    expected = {name: tensor.shape for name, tensor in learner.state_dict().items()}
    for part in ("model", "best"):
        if {name: tensor.shape for name, tensor in parts[part].items()} != expected:
            raise ValueError(f"its '{part}' tensors are not those of the model")
    state.optimizer.load_state_dict(optimizer)
    learner.load_state_dict(parts["model"])
    state.history, state.best_weights = history, parts["best"]
