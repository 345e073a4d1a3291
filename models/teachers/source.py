"""Where a teacher comes from: one line of text that names a file."""

from __future__ import annotations

import re
from pathlib import Path

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.python_file import load_python_teacher
from snn_export.models.teachers.teacher import TeacherNetwork
from snn_export.models.teachers.torch_file import SAFETENSORS, STATE_DICTS, load_torch_teacher

FORMS = "onnx:FILE, FILE.onnx, FILE.py:build, FILE.py:build@WEIGHTS, NAME@WEIGHTS"
"""The forms of a teacher's source; WEIGHTS is a .safetensors, .pt or .pth file."""


def load_teacher(spec: str, *, input_shape: tuple[int, ...], classes: int, base: Path | None = None) -> TeacherNetwork:
    """The teacher that ``spec`` names, in evaluation mode.

    Args:
        spec: ``onnx:FILE`` or a path that ends in ``.onnx``; ``FILE.py:build`` for the module that the function ``build`` of a
            Python file returns, which is run; either that or the name of a teacher of this project with ``@WEIGHTS`` behind it.
        input_shape: of one sample.
        classes: number of logits.
        base: the folder that relative paths start from; default the working directory.

    Raises:
        UserError: SNX158 for a text of none of these forms; SNX150 to SNX157, SNX270 to SNX277, SNX010 and SNX012 as the readers
            of these files.
    """
    folder = base or Path()
    text = spec.strip()
    if text.startswith("onnx:") and text != "onnx:":
        return _from_onnx(folder / text.removeprefix("onnx:"), input_shape, classes)
    if text.endswith(".onnx"):
        return _from_onnx(folder / text, input_shape, classes)
    source, weights = _parted(text, folder)
    path, colon, function = source.rpartition(":")
    if colon and path.endswith(".py") and function.isidentifier():
        return load_python_teacher(folder / path, function, input_shape=input_shape, classes=classes, weights=weights)
    if source.endswith(".py"):
        raise _unclear(spec, "a Python file does not say which of its functions builds the teacher", f"write {source}:build")
    if weights is not None and re.fullmatch(r"[\w-]+", source):
        return load_torch_teacher(source, weights, input_shape=input_shape, classes=classes)
    if source.endswith((*SAFETENSORS, *STATE_DICTS)):
        raise _unclear(spec, "a file of weights does not say which network they belong to", f"write convnet@{source}")
    raise _unclear(spec, f"it has none of the forms {FORMS}", "write for instance convnet@teacher.safetensors or teacher.onnx")


def _from_onnx(path: Path, input_shape: tuple[int, ...], classes: int) -> TeacherNetwork:
    # Here, so that the onnx package is not imported for teachers that need none.
    from snn_export.models.teachers.onnx_file import load_onnx_teacher

    return load_onnx_teacher(path, input_shape=input_shape, classes=classes)


def _parted(text: str, folder: Path) -> tuple[str, Path | None]:
    """What lies before the last ``@`` and the file of weights behind it; ``@`` may be part of the name of a folder."""
    source, sign, weights = text.rpartition("@")
    if sign and source and weights.endswith((*SAFETENSORS, *STATE_DICTS)):
        return source, folder / weights
    return text, None


def _unclear(spec: str, why: str, fix: str) -> UserError:
    return UserError("SNX158", f"'{spec}' does not name a teacher", where="teacher", why=why, fix=fix)
