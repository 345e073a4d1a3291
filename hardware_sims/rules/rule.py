"""What a design rule is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Literal

from snn_export.export.deployment import Deployment
from snn_export.export.readiness import Candidate
from snn_export.export.targets import CheckTarget
from snn_export.hardware_sims.rules.limits import LimitOnTarget
from snn_export.hardware_sims.rules.network import Network
from snn_export.models.diagnostics import Diagnostic, Severity

Form = Literal["floats", "integers"]
Needs = Literal["nothing", "graph", "wires"]
Findings = Callable[[Network], Iterable[Diagnostic]]


@dataclass(frozen=True, eq=False)
class DesignRule:
    """A named function that returns findings, and what is to be known about it.

    Attributes:
        function: its docstring states the constraint. A rule that only looks at a part of a :class:`Network` is made one by
            :func:`of_candidate` or :func:`of_deployment`.
        forms: networks that it is asked of.
        targets: what it is asked for.
        codes: what it may find, each with the limit that it holds a network to.
        needs: "graph": shapes and connections of a quantised network can be read. "wires": every connection is one weight layer,
            and integers are complete.
        severity: of its findings, whatever they say themselves. Only errors keep a network from a target.
    """

    function: Findings
    forms: tuple[Form, ...]
    targets: tuple[CheckTarget, ...]
    codes: Mapping[str, LimitOnTarget]
    needs: Needs = "nothing"
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
        return [replace(item, severity=self.severity) for item in self.function(network)]


def of_candidate(function: Callable[[Candidate], Iterable[Diagnostic]]) -> Findings:
    """A rule of float networks (:attr:`Network.candidate`) as one of networks."""

    @wraps(function)
    def asked(network: Network) -> Iterable[Diagnostic]:
        return function(network.candidate)

    return asked


def of_deployment(function: Callable[[Deployment], Iterable[Diagnostic]]) -> Findings:
    """A rule that the target makes no difference to as one of networks."""

    @wraps(function)
    def asked(network: Network) -> Iterable[Diagnostic]:
        return function(network.deployment)

    return asked
