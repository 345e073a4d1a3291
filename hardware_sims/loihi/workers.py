"""Threads that share the chunks of a run.

Plain Python threads over kernels that release the GIL; each takes a chunk of samples through the whole network, then the next
one, so that nobody waits for another between layers. numba's own parallel loops are not used: its portable layer ends the
process when two threads call it at once, and OpenMP's waits in a busy loop, which beside other work costs more than it brings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Task = TypeVar("Task")


def cores() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Runs tasks on a fixed number of threads, the calling one included.

    The pool is made when first needed, and anew in a forked child, where its threads do not exist.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._owner = -1

    def each(self, tasks: Iterable[Task], work: Callable[[Iterator[Task]], None]) -> None:
        """Call ``work`` once per thread, with an iterator that all threads take their tasks from.

        With several tasks torch uses one thread in each of ours; a single task has torch's threads for itself. After an error
        no new task is begun, and the first error is raised when those under way are done.
        """
        queue = list(tasks)[::-1]
        helpers = min(self.threads, len(queue)) - 1
        with _torch_threads(self.threads if helpers <= 0 else 1):
            if helpers <= 0:
                work(_taken(queue))
                return
            futures = [self._executor().submit(_help, queue, work) for _ in range(helpers)]
            try:
                work(_taken(queue))
            except BaseException:
                queue.clear()
                raise
            finally:
                errors = [future.exception() for future in futures]
            for error in errors:
                if error is not None:
                    raise error

    def _executor(self) -> ThreadPoolExecutor:
        if self._pool is None or self._owner != os.getpid():
            self._pool = ThreadPoolExecutor(max(1, self.threads - 1), thread_name_prefix="loihi")
            self._owner = os.getpid()
        return self._pool


def _taken(queue: list[Task]) -> Iterator[Task]:
    """Tasks from the end of a list that several threads share; popping from a list is atomic."""
    while queue:
        try:
            task = queue.pop()
        except IndexError:  # another thread took the last one
            return
        yield task


def _help(queue: list[Task], work: Callable[[Iterator[Task]], None]) -> None:
    """Work in a thread of the pool, with one thread of torch; after an error there are no tasks left for the others."""
    import torch

    torch.set_num_threads(1)
    try:
        work(_taken(queue))
    except BaseException:
        queue.clear()
        raise


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """Thread count of torch for the time of a run."""
    import torch

    before = torch.get_num_threads()
    if before == threads:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
