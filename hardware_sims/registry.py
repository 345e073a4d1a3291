"""Which simulators exist. Reading this imports none of them: entries are ``"module:Class"`` strings, resolved when asked.

Third parties add theirs through the entry point group ``snn_export.simulators``. A plug-in that cannot be imported is not
skipped: it is listed as broken with its error, and asking for it raises.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast, final

from numpy.typing import NDArray

from snn_export.export.deployment import Deployment
from snn_export.hardware_sims.simulator import Availability, BackendError, Capabilities, Simulator
from snn_export.hardware_sims.trace import Record, Trace
from snn_export.models.diagnostics import Diagnostic, UserError

GROUP = "snn_export.simulators"

BUILT_IN: Mapping[str, str] = {
    "student": "snn_export.hardware_sims.student.simulator:StudentSimulator",
    "quantised_student": "snn_export.hardware_sims.student.quantised_simulator:QuantisedStudentSimulator",
    "reference": "snn_export.hardware_sims.reference.simulator:ReferenceSimulator",
    "loihi": "snn_export.hardware_sims.loihi.simulator:LoihiSimulator",
    "lava": "snn_export.hardware_sims.lava.simulator:LavaSimulator",
    "netx": "snn_export.hardware_sims.netx.simulator:NetxSimulator",
    "snntorch": "snn_export.hardware_sims.snntorch.simulator:SnnTorchSimulator",
    "norse": "snn_export.hardware_sims.norse.simulator:NorseSimulator",
    "nengo_loihi": "snn_export.hardware_sims.nengo_loihi.simulator:NengoLoihiSimulator",
    "sinabs": "snn_export.hardware_sims.sinabs.simulator:SinabsSimulator",
    "spikingjelly": "snn_export.hardware_sims.spikingjelly.simulator:SpikingJellySimulator",
    "spyx": "snn_export.hardware_sims.spyx.simulator:SpyxSimulator",
    "rockpool": "snn_export.hardware_sims.rockpool.simulator:RockpoolSimulator",
    "onnxruntime": "snn_export.hardware_sims.onnxruntime.simulator:OnnxRuntimeSimulator",
}


def locations() -> dict[str, str]:
    """``module:Class`` of every known simulator by name; built-in names cannot be taken by a plug-in."""
    found = {point.name: point.value for point in entry_points(group=GROUP)}
    return {**found, **BUILT_IN}


def simulator(name: str, **options: Any) -> Simulator:
    """The simulator called ``name``, made with ``options``.

    Raises:
        UserError: SNX401 for a name nobody registered, SNX002 for an option the backend does not take.
        BackendError: SNX402 for a plug-in that cannot be imported or made.
    """
    known = locations()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(
            "SNX401",
            f"no backend is called {name!r}",
            where="backend",
            why=f"the known ones are {', '.join(sorted(known))}",
            fix=f"{hint}`snn-export backends list` shows them all",
        )
    module, _, attribute = known[name].partition(":")
    try:
        made = getattr(import_module(module), attribute)(**options)
    except UserError:
        raise
    except Exception as error:  # a plug-in may raise anything while it is imported or made
        if name in BUILT_IN and isinstance(error, TypeError) and options:
            raise _wrong_options(name, options, error) from error
        if name in BUILT_IN and not isinstance(error, ImportError):
            raise
        raise BackendError(
            Diagnostic(
                "SNX402",
                f"the backend {name!r} cannot be made: {type(error).__name__}: {error}",
                where=known[name],
                why="the package that registers it is broken or incomplete",
                fix="repair or uninstall that package",
            )
        ) from error
    return cast(Simulator, made)


def simulator_or_broken(name: str, **options: Any) -> Simulator:
    """As :func:`simulator`, but a plug-in that cannot be made becomes a simulator that is unavailable and says why.

    Raises:
        UserError: SNX401 for a name nobody registered.
    """
    try:
        return simulator(name, **options)
    except BackendError as error:
        return BrokenSimulator(name, error.diagnostic)


@final
class BrokenSimulator:
    """Stands in for a registered backend that cannot be made: never available, and every question is answered with why."""

    def __init__(self, name: str, diagnostic: Diagnostic) -> None:
        self.name = name
        self._diagnostic = diagnostic

    def capabilities(self) -> Capabilities:
        """Unknown: nothing could be asked."""
        return Capabilities("other", needs_integers=False, description="broken: cannot be imported")

    def availability(self) -> Availability:
        """Never there."""
        return Availability(False, reason=self._diagnostic.what, fix=self._diagnostic.fix)

    def check(self, deployment: Deployment) -> list[Diagnostic]:
        """The reason it is broken."""
        del deployment
        return [self._diagnostic]

    def compile(self, deployment: Deployment) -> Any:
        """Raises BackendError with the reason."""
        raise BackendError(self._diagnostic)

    def run(self, program: Any, inputs: NDArray[Any], record: Collection[Record]) -> Trace:
        """Raises BackendError with the reason."""
        raise BackendError(self._diagnostic)


def _wrong_options(name: str, options: Mapping[str, Any], error: Exception) -> UserError:
    named = [option for option in sorted(options) if repr(option) in str(error)]  # Python names the first that is unknown
    return UserError(
        "SNX002",
        f"the backend {name!r} does not take {', '.join(named or sorted(options))}",
        where="options",
        why=str(error),
        fix="leave out what it does not know; its class documents its options",
    )
