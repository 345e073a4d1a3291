"""What the registries of recipes and of loss terms share: parts by name, ours as ``module:object``, and those of third parties.

Third parties register theirs under an entry point group. One that cannot be loaded is not skipped: its name is listed, and
asking for it raises. Reading a registry imports none of its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from snn_export.models.diagnostics import UserError


@dataclass(frozen=True)
class Registry:
    """Parts of one kind. kind: what one is called in a message; own: those of this program, as ``module:object``."""

    kind: str
    group: str
    own: Mapping[str, str]

    def others(self) -> dict[str, EntryPoint]:
        """Those of third parties; built-in names cannot be taken."""
        return {point.name: point for point in entry_points(group=self.group) if point.name not in self.own}

    def names(self) -> tuple[str, ...]:
        """All names, broken ones too: those of this program in their order, then those of third parties sorted."""
        return (*self.own, *sorted(self.others()))

    def load(self, name: str, misfit: Callable[[str, Any], str]) -> Any:
        """The object called ``name``, which is one of :meth:`names`.

        Args:
            name: of the part.
            misfit: what keeps a third party's object from being the part of that name; empty where nothing does. It may raise.

        Raises:
            UserError: SNX346 for one of a third party that cannot be loaded or does not fit.
        """
        if name in self.own:
            return EntryPoint(name, self.own[name], self.group).load()
        point = self.others()[name]
        try:
            found = point.load()
            wrong = misfit(name, found)
        except (Exception, SystemExit) as error:  # a plug-in may raise anything while it is imported, and even leave
            raise self._broken(point, f"{type(error).__name__}: {error}") from error
        if wrong:
            raise self._broken(point, wrong)
        return found

    def _broken(self, point: EntryPoint, what: str) -> UserError:
        return UserError(
            "SNX346", f"the {self.kind} '{point.name}' cannot be loaded: {what}", where=point.value,
            why="the package that registers it is broken or incomplete", fix="repair or uninstall that package",
        )  # fmt: skip
