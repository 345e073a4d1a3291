"""The folder a run writes into: one sub-folder per step, each with a record of what it was made from.

A step's key is a hash over its settings, the keys of the steps before it, this program's source and the versions of the
libraries that compute. A step is up to date if its record bears that key and its files still have the contents it recorded.
Work goes to ``<step>.partial`` first, survives an interrupt there if the key is still the same, and is renamed when it is whole.

What took hours is not thrown away for a changed setting. An interrupted training of another key waits as
``<step>.partial.<key>`` until its settings come back, and a trained network that another one replaces stays as
``<step>.previous`` until the next one is replaced.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from snn_export.export.nir_io import file_digest
from snn_export.models.diagnostics import UserError

RECORD = "step.json"
MOST_SET_ASIDE = 3
"""Interrupted trainings of other settings that wait for theirs to come back, for each step."""
COMPUTING_LIBRARIES = ("torch", "snntorch", "nir", "numpy", "numba", "scikit-learn")


@dataclass(frozen=True)
class StepRecord:
    """What a finished step left behind. reusable: False where a later run must not take it over (a backend broke)."""

    key: str
    summary: str
    files: dict[str, str]
    seconds: float
    reusable: bool = True


@dataclass(frozen=True)
class Workspace:
    """An output folder."""

    root: Path

    def folder(self, step: str) -> Path:
        """Folder of a finished step."""
        return self.root / step

    def record(self, step: str) -> StepRecord | None:
        """The record of a finished step, or None where there is none that can be read."""
        try:
            return StepRecord(**json.loads((self.folder(step) / RECORD).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def up_to_date(self, step: str, key: str) -> bool:
        """Whether a step's files are there, whole, and made from what ``key`` stands for."""
        found = self.record(step)
        if found is None or found.key != key or not found.reusable:
            return False
        return all(
            (self.folder(step) / name).is_file() and file_digest(self.folder(step) / name) == digest
            for name, digest in found.files.items()
        )

    def partial(self, step: str, key: str) -> Path:
        """Folder to work in, with what an interrupted run of the same key left there.

        Of another key, a training that was interrupted is set aside, the last few at least, and anything else is cleared.
        """
        folder = self.root / f"{step}.partial"
        found = _key_of(folder)
        if folder.exists() and found != key:
            if found and any(folder.glob("*.safetensors")):
                _move(folder, self._aside(step, found))
            else:
                shutil.rmtree(folder)
        waiting = self._aside(step, key)
        if not folder.exists() and _key_of(waiting) == key:
            waiting.replace(folder)
        self._forget(step)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "key").write_text(key, encoding="utf-8")
        return folder

    def _aside(self, step: str, key: str) -> Path:
        return self.root / f"{step}.partial.{key[:12]}"

    def _forget(self, step: str) -> None:
        """Clear all but the newest of the trainings that were set aside."""
        waiting = sorted(self.root.glob(f"{step}.partial.*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in waiting[MOST_SET_ASIDE:]:
            shutil.rmtree(folder)

    def replaces(self, step: str, key: str) -> bool:
        """Whether a result of ``key`` takes the place of one that was made from something else."""
        found = self.record(step)
        return found is not None and found.key != key

    def commit(self, step: str, key: str, summary: str, seconds: float, reusable: bool, keep: bool = False) -> StepRecord:
        """Turn a step's partial folder into its folder. keep: leave what it replaces as ``<step>.previous``."""
        partial, final = self.root / f"{step}.partial", self.folder(step)
        for unfinished in partial.rglob(".*.tmp"):  # a run that was killed while it wrote
            unfinished.unlink()
        files = {
            str(path.relative_to(partial)): file_digest(path)
            for path in sorted(partial.rglob("*"))
            if path.is_file() and path.name not in (RECORD, "key")
        }
        record = StepRecord(key, summary, files, seconds, reusable)
        (partial / RECORD).write_text(json.dumps(vars(record), indent=2, sort_keys=True) + "\n", encoding="utf-8")
        # A stop between the two renames leaves the partial folder with its key: the next run takes it up again.
        old = self.root / f"{step}.old"
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.replace(old)
        partial.replace(final)
        (final / "key").unlink()
        if keep and old.exists():
            _move(old, self.root / f"{step}.previous")
        shutil.rmtree(old, ignore_errors=True)
        return record

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run at a time. Raises SNX008 where another run holds it, SNX009 where it cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(
                "SNX009",
                f"cannot write into {self.root}",
                where=str(self.root),
                why=str(error),
                fix="choose another folder: project.output in the config, or --output",
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise UserError(
                "SNX008",
                f"another run is using {self.root}",
                where=str(self.root),
                why="two runs in one folder would overwrite each other's steps",
                fix="wait for it to end, or choose another folder with --output",
            ) from error
        try:
            yield
        finally:
            os.close(handle)


def _key_of(folder: Path) -> str:
    """The key that a partial folder was begun for; empty where it bears none."""
    marker = folder / "key"
    return marker.read_text(encoding="utf-8") if marker.is_file() else ""


def _move(folder: Path, place: Path) -> None:
    """Rename a folder, in place of what is there."""
    shutil.rmtree(place, ignore_errors=True)
    folder.replace(place)


def step_key(name: str, settings: Mapping[str, Any], before: Mapping[str, str], sources: tuple[str, ...]) -> str:
    """SHA-256 over everything a step's result depends on; ``sources`` as in :func:`source_digest`."""
    content = {
        "step": name,
        "settings": settings,
        "before": dict(before),
        "source": source_digest(sources),
        "versions": {library: _version(library) for library in COMPUTING_LIBRARIES},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@lru_cache
def source_digest(modules: tuple[str, ...]) -> str:
    """SHA-256 over the source of some of this program's modules or packages, named relative to ``snn_export``.

    A changed equation must not meet a result of the old one; a changed stylesheet need not train a network again.
    """
    digest = hashlib.sha256()
    for module in modules:
        spec = find_spec(f"snn_export.{module}")
        places = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or [spec.origin or ""]]
        for place in places:
            for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
                if file.suffix in (".py", ".toml", ".j2", ".css", ".txt"):
                    digest.update(f"{module}/{file.relative_to(place)}:{file_digest(file)};".encode())
    return digest.hexdigest()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"
