"""Teachers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snn_export.models.building import build
from snn_export.models.teachers.convnet import build_convnet
from snn_export.models.teachers.teacher import Teacher, TeacherConfig

TEACHERS: dict[str, Callable[[TeacherConfig], Teacher]] = {"convnet": build_convnet}


def build_teacher(name: str, *, seed: int = 0, **config: Any) -> Teacher:
    """Build the teacher ``name`` from the fields of :class:`TeacherConfig` (input_shape and classes are required).

    ``seed`` decides the initial weights; the global random state of torch is left as it was.

    Raises:
        UserError: SNX010 for an unknown name, SNX012 for a setting that is unknown, missing or out of range.
    """
    return build("teacher", TEACHERS, TeacherConfig, name, seed, config)
