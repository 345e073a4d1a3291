"""Names of what networks are put on. Nothing is imported here: the command line shows them before anything else is loaded.

What each of them can do stands in :mod:`snn_export.export.chips`, one row per chip.
"""

from __future__ import annotations

from typing import Literal

ChipName = Literal["loihi1", "loihi2"]
"""Chips that networks are quantised for."""
BackendName = Literal["loihi", "lava", "netx"]
"""Backends that run integers, each in place of a chip."""
CheckTarget = Literal[ChipName, BackendName]
"""What a network is checked for."""

MOST_CHIPS = 32
"""Chips that a network may take, where nobody says another number."""
