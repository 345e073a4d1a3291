"""Compiled kernels on disk, so that only the first start on a machine waits for the compiler.

numba's own cache looks at the file of the compiled function only, and would go on running old equations after
``models/arithmetic.py`` changed. Here the folder is named after a hash of everything the machine code depends on: the sources
of the equations and the kernels, and the versions of numba, llvmlite and Python; numba adds the CPU. A stale entry is never
looked at.

The files are pickles, and reading a pickle runs code: the folder is made with mode 0700 and is used only where it belongs to
this user and nobody else can write to it. Where it cannot be used, kernels are compiled at every start.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from snn_export.hardware_sims.environments import cache_folder
from snn_export.models import arithmetic

_SOURCES = ("equations.py", "kernels.py", "kernel_cache.py", "numba_cache.py")


@cache
def key() -> str:
    """Hash of all that decides what a kernel computes."""
    digest = hashlib.sha256()
    for path in (Path(arithmetic.__file__), *(Path(__file__).with_name(name) for name in _SOURCES)):
        digest.update(path.read_bytes())
    digest.update(repr((version("numba"), version("llvmlite"), sys.version_info[:3])).encode())
    return digest.hexdigest()[:32]


@cache
def folder() -> Path | None:
    """Where this version's kernels lie, made where it does not exist; None where it cannot be used safely."""
    base = cache_folder() / "kernels"
    chosen = base / key()
    try:
        for path in (*reversed(chosen.parents), chosen):  # mkdir(parents=True) would leave the mode of parents to the umask
            path.mkdir(mode=0o700, exist_ok=True)
        for path in (base, chosen):
            if not _ours_alone(path):
                return None
        return chosen if os.access(chosen, os.W_OK | os.X_OK) else None
    except OSError:
        return None


def _ours_alone(path: Path) -> bool:
    """True where nobody but this user can write to a folder (on Windows the profile's own rules hold)."""
    if os.name == "nt":
        return True
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def remembered(kernel: Any) -> Any:
    """A kernel of numba's ``njit`` that is loaded from disk where it was compiled before.

    numba has no public way to say where its files lie. Where a version of it does not have the parts that ``numba_cache.py``
    builds on, kernels are compiled at every start: slower, and the same.
    """
    if folder() is None:
        return kernel
    try:
        from snn_export.hardware_sims.loihi.numba_cache import KernelCache

        kernel._cache = KernelCache(kernel.py_func)
    except (ImportError, AttributeError, TypeError):
        return kernel
    return kernel
