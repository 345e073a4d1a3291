"""Teachers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snn_export.models.building import build
from snn_export.models.teachers.conv1d import build_conv1d
from snn_export.models.teachers.conv5 import build_conv5
from snn_export.models.teachers.convnet import build_convnet
from snn_export.models.teachers.dense import build_dense
from snn_export.models.teachers.gru import build_gru
from snn_export.models.teachers.resnet import build_resnet18, build_resnet19
from snn_export.models.teachers.teacher import Teacher, TeacherConfig
from snn_export.models.teachers.vgg import build_vgg9, build_vgg11

TEACHERS: dict[str, Callable[[TeacherConfig], Teacher]] = {
    "convnet": build_convnet,
    "conv5": build_conv5,
    "vgg9": build_vgg9,
    "vgg11": build_vgg11,
    "resnet18": build_resnet18,
    "resnet19": build_resnet19,
    "dense": build_dense,
    "gru": build_gru,
    "conv1d": build_conv1d,
}


def build_teacher(name: str, *, seed: int = 0, **config: Any) -> Teacher:
    """Build the teacher ``name`` from the fields of :class:`TeacherConfig` (input_shape and classes are required).

    ``seed`` decides the initial weights; the global random state of torch is left as it was.

    Raises:
        UserError: SNX010 for an unknown name, SNX012 for a setting that is unknown, missing or out of range.
    """
    return build("teacher", TEACHERS, TeacherConfig, name, seed, config)
