"""``snn-export lint`` from the outside: what it prints about files of other programs, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from snn_export import cli
from snn_export.export import nir_io
from tests.networks import dense_net, read

FIXTURES = Path(__file__).parents[1] / "fixtures" / "nir"


def lint(*arguments: object) -> int:
    return cli.main(["lint", *map(str, arguments)])


def test_a_file_that_says_all_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint(FIXTURES / "spikingjelly_cnn.nir") == 0
    out = capsys.readouterr().out
    for text in ("SpikingJelly", "r = tau / dt holds with dt = 0.0001", "inferred", "4 x 6 x 6", "refuses to write a soft reset"):
        assert text in out


def test_a_reset_that_nobody_stated_ends_with_2_until_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint(FIXTURES / "snntorch_recurrent_cuba.nir") == 2
    out = capsys.readouterr().out
    assert "SNX168" in out
    assert "--reset zero" in out
    assert "1.lif -> 1.w_rec -> 1.lif" in out
    assert lint(FIXTURES / "snntorch_recurrent_cuba.nir", "--reset", "zero") == 0
    assert "SNX168" not in capsys.readouterr().out


def test_what_is_assumed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint(FIXTURES / "norse_cnn.nir", "--dt", "1e-6") == 0
    out = capsys.readouterr().out
    assert "assumed: reset zero" in out
    assert "override with --reset" in out


def test_a_step_the_network_cannot_follow_ends_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint(FIXTURES / "norse_cnn.nir", "--dt", "1") == 3
    assert "SNX266" in capsys.readouterr().out


def test_json_holds_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint(FIXTURES / "sinabs_dense.nir", "--format", "json") == 2
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == 2
    assert (found["nir_version"], found["writer"]["name"], found["contract"]) == ("1.0.4", "sinabs", False)
    assert found["dt"] == {"value": None, "from": "unknown", "candidates": found["dt"]["candidates"]}
    assert [step["dt"] for step in found["dt"]["candidates"]] == [1.0]
    assert found["reset"]["value"] is None
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert layers["1"]["shape"] == [8]
    assert layers["1"]["constants"]["tau"] == [4.0, 4.0]
    assert [item["code"] for item in found["findings"] if item["severity"] == "error"] == ["SNX167", "SNX168"]
    assert set(found["findings"][0]) == {"code", "what", "where", "why", "fix", "severity"}


def test_our_own_file_states_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = nir_io.write(read(dense_net(), (4,)), tmp_path / "ours.nir")
    assert lint(path) == 0
    assert "no findings" in capsys.readouterr().out
    assert lint(path, "--reset", "none") == 2
    assert "SNX172" in capsys.readouterr().out


def test_no_file_and_no_step_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lint(tmp_path / "none.nir") == 2
    assert "SNX101" in capsys.readouterr().err
    assert lint(FIXTURES / "norse_cnn.nir", "--dt", "nan") == 2
    assert "SNX109" in capsys.readouterr().err


def test_lint_needs_no_framework() -> None:
    program = (
        "import sys\nfrom snn_export import cli\n"
        f"cli.main(['lint', {str(FIXTURES / 'norse_cnn.nir')!r}])\n"
        "found = {'torch', 'snntorch', 'norse'} & set(sys.modules)\nassert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
