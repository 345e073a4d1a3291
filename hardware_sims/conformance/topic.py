"""Topic: a file's checks in order. A check is a function whose docstring says what it proves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from snn_export.hardware_sims.conformance.trial import Trial

Body = Callable[["Trial"], None]
Needs = Literal["", "floats", "integers", "loihi"]
"""Nothing; a backend of float deployments; one of quantised ones; one with Loihi's integer arithmetic."""


@dataclass(frozen=True)
class Check:
    """One check: ``run`` raises CheckError where the simulator does not do what the docstring says."""

    topic: str
    run: Body
    needs: Needs = ""

    @property
    def name(self) -> str:
        """``topic.function``."""
        return f"{self.topic}.{self.run.__name__}"

    @property
    def proves(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.run) or "").partition("\n")[0]

    def inapplicable(self, trial: Trial) -> str:
        """Why the check says nothing about this simulator; empty where it does."""
        loihi = trial.capabilities.arithmetic == "loihi_integer"
        return {
            "": "",
            "floats": "it runs quantised deployments, which cannot hold this" if trial.integers else "",
            "integers": "" if trial.capabilities.needs_integers else "it runs float deployments",
            "loihi": "" if loihi else "it does not compute with Loihi's integers",
        }[self.needs]


@dataclass
class Topic:
    """Checks of one file."""

    name: str
    checks: list[Check] = field(default_factory=list)

    def check(self, needs: Needs = "") -> Callable[[Body], Body]:
        """Register a function: ``@TOPIC.check()``, or ``@TOPIC.check("loihi")`` for some backends only."""

        def register(body: Body) -> Body:
            self.checks.append(Check(self.name, body, needs))
            return body

        return register
