"""What a design rule is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from snn_export.export.readiness import CheckTarget
from snn_export.hardware_sims.rules.limits import Limit
from snn_export.hardware_sims.rules.network import Network
from snn_export.models.diagnostics import Diagnostic, Severity

Form = Literal["floats", "integers"]
Needs = Literal["nothing", "graph", "wires"]


@dataclass(frozen=True, eq=False)
class Rule:
    """A named function that returns findings, and what is to be known about it.

    Attributes:
        function: takes what ``takes`` says; its docstring states the constraint.
        takes: "network" (:class:`Network`), "candidate" (its :attr:`Network.candidate`) or "deployment".
        forms: networks that it is asked of.
        targets: what it is asked for.
        codes: what it may find, each with the limit that it holds a network to.
        needs: "graph": shapes and connections of a quantised network can be read. "wires": every connection is one weight layer,
            and integers are complete.
        unless: codes that make it moot; it is not asked where one of them was found.
        severity: of its findings. Only errors keep a network from a target.
    """

    function: Callable[..., Iterable[Diagnostic]]
    takes: Literal["network", "candidate", "deployment"]
    forms: tuple[Form, ...]
    targets: tuple[CheckTarget, ...]
    codes: Mapping[str, Limit]
    needs: Needs = "nothing"
    unless: frozenset[str] = field(default_factory=frozenset)
    severity: Severity = "error"

    @property
    def name(self) -> str:
        """Module and function, "cores.fan_in_fits_axons" for example; of a backend's own rules its name comes first."""
        path = self.function.__module__.removeprefix("snn_export.").split(".")
        return ".".join((*(path[1:] if path[1] != "rules" else path[2:]), self.function.__name__))

    @property
    def states(self) -> str:
        """The constraint: the first paragraph of the function's docstring."""
        return " ".join((inspect.getdoc(self.function) or "").partition("\n\n")[0].split())

    def applies(self, network: Network) -> bool:
        """True where it is asked of a network of this form for this target."""
        form: Form = "integers" if network.deployment.quantised else "floats"
        return form in self.forms and network.target in self.targets

    def can_be_asked(self, network: Network) -> bool:
        """True where what it needs can be worked out."""
        if self.needs == "graph":
            return not network.deployment.quantised or network.readable
        return self.needs == "nothing" or network.on_chip is not None

    def ask(self, network: Network) -> list[Diagnostic]:
        """Its findings."""
        given: object = network
        if self.takes != "network":
            given = network.candidate if self.takes == "candidate" else network.deployment
        return list(self.function(given))
