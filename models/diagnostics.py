"""Diagnostics and user errors: coded, and always with what, where, why and a fix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]

EXIT_GATE = 1
EXIT_USAGE = 2
EXIT_INEXPRESSIBLE = 3
EXIT_BACKEND = 4
EXIT_NOTHING_COMPARED = 5
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

_EXIT_BY_FAMILY = {
    "0": EXIT_USAGE,
    "1": EXIT_USAGE,
    "2": EXIT_INEXPRESSIBLE,
    "3": EXIT_GATE,
    "4": EXIT_BACKEND,
    "5": EXIT_NOTHING_COMPARED,
}
_CHOICES = (
    "SNX34", "SNX35", "SNX322", "SNX323", "SNX450", "SNX451", "SNX452", "SNX456", "SNX457", "SNX470", "SNX471",
)  # fmt: skip
"""Recipes, conversions, tables of chips and costs, placements that were chosen and do not fit: wrong where they were chosen."""
_NOWHERE = ("SNX350",)
"""A choice that trains well; only no file and no chip can hold what it gives."""
_DESIGN_RULES = ("SNX453", "SNX454", "SNX455", "SNX458", "SNX48", "SNX49")
"""What can be expressed and does not fit a chip: a design rule, and so a gate."""


@dataclass(frozen=True)
class Diagnostic:
    """One finding. ``code`` is ``SNX###``; its first digit names the family.

    0 usage, 1 files, 2 expressibility, 3 numerics, 4 backends, 5 coverage. ``snn-export explain CODE`` prints the page.
    """

    code: str
    what: str
    where: str
    why: str
    fix: str
    severity: Severity = "error"

    @property
    def exit_code(self) -> int:
        """Exit code of a command that ends because of this finding."""
        if self.code.startswith(_DESIGN_RULES):
            return EXIT_GATE
        if self.code.startswith(_NOWHERE):
            return EXIT_INEXPRESSIBLE
        return EXIT_USAGE if self.code.startswith(_CHOICES) else _EXIT_BY_FAMILY[self.code[3]]

    def as_dict(self) -> dict[str, str]:
        """Plain dictionary, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.code} {self.what}\n  where: {self.where}\n  why:   {self.why}\n  fix:   {self.fix}"


class UserError(Exception):
    """A mistake the user can mend: printed without a traceback, exit code from the family of its first finding.

    Several findings may travel together, so that a config with three mistakes is answered once, not three times.
    """

    def __init__(self, code: str, what: str, *, where: str, why: str, fix: str, others: tuple[Diagnostic, ...] = ()) -> None:
        self.diagnostics = (Diagnostic(code, what, where, why, fix), *others)
        super().__init__(str(self.diagnostics[0]))

    @classmethod
    def from_diagnostics(cls, diagnostics: tuple[Diagnostic, ...]) -> UserError:
        """Wrap findings that were collected one by one; raises IndexError for none."""
        first, *rest = diagnostics
        return cls(first.code, first.what, where=first.where, why=first.why, fix=first.fix, others=tuple(rest))

    @property
    def code(self) -> str:
        """Code of the first finding."""
        return self.diagnostics[0].code

    @property
    def exit_code(self) -> int:
        """Exit code of the first finding's family."""
        return self.diagnostics[0].exit_code

    def __str__(self) -> str:
        return "\n".join(str(diagnostic) for diagnostic in self.diagnostics)

    def __reduce__(self) -> tuple[object, ...]:
        return (UserError.from_diagnostics, (self.diagnostics,))


def diagnostics_of(question: Callable[[], object]) -> list[Diagnostic]:
    """Findings of the UserError that a call ends in; none where it returns. For rules that report everything at once."""
    try:
        question()
    except UserError as error:
        return list(error.diagnostics)
    return []
