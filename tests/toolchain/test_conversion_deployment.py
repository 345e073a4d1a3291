"""What becomes of a converted network on a chip: bit for bit, or refused; never another network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from snn_export import library
from snn_export.export import interpreter
from snn_export.export.deployment import Deployment
from snn_export.export.snntorch_reader import deployment_from_snntorch
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import Lif
from snn_export.models.students.registry import build_student
from snn_export.models.students.student import SpikingStudent
from snn_export.models.surrogates import Surrogate
from snn_export.pipeline.deployability import deployability
from snn_export.training.conversion.registry import load_conversion
from tests.conversion_networks import SHAPE, digits, untrained
from tests.networks import named

STEPS = 6


pytestmark = pytest.mark.usefixtures("one_thread")


def converted(name: str) -> SpikingStudent:
    conversion = load_conversion(name)
    return conversion.convert(untrained(conversion), digits(), STEPS)


def read(student: SpikingStudent) -> Deployment:
    return library.from_snntorch(student.layers, SHAPE, student.config.steps, digits(16).numpy())


@pytest.mark.parametrize("name", ["max_norm", "calibration"])
def test_a_conversion_that_begins_at_zero_runs_bit_for_bit_as_a_neuron_program(name: str) -> None:
    student, inputs = converted(name), digits(24).numpy()
    assert deployability(student, inputs) == "loihi2 microcode"
    quantised = library.quantize(read(student), inputs, "loihi2")
    fast = library.simulate(quantised, inputs, "loihi", record=("spikes", "membrane"))
    slow = interpreter.run(quantised, inputs, "int64")
    for layer in ("lif1", "lif2"):
        assert quantised.contract.neurons[layer].microcode
        assert 0.01 < float(np.mean(fast.layers[layer].spikes)) < 0.99
        assert np.array_equal(fast.layers[layer].spikes, slow[layer].spikes)
        assert np.array_equal(fast.layers[layer].membrane, slow[layer].membrane)
        assert slow[layer].membrane.max() > 0 > slow[layer].membrane.min()
    assert np.mean(fast.predictions == student(torch.tensor(inputs)).argmax(dim=1).numpy()) > 0.8


def test_the_deployment_in_float_fires_as_the_converted_student() -> None:
    student, inputs = converted("max_norm"), digits(24)
    spikes: dict[str, np.ndarray] = {}

    def observe(name: str, fired: torch.Tensor | None, _: torch.Tensor) -> None:
        if fired is not None:
            spikes[name] = fired.numpy()

    with torch.no_grad():
        student.membranes(inputs, observe)
    deployment = deployment_from_snntorch(student.layers, SHAPE, STEPS)
    found = library.simulate(deployment, inputs.numpy(), "reference")
    for name, mine in spikes.items():
        assert np.mean(found.layers[name].spikes != mine) < 1e-4  # float32 against float64


@pytest.mark.parametrize("target", ["loihi1", "lava"])
def test_fixed_neurons_cannot_subtract(target: str) -> None:
    findings = library.check(read(converted("max_norm")), target)  # type: ignore[arg-type]
    assert {"lif1", "lif2"} <= {finding.where for finding in findings if finding.code == "SNX203"}


def test_a_membrane_that_does_not_begin_at_zero_is_refused_by_every_layer_that_has_one() -> None:
    student = converted("qcfs")
    assert deployability(student) == "refused: SNX350"
    with pytest.raises(UserError) as caught:
        read(student)
    assert [(item.code, item.where) for item in caught.value.diagnostics] == [("SNX350", "lif1"), ("SNX350", "lif2")]
    assert "0.5" in caught.value.diagnostics[0].what


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "loihi"),
        ({"reset": "subtract"}, "loihi2 microcode"),
        ({"initial": 0.25}, "refused: SNX350"),
        ({"encoder": "events", "steps": 5}, "loihi"),
    ],
)
def test_what_decides_is_the_student_not_how_it_was_made(settings: dict[str, object], expected: str) -> None:
    student = build_student("convnet", input_shape=SHAPE, classes=10, width=2, **{"steps": 4, **settings}).eval()
    assert deployability(student) == expected


@pytest.mark.parametrize(("reset", "dv"), [("zero", 700), ("subtract", 0), ("zero", 0)])
def test_a_lif_is_read_with_its_own_decay_threshold_and_reset(reset: str, dv: int) -> None:
    neuron = Lif(dv=dv, threshold=0.4, surrogate=Surrogate("atan", 2.0), reset=reset)
    torch.manual_seed(0)
    layers = named(dense=torch.nn.Linear(3, 5), lif=neuron, last=torch.nn.Linear(5, 2), readout=Integrator())
    deployment = deployment_from_snntorch(layers, (3,), 7)
    spec = deployment.contract.neurons["lif"]
    assert (spec.dv, spec.reset, spec.reset_delay) == (dv, reset, 0)
    assert deployment.graph.nodes["lif"].v_threshold == pytest.approx(0.4)
    inputs = torch.rand(9, 3)
    spikes, membrane = neuron.run_steps(layers[0](inputs).detach().expand(7, -1, -1))
    found = library.simulate(deployment, inputs.numpy(), "reference", record=("spikes", "membrane")).layers["lif"]
    assert 0 < float(spikes.mean()) < 1
    assert np.array_equal(found.spikes, spikes.numpy())
    assert np.allclose(found.membrane, membrane.numpy(), atol=1e-5)


def test_a_lif_with_a_threshold_that_silence_reaches_is_refused_with_all_it_has_wrong() -> None:
    neuron = Lif(dv=0, threshold=-1.0, surrogate=Surrogate("atan", 2.0), initial=0.5)
    with pytest.raises(UserError) as caught:
        deployment_from_snntorch(named(dense=torch.nn.Linear(3, 5), lif=neuron, readout=Integrator()), (3,), 4)
    assert sorted(item.code for item in caught.value.diagnostics) == ["SNX211", "SNX350"]
