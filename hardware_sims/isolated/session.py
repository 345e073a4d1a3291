"""A worker that stays: started once, asked over two pipes in as many runs as follow, killed when its owner is gone.

Whatever it does - crash, hang, answer with something else, print without end - the question that is open then ends with a
:class:`BackendError` within the time limit, and no process of its session is left. What it prints goes to its log.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from snn_export.hardware_sims.isolated.cell_server import read_message, write_message
from snn_export.hardware_sims.isolated.pipe import TimedPipe
from snn_export.hardware_sims.simulator import BackendError
from snn_export.hardware_sims.worker_process import (
    LOG_LIMIT,
    Worker,
    check_status,
    killed_at_exit,
    last_words,
    start_worker,
    worker_error,
)
from snn_export.models.diagnostics import UserError

Array = NDArray[Any]

_END = 2.0
"""Seconds that a worker gets to end by itself after it broke off."""

_POLL = 0.02


class Session:
    """An open conversation with a worker; made by :func:`open_session`."""

    def __init__(self, worker: Worker, process: subprocess.Popen[bytes], pipe: TimedPipe) -> None:
        self.worker, self._process, self._pipe = worker, process, pipe

    def ask(
        self, message: Mapping[str, Any], arrays: Sequence[Array] = (), expected: Sequence[tuple[int, ...]] = ()
    ) -> tuple[dict[str, Any], list[Array]]:
        """Send a message and wait for its answer.

        Args:
            message: see ``cell_server.py``.
            arrays: that go with it.
            expected: shapes of the float32 arrays that must come back.

        Raises:
            BackendError: SNX420 past the time limit, SNX421 and SNX422 where the worker ended, SNX425 for any other answer,
                SNX426 where it floods its log.
        """
        try:
            write_message(self._pipe, message, arrays)
            found = read_message(self._pipe, sum(4 * prod(shape) for shape in expected))
        except BackendError:
            raise
        except TimeoutError as error:
            what, why = (
                f"did not finish within {self.worker.time_limit:g} seconds",
                "it hangs, or the job is larger than its limit",
            )
            raise worker_error(self.worker, "SNX420", what, why) from error
        except BrokenPipeError as error:
            raise self._gone() from error
        except Exception as error:  # whatever a parser makes of what a broken worker sends
            raise self._unreadable(error) from error
        if found is None:
            raise self._gone()
        answer, results = found
        if "error" in answer:
            raise worker_error(self.worker, "SNX422", f"could not go on: {answer['error']}", last_words(self.worker.log))
        if [(part.dtype, part.shape) for part in results] != [(np.dtype(np.float32), tuple(shape)) for shape in expected]:
            got = ", ".join(f"{part.dtype} {part.shape}" for part in results) or "nothing"
            raise self.broken_promise(message.get("do"), got)
        return answer, results

    def broken_promise(self, asked: Any, got: str) -> BackendError:
        """The error for an answer that can be read and is not what it has to be."""
        return worker_error(self.worker, "SNX425", f"answered {asked!r} with {got}", "it promised something else")

    def renew(self) -> bool:
        """A new run begins, with the whole time limit before it. False where the worker is gone."""
        if self._status() is not None:
            return False
        self._pipe.renew(self.worker.time_limit)
        return True

    def _gone(self) -> BackendError:
        """The error for a worker that closed its end: how it ended, or that it did not."""
        self._check_end()
        return worker_error(self.worker, "SNX422", "broke off before the run was over", last_words(self.worker.log))

    def _unreadable(self, error: Exception) -> BackendError:
        self._check_end()
        return worker_error(
            self.worker, "SNX425", f"answered with something else than a message: {error}", last_words(self.worker.log)
        )

    def _check_end(self) -> None:
        """Raises BackendError for a worker that ended with an error."""
        deadline = time.monotonic() + _END
        while time.monotonic() < deadline:
            status = self._status()
            if status is not None:
                check_status(self.worker, status)
                return
            time.sleep(_POLL)

    def _status(self) -> int | None:
        """Exit status of the worker, or minus a signal's number; None while it lives. Unreaped, its id stays its own."""
        try:
            found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # the host ignores SIGCHLD, and the kernel has reaped it; or this is a fork of its parent
            return 1
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


@contextmanager
def open_session(worker: Worker) -> Iterator[Session]:
    """Start a worker and talk to it; it is killed at the end, whatever happens in between."""
    prefix = f"snx{secrets.token_hex(8)}-"
    worker.log.parent.mkdir(parents=True, exist_ok=True)

    def watch() -> None:
        if worker.log.stat().st_size > LOG_LIMIT:
            raise worker_error(worker, "SNX426", f"wrote more than {LOG_LIMIT >> 20} MiB of log", "it repeats itself without end")

    with worker.log.open("wb") as log, ExitStack() as stack:
        its_input, our_output = os.pipe()
        our_input, its_output = os.pipe()
        pipe = stack.enter_context(TimedPipe(our_input, our_output, worker.time_limit, watch))
        try:
            process = stack.enter_context(_held(worker, (its_input, its_output), prefix, log))
        finally:
            os.close(its_input)
            os.close(its_output)
        stack.enter_context(killed_at_exit(process, prefix))
        yield Session(worker, process, pipe)


@contextmanager
def _held(worker: Worker, ends: tuple[int, int], prefix: str, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the worker from a thread that lives as long as the session: the kernel ends a worker with the thread that made it."""
    made, over = list[subprocess.Popen[bytes] | BaseException](), threading.Event()
    ready = threading.Event()

    def hold() -> None:
        try:
            made.append(start_worker(worker, [str(end) for end in ends], prefix, log, ends))
        except BaseException as error:  # raised again where the session is opened
            made.append(error)
        ready.set()
        over.wait()

    threading.Thread(target=hold, daemon=True, name=f"snn-export {worker.backend}").start()
    ready.wait()
    try:
        if isinstance(made[0], BaseException):
            raise made[0]
        yield made[0]
    finally:
        over.set()


class KeptSession:
    """A session that outlives a run: importing a package takes seconds, stepping a small network takes none.

    The worker ends with its owner, with this process, and after any failure. A fork of this process starts a worker of its own.
    """

    def __init__(self) -> None:
        self._lock, self._running = threading.Lock(), 0
        self._open: list[_Open] = []  # of one at most; a list, because the finalizer must hold it and not this object
        weakref.finalize(self, _close, self._open)

    @contextmanager
    def session(self, python: Path, make: Callable[[], Worker], keep_log: bool) -> Iterator[Session]:
        """The open session, or a new one. One run at a time; another thread waits.

        Args:
            python: interpreter that the worker has to run on.
            make: a worker, where a new one is needed.
            keep_log: also of a worker that did nothing wrong.
        """
        if self._running == threading.get_ident():
            raise RuntimeError("a run cannot start while another of the same simulator reports its progress")
        with self._lock:
            self._running = threading.get_ident()
            try:
                yield self._current(python, make, keep_log)
            except UserError:  # raised on this side, between two messages
                raise
            except BaseException:
                for found in self._open:
                    found.keep_log = True
                _close(self._open)
                raise
            finally:
                self._running = 0

    def _current(self, python: Path, make: Callable[[], Worker], keep_log: bool) -> Session:
        held = self._open[0] if self._open else None
        if held is not None and held.owner == os.getpid() and held.session.worker.python == python and held.session.renew():
            return held.session
        _close(self._open)
        worker, stack = make(), ExitStack()
        self._open.append(_Open(stack.enter_context(open_session(worker)), stack, os.getpid(), keep_log))
        return self._open[0].session


@dataclass
class _Open:
    """An open session, what ends it, and the process it belongs to."""

    session: Session
    stack: ExitStack
    owner: int
    keep_log: bool


def _close(opened: list[_Open]) -> None:
    """End the worker; a fork of its owner leaves it alone."""
    while opened:
        found = opened.pop()
        found.stack.close()
        if not found.keep_log and found.owner == os.getpid():
            found.session.worker.log.unlink(missing_ok=True)
