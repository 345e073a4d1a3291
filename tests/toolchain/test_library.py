"""The library as the README shows it."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import snn_export
from snn_export.data.registry import load_dataset
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.neurons.lif import Lif
from snn_export.models.students.registry import build_student
from snn_export.models.surrogates import Surrogate
from tests.conftest import REPOSITORY
from tests.lava_environment import require_lava


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    """An untrained student with batch-norm statistics of its own: enough to fire, and quick."""
    student = build_student("convnet", seed=3, input_shape=(1, 8, 8), classes=10, width=4)
    student.train()
    with torch.no_grad():
        for _ in range(8):
            student(torch.from_numpy(load_dataset("digits", 0).x_train[:128]))
    return student.layers.eval()


def test_snippet(network: nn.Sequential, tmp_path: Path) -> None:
    data = load_dataset("digits", 0)
    calibration_inputs, inputs, labels = data.x_train[:32], data.x_test[:16], data.y_test[:16]
    snn_export.save(snn_export.from_snntorch(network, (1, 8, 8), 8, calibration_inputs), tmp_path / "net.nir")

    d = snn_export.load(tmp_path / "net.nir")
    q = snn_export.quantize(d, calibration_inputs, target="loihi2")
    t = snn_export.simulate(q, inputs, backend="loihi", record=("spikes", "membrane"))
    assert t.layers["lif1"].spikes is not None
    assert t.layers["lif1"].spikes.shape == (8, 16, 4, 8, 8)
    assert t.layers["lif1"].membrane is not None
    assert t.layers["lif1"].membrane.shape == (8, 16, 4, 8, 8)
    assert t.layers["lif1"].spikes.any(), "nothing fired: the comparison below would show nothing"
    assert t.predictions.shape == (16,)

    again = snn_export.simulate(q, np.broadcast_to(inputs, (8, *inputs.shape)), backend="loihi")
    assert np.array_equal(again.predictions, t.predictions)

    r = snn_export.verify(q, inputs, labels, reference="loihi", targets=["reference"])
    assert r.comparisons[0].verdict in ("WITHIN", "DRIFT")
    assert r.passed == (r.exit_code == 0)


@pytest.mark.lava
def test_snippet_on_lava(network: nn.Sequential) -> None:
    require_lava()
    data = load_dataset("digits", 0)
    q = snn_export.quantize(snn_export.from_snntorch(network, (1, 8, 8), 8, data.x_train[:32]), data.x_train[:32])
    r = snn_export.verify(q, data.x_test[:8], data.y_test[:8], reference="loihi", targets=["lava"])
    assert r.passed
    assert r.exit_code == 0
    assert [layer.verdict for layer in r.comparisons[0].layers] == ["EXACT"] * 3
    assert all(layer.mismatched_membranes == 0 and layer.membranes_compared > 0 for layer in r.comparisons[0].layers)


def test_no_sample_is_an_error_of_coverage(network: nn.Sequential) -> None:
    data = load_dataset("digits", 0)
    d = snn_export.from_snntorch(network, (1, 8, 8), 8, data.x_train[:8])
    with pytest.raises(UserError) as caught:
        snn_export.verify(d, data.x_test[:0], data.y_test[:0], reference="reference", targets=["loihi"])
    assert caught.value.exit_code == 5


def test_mistakes_are_named(network: nn.Sequential) -> None:
    data = load_dataset("digits", 0)
    d = snn_export.from_snntorch(network, (1, 8, 8), 8, data.x_train[:8])
    for call, code in (
        (lambda: snn_export.simulate(d, data.x_test[:2], backend="loihi"), "SNX302"),
        (lambda: snn_export.simulate(d, data.x_test[:2], backend="loihj"), "SNX401"),
        (lambda: snn_export.simulate(d, data.x_test[:2, :, :4], backend="reference"), "SNX003"),
        (lambda: snn_export.simulate(d, data.x_test[:2] * np.nan, backend="reference"), "SNX004"),
        (lambda: snn_export.simulate(d, data.x_test[:2], backend="reference", record=("spike",)), "SNX005"),
        (lambda: snn_export.save(d, "net.pb", format="pb"), "SNX006"),  # type: ignore[arg-type]
        (lambda: snn_export.verify(d, data.x_test[:2], reference="loihi", targets=["loihi"]), "SNX007"),
        (lambda: snn_export.verify(d, data.x_test[:2], np.zeros(3, int), reference="reference", targets=["loihi"]), "SNX007"),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert caught.value.code == code


def test_student_against_its_own_graph(network: nn.Sequential) -> None:
    """The trained module and the folded graph compute the same real numbers: every spike equal, or its flip a tie."""
    data = load_dataset("digits", 0)
    d = snn_export.from_snntorch(network, (1, 8, 8), 8, data.x_train[:8])
    r = snn_export.verify(
        d,
        data.x_test[:64],
        data.y_test[:64],
        reference="student",
        targets=["reference"],
        options={"student": {"layers": network}},
    )
    assert r.passed
    assert {layer.verdict for layer in r.comparisons[0].layers} <= {"EXACT", "TIE"}


@pytest.mark.lava
def test_the_readme_does_what_it_says(network: nn.Sequential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_lava()
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    data = load_dataset("digits", 0)
    names = {"layers": network, "x_train": data.x_train, "x_test": data.x_test[:8], "y_test": data.y_test[:8]}
    monkeypatch.chdir(tmp_path)
    exec(snippet, names)
    assert names["r"].passed
    assert (tmp_path / "net.nir").is_file()
    assert (tmp_path / "net.contract.json").is_file()


def test_a_network_that_a_target_cannot_express_ends_with_3_not_as_a_broken_backend() -> None:
    """snnTorch has no neuron that subtracts once: refused with SNX290, and the pair is not blamed on the backend."""
    torch.manual_seed(0)
    neuron = Lif(dv=1024, surrogate=Surrogate("sigmoid", 4.0), reset="subtract")
    layers = nn.Sequential(OrderedDict(fc=nn.Linear(6, 8), lif=neuron, out=nn.Linear(8, 3), readout=Integrator()))
    inputs = np.random.default_rng(0).uniform(0, 2, (5, 6)).astype(np.float32)
    d = snn_export.from_snntorch(layers, (6,), 6, inputs)
    r = snn_export.verify(d, inputs, np.zeros(5, int), reference="reference", targets=["snntorch"])
    assert not r.passed
    assert r.exit_code == 3
    codes = {gate.name: gate.exit_code for gate in r.gates if "SNX290" in gate.detail}
    assert codes == {"snntorch runs": 3, "snntorch equals reference up to rounding": 3}
