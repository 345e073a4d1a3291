"""First script of every isolated worker: ties its life to its parent's, then runs the worker script.

``python -I worker_bootstrap.py PARENT_PID PREFIX WORKER ARGUMENTS...``

Runs inside a backend's own environment, so it imports the standard library only, and nothing of this project. It

- asks the kernel (Linux) to kill this process and every process it forks as soon as the one that made it dies (to be exact:
  the thread that made it), so that no worker outlives an interrupted or killed caller;
- gives shared memory segments names that start with ``PREFIX``, so that the caller can remove what a killed worker leaves.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from multiprocessing import shared_memory

_PR_SET_PDEATHSIG = 1


def follow_parent(parent: int) -> None:
    """Die with the parent: now, and in every child forked from here on. Elsewhere than on Linux there is no such call."""
    if not sys.platform.startswith("linux"):
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def die_with(expected: int) -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != expected:  # it died before the call above could notice
            os.kill(os.getpid(), signal.SIGKILL)

    forker = [0]
    os.register_at_fork(before=lambda: forker.__setitem__(0, os.getpid()), after_in_child=lambda: die_with(forker[0]))
    die_with(parent)


def name_shared_memory(prefix: str) -> None:
    """Let anonymous ``SharedMemory`` names start with ``/PREFIX`` (CPython draws them in two private constants)."""
    for constant, value in (("_SHM_NAME_PREFIX", f"/{prefix}"), ("_SHM_SAFE_NAME_LENGTH", len(prefix) + 18)):
        if hasattr(shared_memory, constant):
            setattr(shared_memory, constant, value)


def main() -> None:
    """See the module's docstring."""
    parent, prefix, worker, *arguments = sys.argv[1:]
    follow_parent(int(parent))
    name_shared_memory(prefix)
    sys.argv = [worker, *arguments]
    runpy.run_path(worker, run_name="__main__")


if __name__ == "__main__":
    main()
