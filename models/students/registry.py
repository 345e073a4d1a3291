"""Spiking students by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snn_export.models.building import build
from snn_export.models.students.conv5 import build_conv5
from snn_export.models.students.convnet import build_convnet
from snn_export.models.students.dense import build_dense
from snn_export.models.students.recurrent import build_recurrent, build_recurrent2
from snn_export.models.students.resnet import build_resnet18, build_resnet19
from snn_export.models.students.student import SpikingStudent, StudentConfig
from snn_export.models.students.vgg import build_vgg9, build_vgg11

STUDENTS: dict[str, Callable[[StudentConfig], SpikingStudent]] = {
    "convnet": build_convnet,
    "conv5": build_conv5,
    "vgg9": build_vgg9,
    "vgg11": build_vgg11,
    "resnet18": build_resnet18,
    "resnet19": build_resnet19,
    "dense": build_dense,
    "recurrent": build_recurrent,
    "recurrent2": build_recurrent2,
}


def build_student(name: str, *, seed: int = 0, **config: Any) -> SpikingStudent:
    """Build the student ``name`` from the fields of :class:`StudentConfig` (input_shape and classes are required).

    ``seed`` decides the initial weights; the global random state of torch is left as it was.

    Raises:
        UserError: SNX010 for an unknown name, SNX012 for a setting that is unknown, missing or out of range.
    """
    return build("student", STUDENTS, StudentConfig, name, seed, config)
