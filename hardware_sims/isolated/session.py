"""A worker that stays: started once, asked over two pipes in as many runs as follow, killed when its owner is gone.

Whatever it does - crash, hang, answer with something else, print without end - the question that is open then ends with a
:class:`BackendError` within the time limit, and no process of the worker's is left. What it prints goes to its log.
"""

from __future__ import annotations

import os
import secrets
import selectors
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from snn_export.hardware_sims.isolated.cell_server import read_message, write_message
from snn_export.hardware_sims.simulator import BackendError
from snn_export.hardware_sims.worker_process import Worker, broken, check_status, killed_at_exit, last_line, start
from snn_export.models.diagnostics import UserError

Array = NDArray[Any]

_END = 2.0
"""Seconds that a worker gets to end by itself after it broke off."""

_POLL = 0.02


class Session:
    """An open conversation with a worker; made by :func:`open_session`."""

    def __init__(self, worker: Worker, process: subprocess.Popen[bytes], pipe: _TimedPipe) -> None:
        self._worker, self._process = worker, process
        self._pipe = cast(BinaryIO, pipe)

    def ask(
        self, message: Mapping[str, Any], arrays: Sequence[Array] = (), expected: Sequence[tuple[int, ...]] = ()
    ) -> tuple[dict[str, Any], list[Array]]:
        """Send a message and wait for its answer.

        Args:
            message: see ``cell_server.py``.
            arrays: that go with it.
            expected: shapes of the float32 arrays that must come back.

        Raises:
            BackendError: SNX420 past the time limit, SNX421 and SNX422 where the worker ended, SNX425 for any other answer.
        """
        try:
            write_message(self._pipe, message, arrays)
            found = read_message(self._pipe, sum(4 * prod(shape) for shape in expected))
        except TimeoutError as error:
            why = "it hangs, or the job is larger than its limit"
            raise broken(self._worker, "SNX420", f"did not finish within {self._worker.time_limit:g} seconds", why) from error
        except BrokenPipeError as error:
            raise self._gone() from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unreadable(error) from error
        if found is None:
            raise self._gone()
        answer, results = found
        if "error" in answer:
            raise broken(self._worker, "SNX422", f"could not go on: {answer['error']}", last_line(self._worker.log))
        if [(part.dtype, part.shape) for part in results] != [(np.dtype(np.float32), tuple(shape)) for shape in expected]:
            got = ", ".join(f"{part.dtype} {part.shape}" for part in results) or "nothing"
            raise broken(self._worker, "SNX425", f"answered {message.get('do')!r} with {got}", "it promised something else")
        return answer, results

    def renew(self) -> bool:
        """A new run begins, with the whole time limit before it. False where the worker is gone."""
        if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        cast(_TimedPipe, self._pipe).renew(self._worker.time_limit)
        return True

    def _gone(self) -> BackendError:
        """The error for a worker that closed its end: how it ended, or that it did not."""
        self._check_end()
        return broken(self._worker, "SNX422", "ended before the run was over", last_line(self._worker.log))

    def _unreadable(self, error: Exception) -> BackendError:
        self._check_end()
        return broken(
            self._worker, "SNX425", f"answered with something else than a message: {error}", last_line(self._worker.log)
        )

    def _check_end(self) -> None:
        """Raises BackendError for a worker that ended with an error. It is left unreaped: its id must stay its own."""
        deadline = time.monotonic() + _END
        while time.monotonic() < deadline:
            found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                check_status(self._worker, found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)
                return
            time.sleep(_POLL)


@contextmanager
def open_session(worker: Worker) -> Iterator[Session]:
    """Start a worker and talk to it; it is killed at the end, whatever happens in between."""
    prefix = f"snx{secrets.token_hex(8)}-"
    worker.log.parent.mkdir(parents=True, exist_ok=True)
    its_input, our_output = os.pipe()
    our_input, its_output = os.pipe()
    with _TimedPipe(our_input, our_output, worker.time_limit) as pipe, worker.log.open("wb") as log:
        try:
            process = start(worker, (str(its_input), str(its_output)), prefix, log, (its_input, its_output))
        finally:
            os.close(its_input)
            os.close(its_output)
        with killed_at_exit(process, prefix):
            yield Session(worker, process, pipe)


class KeptSession:
    """A session that outlives a run: importing a package takes seconds, stepping a small network takes none.

    The worker ends with its owner, with this process (or the thread that started it), and after any failure.
    """

    def __init__(self) -> None:
        self._lock, self._open = threading.Lock(), list[_Open]()
        weakref.finalize(self, _close, self._open)

    @contextmanager
    def session(self, worker: Callable[[], Worker], keep_log: bool) -> Iterator[Session]:
        """The open session, or a new one. ``keep_log`` also of a worker that did nothing wrong; one run at a time."""
        with self._lock:
            if not (self._open and self._open[0].session.renew()):
                _close(self._open)
                self._open.append(_start(worker(), keep_log))
            try:
                yield self._open[0].session
            except UserError:  # raised on this side, between two messages
                raise
            except BaseException:
                self._open[0].keep_log = True
                _close(self._open)
                raise


@dataclass
class _Open:
    """An open session with what ends it."""

    session: Session
    stack: ExitStack
    log: Path
    keep_log: bool


def _start(worker: Worker, keep_log: bool) -> _Open:
    stack = ExitStack()
    return _Open(stack.enter_context(open_session(worker)), stack, worker.log, keep_log)


def _close(opened: list[_Open]) -> None:
    while opened:
        found = opened.pop()
        found.stack.close()
        if not found.keep_log:
            found.log.unlink(missing_ok=True)


class _TimedPipe:
    """Both ends of a conversation; reading and writing raise TimeoutError once the time is over, whoever waits for whom."""

    def __init__(self, read_end: int, write_end: int, time_limit: float) -> None:
        self._ends, self._deadline = (read_end, write_end), time.monotonic() + time_limit
        os.set_blocking(write_end, False)
        self._readable, self._writable = selectors.DefaultSelector(), selectors.DefaultSelector()
        self._readable.register(read_end, selectors.EVENT_READ)
        self._writable.register(write_end, selectors.EVENT_WRITE)

    def renew(self, time_limit: float) -> None:
        """The time starts again."""
        self._deadline = time.monotonic() + time_limit

    def __enter__(self) -> _TimedPipe:
        return self

    def __exit__(self, *unused: object) -> None:
        self._readable.close()
        self._writable.close()
        for end in self._ends:
            os.close(end)

    def read(self, size: int) -> bytes:
        """``size`` bytes, fewer where the other side closed."""
        content, done = bytearray(size), 0
        while done < size and (count := self.readinto(memoryview(content)[done:])):
            done += count
        return bytes(content[:done])

    def readinto(self, view: memoryview) -> int:
        """What is there, up to the size of ``view``; 0 where the other side closed."""
        self._wait(self._readable)
        return os.readv(self._ends[0], [view])

    def write(self, content: bytes | memoryview) -> None:
        """All of it. Raises BrokenPipeError where the other side is gone."""
        view = memoryview(content)
        while view:
            self._wait(self._writable)
            with suppress(BlockingIOError):
                view = view[os.write(self._ends[1], view) :]

    def flush(self) -> None:
        """Nothing is held back."""

    def _wait(self, selector: selectors.BaseSelector) -> None:
        if not selector.select(max(0.0, self._deadline - time.monotonic())):
            raise TimeoutError
