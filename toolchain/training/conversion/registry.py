"""Conversions by name. A conversion is one file here that defines CONVERSION, and one line in the table."""

from __future__ import annotations

from importlib import import_module

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion
from snn_export.training.conversion.conversion import Conversion

CONVERSIONS: dict[str, str] = {
    "qcfs": "snn_export.training.conversion.qcfs",
    "max_norm": "snn_export.training.conversion.max_norm",
    "calibration": "snn_export.training.conversion.calibration",
}


def load_conversion(name: str) -> Conversion:
    """The conversion called ``name``; UserError SNX355 with a suggestion for an unknown one."""
    if name not in CONVERSIONS:
        raise UserError(
            "SNX355", f"there is no conversion called '{name}'", where="conversion",
            why="a conversion says how a trained ReLU network becomes a spiking one", fix=suggestion(name, CONVERSIONS),
        )  # fmt: skip
    conversion: Conversion = import_module(CONVERSIONS[name]).CONVERSION
    return conversion
