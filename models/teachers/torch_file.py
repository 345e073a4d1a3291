"""Weights from a torch file: safetensors, or a state dict that torch.save wrote.

Neither runs code when it is read: safetensors holds plain tensors, and a pickled file is opened with torch's loader for weights
only. Shapes are compared before anything is copied, and a file that does not fit is not loaded in part.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.serialization import load

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.teacher import Teacher

DEFAULT_LIMIT_BYTES = 4 << 30
SAFETENSORS = (".safetensors",)
STATE_DICTS = (".pt", ".pth")

_RECORD_KEY = "snn_export"
_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Where training scripts put the state dict in a file that also holds other things."""
_PARALLEL_PREFIX = "module."
"""What DataParallel puts in front of every name."""
_COUNTER = "num_batches_tracked"
"""A buffer of batch-norm that evaluation does not use and older files do not have."""


def load_torch_teacher(
    name: str, weights: Path, *, input_shape: tuple[int, ...], classes: int, settings: Mapping[str, Any] | None = None
) -> Teacher:
    """The teacher ``name`` of this project with the weights of a file; in evaluation mode.

    Args:
        name: see :func:`snn_export.models.teachers.registry.build_teacher`.
        weights: a ``.safetensors``, ``.pt`` or ``.pth`` file.
        input_shape: of one sample.
        classes: number of logits.
        settings: further fields of the config, such as ``width``. By default those in the header of a file that this project
            wrote, else the defaults.

    Raises:
        UserError: SNX010 an unknown name, SNX012 settings that cannot be, SNX153 a file written for other samples or classes,
            SNX154 a file that cannot be read, SNX155 weights that do not fit.
    """
    chosen = dict(settings) if settings is not None else _recorded(name, weights, input_shape, classes)
    tensors = read_weights(weights)
    # Built without memory first: a header cannot ask for more than the file holds.
    try:
        with torch.device("meta"):
            outline = build_teacher(name, input_shape=input_shape, classes=classes, **chosen)
    except RuntimeError as error:
        raise _unreadable(weights, f"it asks for a model that cannot exist: {error}") from error
    _check(outline, tensors, weights)
    teacher = build_teacher(name, input_shape=input_shape, classes=classes, **chosen)
    _copy(teacher, tensors)
    return teacher.eval()


def load_weights(network: nn.Module, path: Path) -> None:
    """Load the tensors of a file into ``network``: all of them, or none.

    A number of another floating type is rounded to that of the network. Names may begin with ``module.``, as DataParallel writes.

    Raises:
        UserError: SNX154 where the file cannot be read, SNX155 where names, shapes or types differ, or a value is not finite.
    """
    tensors = read_weights(path)
    _check(network, tensors, path)
    _copy(network, tensors)


def read_weights(path: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors``, ``.pt`` or ``.pth`` file by name, without a leading ``module.``.

    Raises:
        UserError: SNX154 where the file is missing, larger than ``limit_bytes``, damaged, of another kind, or holds more than
            tensors.
    """
    try:
        if not path.is_file():
            raise _unreadable(path, "there is no such file")
        if path.stat().st_size > limit_bytes:
            raise _unreadable(path, f"it takes {path.stat().st_size} bytes; the limit is {limit_bytes}")
        if path.suffix in SAFETENSORS:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        elif path.suffix in STATE_DICTS:
            tensors = _state_dict(path, limit_bytes)
        else:
            raise _unreadable(path, f"weights are read from {', '.join((*SAFETENSORS, *STATE_DICTS))} files")
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, str(error)) from error
    if tensors and all(name.startswith(_PARALLEL_PREFIX) for name in tensors):
        tensors = {name.removeprefix(_PARALLEL_PREFIX): tensor for name, tensor in tensors.items()}
    return tensors


def _state_dict(path: Path, limit_bytes: int) -> dict[str, Tensor]:
    """The state dict of a file of torch.save; also one that lies in a dictionary under a usual name."""
    if not zipfile.is_zipfile(path):
        raise _unreadable(path, "it is not a file that torch.save writes since version 1.6")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > limit_bytes:
            raise _unreadable(path, f"it unpacks to {size} bytes; the limit is {limit_bytes}")
        content = load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unreadable(path, "it holds more than tensors, such as a whole module; loading that could run code") from error
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, f"it is damaged: {(str(error).splitlines() or [''])[0]}") from error
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise _unreadable(path, "it is no state dict: names and their tensors")
    others = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise _unreadable(path, f"{', '.join(others[:8])} in it is no tensor")
    return dict(content)


def _recorded(name: str, path: Path, input_shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    """Settings of the teacher from the header of a file that this project wrote; none for any other."""
    if path.suffix not in SAFETENSORS:
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get(_RECORD_KEY, "{}"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    config = record.get("config") if isinstance(record, dict) else None
    if not isinstance(config, dict) or config.get("name") != name:
        return {}
    written = (config.get("input_shape"), config.get("classes"))
    if written != (list(input_shape), classes):
        raise UserError(
            "SNX153", f"'{path.name}' is a teacher for samples of shape {written[0]} and {written[1]} classes", where=str(path),
            why=f"the data has samples of shape {list(input_shape)} and {classes} classes", fix="give a teacher of this data",
        )  # fmt: skip
    return {key: value for key, value in config.items() if key not in ("name", "input_shape", "classes", "seed")}


def _check(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """SNX155 unless the tensors are those of the network."""
    expected = network.state_dict()
    missing = sorted(name for name in expected.keys() - tensors.keys() if not name.endswith(_COUNTER))
    differences = [f"{name} is missing" for name in missing]
    differences += [f"{name} is not part of the network" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        want, got = expected[name], tensors[name]
        if want.shape != got.shape:
            differences.append(f"{name} has shape {tuple(got.shape)}, not {tuple(want.shape)}")
        elif want.dtype != got.dtype and not (want.is_floating_point() and got.is_floating_point()):
            differences.append(f"{name} is {got.dtype}, not {want.dtype}")
        elif got.is_floating_point() and not bool(got.isfinite().all()):
            differences.append(f"{name} holds NaN or infinity")
    if differences:
        raise UserError(
            "SNX155", f"the weights of '{path.name}' do not fit the teacher", where=str(path), why="; ".join(differences[:8]),
            fix="build the teacher as it was trained (width, classes, names of its layers), or give its own weights",
        )  # fmt: skip


def _copy(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load tensors that were checked; a counter that the file lacks stays as it is."""
    network.load_state_dict({**network.state_dict(), **tensors})


def _unreadable(path: Path, why: str) -> UserError:
    return UserError(
        "SNX154", f"the weights '{path.name}' cannot be read", where=str(path), why=why,
        fix="save the state dict alone: safetensors.torch.save_file(model.state_dict(), 'teacher.safetensors')",
    )  # fmt: skip
