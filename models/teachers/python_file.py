"""A teacher from a function in a Python file of the user: ``file.py:build``.

The file is the user's own code and is run as such: reading it is as much as importing it. What it does wrong is reported with the
line in that file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion
from snn_export.models.teachers.teacher import TeacherNetwork
from snn_export.models.teachers.torch_file import load_weights
from snn_export.models.teachers.traced import teacher_from_module


def load_python_teacher(
    path: Path, function: str, *, input_shape: tuple[int, ...], classes: int, weights: Path | None = None
) -> TeacherNetwork:
    """The teacher that ``function()`` of the Python file ``path`` returns: a torch module, or a :class:`TeacherNetwork`.

    Args:
        path: of the file. Its folder is where it imports from while it runs.
        function: name of a function that needs no arguments.
        input_shape: of one sample.
        classes: number of logits.
        weights: a file of tensors to load into the module, see :func:`snn_export.models.teachers.torch_file.load_weights`.

    Raises:
        UserError: SNX156 where the file or the function cannot be run, with the line; SNX157 where what it returns is no module
            that takes such samples; SNX153 for other samples or classes; SNX154 and SNX155 as ``load_weights``.
    """
    network = _built(path, function)
    if weights is not None:
        load_weights(network, weights)
    if isinstance(network, TeacherNetwork):
        if (tuple(network.input_shape), network.classes) != (tuple(input_shape), classes):
            raise UserError(
                "SNX153", f"the teacher is for samples of shape {network.input_shape} and {network.classes} classes",
                where=f"{path}:{function}", why=f"the data has samples of shape {tuple(input_shape)} and {classes} classes",
                fix="build the teacher for this data",
            )  # fmt: skip
        return network
    with _reported(path, "SNX157", f"the module that {function}() returned cannot take samples of shape {tuple(input_shape)}"):
        return teacher_from_module(network, input_shape=input_shape, classes=classes)


def _built(path: Path, function: str) -> nn.Module:
    if not path.is_file():
        raise UserError(
            "SNX156", f"there is no file '{path.name}'", where=str(path), why="the teacher is built by a function in this file",
            fix="name an existing file, relative to the config that names it",
        )  # fmt: skip
    with _importing_from(path.parent):
        with _reported(path, "SNX156", f"'{path.name}' cannot be run"):
            module = _run(path)
        build = _function(path, vars(module), function)
        with _reported(path, "SNX156", f"{function}() in '{path.name}' failed"):
            network = build()
    if not isinstance(network, nn.Module):
        raise UserError(
            "SNX157", f"{function}() returned {type(network).__name__}", where=f"{path}:{function}",
            why="a teacher is a torch module", fix="return an nn.Module that maps samples (B, ...) to logits (B, K)",
        )  # fmt: skip
    return network


def _run(path: Path) -> Any:
    """The module that a file defines, under a name of its own: two files may have the same name."""
    name = f"snn_export_teacher_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up the module of a class
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _function(path: Path, names: dict[str, Any], function: str) -> Callable[[], object]:
    build: Callable[[], object] | None = names.get(function)
    if build is None or not callable(build):
        functions = [name for name, value in names.items() if inspect.isfunction(value) and not name.startswith("_")]
        raise UserError(
            "SNX156", f"'{path.name}' has no function '{function}'", where=str(path), why="the teacher is built by this function",
            fix=suggestion(function, functions) if functions else f"define `def {function}(): return network`",
        )  # fmt: skip
    needed = [
        parameter.name
        for parameter in inspect.signature(build).parameters.values()
        if parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise UserError(
            "SNX156", f"{function}() in '{path.name}' needs {', '.join(needed)}", where=f"{path}:{function}",
            why="it is called without arguments", fix="give every argument a default",
        )  # fmt: skip
    return build


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Imports find the modules beside the file first, as they do for a script."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


@contextmanager
def _reported(path: Path, code: str, what: str) -> Iterator[None]:
    """Errors of the user's code as a UserError with the last line of that file they passed through; ours pass unchanged."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        line = _line(path, error)
        message = (str(error).splitlines() or [""])[0]
        raise UserError(
            code, what, where=f"{path}:{line}" if line else str(path), why=f"{type(error).__name__}: {message}".rstrip(": "),
            fix=f"mend line {line} of '{path.name}'" if line else f"run `python {path.name}` to see where it fails",
        ) from error  # fmt: skip


def _line(path: Path, error: BaseException) -> int | None:
    """The line of the file in which an error arose, or through which it came."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None
