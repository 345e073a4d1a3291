"""Which simulators exist. Reading this imports none of them: entries are ``"module:Class"`` strings, resolved when asked.

Third parties add theirs through the entry point group ``snn_export.simulators``. A plug-in that cannot be imported is not
skipped: it is listed as broken with its error, and asking for it raises.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from snn_export.hardware_sims.simulator import BackendError, Simulator
from snn_export.models.diagnostics import Diagnostic, UserError

GROUP = "snn_export.simulators"

BUILT_IN: Mapping[str, str] = {
    "student": "snn_export.hardware_sims.student.simulator:StudentSimulator",
    "reference": "snn_export.hardware_sims.reference.simulator:ReferenceSimulator",
    "loihi": "snn_export.hardware_sims.loihi.simulator:LoihiSimulator",
    "lava": "snn_export.hardware_sims.lava.simulator:LavaSimulator",
}


def locations() -> dict[str, str]:
    """``module:Class`` of every known simulator by name; built-in names cannot be taken by a plug-in."""
    found = {point.name: point.value for point in entry_points(group=GROUP)}
    return {**found, **BUILT_IN}


def simulator(name: str, **options: Any) -> Simulator:
    """The simulator called ``name``, made with ``options``.

    Raises:
        UserError: SNX401 for a name nobody registered.
        BackendError: SNX402 for a plug-in whose import fails.
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
        factory = getattr(import_module(module), attribute)
    except Exception as error:  # a plug-in may raise anything while it is imported
        raise BackendError(
            Diagnostic(
                "SNX402",
                f"the backend {name!r} cannot be imported: {error}",
                where=known[name],
                why="the package that registers it is broken or incomplete",
                fix="repair or uninstall that package",
            )
        ) from error
    return cast(Simulator, factory(**options))
