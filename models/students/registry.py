"""Spiking students by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snn_export.models.building import build
from snn_export.models.students.convnet import build_convnet
from snn_export.models.students.student import SpikingStudent, StudentConfig

STUDENTS: dict[str, Callable[[StudentConfig], SpikingStudent]] = {"convnet": build_convnet}


def build_student(name: str, *, seed: int = 0, **config: Any) -> SpikingStudent:
    """Build the student ``name`` from the fields of :class:`StudentConfig` (input_shape and classes are required).

    ``seed`` decides the initial weights; the global random state of torch is left as it was.

    Raises:
        UserError: SNX010 for an unknown name, SNX012 for a setting that is unknown, missing or out of range.
    """
    return build("student", STUDENTS, StudentConfig, name, seed, config)
