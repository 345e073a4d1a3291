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

from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from snn_export.hardware_sims.environments import cache_folder
from snn_export.models import arithmetic

_SOURCES = ("equations.py", "kernels.py", "kernel_cache.py")


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
        chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
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


class _Locator(_CacheLocator):  # type: ignore[misc]  # numba is untyped
    """numba's question where a function's files lie, answered with :func:`folder`."""

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _Locator | None:
        del py_file
        found = folder()
        return None if found is None else cls(py_func.__name__, found)

    def get_cache_path(self) -> str:
        return str(self._path)

    def get_source_stamp(self) -> str:
        return key()

    def get_disambiguator(self) -> str:
        return self._name


class _Implementation(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_Locator]  # noqa: RUF012  numba declares it so


class _KernelCache(FunctionCache):  # type: ignore[misc]
    """numba's cache with our folder; a file that cannot be read counts as none, one that cannot be written is left out."""

    _impl_class = _Implementation

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged pickle may raise anything; compiling anew replaces it
            self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:  # a full or read-only disk costs time at the next start, nothing else
            self.disable()


def remembered(kernel: Any) -> Any:
    """A kernel of numba's ``njit`` that is loaded from disk where it was compiled before."""
    if folder() is not None:
        kernel._cache = _KernelCache(kernel.py_func)
    return kernel
