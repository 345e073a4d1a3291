"""Where the teacher of a config comes from: a name to train, or files to read."""

from __future__ import annotations

from pathlib import Path

_WEIGHTS = (".safetensors", ".pt", ".pth")


def is_file(teacher: str) -> bool:
    """Whether ``model.teacher`` names files (``FILE.onnx``, ``FILE.py:build``, ``NAME@WEIGHTS``) and not a network to train."""
    return ".onnx" in teacher or ".py" in teacher or teacher.endswith(_WEIGHTS)


def files_of(teacher: str, base: Path) -> tuple[Path, ...]:
    """The files that decide what such a teacher is, relative paths taken from ``base``; empty for a network to train."""
    if not is_file(teacher):
        return ()
    source, at, weights = teacher.rpartition("@")
    if not (at and weights.endswith(_WEIGHTS)):
        source, weights = teacher, ""
    code = source.removeprefix("onnx:").rpartition(":")[0] if ".py:" in source else source.removeprefix("onnx:")
    return tuple(base / Path(name).expanduser() for name in (code, weights) if name and (name == weights or "." in name))
