"""Where the teacher of a config comes from: a name to train, or files to read."""

from __future__ import annotations

from pathlib import Path

from snn_export.models.teachers import source


def is_file(teacher: str) -> bool:
    """Whether ``model.teacher`` names files (``FILE.onnx``, ``FILE.py:build``, ``NAME@WEIGHTS``) and not a network to train."""
    text = teacher.strip()
    return text.startswith("onnx:") or ".onnx" in text or ".py" in text or text.endswith(source.WEIGHTS)


def files_of(teacher: str, base: Path) -> tuple[Path, ...]:
    """The files that decide what such a teacher is, relative paths taken from ``base``; empty for a network to train.

    UserError SNX158 where the text has no form that a teacher can be read by.
    """
    return source.files_of(teacher, base) if is_file(teacher) else ()
