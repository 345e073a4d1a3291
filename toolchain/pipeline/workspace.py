"""The folder a run writes into: one sub-folder per step, each with a record of what it was made from.

A step's key is a hash over its settings, the keys of the steps before it, this program's source and the versions of the
libraries that compute. A step is up to date if its record bears that key and its files still have the contents it recorded.
Work goes to ``<step>.partial`` first, survives an interrupt there if the key is still the same, and is renamed when it is whole.

What took hours is not thrown away for a changed setting. An interrupted training of another key waits as
``<step>.partial.<key>``, the last three of them, and a trained network that another one replaces stays as ``<step>.previous``
until the next one is replaced. Both are taken up again where their settings come back.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
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
_SHOWN = 12
"""Digits of a key in a folder's name."""
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

        Of another key, a training that was interrupted is set aside, and anything else is cleared.
        """
        folder = self.root / f"{step}.partial"
        found = _key_of(folder)
        if folder.exists() and found != key:
            if found and any(folder.glob("*.safetensors")):
                aside = self._aside(step, found)
                _move(folder, aside)
                os.utime(aside, ns=(time.time_ns(),) * 2)
            else:
                _remove(folder)
        waiting = self._aside(step, key)
        if not folder.exists() and _key_of(waiting) == key:
            waiting.replace(folder)
        self._forget(step)  # only now: the oldest may be the one that is asked for
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "key").write_text(key, encoding="utf-8")
        return folder

    def _aside(self, step: str, key: str) -> Path:
        return self.root / f"{step}.partial.{key[:_SHOWN]}"

    def _forget(self, step: str) -> None:
        """Clear all trainings that were set aside but the last few. What somebody else put here is not ours to clear."""
        begins = f"{step}.partial."
        ours = [
            folder
            for folder in self.root.glob(f"{begins}*")
            if folder.is_dir() and re.fullmatch(f"[0-9a-f]{{{_SHOWN}}}", folder.name.removeprefix(begins))
        ]
        for folder in sorted(ours, key=lambda folder: folder.stat().st_mtime_ns, reverse=True)[MOST_SET_ASIDE:]:
            _remove(folder)

    def replaces(self, step: str, key: str) -> bool:
        """Whether a result of ``key`` takes the place of one that was made from something else, or from nobody knows what."""
        found = self.record(step)
        return self.folder(step).is_dir() and (found is None or found.key != key)

    def take_back(self, step: str) -> None:
        """Exchange a step's folder and what it replaced. A stop in between leaves all that the next call needs."""
        old, previous, final = (self.root / f"{step}{end}" for end in (".old", ".previous", ""))
        if final.exists():
            _move(final, old)
        previous.replace(final)
        if old.exists():
            old.replace(previous)

    def commit(self, step: str, key: str, summary: str, seconds: float, reusable: bool, keeps: bool = False) -> StepRecord:
        """Turn a step's partial folder into its folder. keeps: what it replaces, made from something else, stays as previous."""
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
        # A stop between the renames leaves the partial folder with its key, and what it replaces: the next run takes up both.
        old, previous = self.root / f"{step}.old", self.root / f"{step}.previous"
        if keeps and old.is_dir():
            _move(old, previous)
        keep = keeps and self.replaces(step, key)
        if final.exists():
            _move(final, old)
        partial.replace(final)
        (final / "key").unlink()
        if keep:
            _move(old, previous)
        _remove(old)
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
    """The key that a partial folder was begun for; empty where it bears none. The folder may come from anywhere."""
    marker = folder / "key"
    found = marker.read_text(encoding="utf-8", errors="replace") if marker.is_file() else ""
    return found if re.fullmatch(r"[0-9a-f]{64}", found) else ""


def _move(folder: Path, place: Path) -> None:
    """Rename a folder, in place of what is there."""
    _remove(place)
    folder.replace(place)


def _remove(place: Path) -> None:
    """A folder with all that is in it, or a file or link that stands in its place."""
    if place.is_symlink() or place.is_file():
        place.unlink()
    else:
        shutil.rmtree(place, ignore_errors=True)


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
