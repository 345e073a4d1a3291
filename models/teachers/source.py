"""A teacher by the text that names it: where a network comes from that this project did not train, and from which files.

Reading the text needs no torch: whether a teacher's files have changed is asked before anything is computed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snn_export.models.diagnostics import UserError

if TYPE_CHECKING:
    from snn_export.models.teachers.teacher import TeacherNetwork

FORMS = "onnx:FILE, FILE.onnx, FILE.py:build, FILE.py:build@WEIGHTS, NAME@WEIGHTS"
"""The forms of a teacher's source; WEIGHTS is a .safetensors, .pt or .pth file."""
WEIGHTS = (".safetensors", ".pt", ".pth")
"""How the name of a file of weights ends."""


@dataclass(frozen=True)
class TeacherSource:
    """What a text says: exactly one of ``onnx``, ``code`` and ``name`` is set.

    Attributes:
        onnx: an ONNX file.
        code: a Python file, whose ``function`` builds the teacher.
        name: of a teacher of this project.
        weights: what is loaded into the network that ``function`` or ``name`` builds.
    """

    onnx: Path | None = None
    code: Path | None = None
    function: str = ""
    name: str = ""
    weights: Path | None = None


def parse_source(spec: str, base: Path | None = None) -> TeacherSource:
    """What ``spec`` says; blanks around it do not count, ``~`` is the home folder.

    Args:
        spec: in one of :data:`FORMS`.
        base: the folder that relative paths start from; default the working directory.

    Raises:
        UserError: SNX158 for a text of none of these forms.
    """
    folder = base or Path()
    text = spec.strip()
    onnx = text.removeprefix("onnx:").strip()
    if onnx and (onnx != text or text.endswith(".onnx")):
        return TeacherSource(onnx=_path(folder, onnx))
    source, weights = _parted(text, folder)
    path, colon, function = source.rpartition(":")
    if colon and path.endswith(".py") and function.isidentifier():
        return TeacherSource(code=_path(folder, path), function=function, weights=weights)
    if source.endswith(".py"):
        raise _unclear(spec, "a Python file does not say which of its functions builds the teacher", f"write {source}:build")
    if weights is not None and re.fullmatch(r"[\w-]+", source):
        return TeacherSource(name=source, weights=weights)
    if source.endswith(WEIGHTS):
        raise _unclear(spec, "a file of weights does not say which network they belong to", f"write convnet@{source}")
    raise _unclear(spec, f"it has none of the forms {FORMS}", "write for instance convnet@teacher.safetensors or teacher.onnx")


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
    source = parse_source(spec, base)
    # The readers here, so that no package is imported for a teacher that needs none of it.
    if source.onnx is not None:
        from snn_export.models.teachers.onnx_file import load_onnx_teacher

        return load_onnx_teacher(source.onnx, input_shape=input_shape, classes=classes)
    if source.code is not None:
        from snn_export.models.teachers.python_file import load_python_teacher

        return load_python_teacher(source.code, source.function, input_shape=input_shape, classes=classes, weights=source.weights)
    if source.weights is None:
        raise _unclear(spec, "it names no file", f"write {source.name}@teacher.safetensors")
    from snn_export.models.teachers.torch_file import load_torch_teacher

    return load_torch_teacher(source.name, source.weights, input_shape=input_shape, classes=classes)


def files_of(spec: str, base: Path | None = None) -> tuple[Path, ...]:
    """The files that decide what :func:`load_teacher` gives; some may not be there.

    Weights that an ONNX file keeps in other files count too. For a Python file: all Python files and weights in its folder,
    which its code may import and load; what it reads from elsewhere cannot be known. Errors as :func:`parse_source`.
    """
    source = parse_source(spec, base)
    if source.onnx is not None:
        from snn_export.models.teachers.onnx_file import external_files

        return (source.onnx, *external_files(source.onnx))
    found = {path for path in (source.code, source.weights) if path is not None}
    if source.code is not None and source.code.parent.is_dir():
        found.update(path for path in source.code.parent.iterdir() if path.suffix in (".py", *WEIGHTS))
    return tuple(sorted(found))


def _path(folder: Path, name: str) -> Path:
    """``name`` relative to ``folder``; one that begins with ``~`` or ``/`` stands for itself."""
    return folder / Path(name).expanduser()


def _parted(text: str, folder: Path) -> tuple[str, Path | None]:
    """What lies before the last ``@`` and the file of weights behind it; ``@`` may be part of the name of a folder."""
    source, sign, weights = text.rpartition("@")
    if sign and source.strip() and weights.endswith(WEIGHTS):
        return source.strip(), _path(folder, weights.strip())
    return text, None


def _unclear(spec: str, why: str, fix: str) -> UserError:
    return UserError("SNX158", f"'{spec}' does not name a teacher", where="teacher", why=why, fix=fix)
