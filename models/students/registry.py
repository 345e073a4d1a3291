"""Spiking students by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion
from snn_export.models.students.convnet import build_convnet
from snn_export.models.students.student import SpikingStudent, StudentConfig

STUDENTS: dict[str, Callable[[StudentConfig], SpikingStudent]] = {"convnet": build_convnet}


def build_student(name: str, *, seed: int = 0, **config: Any) -> SpikingStudent:
    """Build the student ``name`` from the fields of :class:`StudentConfig` (input_shape and classes are required).

    ``seed`` decides the initial weights; the global random state of torch is left as it was.

    Raises:
        UserError: SNX010 for an unknown name, SNX012 for a setting that is unknown, missing or out of range.
    """
    if name not in STUDENTS:
        raise UserError(
            "SNX010", f"there is no student called '{name}'", where="student",
            why="students are built by name, so that a checkpoint can be built again", fix=suggestion(name, STUDENTS),
        )  # fmt: skip
    try:
        settings = StudentConfig(name=name, **config)
    except (TypeError, ValueError) as error:
        raise UserError(
            "SNX012", f"student '{name}' cannot be built from {sorted(config)}", where="student config", why=str(error),
            fix="pass input_shape and classes; optional are steps, dv, width and threshold",
        ) from error  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return STUDENTS[name](settings)
