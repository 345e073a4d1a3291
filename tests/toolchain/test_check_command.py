"""``snn-export check`` from the outside: what it prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nir
import numpy as np
import pytest

from snn_export import cli
from snn_export.config_schema import PlacementConfig
from snn_export.export import nir_io
from snn_export.hardware_sims.rules import registry
from snn_export.hardware_sims.rules.registry import Examined
from tests.networks import dense_net, quantised, read

DT = 1e-3


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A clean float file, a quantised one, one that subtracts, a foreign one, and none."""
    ones = np.ones(3)
    foreign = nir.NIRGraph(
        {
            "input": nir.Input(np.array([2])), "fc": nir.Linear(np.ones((3, 2))), "output": nir.Output(np.array([3])),
            "n": nir.LIF(ones * 4 * DT, ones, ones * 0, ones, ones * 0),
        },
        [("input", "fc"), ("fc", "n"), ("n", "output")],
    )  # fmt: skip
    nir.write(tmp_path / "foreign.nir", foreign)
    return {
        "float": nir_io.write(read(dense_net(), (4,)), tmp_path / "float.nir"),
        "integers": nir_io.write(quantised(read(dense_net(), (4,))), tmp_path / "integers.nir"),
        "subtracting": nir_io.write(read(dense_net(reset="subtract"), (4,)), tmp_path / "subtracting.nir"),
        "foreign": tmp_path / "foreign.nir", "none": tmp_path / "none.nir",
    }  # fmt: skip


def check(*arguments: object) -> int:
    return cli.main(["check", *map(str, arguments)])


def test_help_loads_neither_numpy_nor_a_framework() -> None:
    program = (
        "import sys\n"
        "from snn_export import cli\n"
        "try:\n"
        "    cli.main(['check', '--help'])\n"
        "finally:\n"
        "    assert not {'numpy', 'torch', 'nir', 'pydantic'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "[loihi1|loihi2|loihi|lava|netx]" in done.stdout


def test_clean_files_end_with_0(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(files["float"], files["integers"]) == 0
    out = capsys.readouterr().out
    assert out.count("nothing stands in the way of loihi2") == 2


def test_findings_end_with_3_and_name_code_place_and_fix(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(files["float"], files["subtracting"], "--target", "lava") == 3
    out = capsys.readouterr().out
    assert "float.nir: nothing stands in the way of lava" in out
    assert "subtracting.nir: 2 findings for lava" in out
    assert out.count("SNX203") == 2
    assert 'reset_mechanism="zero"' in out


def test_json_holds_every_finding(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(files["subtracting"], files["float"], "--target", "loihi1", "--format", "json") == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["target"], found["exit_code"]) == ("loihi1", 3)
    first, second = found["files"]
    assert [item["code"] for item in first["findings"]] == ["SNX203", "SNX203", "SNX247"]
    assert [item["code"] for item in second["findings"]] == ["SNX247"]
    assert set(first["findings"][0]) == {"code", "what", "where", "why", "fix", "severity"}


def test_a_file_that_cannot_be_read_hides_no_other(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(files["none"], files["subtracting"], "--target", "lava") == 2
    out = capsys.readouterr().out
    assert "SNX101" in out
    assert "SNX203" in out


def test_a_foreign_graph_is_checked_with_what_nir_cannot_say(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(files["foreign"], "--steps", 5, "--dt", DT) == 0
    capsys.readouterr()
    assert check(files["foreign"], "--steps", 5, "--dt", 1.0) == 3
    assert "SNX266" in capsys.readouterr().out


def test_a_check_says_how_much_of_the_chip_is_taken(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(files["integers"]) == 0
    assert "1 core of 128; fullest limit of a core: " in capsys.readouterr().out
    assert check(files["integers"], files["none"], "--format", "json") == 2
    fit, none = (file["placement"] for file in json.loads(capsys.readouterr().out)["files"])
    assert (fit["cores"], fit["chips"], none) == (1, 1, None)
    assert 0 < max(fit["fullest"].values()) <= 1
    assert "input axons" in fit["unchecked"]


def test_decays_between_two_of_the_chip_hide_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """10 ms at 1 ms per step is the most common time constant there is, and no integer decay."""
    ones, many = np.ones(3), 5000
    graph = nir.NIRGraph(
        {
            "input": nir.Input(np.array([many])), "output": nir.Output(np.array([3])),
            "fc": nir.Linear(np.ones((3, many)) * 1e-3), "n": nir.LIF(ones * 10 * DT, ones, ones * 0, ones, ones * 0),
        },
        [("input", "fc"), ("fc", "n"), ("n", "output")],
    )  # fmt: skip
    path = tmp_path / "foreign.nir"
    nir.write(path, graph)
    stated = (path, "--steps", 10, "--dt", DT, "--target", "loihi1", "--format", "json")

    def codes(*more: str) -> list[str]:
        check(*stated, *more)
        (file,) = json.loads(capsys.readouterr().out)["files"]
        return [item["code"] for item in file["findings"]]

    assert codes() == ["SNX241", "SNX247", "SNX480"]
    assert codes("--round-decays") == ["SNX247", "SNX480"]
    assert codes("--round-decays", "--encoder", "events") == ["SNX480"]


def test_a_file_of_another_program_is_asked_for_its_steps(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(files["foreign"]) == 2
    assert "--steps 100 --dt 1e-3" in " ".join(capsys.readouterr().out.split())


def test_the_folder_of_a_run_stands_for_its_network(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (run / "quantize").mkdir(parents=True)
    files["integers"].rename(run / "quantize" / "net.nir")
    assert check(run) == 0
    (tmp_path / "empty").mkdir()
    (tmp_path / "report.json").write_text("{}")
    capsys.readouterr()
    for path in (tmp_path / "empty", tmp_path / "report.json"):
        assert check(path) == 2
        assert "give a network: a file that ends in .nir or .net" in " ".join(capsys.readouterr().out.split())


def test_as_many_chips_as_the_settings_allow_unless_told_otherwise(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(registry, "examined", lambda deployment, target, chips: asked.append(chips) or Examined([], None))
    monkeypatch.chdir(tmp_path)
    assert check(files["float"]) == 0
    (tmp_path / "snn-export.toml").write_text("[placement]\nchips = 7\n", encoding="utf-8")
    assert check(files["float"]) == 0 and check(files["float"], "--chips", 9) == 0
    assert asked == [PlacementConfig().chips, 7, 9]
