"""Show training on stderr: one updating line on a terminal, one line per epoch anywhere else."""

from __future__ import annotations

import math
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from snn_export.training.loop import Progress


class TrainingDisplay:
    """A progress callback for :func:`snn_export.training.loop.fit`; use it as a context manager.

    ``label`` says what is being trained. ``console`` is stderr unless given; NO_COLOR is honoured by rich.
    """

    def __init__(self, label: str, console: Console | None = None) -> None:
        self._label = label
        self._console = console or Console(stderr=True)
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> TrainingDisplay:
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(bar_width=10), TimeRemainingColumn(),
                TextColumn("{task.fields[status]}"), console=self._console,
            )  # fmt: skip
            self._task = self._bar.add_task(self._label, total=None, status="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show one report."""
        if progress.message:
            self._console.print(f"{self._label}: {progress.message}", markup=False, highlight=False)
            return
        status = describe(progress)
        if self._bar is not None and self._task is not None:
            total = progress.epochs * progress.batches
            done = (progress.epoch - 1) * progress.batches + progress.batch
            self._bar.update(self._task, total=total, completed=done, status=status)
        elif progress.validation_accuracy is not None:
            self._console.print(f"{self._label}: {status}", markup=False, highlight=False, soft_wrap=True)


def describe(progress: Progress) -> str:
    """One report in words, e.g. ``epoch 3/20  loss 0.412  accuracy 98.1 %  validation 97.7 %  2,100 images/s  412 MB``."""
    words = [f"epoch {progress.epoch}/{progress.epochs}", f"loss {progress.loss:.3f}"]
    if not math.isnan(progress.accuracy):
        words.append(f"accuracy {100 * progress.accuracy:.1f} %")
    if progress.validation_accuracy is not None:
        words.append(f"validation {progress.validation or f'{100 * progress.validation_accuracy:.1f} %'}")
    words.append(f"{progress.images_per_second:,.0f} images/s")
    if progress.memory:
        words.append(f"{progress.memory / 1e6:,.0f} MB")
    return "  ".join(words)
