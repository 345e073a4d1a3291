"""Ctrl-C is never lost.

Python raises KeyboardInterrupt wherever the main thread happens to be, also in a finaliser or in a callback of the import system.
What is raised there is printed and dropped: the interrupt is gone, and a run goes on for hours that was asked to stop.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LATER_SECONDS = 0.02


@contextmanager
def kept_interrupts() -> Iterator[None]:
    """Raise a KeyboardInterrupt again, where the main thread goes on, that was dropped because of where it came."""
    before = sys.unraisablehook

    def again(dropped: Any) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            # From another thread and a little later: here, inside what drops exceptions, it would be dropped again.
            main = threading.main_thread().ident
            timer = threading.Timer(LATER_SECONDS, signal.pthread_kill, (main, signal.SIGINT))
            timer.daemon = True
            timer.start()
        else:
            before(dropped)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
