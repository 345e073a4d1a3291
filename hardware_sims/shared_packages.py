"""Packages that an isolated environment takes over from the one snn-export runs in: links, in place of a second copy.

Torch is the larger part of every backend that is built on it, 750 MB for a processor and several GB for a GPU, and the build that
fits this machine is here already. Its folders, and those of what it requires, are linked into the new environment unless that
has a version of its own. Nothing else of this environment becomes visible there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def needed(names: Sequence[str]) -> list[Distribution]:
    """The named distributions and all that they require and that is installed here, each once."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = _canonical(waiting.pop(0))
        if name in found:
            continue
        installed = next(iter(distributions(name=name)), None)
        if installed is None:  # of another platform
            continue
        found[name] = installed
        required = [line for line in found[name].requires or () if "extra ==" not in line]
        waiting += [match[0] for line in required if (match := _NAME.match(line))]
    return list(found.values())


def identity(names: Sequence[str]) -> list[str]:
    """What decides which files are linked: name, version and place of the named distributions."""
    return [f"{name} {distribution(name).version} {distribution(name).locate_file('')}" for name in names]


def link(names: Sequence[str], site_packages: Path) -> list[str]:
    """Link what is needed into ``site_packages``; what stands there already stays. Returns "name version" of each linked one."""
    site_packages.mkdir(parents=True, exist_ok=True)
    linked = []
    for item in needed(names):
        tops = sorted({file.parts[0] for file in item.files or () if file.parts[0] not in ("..", "__pycache__")})
        if any((site_packages / top).exists() for top in tops):
            continue  # it has its own
        for top in tops:
            (site_packages / top).symlink_to(Path(str(item.locate_file(top))).resolve())
        linked.append(f"{item.metadata['Name']} {item.version}")
    return linked


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
