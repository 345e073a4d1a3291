"""numba's own cache of compiled functions, kept in the folder of ``kernel_cache.py``.

It builds on parts of numba that are no public interface, as of numba 0.68; ``kernel_cache.py`` does without it where
they are missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from snn_export.hardware_sims.loihi.kernel_cache import folder, key


class _Locator(_CacheLocator):  # type: ignore[misc]  # numba is untyped
    """numba's question where a function's files lie, answered with :func:`snn_export.hardware_sims.loihi.kernel_cache.folder`."""

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


class KernelCache(FunctionCache):  # type: ignore[misc]
    """numba's cache with our folder; a file that cannot be read counts as none, one that cannot be written is left out."""

    _impl_class = _Implementation

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """As numba's; None for a damaged file, which is removed."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged pickle may raise anything; compiling anew replaces it
            self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """As numba's; the cache is off from the first file that cannot be written."""
        try:
            super().save_overload(sig, data)
        except OSError:  # a full or read-only disk costs time at the next start, nothing else
            self.disable()
