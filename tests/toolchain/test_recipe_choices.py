"""What a config chooses is checked before anything is trained, heeded or refused, and part of what makes a step stale."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from snn_export.config_schema import Config
from snn_export.data.dataset import Dataset
from snn_export.data.digits import load_digits
from snn_export.models.diagnostics import UserError
from snn_export.models.residual import ResidualSum
from snn_export.models.students.registry import STUDENTS, build_student
from snn_export.models.teachers.source import load_teacher
from snn_export.models.teachers.torch_file import load_torch_teacher
from snn_export.pipeline import choices, steps, training
from snn_export.pipeline.teacher_source import files_of, is_file
from snn_export.pipeline.workspace import Workspace
from snn_export.training.checkpoint import save_model
from snn_export.training.composing import parse_terms
from snn_export.training.loop import Progress
from snn_export.training.recipe import ForwardMode
from snn_export.training.recipes import registry
from snn_export.training.recipes.registry import load_recipe
from snn_export.training.settings import TrainingSettings
from snn_export.training.terms import registry as terms

SHAPE, CLASSES = (1, 8, 8), 10


pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Listener:
    """A teller that keeps what is said."""

    said: list[str] = field(default_factory=list)

    def step(self, number: int, total: int, name: str, state: str) -> None:
        self.said.append(f"{name}: {state}")

    def done(self, name: str, summary: str, seconds: float) -> None:
        self.said.append(summary)

    def line(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def training(self, label: str) -> Iterator[Any]:
        def report(progress: Progress) -> None:
            self.said.append(progress.message or f"{label} epoch {progress.epoch}")

        yield report


def config(**sections: dict[str, Any]) -> Config:
    short = {"teacher_epochs": 1, "student_epochs": 1, "threads": 1, **sections.pop("training", {})}
    return Config(training=short, **sections)  # type: ignore[arg-type]


def carry_out(settings: Config, root: Path, until: str = "student") -> list[str]:
    listener = Listener()
    steps.carry_out(settings, Workspace(root / "out"), root, listener, until=until)
    return listener.said


def refusal(settings: Config, root: Path) -> UserError:
    """The error, which must come before a single epoch."""
    listener = Listener()
    with pytest.raises(UserError) as caught:
        steps.carry_out(settings, Workspace(root / "out"), root, listener, until="student")
    assert not [text for text in listener.said if "epoch" in text]
    assert [text for text in listener.said if text.startswith("student:")] == []
    return caught.value


# --- impossible settings come to light first ------------------------------------------------------------------------------

IMPOSSIBLE = [
    ("SNX013", {"training": {"recipe": "nonsense"}}),
    ("SNX344", {"training": {"recipe": "composed"}}),
    ("SNX344", {"training": {"recipe": "composed", "terms": ["cross_entropie"]}}),
    ("SNX345", {"training": {"recipe": "composed", "terms": ["knowledge_distillation tau=-1"]}}),
    ("SNX340", {"training": {"recipe": "temporal_decoupling", "forward_mode": "rate"}}),
    ("SNX010", {"model": {"student": "convnett"}}),
    ("SNX010", {"model": {"teacher": "convnett"}}),
    ("SNX015", {"model": {"surrogate": "sigmoidal"}}),
    ("SNX018", {"training": {"recipe": "qcfs", "terms": ["cross_entropy"]}}),
    ("SNX019", {"training": {"recipe": "qcfs", "forward_mode": "rate"}}),
    ("SNX019", {"training": {"recipe": "max_norm", "student_taps": ["lif1"]}}),
    ("SNX019", {"training": {"recipe": "max_norm"}, "model": {"student": "recurrent"}}),
    ("SNX019", {"model": {"residual": "spikes"}}),
]


@pytest.mark.parametrize(("code", "sections"), IMPOSSIBLE, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_is_refused_before_the_teacher_is_trained(
    code: str, sections: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    assert refusal(config(**sections), tmp_path).code == code


def test_a_recurrent_student_on_rates_is_refused_before_the_teacher_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "dataset", lambda *_: events((7,)))
    settings = config(model={"student": "recurrent", "teacher": "gru"}, training={"forward_mode": "rate"})
    assert refusal(settings, tmp_path).code == "SNX281"


def test_ways_to_learn_are_suggested_and_the_teachers_own_is_none_of_them() -> None:
    with pytest.raises(UserError) as caught:
        choices.check_recipe(config(training={"recipe": "compose"}))
    fix = caught.value.diagnostics[0].fix
    assert "did you mean 'composed'?" in fix
    assert {"qcfs", "max_norm", "calibration", "plain_kd"} <= set(fix.replace(",", " ").split())
    assert "teacher" not in fix.replace("no_teacher", "").split("of:")[1]


def test_students_with_shortcuts_are_all_named() -> None:
    def has_shortcuts(name: str) -> bool:
        shape = (3, 32, 32) if name not in ("recurrent", "recurrent2", "dense") else (20,)
        with torch.device("meta"):
            student = build_student(name, input_shape=shape, classes=3, width=4)
        return any(isinstance(layer, ResidualSum) for layer in student.modules())

    assert tuple(name for name in STUDENTS if has_shortcuts(name)) == choices.WITH_SHORTCUTS
    choices.check_recipe(config(model={"student": "resnet18", "residual": "spikes"}))


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="tau=5") as caught:
        parse_terms(["cross_entropy", "knowledge_distillation tau=3 tau=5"])
    assert caught.value.code == "SNX344"


# --- what is asked for is heeded, what is replaced is said -----------------------------------------------------------------


def test_shifts_that_are_asked_for_shift() -> None:
    published = load_recipe("ckdsnn").settings
    assert published.max_shift == 0
    shifted = training._overridden(published, config(training={"augmentation": ["shift"]}), 1)
    assert (shifted.augmentation, shifted.max_shift) == (("shift",), 1)
    assert training._overridden(published, config(training={"augmentation": ["crop"]}), 1).max_shift == 0
    wide = TrainingSettings(max_shift=3)
    assert training._overridden(wide, config(training={"augmentation": ["shift"]}), 1).max_shift == 3


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({}, ("triangle", 1.0)),
        ({"surrogate": "triangle"}, ("triangle", 1.0)),
        ({"slope": 2.0}, ("triangle", 2.0)),
        ({"surrogate": "fast_sigmoid"}, ("fast_sigmoid", 5.0)),
        ({"surrogate": "atan", "slope": 3.0}, ("atan", 3.0)),
    ],
)
def test_a_published_slope_goes_with_its_own_surrogate_only(model: dict[str, Any], expected: tuple[str, float]) -> None:
    found = choices.student_of(config(model=model), load_digits(0), load_recipe("ckdsnn")).config
    assert (found.surrogate, found.slope) == expected


def test_a_run_says_where_its_neurons_are_not_those_of_the_publication(tmp_path: Path) -> None:
    said = carry_out(config(training={"recipe": "temporal_decoupling"}, model={"student_width": 2, "steps": 2}), tmp_path)
    assert said.count("published with dv 2048, steps 6; this run: dv 1024, steps 2") == 1
    published = config(model={"dv": 2048, "steps": 6, "student_width": 2})
    recipe = load_recipe("temporal_decoupling")
    assert choices.departures(recipe, choices.student_of(published, load_digits(0), recipe).config) == ""


def test_a_conversion_says_which_settings_it_replaces(tmp_path: Path) -> None:
    said = carry_out(config(training={"recipe": "max_norm"}, model={"student_width": 2}), tmp_path)
    assert "a converted network has dv 0, reset subtract, in place of dv 1024, reset zero of the settings" in said


# --- the files of a teacher -------------------------------------------------------------------------------------------------

SOURCE = """
import torch
from torch import nn


def build():
    {seed}
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
"""


def teacher_key(settings: Config, root: Path) -> str:
    return steps.keys_now(settings, root, "teacher")["teacher"]


def write_onnx(path: Path, scale: float) -> None:
    """Flatten and one matrix product, the matrix in a file of its own."""
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]
    weight = numpy_helper.from_array(np.full((64, 10), scale, np.float32), "w")
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])], [weight],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    path.with_suffix(".bin").unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=path.with_suffix(".bin").name, size_threshold=0)


def test_weights_beside_an_onnx_file_are_files_of_the_teacher(tmp_path: Path) -> None:
    write_onnx(tmp_path / "t.onnx", 1.0)
    settings = config(model={"teacher": "t.onnx"})
    assert [path.name for path in files_of("t.onnx", tmp_path)] == ["t.onnx", "t.bin"]
    model, before = (tmp_path / "t.onnx").read_bytes(), teacher_key(settings, tmp_path)
    assert teacher_key(settings, tmp_path) == before
    write_onnx(tmp_path / "t.onnx", 2.0)
    assert (tmp_path / "t.onnx").read_bytes() == model
    assert teacher_key(settings, tmp_path) != before


@pytest.mark.parametrize("spec", [" t.onnx ", "onnx:t.onnx", "~/t.onnx", "onnx: ~/t.onnx"])
def test_the_key_and_the_reader_mean_the_same_file(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_onnx(tmp_path / "t.onnx", 1.0)
    assert is_file(spec)
    assert files_of(spec, tmp_path) == (tmp_path / "t.onnx", tmp_path / "t.bin")
    load_teacher(spec, input_shape=SHAPE, classes=CLASSES, base=tmp_path)


def test_an_onnx_file_may_have_any_name(tmp_path: Path) -> None:
    write_onnx(tmp_path / "t.onnx", 1.0)
    (tmp_path / "t.onnx").rename(tmp_path / "teacher")
    assert is_file("onnx:teacher")
    assert files_of("onnx:teacher", tmp_path)[0] == tmp_path / "teacher"
    assert not is_file("convnet")
    assert files_of("convnet", tmp_path) == ()


def test_a_text_that_names_no_teacher_is_refused_while_planning(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        teacher_key(config(model={"teacher": "t.py"}), tmp_path)
    assert caught.value.code == "SNX158"


def test_what_a_python_file_may_import_or_load_is_part_of_the_teacher(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(SOURCE.format(seed="torch.manual_seed(0)"))
    settings = config(model={"teacher": "t.py:build"})
    keys = [teacher_key(settings, tmp_path)]
    for name in ("layers.py", "w.pt", "w.pth", "w.safetensors"):
        (tmp_path / name).write_text("1")
        keys.append(teacher_key(settings, tmp_path))
    assert len(set(keys)) == len(keys)
    (tmp_path / "notes.txt").write_text("1")
    assert teacher_key(settings, tmp_path) == keys[-1]


def test_a_teacher_that_is_drawn_anew_is_refused_and_a_seeded_one_teaches(tmp_path: Path) -> None:
    settings = config(model={"teacher": "t.py:build", "student_width": 2, "steps": 2})
    (tmp_path / "t.py").write_text(SOURCE.format(seed="pass"))
    with pytest.raises(UserError) as caught:
        carry_out(settings, tmp_path)
    assert caught.value.code == "SNX348"
    assert "manual_seed" in caught.value.diagnostics[0].fix
    (tmp_path / "t.py").write_text(SOURCE.format(seed="torch.manual_seed(0)"))
    assert any("best epoch" in text for text in carry_out(settings, tmp_path))
    assert len(json.loads((tmp_path / "out" / "teacher" / training.WEIGHTS_FILE).read_text())["sha256"]) == 64
    assert [text for text in carry_out(settings, tmp_path) if "up to date" not in text] == []


def test_a_digest_of_weights_sees_names_shapes_and_values() -> None:
    def digest(**state: torch.Tensor) -> str:
        network = torch.nn.Module()
        for name, value in state.items():
            network.register_buffer(name, value)
        return training.weights_digest(network)

    same = digest(a=torch.zeros(2, 3))
    assert same == digest(a=torch.zeros(3, 2).t())
    others = [{"b": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}, {"a": torch.ones(2, 3)}, {"a": torch.zeros(2, 3).int()}]
    assert same not in [digest(**other) for other in others]
    assert digest(a=torch.tensor(1)) != digest(a=torch.tensor(2))


# --- recipes of third parties -----------------------------------------------------------------------------------------------


def install(root: Path, version: str) -> None:
    """A distribution with a recipe, as an installer leaves it."""
    package, record = root / "swift", root / f"swift-{version}.dist-info"
    for folder in (package, record):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "recipe.py").write_text("RECIPE = None\n")
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: swift\nVersion: {version}\n")
    (record / "entry_points.txt").write_text(f"[{registry.GROUP}]\nswift = swift.recipe:RECIPE\n")


def test_the_code_and_version_of_a_plug_in_make_a_student_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    install(site, "1.0")
    monkeypatch.syspath_prepend(str(site))
    assert "swift" in {point.name for point in entry_points(group=registry.GROUP)}

    def keys() -> dict[str, str]:
        settings = Config(training={"recipe": "swift"}, quantize={"fine_tune_epochs": 1})  # type: ignore[arg-type]
        return steps.keys_now(settings, tmp_path, "quantize")

    def facts() -> dict[str, str]:
        [found] = steps._plug_ins(config(training={"recipe": "swift"}).training).values()
        return found

    before = keys()
    assert keys() == before
    (site / "swift" / "recipe.py").write_text("RECIPE = 1\n")
    changed = keys()
    assert changed["teacher"] == before["teacher"]
    assert before["student"] != changed["student"]
    assert before["quantize"] != changed["quantize"]
    (site / "swift" / "terms.py").write_text("WEIGHT = 2\n")
    assert facts().keys() == {"version", "__init__.py", "recipe.py", "terms.py"}
    (site / "swift-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: swift\nVersion: 1.1\n")
    assert facts()["version"] == "1.1"
    assert steps._plug_ins(config(training={"recipe": "plain_kd"}).training) == {}
    for name in [name for name in sys.modules if name.partition(".")[0] == "swift"]:
        del sys.modules[name]
    (site / "swift" / "__init__.py").write_text("raise OSError('no such device')\n")
    assert facts() == {"version": "1.1", "broken": "OSError"}
    assert refusal(config(training={"recipe": "swift"}), tmp_path).code == "SNX346"


def test_the_code_of_a_third_partys_loss_term_makes_a_student_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    install(site, "1.0")
    (site / "swift-1.0.dist-info" / "entry_points.txt").write_text(f"[{terms.GROUP}]\nhinge = swift.recipe:Hinge\n")
    monkeypatch.syspath_prepend(str(site))

    def keys(**training: object) -> dict[str, str]:
        return steps.keys_now(Config(training=training), tmp_path, "student")  # type: ignore[arg-type]

    composed, ready = {"recipe": "composed", "terms": ("cross_entropy", "hinge margin=2")}, {"recipe": "plain_kd"}
    before, other = keys(**composed), keys(**ready)
    (site / "swift" / "recipe.py").write_text("MARGIN = 1\n")
    assert keys(**ready) == other
    assert keys(**composed)["student"] != before["student"]
    assert keys(**composed)["teacher"] == before["teacher"]


# --- samples with a time axis -------------------------------------------------------------------------------------------------


def events(shape: tuple[int, ...], steps_of: int = 4) -> Dataset:
    """30 training samples of three classes, (N, T, *shape)."""
    rng = np.random.default_rng(0)

    def part(count: int) -> tuple[Any, Any]:
        return rng.random((count, steps_of, *shape)).astype(np.float32), np.arange(count) % 3

    (x, y), (x_val, y_val), (x_test, y_test) = part(30), part(9), part(9)
    return Dataset("events", x, y, x_val, y_val, x_test, y_test, 3, 0.0, 1.0, steps=steps_of)


def test_events_meet_a_network_without_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "dataset", lambda *_: events((7,)))
    error = refusal(config(model={"teacher": "dense", "student": "dense"}), tmp_path)
    assert error.code == "SNX349"
    assert "gru or conv1d" in error.diagnostics[0].fix
    assert refusal(config(model={"teacher": "gru", "student": "dense"}, training={"recipe": "qcfs"}), tmp_path).code == "SNX349"


def test_events_teach_through_a_network_for_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "dataset", lambda *_: events((7,)))
    said = carry_out(config(model={"teacher": "gru", "student": "recurrent", "student_width": 4}), tmp_path)
    assert said[-1].startswith("best epoch 1 of 1")


def test_a_teacher_from_a_file_is_tried_on_a_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "dataset", lambda *_: events((7,)))
    from snn_export.models.teachers.registry import build_teacher

    for name in ("gru", "dense", "conv1d"):
        save_model(tmp_path / f"{name}.safetensors", build_teacher(name, input_shape=(7,), classes=3, width=4))
    load_torch_teacher("gru", tmp_path / "gru.safetensors", input_shape=(7,), classes=3)
    for name in ("gru", "conv1d"):
        assert carry_out(config(model={"teacher": f"{name}@{name}.safetensors", "student": "recurrent"}), tmp_path, "teacher")
    error = refusal(config(model={"teacher": "dense@dense.safetensors", "student": "recurrent"}), tmp_path)
    assert error.code == "SNX349"
    assert "(B, 4, 7)" in error.diagnostics[0].fix


def test_rates_carry_the_networks_that_pass_the_check() -> None:
    settings = config(training={"forward_mode": "rate"})
    choices.check_networks(settings, load_digits(0))
    assert choices.chosen_recipe(settings).forward_mode is ForwardMode.RATE
