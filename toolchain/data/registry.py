"""Data sets by name: ``digits`` or ``npz:FILE``."""

from __future__ import annotations

from pathlib import Path

from snn_export.data.dataset import DEFAULT_VALIDATION, Dataset
from snn_export.data.digits import load_digits
from snn_export.data.npz import load_npz
from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion


def load_dataset(spec: str, seed: int, validation: float = DEFAULT_VALIDATION) -> Dataset:
    """The data set that ``spec`` names: ``digits``, or ``npz:FILE`` for a file of your own.

    ``seed`` decides the split into training and validation samples, ``validation`` the part of the latter; the test samples
    do not depend on them.

    Raises:
        UserError: SNX011 for an unknown name; SNX110 to SNX118 for a file that cannot be used.
    """
    kind, separator, path = spec.partition(":")
    if kind == "npz" and separator and path:
        return load_npz(Path(path), seed, validation)
    if spec == "digits":
        return load_digits(seed, validation)
    raise UserError(
        "SNX011", f"there is no data set called '{spec}'", where="data",
        why="data is the bundled digits, or a file of yours with x_train, y_train, x_test and y_test",
        fix=suggestion(spec, ("digits", "npz:FILE")),
    )  # fmt: skip
