from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import build_student
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.registry import build_teacher
from snn_export.training.checkpoint import load_model, read_tensors, save_model, write_tensors

SHAPE = {"input_shape": (1, 4, 4), "classes": 3, "width": 2}


def student() -> SpikingStudent:
    return build_student("convnet", dv=700, threshold=2, steps=3, seed=5, **SHAPE)


def test_student_comes_back_equal(tmp_path: Path) -> None:
    model = student()
    save_model(tmp_path / "new" / "student.safetensors", model)
    loaded = load_model(tmp_path / "new" / "student.safetensors")
    assert isinstance(loaded, SpikingStudent)
    assert loaded.config == model.config
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    inputs = torch.rand(2, 1, 4, 4)
    assert torch.equal(loaded(inputs), model.eval()(inputs))


def test_teacher_comes_back_equal_and_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    model = build_teacher("convnet", **SHAPE).eval()
    for _ in range(2):
        save_model(tmp_path / "teacher.safetensors", model)
    inputs = torch.rand(2, 1, 4, 4)
    assert torch.equal(load_model(tmp_path / "teacher.safetensors")(inputs), model(inputs))
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.safetensors"]


def test_same_model_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_model(tmp_path / name, student())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def rewritten(path: Path, change) -> Path:
    """The file of a student after ``change(tensors, record)``."""
    save_model(path, student())
    content = read_tensors(path)
    change(content.tensors, content.record)
    write_tensors(path, content.tensors, content.record)
    return path


MISFITS = {
    "missing": (lambda t, r: t.pop("layers.dense.bias"), "layers.dense.bias is missing"),
    "extra": (lambda t, r: t.update(other=torch.zeros(1)), "other is not part of the model"),
    "shape": (lambda t, r: t.update({"layers.dense.bias": torch.zeros(4)}), "layers.dense.bias is (4,)"),
    "dtype": (lambda t, r: t.update({"layers.dense.bias": torch.zeros(3).double()}), "float64"),
    "NaN": (lambda t, r: t["layers.dense.bias"].fill_(torch.nan), "layers.dense.bias holds NaN"),
    "decay": (lambda t, r: t["layers.lif1.beta"].fill_(0.5), "layers.lif1.beta is 0.5, the config says 0.829"),
    "wider than the file": (lambda t, r: r["config"].update(width=10**6), "layers.conv1.weight is (2, 1, 3, 3)"),
}


@pytest.mark.parametrize(("change", "text"), MISFITS.values(), ids=MISFITS)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, change, text: str) -> None:
    with pytest.raises(UserError) as error:
        load_model(rewritten(tmp_path / "model.safetensors", change))
    assert error.value.code == "SNX120"
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda t, r: r["config"].update(name="resnet"), "SNX010"),
        (lambda t, r: r["config"].update(width="2"), "SNX012"),
        (lambda t, r: r["config"].update(depth=2), "SNX012"),
        (lambda t, r: r["config"].update(width=10**9), "SNX121"),
        (lambda t, r: r["config"].pop("name"), "SNX121"),
        (lambda t, r: r.update(config=[]), "SNX121"),
        (lambda t, r: r.update(kind="optimizer"), "SNX121"),
        (lambda t, r: r.update(format=2), "SNX121"),
    ],
)
def test_header_that_cannot_be_built(tmp_path: Path, change, code: str) -> None:
    with pytest.raises(UserError) as error:
        load_model(rewritten(tmp_path / "model.safetensors", change))
    assert error.value.code == code


def test_files_that_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, student())
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:-1], whole[: len(whole) // 2], bytes([255]) * 16 + whole):
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            load_model(path)
        assert error.value.code == "SNX121"
    for metadata in (None, {"snn_export": "{"}, {"snn_export": "[]"}):
        save_file({"x": torch.zeros(1)}, path, metadata)
        with pytest.raises(UserError) as error:
            load_model(path)
        assert error.value.code == "SNX121"
    with pytest.raises(UserError) as error:
        load_model(tmp_path / "absent.safetensors")
    assert error.value.code == "SNX121"


def test_file_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    save_model(tmp_path / "m", student())
    with pytest.raises(UserError, match="limit"):
        read_tensors(tmp_path / "m", limit_bytes=100)


def test_header_says_what_it_is(tmp_path: Path) -> None:
    save_model(tmp_path / "m", student())
    with safe_open(tmp_path / "m", framework="pt") as file:
        record = json.loads(file.metadata()["snn_export"])
    assert record["kind"] == "student"
    assert record["config"] | {"dv": 700, "steps": 3, "name": "convnet", "threshold": 2.0} == record["config"]
