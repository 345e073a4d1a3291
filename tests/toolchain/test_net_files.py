"""lava-dl's ``.net`` files at the commands that take file names."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import snn_export
from snn_export import cli
from snn_export.commands import pipeline_run
from snn_export.export import nir_io
from snn_export.pipeline.verification import forms_beside
from tests.builders import LayerPlan, Plan, deployment_from, even
from tests.networks import with_real_parameters


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run: commands find its quantised network and have nothing to do before."""
    rng = np.random.default_rng(0)
    layer = LayerPlan("lif", even(rng, (5, 4)), dv=30, threshold=70, bias=np.array([1, 2, 0, -3, 9]), bias_exponent=6)
    plan = Plan((4,), (layer, LayerPlan("readout", even(rng, (3, 5)), "lif", dv=9)), steps=6, high=15)
    nir_io.write(with_real_parameters(deployment_from(plan)), tmp_path / "out" / "quantize" / "net.nir")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline_run, "execute", lambda *_, **__: 0)
    return tmp_path


@pytest.mark.parametrize("arguments", [["network.net"], ["network.net", "--format", "net"], ["network", "--format", "net"]])
def test_export_writes_for_netx(arguments: list[str], run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", *arguments, "-o", "out"]) == 0
    assert capsys.readouterr().out.split() == [arguments[0]], "one file: the contract is in it"
    with h5py.File(run_folder / arguments[0]) as file:
        assert file["layer/0/type"][0] == b"dense" and file["layer/0/neuron/vThMant"][()] == 70


def test_export_still_writes_nir_with_its_contract(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "network.nir", "-o", "out"]) == 0
    assert capsys.readouterr().out.split() == ["network.nir", "network.contract.json"]


def test_export_says_what_netx_cannot_hold(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_folder / "out" / "quantize" / "net.nir"
    held = nir_io.read(path)
    exponent = {**held.populations, "lif": type(held.populations["lif"])(70, 4095, 30, 1.0, 2)}
    nir_io.write(with_real_parameters(held.replace(populations=exponent)), path)
    assert cli.main(["export", "network.net", "-o", "out"]) == 3
    said = capsys.readouterr().err
    assert "SNX252" in said and "bias_exponent" in said
    assert not (run_folder / "network.net").exists()


def test_a_net_file_can_be_verified_and_names_no_earlier_forms(run_folder: Path) -> None:
    path = snn_export.save(nir_io.read(run_folder / "out" / "quantize" / "net.nir"), run_folder / "network.net")
    forms = forms_beside(path)
    assert forms.quantised.layers == ("lif", "readout") and forms.folded is None and forms.student is None
    assert [item.status for item in forms.absent] == ["NOT_COMPARED", "NOT_COMPARED"]
