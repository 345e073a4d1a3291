"""The training loop: deterministic by seed, resumable after any interrupt, best epoch by validation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_export.data.dataset import Samples
from snn_export.models.diagnostics import Diagnostic, UserError
from snn_export.models.students.student import SpikingStudent
from snn_export.training.augmentation import augment
from snn_export.training.devices import Devices, peak_memory
from snn_export.training.evaluate import logits as evaluation_logits
from snn_export.training.evaluating import evaluating
from snn_export.training.learner import Learner, check_passes
from snn_export.training.objective import Objective
from snn_export.training.pairing import Pairing, pair
from snn_export.training.recipe import Recipe
from snn_export.training.resume import EpochRecord, TrainingState, restore_state, run_fingerprint, save_state
from snn_export.training.settings import TrainingSettings
from snn_export.training.task import Regression

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_REPORT_EVERY_SECONDS = 0.2
_COMPANION_EPOCH = 0
"""Number of the "epoch" whose seed decides the weights of a recipe's own layers; epochs of training count from 1."""


@dataclass(frozen=True)
class Progress:
    """Where training stands, for a progress display.

    epoch counts from 1; batch of batches within it; loss is the mean of the epoch so far, accuracy (0..1) that of the training
    samples in it, memory the process's peak in bytes. ``validation_accuracy`` (0..1) is None until the epoch is finished
    **and its checkpoint written**; ``validation`` is the same in the task's words. ``message`` is set on reports that say
    something else than a number.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    validation_accuracy: float | None = None
    images_per_second: float = 0.0
    message: str = ""
    accuracy: float = float("nan")
    memory: int = 0
    validation: str = ""


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to. The model passed to :func:`fit` holds the weights of ``best``.

    ``resumed_from`` is the number of epochs taken over from a checkpoint; ``notes`` what became of a checkpoint found;
    ``pairing`` which stages of student and teacher were compared, one line each; ``companions`` the weights, at the best epoch,
    of what terms trained beside the model, by the term's place in the recipe: a network trained jointly is found there.
    """

    best: EpochRecord
    last: EpochRecord
    history: tuple[EpochRecord, ...]
    resumed_from: int
    notes: tuple[str, ...]
    pairing: tuple[str, ...] = ()
    companions: Mapping[int, Mapping[str, NDArray[Any]]] = field(default_factory=dict)


ProgressCallback = Callable[[Progress], None]


def fit(
    model: nn.Module,
    train: Samples,
    validation: Samples,
    recipe: Recipe,
    settings: TrainingSettings,
    *,
    teacher: nn.Module | None = None,
    taps: tuple[str, ...] = (),
    teacher_taps: tuple[str, ...] = (),
    checkpoint_dir: Path | None = None,
    origin: str = "",
    progress: ProgressCallback | None = None,
    devices: Devices | None = None,
) -> TrainingResult:
    """Train ``model`` in place and leave it with the weights of its best epoch, in evaluation mode.

    The best epoch has the highest validation score, then the lowest validation loss, then comes first. Test data has no way
    in: the function takes the two parts it may see. On the CPU, with one number of threads, the same arguments give the same
    weights bit for bit, also when the run was interrupted and continued from ``checkpoint_dir``.

    Args:
        model: maps (B, *shape) to logits (B, K).
        train: what the weights are fitted to.
        validation: what the best epoch is chosen on.
        recipe: forward mode and loss terms.
        settings: epochs, learning rate, seed.
        teacher: frozen, in evaluation mode, asked about the same (augmented) inputs; needed where the recipe says so.
        taps: populations of the student to compare in place of its own stages.
        teacher_taps: layers of the teacher, as many, matched in order.
        checkpoint_dir: folder of ``training.safetensors``, written after every epoch; None keeps nothing.
        origin: fingerprint of what ``model`` was made from, where its weights and its text do not show all of it; a checkpoint
            of another origin is not taken over.
        progress: called at most about five times a second, and after every epoch. In a distributed run that is started here,
            the processes have no way back to it: it is not called.
        devices: where to compute; one processor where nothing is said.

    Raises:
        UserError: SNX310 where the loss is not finite, SNX311 without the teacher a recipe needs, SNX312 without samples, SNX318
            where a batch is too small for batch-norm, SNX280 to SNX282, SNX340, SNX342, SNX343 where recipe and networks do not
            fit.
    """
    job = _Job(
        model, train, validation, recipe, settings, teacher if recipe.needs_teacher else None,
        taps, teacher_taps, checkpoint_dir, origin, progress or _silent,
    )  # fmt: skip
    _check(job)
    devices = devices or Devices()
    fabric = devices.fabric(settings.precision)
    if devices.distributed:
        answer: _Outcome | _Refused = fabric.launch(partial(_train_apart, job=job.detached()))
        if isinstance(answer, _Refused):
            raise UserError.from_diagnostics(answer.diagnostics)
        outcome = answer
    else:
        outcome = _train(fabric, job)
    model.load_state_dict({name: torch.from_numpy(values) for name, values in outcome.weights.items()})
    model.eval()
    return outcome.result


@dataclass(frozen=True)
class _Job:
    """All that a run is given."""

    model: nn.Module
    train: Samples
    validation: Samples
    recipe: Recipe
    settings: TrainingSettings
    teacher: nn.Module | None
    taps: tuple[str, ...]
    teacher_taps: tuple[str, ...]
    checkpoint_dir: Path | None
    origin: str
    report: ProgressCallback

    def detached(self) -> _Job:
        """The job as another process may take it: without the way back to a display."""
        return _Job(**{**self.__dict__, "report": _silent})


class _Outcome:
    """What comes back from a run: the best weights and what is told of it.

    Arrays and no dataclass: Fabric would take tensors and dataclasses apart on their way back from another process.
    """

    def __init__(self, weights: dict[str, Tensor], result: TrainingResult) -> None:
        self.weights = {name: tensor.numpy() for name, tensor in weights.items()}
        self.result = result


class _Refused:
    """A mistake of the user's, on its way back from another process."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        self.diagnostics = diagnostics


@dataclass
class _Run:
    """A job on its devices."""

    job: _Job
    fabric: Fabric
    learner: Learner
    step: nn.Module
    """The learner as Fabric wrapped it."""
    optimizer: Any
    batches: int = field(init=False)

    def __post_init__(self) -> None:
        sizes = _batch_sizes(len(self.job.train), self.job.settings.batch_size, self.fabric.world_size)
        self.batches = len(sizes)


def _train_apart(fabric: Fabric, job: _Job) -> _Outcome | _Refused:
    """:func:`_train` in a process of its own."""
    try:
        return _train(fabric, job)
    except UserError as error:
        return _Refused(error.diagnostics)


def _train(fabric: Fabric, job: _Job) -> _Outcome:
    """A whole run in this process, which may be one of several."""
    recipe, settings = job.recipe, job.settings
    with _frozen(job.teacher), _left_as_found(job.model):
        pairing = _pairing(job)
        fingerprint = run_fingerprint(
            job.model, job.train, job.validation, recipe, settings,
            teacher=job.teacher, origin="; ".join((job.origin, *pairing.describe())),
        )  # fmt: skip
        if recipe.prepare is not None:
            recipe.prepare(pairing)
        learner = Learner(job.model, Objective(recipe, pairing, _epoch_seed(settings.seed, _COMPANION_EPOCH)), job.teacher)
        optimizer = _optimizer(learner, settings)
        step, wrapped = fabric.setup(learner, optimizer)
        if job.teacher is not None:
            job.teacher.to(fabric.device)
        run = _Run(job, fabric, learner, step, wrapped)
        state = TrainingState(optimizer)
        message = restore_state(job.checkpoint_dir, fingerprint, learner, state) if job.checkpoint_dir else ""
        resumed_from = len(state.history)
        if message:
            job.report(Progress(max(resumed_from, 1), settings.epochs, 0, run.batches, float("nan"), message=message))
        if (recipe.needs.taps or recipe.needs.teacher_taps) and fabric.is_global_zero:
            compared = f"stages: {'; '.join(pairing.describe())}"
            job.report(Progress(max(resumed_from, 1), settings.epochs, 0, run.batches, float("nan"), message=compared))
        for epoch in range(resumed_from + 1, settings.epochs + 1):
            record = _train_epoch(run, epoch)
            state.history.append(record)
            if state.best is record:
                state.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in learner.state_dict().items()}
            if job.checkpoint_dir and fabric.is_global_zero:
                save_state(job.checkpoint_dir, fingerprint, learner, state)
            if fabric.is_global_zero:
                job.report(_finished(run, record))
    notes = (message,) if message else ()
    beside = {index: _below(f"objective.companions.{index}.", state.best_weights) for index in learner.objective.companions}
    companions = {int(index): {name: tensor.numpy() for name, tensor in found.items()} for index, found in beside.items()}
    history = tuple(state.history)
    result = TrainingResult(state.best, history[-1], history, resumed_from, notes, pairing.describe(), companions)
    return _Outcome(_below("model.", state.best_weights), result)


def _below(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights whose names begin so, under what is left of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _train_epoch(run: _Run, epoch: int) -> EpochRecord:
    """One pass over the training samples, and the validation of the result."""
    job, settings, fabric = run.job, run.job.settings, run.fabric
    started = reported = time.monotonic()
    seed = _epoch_seed(settings.seed, epoch)
    generator = torch.Generator().manual_seed(seed)
    x, y = _tensor(job.train.x), _tensor(job.train.y)
    order = torch.randperm(len(y), generator=generator)
    total, correct, seen = 0.0, 0.0, 0
    if job.recipe.before_epoch is not None:
        job.recipe.before_epoch(epoch, job.model)
    run.step.train()
    with _seeded(seed):
        for index, chosen in enumerate(torch.split(order, _batch_sizes(len(y), settings.batch_size, fabric.world_size))):
            for group in run.optimizer.param_groups:
                group["lr"] = settings.rate_at((epoch - 1) * run.batches + index, settings.epochs * run.batches)
            inputs = x[chosen]
            if not _over_time(job.model):
                inputs = augment(inputs, settings.augmentation, generator, max_shift=settings.max_shift)
            mine = slice(fabric.global_rank, None, fabric.world_size)
            batch = (inputs[mine].to(fabric.device), y[chosen][mine].to(fabric.device))
            loss, right = _step(run, *batch, where=f"epoch {epoch}, step {index + 1}")
            seen, total, correct = seen + len(chosen), total + len(chosen) * loss, correct + len(chosen) * right
            now = time.monotonic()
            if now - reported > _REPORT_EVERY_SECONDS and index + 1 < run.batches and fabric.is_global_zero:
                reported, speed = now, seen / (now - started)
                job.report(Progress(
                    epoch, settings.epochs, index + 1, run.batches, total / seen, images_per_second=speed,
                    accuracy=correct / seen, memory=peak_memory(),
                ))  # fmt: skip
    seconds = time.monotonic() - started
    loss, score = _validate(run)
    _check_finite("validation loss", loss, f"epoch {epoch}")
    accuracy = None if math.isnan(correct) else correct / seen
    return EpochRecord(epoch, total / seen, loss, score, accuracy, seconds=seconds)


def _step(run: _Run, inputs: Tensor, labels: Tensor, *, where: str) -> tuple[float, float]:
    """One optimiser step; returns loss and accuracy. SNX310 before anything that is not finite reaches the weights."""
    try:
        loss, logits = run.step(inputs, labels)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "SNX318", f"a batch of {len(labels)} is too small for batch-norm", where=where, why=str(error),
            fix="use a larger batch_size",
        ) from error  # fmt: skip
    right = (logits.argmax(dim=1) == labels).double().mean() if not labels.is_floating_point() else torch.tensor(math.nan)
    measured = torch.stack((loss.detach().double(), right.to(loss.device)))
    if run.fabric.world_size > 1:
        measured = run.fabric.all_reduce(measured, reduce_op="mean")  # type: ignore[assignment]
    value, accuracy = measured.tolist()
    _check_finite("loss", value, where)
    run.optimizer.zero_grad(set_to_none=True)
    run.fabric.backward(loss * run.learner.gradient_scale)
    scaled = run.job.settings.precision == "16-mixed" and run.fabric.device.type == "cuda"
    if not scaled:  # a scaler meets infinite gradients, skips the step and goes on
        gradients = [parameter.grad for parameter in run.learner.parameters() if parameter.grad is not None]
        _check_finite("gradient", float(torch.nn.utils.get_total_norm(gradients)), where)
    run.optimizer.step()
    return value, accuracy


def _check_finite(what: str, value: float, where: str) -> None:
    """SNX310. The loss of a spiking network may stay finite where its membranes do not: what is no number never fires."""
    if not math.isfinite(value):
        raise UserError(
            "SNX310", f"the {what} became {value}", where=where,
            why="the weights diverged: the learning rate is too high for this network; or inputs are far from unit scale or "
            "hold NaN or infinity",
            fix="lower learning_rate by a factor of 3 to 10, or scale the inputs to [0, 1]; the last finished epoch is kept",
        )  # fmt: skip


def _over_time(model: nn.Module) -> bool:
    """Whether samples have a time axis in front: (T, K, L) is no image of T channels, whatever its rank."""
    return isinstance(model, SpikingStudent) and model.config.encoder == "events"


def _finished(run: _Run, record: EpochRecord) -> Progress:
    """The report of a finished epoch."""
    return Progress(
        record.epoch,
        run.job.settings.epochs,
        run.batches,
        run.batches,
        record.loss,
        record.validation_accuracy,
        validation=run.job.recipe.task.text(record.validation_accuracy),
        images_per_second=len(run.job.train) / max(record.seconds, 1e-9),
        accuracy=math.nan if record.accuracy is None else record.accuracy,
        memory=peak_memory(),
    )


def _validate(run: _Run) -> tuple[float, float]:
    """Loss and score of the recipe's task on the validation samples."""
    job = run.job
    outputs, targets = torch.from_numpy(evaluation_logits(job.model, job.validation.x)), torch.tensor(job.validation.y)
    return job.recipe.task.loss(outputs, targets), job.recipe.task.score(outputs, targets)


def _pairing(job: _Job) -> Pairing:
    """The stages of the two networks, matched on one training sample."""
    whole = np.issubdtype(job.train.y.dtype, np.integer)
    found = int(job.train.y.max()) + 1 if whole else math.prod(job.train.y.shape[1:])
    classes = job.model.config.classes if isinstance(job.model, SpikingStudent) else found
    sample = torch.tensor(job.train.x[:1])
    return pair(job.model, job.teacher, sample, classes=classes, taps=job.taps, teacher_taps=job.teacher_taps)


def _optimizer(learner: Learner, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW or SGD with weight decay on weight matrices and kernels only: not on biases and batch-norm."""
    trainable = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _batch_sizes(samples: int, size: int, processes: int) -> list[int]:
    """Sizes of an epoch's batches. A rest too small for batch-norm, or for every process to get some, joins the batch before."""
    full, rest = divmod(samples, size)
    sizes = [size] * full + ([rest] if rest else [])
    least = 2 * processes if processes > 1 else min(2, size)
    if len(sizes) > 1 and sizes[-1] < least:
        sizes[-2:] = [sizes[-2] + sizes[-1]]
    return sizes


def _check(job: _Job) -> None:
    """Refuse a run that cannot begin: SNX311, SNX312, SNX332, SNX340, SNX342, SNX343."""
    check_passes(job.model, job.recipe)
    _check_classes(job)
    if job.recipe.needs_teacher and job.teacher is None:
        raise UserError(
            "SNX311", f"recipe '{job.recipe.name}' needs a teacher", where="fit(teacher=None)",
            why="one of its loss terms compares the student with a teacher, or its weights begin with a teacher's",
            fix="train a teacher first, or choose the recipe no_teacher",
        )  # fmt: skip
    for part, samples in (("training", job.train), ("validation", job.validation)):
        if len(samples) == 0:
            raise UserError(
                "SNX312", f"there are no {part} samples", where=f"{part} data",
                why="weights need samples to be fitted to, and the best epoch needs samples to be chosen on",
                fix="give a data set with at least two samples per class",
            )  # fmt: skip


def _check_classes(job: _Job) -> None:
    """SNX332 for a label the model has no logit for, or one class alone; SNX342 for a teacher of other classes."""
    config = getattr(job.model, "config", None)
    classes = getattr(config, "classes", None)
    if classes is None:
        return
    labelled = not isinstance(job.recipe.task, Regression)
    if labelled and classes == 1:
        raise UserError(
            "SNX332", "a network with one output cannot tell classes apart", where=f"recipe '{job.recipe.name}'",
            why="its one class would always be right",
            fix="give data of two classes or more and a network of as many; a recipe with task=Regression() trains one output",
        )  # fmt: skip
    for part, samples in (("training", job.train), ("validation", job.validation)):
        whole = labelled and len(samples) and np.issubdtype(samples.y.dtype, np.integer)
        if whole and not 0 <= int(samples.y.min()) <= int(samples.y.max()) < classes:
            raise UserError(
                "SNX332", f"labels {samples.y.min()} to {samples.y.max()} for a network of {classes} classes",
                where=f"{part} data", why="a label is the number of a logit, from 0",
                fix="build the network with the data's classes",
            )  # fmt: skip
    taught = getattr(job.teacher, "classes", classes)
    if taught != classes:
        raise UserError(
            "SNX342", f"the teacher tells {taught} classes apart, the student {classes}", where="teacher",
            why="their logits are compared one by one", fix="give a teacher of the same classes",
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
def _left_as_found(model: nn.Module) -> Iterator[None]:
    """What learns comes back on the CPU, without gradients, and as free to learn as it was."""
    learning = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        model.cpu()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(learning.get(name, True))  # a recipe may have written it in other parameters


@contextmanager
def _frozen(teacher: nn.Module | None) -> Iterator[None]:
    """The teacher in evaluation mode and without gradients of its own for a while; gradients still flow through it."""
    if teacher is None:
        yield
        return
    learning = [parameter for parameter in teacher.parameters() if parameter.requires_grad]
    with evaluating(teacher):
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            teacher.cpu()
            for parameter in learning:
                parameter.requires_grad_(True)


def _tensor(values: NDArray[Any]) -> Tensor:
    """The array itself as a tensor; a copy of one that may not be written to, which torch would warn about."""
    return torch.from_numpy(values) if values.flags.writeable else torch.tensor(values)


def _silent(_: Progress) -> None:
    """No display."""
