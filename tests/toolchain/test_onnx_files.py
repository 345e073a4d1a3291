"""``snn-export export --to onnx``, what it tells, and the backend in a verification of a whole run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import snn_export
from snn_export import cli
from snn_export.commands import pipeline_run
from snn_export.data.registry import load_dataset
from snn_export.export import nir_io
from snn_export.hardware_sims import registry
from tests.builders import LayerPlan, Plan, deployment_from, even
from tests.conftest import FinishedRun
from tests.networks import with_real_parameters

DOCS = Path(__file__).parents[2] / "docs" / "onnx.md"
BACKEND = "snn_export.hardware_sims.onnxruntime.simulator:OnnxRuntimeSimulator"


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run: commands find its quantised network and have nothing to do before."""
    rng = np.random.default_rng(0)
    layer = LayerPlan("lif", even(rng, (5, 4)), dv=30, threshold=70)
    plan = Plan((4,), (layer, LayerPlan("readout", even(rng, (3, 5)), "lif", dv=9)), steps=6, high=15)
    nir_io.write(with_real_parameters(deployment_from(plan)), tmp_path / "out" / "quantize" / "net.nir")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline_run, "execute", lambda *_, **__: 0)
    return tmp_path


@pytest.mark.parametrize(
    "arguments", [["net.onnx"], ["net.onnx", "--to", "onnx"], ["network", "--to", "onnx"], ["n", "--format", "onnx"]]
)
def test_export_writes_one_file_and_tells_how_to_run_it(
    arguments: list[str], run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", *arguments, "-o", "out"]) == 0
    said = capsys.readouterr()
    assert said.out.split() == [arguments[0]]
    lines = [line.strip() for line in said.err.splitlines() if line.startswith("    ")]
    assert len(lines) == 3
    inputs = np.random.default_rng(1).integers(0, 16, (7, 4)).astype(float)
    names: dict[str, Any] = {"inputs": inputs, "onnxruntime": onnxruntime}
    exec("\n".join(lines), names)
    trace = snn_export.simulate(nir_io.read(run_folder / "out" / "quantize" / "net.nir"), inputs, "loihi")
    np.testing.assert_array_equal(names["readout"], trace.readout)
    np.testing.assert_array_equal(names["predictions"], trace.predictions)


def test_probes_states_and_an_existing_file(run_folder: Path) -> None:
    (run_folder / "net.onnx").write_text("an older file")
    assert cli.main(["export", "net.onnx", "-o", "out", "--probe", "spikes", "--probe", "current", "--streaming"]) == 0
    model = onnx.load("net.onnx")
    outputs = {output.name for output in model.graph.output}
    assert outputs >= {"spikes/lif", "current/lif", "spikes/readout", "current/readout", "next/v/lif", "next/v/readout"}
    assert not any(name.startswith("membrane/") for name in outputs)
    assert {item.name for item in model.graph.input} == {"input", "state/v/lif", "state/v/readout"}


def test_options_of_onnx_are_refused_elsewhere(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "net.nir", "-o", "out", "--streaming"]) == 2
    assert "SNX161" in capsys.readouterr().err
    assert not (run_folder / "net.nir").exists()


def test_the_backend_verifies_both_forms_of_the_digits_student(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Integers against loihi bit for bit, floats against the folded graph up to ties; and a demanded pair is held to bits."""
    root = finished_run.copy(tmp_path / "run")
    monkeypatch.setitem(registry.BUILT_IN, "onnxruntime", BACKEND)  # type: ignore[arg-type]
    monkeypatch.setenv("SNN_EXPORT_ENVS", str(tmp_path / "none"))
    monkeypatch.chdir(root)
    capsys.readouterr()
    code = cli.main([
        "verify", "out/quantize/net.nir", "--format", "json", "--set", "verify.backends.lava.required=false",
        "--set", "verify.backends.onnxruntime.required=true", "--set", 'gates.exact=[["loihi", "onnxruntime"]]',
    ])  # fmt: skip
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    found = {(c["reference"], c["target"]): c for c in report["comparisons"]}
    exact, real = found["loihi", "onnxruntime"], found["folded", "onnxruntime_float"]
    assert exact["verdict"] == "EXACT"
    assert real["verdict"] in ("EXACT", "TIE")
    assert exact["samples"] == real["samples"] == 360
    for layer in exact["layers"]:
        assert layer["mismatched_spikes"] == layer["mismatched_membranes"] == layer["mismatched_currents"] == 0
        assert layer["positions"] == layer["membranes_compared"] == layer["currents_compared"] > 0
    assert sum(layer["reference_spikes"] for layer in exact["layers"]) > 1000


def test_the_code_in_the_documentation_runs(finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the digits student: the file, and a sample in parts, give what loihi gives."""
    deployment = snn_export.load(finished_run.folder / "quantize" / "net.nir")
    monkeypatch.chdir(tmp_path)
    snn_export.save(deployment, "net.onnx")
    snn_export.save(deployment, "stream.onnx", streaming=True)
    inputs = load_dataset("digits", 0).test.x[:50]
    steps = deployment.contract.steps
    whole = np.repeat(inputs[None], steps, axis=0)
    names: dict[str, Any] = {"inputs": inputs, "parts": [whole[:3], whole[3:4], whole[4:]]}
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    expected = snn_export.simulate(deployment, inputs, "loihi")
    assert len(blocks) == 2
    for block in blocks:
        names.pop("predictions", None)
        exec(block, names)
        np.testing.assert_array_equal(names["predictions"], expected.predictions)
    np.testing.assert_array_equal(names["readout"], expected.readout)
    np.testing.assert_array_equal(names["found"]["readout"], expected.readout)
