"""Trained models as safetensors files: tensors, and in the header the record that builds the module again.

Safetensors holds plain tensors and strings; reading one runs no code. Files are written under a temporary name in the same
folder and then renamed, so that a reader sees a complete file or none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import snntorch
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.teacher import Teacher

FORMAT = 1
DEFAULT_LIMIT_BYTES = 4 << 30

_METADATA_KEY = "snn_export"


@dataclass(frozen=True)
class TensorFile:
    """Content of a safetensors file: tensors by name, and the JSON record of its header."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]


def save_model(path: Path, model: SpikingStudent | Teacher) -> None:
    """Write ``model`` to ``path`` (.safetensors): its state dict, and its kind, name and config in the header."""
    kind = "student" if isinstance(model, SpikingStudent) else "teacher"
    write_tensors(path, model.state_dict(), {"format": FORMAT, "kind": kind, "config": asdict(model.config)})


def load_model(path: Path) -> SpikingStudent | Teacher:
    """Build the model that ``path`` describes and load its tensors; it is in evaluation mode.

    Raises:
        UserError: SNX120 where tensors do not fit the model (what differs is named), SNX121 where the file is no readable
            model, SNX010 or SNX012 where it names a model this version cannot build.
    """
    content = read_tensors(path)
    model = _build(path, content)
    _check_constants(path, model, content.tensors)
    model.load_state_dict(content.tensors)
    return model.eval()


def _check_tensors(path: Path, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """SNX120 unless names, shapes and dtypes agree exactly and all values are finite."""
    expected = model.state_dict()
    differences = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    differences += [f"{name} is not part of the model" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        want, got = expected[name], tensors[name]
        if (want.shape, want.dtype) != (got.shape, got.dtype):
            differences.append(f"{name} is {tuple(got.shape)} {got.dtype}, not {tuple(want.shape)} {want.dtype}")
        elif got.is_floating_point() and not bool(got.isfinite().all()):
            differences.append(f"{name} holds NaN or infinity")
    _raise_misfit(path, differences)


def _check_constants(path: Path, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """SNX120 where a neuron's decay, threshold or reset is not what the config says: such a file contradicts itself."""
    misfits = []
    for prefix, layer in model.named_modules():
        if isinstance(layer, snntorch.SpikingNeuron):  # inside a Recurrent too; a Lif holds no tensors
            for name, value in layer.state_dict(prefix=f"{prefix}.").items():
                if not torch.equal(tensors[name], value):
                    misfits.append(f"{name} is {tensors[name].tolist()}, the config says {value.tolist()}")
    _raise_misfit(path, misfits)


def _raise_misfit(path: Path, differences: Sequence[str]) -> None:
    """SNX120 that names the first differences, where there are any."""
    if differences:
        raise UserError(
            "SNX120", f"'{path.name}' does not fit the model it describes", where=str(path), why="; ".join(differences[:8]),
            fix="train the model again, or use the file with the version that wrote it",
        )  # fmt: skip


def _build(path: Path, content: TensorFile) -> SpikingStudent | Teacher:
    """The untrained module that a header describes.

    It is built without memory first and its shapes compared with the file's: a header cannot ask for more than the file holds.
    """
    kind, config = content.record.get("kind"), content.record.get("config")
    if content.record.get("format") != FORMAT or kind not in ("student", "teacher") or not isinstance(config, dict):
        raise _unreadable(path, f"its header is not that of a model of format {FORMAT}")
    name, fields = config.get("name"), {key: value for key, value in config.items() if key not in ("name", "seed")}
    if not isinstance(name, str):
        raise _unreadable(path, "its header does not name the model")
    build = build_student if kind == "student" else build_teacher
    try:
        with torch.device("meta"):
            outline = build(name, **fields)
    except RuntimeError as error:  # sizes beyond what torch can even count
        raise _unreadable(path, f"its header describes a model that cannot exist: {error}") from error
    _check_tensors(path, outline, content.tensors)
    return build(name, **fields)


def weights_digest(network: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{values.dtype}{tuple(values.shape)}\0".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# --- files -----------------------------------------------------------------------------------------------------------


def write_tensors(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a JSON record to ``path``, atomically: a crash leaves the old file or the new one, never a part."""
    owned = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    data = save(owned, {_METADATA_KEY: json.dumps(record, sort_keys=True, allow_nan=False)})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_tensors(path: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> TensorFile:
    """Tensors and record of a file that :func:`write_tensors` wrote.

    Raises:
        UserError: SNX121 where the file is missing, larger than ``limit_bytes``, damaged, or written by something else.
    """
    try:
        size = path.stat().st_size
        if size > limit_bytes:
            raise _unreadable(path, f"it takes {size} bytes; the limit is {limit_bytes}")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, str(error)) from error
    if _METADATA_KEY not in metadata:
        raise _unreadable(path, "its header carries no snn_export record")
    try:
        record = json.loads(metadata[_METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"its record is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise _unreadable(path, "its record is not a JSON object")
    return TensorFile(tensors, record)


def _unreadable(path: Path, why: str) -> UserError:
    return UserError(
        "SNX121", f"'{path.name}' is not a readable model file", where=str(path), why=why,
        fix="give a .safetensors file written by snn-export train",
    )  # fmt: skip
