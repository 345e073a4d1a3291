"""Teachers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from snn_export.models.diagnostics import UserError
from snn_export.models.naming import suggestion
from snn_export.models.teachers.convnet import build_convnet
from snn_export.models.teachers.teacher import Teacher, TeacherConfig

TEACHERS: dict[str, Callable[[TeacherConfig], Teacher]] = {"convnet": build_convnet}


def build_teacher(name: str, *, seed: int = 0, **config: Any) -> Teacher:
    """Build the teacher ``name`` from the fields of :class:`TeacherConfig` (input_shape and classes are required).

    ``seed`` decides the initial weights; the global random state of torch is left as it was.

    Raises:
        UserError: SNX010 for an unknown name, SNX012 for a setting that is unknown, missing or out of range.
    """
    if name not in TEACHERS:
        raise UserError(
            "SNX010", f"there is no teacher called '{name}'", where="teacher",
            why="teachers are built by name, so that a checkpoint can be built again", fix=suggestion(name, TEACHERS),
        )  # fmt: skip
    try:
        settings = TeacherConfig(name=name, **config)
    except (TypeError, ValueError) as error:
        raise UserError(
            "SNX012", f"teacher '{name}' cannot be built from {sorted(config)}", where="teacher config", why=str(error),
            fix="pass input_shape and classes; optional is width",
        ) from error  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TEACHERS[name](settings)
