"""Every student and every teacher by its name: they learn, match, are saved, and become deployments that do the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snntorch
import torch
from torch import Tensor

import snn_export
from snn_export.export.deployment import Deployment
from snn_export.export.passes.quantize import Quantize
from snn_export.export.passes.rounding import InputRange
from snn_export.export.snntorch_reader import deployment_from_snntorch
from snn_export.export.ties import FLOAT32_ROUNDOFF, explain
from snn_export.hardware_sims.student.simulator import StudentSimulator
from snn_export.library import prepared as prepare
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.lif import Lif
from snn_export.models.students.registry import STUDENTS, build_student
from snn_export.models.students.student import SpikingStudent
from snn_export.models.teachers.registry import TEACHERS, build_teacher
from snn_export.models.teachers.stages import checked_taps, describe_taps
from snn_export.training.checkpoint import load_model, read_tensors, save_model, write_tensors
from snn_export.training.pairing import pair
from tests.networks import finest
from tests.students import lively, without_gradient

torch.set_num_threads(1)

STEPS, SAMPLES = 4, 6
IMAGE = {"input_shape": (3, 8, 8), "classes": 3, "width": 2, "steps": STEPS}
FEATURES = {"input_shape": (7,), "classes": 3, "width": 8, "steps": STEPS}
EVENTS = {**FEATURES, "encoder": "events", "du": 2000}

SETTINGS: dict[str, dict[str, Any]] = {
    "convnet": IMAGE,
    "conv5": IMAGE,
    "vgg9": IMAGE,
    "vgg11": {**IMAGE, "input_shape": (3, 32, 32)},
    "resnet18": IMAGE,
    "resnet19": IMAGE,
    "dense": FEATURES,
    "recurrent": EVENTS,
    "recurrent2": EVENTS,
}
"""Of a small student of each name."""
TEACHER_OF = {"recurrent": "gru", "recurrent2": "conv1d"}
RECURRENT = ("recurrent", "recurrent2")


def small_student(name: str, **changes: Any) -> SpikingStudent:
    return build_student(name, **(SETTINGS[name] | changes))


def small_teacher(name: str) -> Any:
    settings = next((SETTINGS[student] for student, teacher in TEACHER_OF.items() if teacher == name), SETTINGS.get(name))
    assert settings is not None
    return build_teacher(name, input_shape=settings["input_shape"], classes=settings["classes"], width=3)


def inputs_of(student: SpikingStudent) -> Tensor:
    """Counts of events, or values in 0..2."""
    generator = torch.Generator().manual_seed(1)
    shape = student.config.input_shape
    if student.config.encoder == "events":
        return torch.poisson(torch.full((SAMPLES, STEPS, *shape), 0.5), generator=generator)
    return 2 * torch.rand(SAMPLES, *shape, generator=generator)


def lively_student(name: str) -> SpikingStudent:
    student = small_student(name)
    return lively(student, inputs_of(student))


def deployment_of(student: SpikingStudent) -> tuple[Deployment, np.ndarray]:
    """What the exporter reads, and inputs as a deployment takes them."""
    inputs = inputs_of(student)
    ordered = inputs.transpose(0, 1) if student.config.encoder == "events" else inputs
    shape = student.config.input_shape
    return deployment_from_snntorch(student.layers, shape, STEPS, encoder=student.encoder), ordered.numpy()


def test_the_tables_of_this_file_name_every_model() -> None:
    assert set(SETTINGS) == set(STUDENTS)
    assert {TEACHER_OF.get(name, name) for name in STUDENTS} == set(TEACHERS)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "published", "ours"),
    [
        # He et al.: 11,689,512 for ImageNet; the form for CIFAR-10 that is commonly used has 11,173,962.
        ("resnet18", (3, 224, 224), 1000, 11_689_512, 0),
        ("resnet18", (3, 32, 32), 10, 11_173_962, 0),
        # 12.63 M in the literature; a batch-norm takes the place of the hidden dense layer's bias.
        ("resnet19", (3, 32, 32), 10, 12_630_858, 2 * 256 - 256),
        # 9,756,426 with biases and without batch-norms.
        ("vgg11", (3, 32, 32), 10, 9_756_426, 2 * (2752 + 1024) - (2752 + 1024) - 5504),
    ],
)
def test_parameters_at_the_published_width(name: str, shape: tuple[int, ...], classes: int, published: int, ours: int) -> None:
    with torch.device("meta"):
        for build in (build_student, build_teacher):
            found = sum(parameter.numel() for parameter in build(name, input_shape=shape, classes=classes, width=64).parameters())
            assert found == published + ours


@pytest.mark.parametrize("name", STUDENTS)
def test_every_parameter_of_a_student_learns(name: str) -> None:
    student = small_student(name).train()
    outputs = student.through_time(inputs_of(student), student.stages)
    assert set(outputs.taps) == set(student.stages)
    (outputs.logits**2).sum().backward()
    assert without_gradient(student) == []


@pytest.mark.parametrize("name", [name for name in STUDENTS if name not in RECURRENT])
def test_rates_carry_a_student(name: str) -> None:
    student = small_student(name).train()
    outputs = student.by_rates(inputs_of(student), student.stages)
    (outputs.logits**2).sum().backward()
    assert without_gradient(student) == []
    lively(student, inputs_of(student))
    torch.testing.assert_close(student.by_rates(inputs_of(student)).logits, student(inputs_of(student)))


@pytest.mark.parametrize("name", RECURRENT)
def test_rates_refuse_a_student_that_hears_itself(name: str) -> None:
    student = small_student(name)
    with pytest.raises(UserError, match="bptt") as error:
        student.by_rates(inputs_of(student))
    assert error.value.code == "SNX281"


@pytest.mark.parametrize("name", TEACHERS)
def test_every_parameter_of_a_teacher_learns_and_it_can_be_cut_at_its_stages(name: str) -> None:
    teacher = small_teacher(name)
    student = next(student for student in STUDENTS if TEACHER_OF.get(student, student) == name)
    inputs = inputs_of(small_student(student))
    (teacher.train()(inputs) ** 2).sum().backward()
    assert without_gradient(teacher) == []
    teacher.eval()
    logits, taps = teacher.features(inputs, teacher.stages)
    assert logits.shape == (SAMPLES, 3) and torch.equal(logits, teacher(inputs))
    for tap, features in taps.items():
        assert torch.equal(teacher.onward(tap, features), logits)
    assert checked_taps(teacher) == teacher.stages
    assert [tap.name for tap in describe_taps(teacher) if tap.is_stage] == list(teacher.stages)


@pytest.mark.parametrize("name", STUDENTS)
def test_stages_of_student_and_teacher_match(name: str) -> None:
    student, teacher = small_student(name), small_teacher(TEACHER_OF.get(name, name))
    found = pair(student, teacher, inputs_of(student)[:1], classes=3)
    if name != "recurrent2":  # whose last hidden layer meets the teacher's only stage
        assert [stage.student for stage in found.stages] == list(student.stages)
    assert [stage.teacher for stage in found.stages] == list(teacher.stages)
    for stage in found.stages:
        assert stage.teacher_shape is not None and stage.shape[1:] == stage.teacher_shape[1:]
        channels = 8 if SETTINGS[name]["width"] == 8 else 2
        assert stage.shape[0] * 3 == stage.teacher_shape[0] * channels  # widths of student and teacher
    sizes = [stage.shape[1:] for stage in found.stages if stage.shape[1:]]
    assert len(set(sizes)) == len(sizes), "two stages at one resolution"


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_is_saved_and_found_again(name: str, tmp_path: Path) -> None:
    student = lively_student(name)
    save_model(tmp_path / "student.safetensors", student)
    found = load_model(tmp_path / "student.safetensors")
    assert isinstance(found, SpikingStudent) and found.config == student.config and found.stages == student.stages
    with torch.no_grad():
        assert torch.equal(found(inputs_of(student)), student(inputs_of(student)))


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_is_saved_and_found_again(name: str, tmp_path: Path) -> None:
    teacher = small_teacher(name).eval()
    save_model(tmp_path / "teacher.safetensors", teacher)
    found = load_model(tmp_path / "teacher.safetensors")
    assert found.config == teacher.config
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in teacher.state_dict().items())


@pytest.mark.parametrize(("name", "constant"), [("recurrent", "layers.recurrent1.neuron.alpha"), ("dense", "layers.lif2.beta")])
def test_a_file_whose_neurons_contradict_its_config_is_refused(name: str, constant: str, tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    save_model(path, small_student(name))
    content = read_tensors(path)
    write_tensors(path, {**content.tensors, constant: torch.tensor(0.9)}, content.record)
    with pytest.raises(UserError, match="the config says") as error:
        load_model(path)
    assert error.value.code == "SNX120"


@pytest.mark.parametrize("build", [build_student, build_teacher])
@pytest.mark.parametrize("name", ["vgg9", "resnet18", "dense"])
def test_the_seed_decides_all_weights(build: Any, name: str) -> None:
    shared = {"input_shape": SETTINGS[name]["input_shape"], "classes": 3, "width": 2}
    first, same, other = (build(name, seed=seed, **shared).state_dict() for seed in (4, 4, 5))
    weights = [key for key, value in first.items() if key.endswith("weight") and value.ndim > 1]
    assert weights and all(torch.equal(first[key], same[key]) and not torch.equal(first[key], other[key]) for key in weights)


@pytest.mark.parametrize("name", STUDENTS)
def test_the_exporter_reads_the_student_as_it_is_and_prepares_it(name: str) -> None:
    student = lively_student(name)
    deployment, inputs = deployment_of(student)
    trace = StudentSimulator(student.layers).run(deployment, inputs, ("spikes", "membrane"))
    explained = explain(deployment, inputs, trace.layers, FLOAT32_ROUNDOFF)
    assert set(student.stages) < set(explained)
    for layer, found in explained.items():
        assert not found.faulty.any() and not found.beyond.any(), layer
        assert not deployment.contract.neurons[layer].spiking or 0 < trace.layers[layer].spikes.mean() < 1, layer
    prepared = prepare(deployment, inputs)  # compares every pass with the graph before it
    assert snn_export.check(prepared, "loihi2") == []
    kinds = {type(node).__name__ for node in prepared.graph.nodes.values()}
    assert kinds <= {"Input", "Output", "Affine", "Conv2d", "Scale", "Flatten", "LIF", "CubaLIF", "I"}
    largest = max(node.weight.size for node in prepared.graph.nodes.values() if hasattr(node, "weight"))
    assert largest <= 4 * max(parameter.numel() for parameter in student.parameters()), "a convolution became a matrix"


@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_student_on_integers(name: str) -> None:
    student = lively_student(name)
    deployment, inputs = deployment_of(student)
    prepared = prepare(deployment, inputs)
    quantised = Quantize("loihi2", finest, InputRange(0.0, float(inputs.max())))(prepared)
    what = ("spikes", "membrane", "current")
    loihi, torch_on_integers = (
        snn_export.simulate(quantised, inputs, backend, what) for backend in ("loihi", "quantised_student")
    )
    for layer, found in loihi.layers.items():
        for values in what:
            np.testing.assert_array_equal(getattr(found, values), getattr(torch_on_integers.layers[layer], values))
        assert found.overflows == 0 and (layer == "readout" or found.counts.sum() > 0)
    spec = deployment.contract.neurons["recurrent1"]
    assert (spec.du, spec.dv, spec.reset, spec.reset_delay) == (2000, 1024, "zero", 0)


def test_a_recurrent_student_hears_itself_one_step_later() -> None:
    student = lively_student("recurrent")
    inputs = inputs_of(student)
    inputs[:, 2:] = 0
    before = student.membranes(inputs)
    with torch.no_grad():
        student.layers.recurrent1.weights.weight += 5.0
    after = student.membranes(inputs)
    first = int((before != after).flatten(1).any(dim=1).nonzero()[0])
    heard: list[Tensor] = []
    student.membranes(inputs, listen=lambda name, spikes: heard.append(spikes))
    assert first == int(heard[0].flatten(1).any(dim=1).nonzero()[0]) + 1


def test_a_synaptic_filter_is_asked_for() -> None:
    assert type(small_student("dense").layers.lif1) is snntorch.Leaky
    filtered = small_student("dense", du=1365)
    neuron = filtered.layers.lif1
    assert type(neuron) is snntorch.Synaptic
    assert (float(neuron.alpha), float(neuron.beta)) == (1 - 1366 / 4096, 0.75)
    assert "du=1365" in repr(filtered)
    with pytest.raises(UserError) as error:
        filtered.by_rates(torch.rand(2, 7))
    assert error.value.code == "SNX281"
    assert type(small_student("recurrent", du=4095).layers.recurrent1.neuron) is snntorch.Leaky
    assert isinstance(small_student("dense", reset="subtract").layers.lif1, Lif)


@pytest.mark.parametrize(
    ("name", "wrong", "code"),
    [
        ("dense", {"du": 100, "dv": 0}, "SNX284"),
        ("dense", {"du": 100, "reset": "subtract"}, "SNX284"),
        ("dense", {"du": 100, "detach_reset": True}, "SNX284"),
        ("dense", {"du": 100, "initial": 0.5}, "SNX284"),
        ("dense", {"du": 4096}, "SNX301"),
        ("dense", {"du": -1}, "SNX301"),
        ("dense", {"du": 1.5}, "SNX012"),
        ("recurrent", {"du": 4095, "reset": "subtract"}, "SNX284"),
        ("recurrent", {"du": 4095, "detach_reset": True}, "SNX284"),
        ("recurrent", {"du": 4095, "initial": 0.5}, "SNX284"),
        ("recurrent", {"input_shape": (2, 8, 8)}, "SNX012"),
        ("vgg9", {"input_shape": (1, 28, 28)}, "SNX012"),
        ("vgg11", {"input_shape": (3, 16, 16)}, "SNX012"),
        ("vgg9", {"input_shape": (64,)}, "SNX012"),
        ("resnet18", {"input_shape": (64,)}, "SNX012"),
        ("resnet18", {"input_shape": (3, 66, 66)}, "SNX012"),
    ],
)
def test_a_student_that_cannot_be_built(name: str, wrong: dict[str, Any], code: str) -> None:
    with pytest.raises(UserError) as error:
        small_student(name, **wrong)
    assert error.value.code == code


@pytest.mark.parametrize(
    ("name", "shape"),
    [("vgg9", (3, 7, 8)), ("vgg11", (3, 31, 32)), ("resnet18", (64,)), ("gru", (1, 8, 8)), ("conv1d", (1, 8, 8))],
)
def test_a_teacher_that_cannot_be_built(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError) as error:
        build_teacher(name, input_shape=shape, classes=3)
    assert error.value.code == "SNX012"


@pytest.mark.parametrize("encoder", ["direct", "events"])
def test_dense_networks_take_images_too(encoder: str) -> None:
    student = build_student("dense", input_shape=(2, 3, 4), classes=3, width=5, steps=STEPS, encoder=encoder)
    teacher = build_teacher("dense", input_shape=(2, 3, 4), classes=3, width=5)
    images = torch.rand(SAMPLES, 2, 3, 4)
    assert student(images.unsqueeze(1).expand(-1, STEPS, -1, -1, -1) if encoder == "events" else images).shape == (SAMPLES, 3)
    assert teacher(images).shape == (SAMPLES, 3)
    assert student.layers.dense1.in_features == math.prod((2, 3, 4))


@pytest.mark.parametrize("name", ["gru", "conv1d"])
def test_sequence_teachers_take_any_length_and_average_over_it(name: str) -> None:
    teacher = small_teacher(name).eval()
    inputs = torch.rand(SAMPLES, 9, 7)
    assert teacher(inputs).shape == teacher(inputs[:, :3]).shape == (SAMPLES, 3)
    torch.testing.assert_close(teacher(inputs[:, 0]), teacher(inputs[:, :1]))
    _, taps = teacher.features(inputs, teacher.stages)
    assert taps[teacher.stages[0]].shape == (SAMPLES, 3)
    states = teacher.layers.gru.gru(inputs)[0] if name == "gru" else teacher.layers[:-2](inputs).transpose(1, 2)
    torch.testing.assert_close(taps[teacher.stages[0]], states.mean(dim=1))
