"""Our ends of a conversation: reading and writing within a time limit, whoever waits for whom."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable
from contextlib import suppress

_SLICE = 0.2
"""Seconds between two looks at the worker while it is waited for."""


class TimedPipe:
    """A pair of pipe ends. ``watch`` is called again and again while something is waited for, and may raise.

    Raises TimeoutError once the time is over, BrokenPipeError where the other side closed the end that is written to.
    """

    def __init__(self, read_end: int, write_end: int, time_limit: float, watch: Callable[[], None]) -> None:
        self._ends, self._deadline, self._watch = (read_end, write_end), time.monotonic() + time_limit, watch
        os.set_blocking(write_end, False)
        self._readable, self._writable = selectors.DefaultSelector(), selectors.DefaultSelector()
        self._readable.register(read_end, selectors.EVENT_READ)
        self._writable.register(write_end, selectors.EVENT_WRITE)

    def renew(self, time_limit: float) -> None:
        """The time starts again."""
        self._deadline = time.monotonic() + time_limit

    def __enter__(self) -> TimedPipe:
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
        """All of it."""
        view = memoryview(content)
        while view:
            self._wait(self._writable)
            with suppress(BlockingIOError):
                view = view[os.write(self._ends[1], view) :]

    def flush(self) -> None:
        """Nothing is held back."""

    def _wait(self, selector: selectors.BaseSelector) -> None:
        while True:
            self._watch()
            left = self._deadline - time.monotonic()
            if selector.select(min(max(left, 0.0), _SLICE)):
                return
            if left <= 0:
                raise TimeoutError
