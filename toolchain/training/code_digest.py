"""Digests of code that is not this program's: what a plug-in's module and the package around it hold."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path


def code_beside(module: str, path: Path) -> dict[str, str]:
    """SHA-256 of every source file of the package that a module lies in, by path; of the module alone where it lies in none.

    Args:
        module: its dotted name.
        path: its file.

    A package is taken whole, from the top: a recipe in ``mine.recipes`` may build on ``mine.losses``. Of a namespace package,
    which has no top of its own, the folder of the module is taken.
    """
    top = module.split(".", maxsplit=1)[0]
    if top == module and path.name != "__init__.py":
        return {path.name: _digest(path)}
    try:
        spec = find_spec(top)
    except ValueError:  # a module in sys.modules that was not imported in the usual way
        spec = None
    origin = None if spec is None or spec.origin is None else Path(spec.origin)
    folder = path.parent if origin is None or not origin.is_file() else origin.parent
    return {str(found.relative_to(folder)): _digest(found) for found in sorted(folder.rglob("*.py"))}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
