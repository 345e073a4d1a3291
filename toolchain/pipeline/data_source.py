"""The data set a config names, found relative to the config file and identified by content."""

from __future__ import annotations

from pathlib import Path

from snn_export.data.dataset import Dataset
from snn_export.data.registry import load_dataset
from snn_export.export.nir_io import file_digest

FILE_PREFIX = "npz:"


def resolved(source: str, base: Path) -> str:
    """``npz:data.npz`` with its path taken relative to the config file's folder."""
    if not source.startswith(FILE_PREFIX):
        return source
    return FILE_PREFIX + str(base / Path(source.removeprefix(FILE_PREFIX)).expanduser())


def source_fingerprint(source: str, base: Path) -> str:
    """What identifies the data without loading it: a file's digest, or the name of a bundled set."""
    path = Path(resolved(source, base).removeprefix(FILE_PREFIX))
    return file_digest(path) if source.startswith(FILE_PREFIX) and path.is_file() else source


def dataset(source: str, base: Path, seed: int, validation: float) -> Dataset:
    """Load and split. Raises the data layer's UserErrors (SNX011, SNX110 to SNX118)."""
    return load_dataset(resolved(source, base), seed, validation)
