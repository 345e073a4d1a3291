"""The training loop: deterministic by seed, resumable after any interrupt, best epoch by validation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from snn_export.data.dataset import Samples
from snn_export.models.diagnostics import UserError
from snn_export.training.augmentation import random_shift
from snn_export.training.evaluate import logits as evaluation_logits
from snn_export.training.losses import BatchOutputs, cross_entropy
from snn_export.training.recipe import Recipe
from snn_export.training.resume import EpochRecord, TrainingState, restore_state, run_fingerprint, save_state
from snn_export.training.settings import TrainingSettings, one_cycle

_REPORT_EVERY_SECONDS = 0.2


@dataclass(frozen=True)
class Progress:
    """Where training stands, for a progress display.

    epoch counts from 1; batch of batches within it; loss is the mean of the epoch so far. ``validation_accuracy`` (0..1) is
    None until the epoch is finished **and its checkpoint written**. ``message`` is set on the first report of a run that found
    a checkpoint: what became of it.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    validation_accuracy: float | None = None
    images_per_second: float = 0.0
    message: str = ""


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to. The model passed to :func:`fit` holds the weights of ``best``.

    ``resumed_from`` is the number of epochs taken over from a checkpoint; ``notes`` what became of a checkpoint found.
    """

    best: EpochRecord
    last: EpochRecord
    history: tuple[EpochRecord, ...]
    resumed_from: int
    notes: tuple[str, ...]


ProgressCallback = Callable[[Progress], None]


def fit(
    model: nn.Module,
    train: Samples,
    validation: Samples,
    recipe: Recipe,
    settings: TrainingSettings,
    *,
    teacher: nn.Module | None = None,
    checkpoint_dir: Path | None = None,
    origin: str = "",
    progress: ProgressCallback | None = None,
) -> TrainingResult:
    """Train ``model`` in place and leave it with the weights of its best epoch, in evaluation mode.

    The best epoch has the highest validation accuracy, then the lowest validation loss, then comes first. Test data has no way
    in: the function takes the two parts it may see. On the CPU, with one number of threads, the same arguments give the same
    weights bit for bit, also when the run was interrupted and continued from ``checkpoint_dir``.

    Args:
        model: maps (B, *shape) to logits (B, K).
        train: what the weights are fitted to.
        validation: what the best epoch is chosen on.
        recipe: forward mode and loss terms.
        settings: epochs, learning rate, seed.
        teacher: frozen, in evaluation mode, asked for logits of the same (shifted) inputs; needed where the recipe says so.
        checkpoint_dir: folder of ``training.safetensors``, written after every epoch; None keeps nothing.
        origin: fingerprint of what ``model`` was made from, where its weights and its text do not show all of it; a checkpoint
            of another origin is not taken over.
        progress: called at most about five times a second, and after every epoch.

    Raises:
        UserError: SNX310 where the loss is not finite, SNX311 without the teacher a recipe needs, SNX312 without samples.
    """
    run = _Run(model, train, validation, recipe, settings, teacher if recipe.needs_teacher else None, progress or _silent)
    _check(run)
    fingerprint = run_fingerprint(model, train, validation, recipe, settings, teacher=run.teacher, origin=origin)
    state = TrainingState(_optimizer(model, settings))
    message = restore_state(checkpoint_dir, fingerprint, model, state) if checkpoint_dir else ""
    resumed_from = len(state.history)
    if message:
        run.report(Progress(max(resumed_from, 1), settings.epochs, 0, run.batches, float("nan"), message=message))
    with _frozen(run.teacher):
        for epoch in range(resumed_from + 1, settings.epochs + 1):
            record = _train_epoch(run, epoch, state.optimizer)
            state.history.append(record)
            if state.best is record:
                state.best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            if checkpoint_dir:
                save_state(checkpoint_dir, fingerprint, model, state)
            run.report(_finished(run, record))
    model.load_state_dict(state.best_weights)
    model.eval()
    return TrainingResult(state.best, state.history[-1], tuple(state.history), resumed_from, (message,) if message else ())


@dataclass(frozen=True)
class _Run:
    """What stays the same from epoch to epoch."""

    model: nn.Module
    train: Samples
    validation: Samples
    recipe: Recipe
    settings: TrainingSettings
    teacher: nn.Module | None
    report: ProgressCallback

    @property
    def batches(self) -> int:
        return -(-len(self.train) // self.settings.batch_size)


def _train_epoch(run: _Run, epoch: int, optimizer: torch.optim.Optimizer) -> EpochRecord:
    """One pass over the training samples, and the validation of the result."""
    started = reported = time.monotonic()
    settings, batches = run.settings, run.batches
    seed = _epoch_seed(settings.seed, epoch)
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.tensor(run.train.x), torch.tensor(run.train.y)
    total, seen = 0.0, 0
    run.model.train()
    with _seeded(seed):
        for index, chosen in enumerate(torch.split(torch.randperm(len(y), generator=generator), settings.batch_size)):
            for group in optimizer.param_groups:
                group["lr"] = one_cycle((epoch - 1) * batches + index, settings.epochs * batches, settings.learning_rate)
            inputs = random_shift(x[chosen], settings.max_shift, generator)
            total += len(chosen) * _step(run, optimizer, inputs, y[chosen], where=f"epoch {epoch}, step {index + 1}")
            seen += len(chosen)
            now = time.monotonic()
            if now - reported > _REPORT_EVERY_SECONDS and index + 1 < batches:
                reported, speed = now, seen / (now - started)
                run.report(Progress(epoch, settings.epochs, index + 1, batches, total / seen, images_per_second=speed))
    seconds = time.monotonic() - started
    return EpochRecord(epoch, total / seen, *_validate(run.model, run.validation), seconds=seconds)


def _step(run: _Run, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: Tensor, *, where: str) -> float:
    """One optimiser step; returns the loss. SNX310 before a loss that is not finite reaches the weights."""
    teacher_logits = None
    if run.teacher is not None:
        with torch.no_grad():
            teacher_logits = run.teacher(inputs)
    loss = run.recipe.loss(BatchOutputs(run.model(inputs), labels, teacher_logits))
    value = float(loss.detach())
    if not math.isfinite(value):
        raise UserError(
            "SNX310", f"the loss became {value}", where=where,
            why="the weights diverged: the learning rate is too high for this network, or the inputs are far from unit scale",
            fix="lower learning_rate by a factor of 3 to 10, or scale the inputs to [0, 1]; the last finished epoch is kept",
        )  # fmt: skip
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value


def _finished(run: _Run, record: EpochRecord) -> Progress:
    """The report of a finished epoch."""
    speed = len(run.train) / max(record.seconds, 1e-9)
    return Progress(
        record.epoch,
        run.settings.epochs,
        run.batches,
        run.batches,
        record.loss,
        record.validation_accuracy,
        images_per_second=speed,
    )


def _validate(model: nn.Module, validation: Samples) -> tuple[float, float]:
    """Cross-entropy (nats) and accuracy (0..1) on the validation samples."""
    values = evaluation_logits(model, validation.x)
    loss = float(cross_entropy(torch.from_numpy(values), torch.tensor(validation.y)))
    return loss, float(np.mean(np.argmax(values, axis=1) == validation.y))


def _optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW with weight decay on weight matrices and kernels only: not on biases and batch-norm."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _check(run: _Run) -> None:
    """Refuse a run that cannot begin: SNX311, SNX312."""
    if run.recipe.needs_teacher and run.teacher is None:
        raise UserError(
            "SNX311", f"recipe '{run.recipe.name}' needs a teacher", where="fit(teacher=None)",
            why="one of its loss terms compares the student's logits with a teacher's",
            fix="train a teacher first, or choose the recipe no_teacher",
        )  # fmt: skip
    for part, samples in (("training", run.train), ("validation", run.validation)):
        if len(samples) == 0:
            raise UserError(
                "SNX312", f"there are no {part} samples", where=f"{part} data",
                why="weights need samples to be fitted to, and the best epoch needs samples to be chosen on",
                fix="give a data set with at least two samples per class",
            )  # fmt: skip


def _epoch_seed(seed: int, epoch: int) -> int:
    """A 63-bit seed for one epoch, well separated from those of other epochs and seeds."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator (dropout draws from it) for a while; the caller's random state comes back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _frozen(teacher: nn.Module | None) -> Iterator[None]:
    """The teacher in evaluation mode for a while."""
    was_training = teacher is not None and teacher.training
    if teacher is not None:
        teacher.eval()
    try:
        yield
    finally:
        if teacher is not None:
            teacher.train(was_training)


def _silent(_: Progress) -> None:
    """No display."""
