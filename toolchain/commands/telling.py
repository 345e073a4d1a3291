"""Progress of a run on stderr: one updating line within a step on a terminal, one line per step anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.status import Status


class ConsoleTeller:
    """A :class:`snn_export.pipeline.steps.Teller` for people. Use it as a context manager: it ends the updating line."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._status: Status | None = None

    def __enter__(self) -> ConsoleTeller:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def step(self, number: int, total: int, name: str, state: str) -> None:
        """``[3/6] export    fold batch-norm ...``."""
        self._stop()
        self._print(f"[{number}/{total}] {name:<9} {state}")

    def done(self, name: str, summary: str, seconds: float) -> None:
        """The step's own line, indented under it."""
        self._stop()
        self._print(f"      {summary}  ({seconds:.1f} s)")

    def line(self, text: str) -> None:
        """What a step is doing now. Only terminals show it: elsewhere a line per step is enough."""
        if not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)

    @contextmanager
    def training(self, label: str) -> Iterator[Any]:
        """The training loop's own display."""
        from snn_export.training.progress import TrainingDisplay

        self._stop()
        with TrainingDisplay(f"      {label}", self._console) as display:
            yield display

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
