"""Teachers by a line of text: torch files, Python files, and texts that name none."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from snn_export.models.diagnostics import UserError
from snn_export.models.teachers.registry import build_teacher
from snn_export.models.teachers.source import load_teacher
from snn_export.models.teachers.teacher import TeacherNetwork
from snn_export.models.teachers.torch_file import load_torch_teacher, load_weights, read_weights
from tests.onnx_graphs import Graph

SHAPE = (1, 8, 8)
FILE = """
import torch
from torch import nn

def build(width=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 36, 10))
"""


def load(spec: str, base: Path, shape: tuple[int, ...] = SHAPE, classes: int = 10) -> TeacherNetwork:
    return load_teacher(spec, input_shape=shape, classes=classes, base=base)


def refusal(spec: str, base: Path, shape: tuple[int, ...] = SHAPE, classes: int = 10) -> UserError:
    with pytest.raises(UserError) as error:
        load(spec, base, shape, classes)
    return error.value


def trained(**settings: int) -> torch.nn.Module:
    return build_teacher("convnet", input_shape=SHAPE, classes=10, seed=5, **settings).eval()


# --- weights -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [
    lambda state: state, lambda state: {"state_dict": state, "epoch": 3}, lambda state: {"model": state},
    lambda state: {f"module.{name}": value for name, value in state.items()},
    lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
])  # fmt: skip
def test_a_state_dict_of_torch(tmp_path: Path, wrap) -> None:
    teacher = trained()
    torch.save(wrap(teacher.state_dict()), tmp_path / "t.pt")
    inputs = torch.rand(2, *SHAPE)
    loaded = load("convnet@t.pt", tmp_path)
    assert isinstance(loaded, TeacherNetwork)
    assert torch.equal(loaded(inputs), teacher(inputs))


def test_safetensors_of_other_programs_and_of_this_one(tmp_path: Path) -> None:
    teacher, inputs = trained(), torch.rand(2, *SHAPE)
    save_file(teacher.state_dict(), tmp_path / "t.safetensors")
    assert torch.equal(load("convnet@t.safetensors", tmp_path)(inputs), teacher(inputs))
    narrow = trained(width=5)
    record = {"config": {"name": "convnet", "input_shape": list(SHAPE), "classes": 10, "width": 5}}
    save_file(narrow.state_dict(), tmp_path / "own.safetensors", {"snn_export": json.dumps(record)})
    assert torch.equal(load("convnet@own.safetensors", tmp_path)(inputs), narrow(inputs))  # the width is in the header
    assert refusal("convnet@own.safetensors", tmp_path, (1, 6, 6)).code == "SNX153"
    save_file(narrow.state_dict(), tmp_path / "bare.safetensors")
    assert refusal("convnet@bare.safetensors", tmp_path).code == "SNX155"
    stated = load_torch_teacher("convnet", tmp_path / "bare.safetensors", input_shape=SHAPE, classes=10, settings={"width": 5})
    assert torch.equal(stated(inputs), narrow(inputs))


def test_weights_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    network = trained()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {**{name: value + 1 for name, value in before.items()}, "extra": torch.ones(1)}
    del state["layers.conv1.weight"]
    state["layers.dense.bias"] = torch.full((10,), torch.nan)
    state["layers.dense.weight"] = torch.ones(3)
    state["layers.norm1.weight"] = torch.ones(32, dtype=torch.int32)
    torch.save(state, tmp_path / "t.pt")
    with pytest.raises(UserError) as error:
        load_weights(network, tmp_path / "t.pt")
    assert error.value.code == "SNX155"
    for said in ("conv1.weight is missing", "extra is not part", "bias holds NaN", "weight has shape (3,)", "is torch.int32"):
        assert said in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Payload:
    """Would make a folder if it were unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_file_that_holds_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"weight": Payload(tmp_path / "made")}, tmp_path / "t.pt")
    error = refusal("convnet@t.pt", tmp_path)
    assert error.code == "SNX154"
    assert "more than tensors" in str(error)
    assert not (tmp_path / "made").exists()
    torch.save(trained(), tmp_path / "whole.pth")
    assert refusal("convnet@whole.pth", tmp_path).code == "SNX154"


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": 1}, tmp_path / "numbers.pt")
    torch.save({"weight": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "text.pt").write_text("no")
    (tmp_path / "text.safetensors").write_text("no")
    (tmp_path / "folder.pt").mkdir()
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a", "b")
    torch.save(trained().state_dict(), tmp_path / "good.pt")
    (tmp_path / "short.pt").write_bytes((tmp_path / "good.pt").read_bytes()[:-900])
    names = ["list.pt", "numbers.pt", "old.pt", "text.pt", "text.safetensors", "folder.pt", "zip.pt", "short.pt", "none.pt"]
    for name in names:
        assert refusal(f"convnet@{name}", tmp_path).code == "SNX154", name


def test_a_compressed_archive_counts_with_what_it_unpacks_to(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t/data/0", bytes(1 << 20))
    with pytest.raises(UserError, match="unpacks to"):
        read_weights(tmp_path / "t.pt", limit_bytes=1 << 18)


def test_a_header_that_asks_for_a_huge_model(tmp_path: Path) -> None:
    record = {"config": {"name": "convnet", "input_shape": list(SHAPE), "classes": 10, "width": 1 << 40}}
    save_file(trained().state_dict(), tmp_path / "t.safetensors", {"snn_export": json.dumps(record)})
    assert refusal("convnet@t.safetensors", tmp_path).code in ("SNX154", "SNX155")


# --- Python files ------------------------------------------------------------------------------------------------------------


def test_a_module_from_a_function(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FILE)
    teacher = load("net.py:build", tmp_path)
    assert teacher.stages == ("1",)
    path, modules = list(sys.path), "net" in sys.modules
    assert load(f"{tmp_path / 'net.py'}:build", Path("/"))(torch.zeros(2, *SHAPE)).shape == (2, 10)
    assert (sys.path, "net" in sys.modules) == (path, modules)


def test_its_weights_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FILE)
    teacher = load("net.py:build", tmp_path)
    state = {name.removeprefix("network."): value * 2 for name, value in teacher.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    inputs = torch.rand(2, *SHAPE)
    loaded = load("net.py:build@w.safetensors", tmp_path)
    assert not torch.allclose(loaded(inputs), teacher(inputs))
    teacher.load_state_dict({f"network.{name}": value for name, value in state.items()})
    assert torch.equal(loaded(inputs), teacher(inputs))


def test_a_file_may_import_what_lies_beside_it_and_return_a_teacher(tmp_path: Path) -> None:
    (tmp_path / "beside_the_teacher.py").write_text("WIDTH = 3\n")
    (tmp_path / "net.py").write_text(
        "import beside_the_teacher as b\nfrom snn_export.models.teachers.registry import build_teacher\n"
        "def build():\n    return build_teacher('convnet', input_shape=(1, 8, 8), classes=10, width=b.WIDTH)\n"
    )
    assert load("net.py:build", tmp_path).stages == ("relu1", "relu2")
    assert refusal("net.py:build", tmp_path, classes=7).code == "SNX153"


@pytest.mark.parametrize(("text", "code", "said"), [
    ("def build(:\n", "SNX156", "net.py:1"),
    ("x = 1\nraise ValueError('early')\n", "SNX156", "net.py:2"),
    ("def build():\n    x = 1\n    return 1 / 0\n", "SNX156", "net.py:3"),
    ("import sys\nsys.exit(3)\n", "SNX156", "net.py:2"),
    ("import a_module_that_is_not_there\n", "SNX156", "net.py:1"),
    ("\0", "SNX156", "net.py"),
    ("def make():\n    pass\n", "SNX156", "choose one of: make"),
    ("build = 3\n", "SNX156", "no function"),
    ("def build(width):\n    pass\n", "SNX156", "needs width"),
    ("def build():\n    return 'net'\n", "SNX157", "returned str"),
    ("from torch import nn\ndef build():\n    return nn.Linear(3, 10)\n", "SNX157", "RuntimeError"),
    (
        "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return x.nothing\ndef build():\n"
        "    return Net()\n", "SNX157", "net.py:4",
    ),
])  # fmt: skip
def test_mistakes_in_a_file_are_told_with_their_line(tmp_path: Path, text: str, code: str, said: str) -> None:
    (tmp_path / "net.py").write_text(text)
    error = refusal("net.py:build", tmp_path)
    assert error.code == code
    assert said in str(error)


def test_a_missing_file(tmp_path: Path) -> None:
    assert refusal("none.py:build", tmp_path).code == "SNX156"


# --- the text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["onnx:{}", "{}"])
def test_an_onnx_file(tmp_path: Path, form: str) -> None:
    graph = Graph((64,))
    graph.write(tmp_path / "net.onnx", graph.node("Gemm", "x", graph.weight(64, 10)))
    assert load(form.format("net.onnx"), tmp_path).classes == 10


@pytest.mark.parametrize("spec", [
    "", "onnx:", "convnet", "net.py", "net.py:", "net.py:a b", "t.safetensors", "convnet@t.bin", "@t.pt", "a/b@t.pt",
    "net.py@t.pt",
])  # fmt: skip
def test_a_text_that_names_no_teacher(tmp_path: Path, spec: str) -> None:
    assert refusal(spec, tmp_path).code == "SNX158"


def test_an_unknown_teacher(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "t.safetensors")
    assert "did you mean 'convnet'" in str(refusal("convent@t.safetensors", tmp_path))
