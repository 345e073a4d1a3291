"""``check`` on networks with planted faults and on a small student; the list of rules, and its page."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snn_export
from snn_export import cli, library
from snn_export.commands import check_rules
from snn_export.export import nir_io
from snn_export.export.deployment import Deployment
from snn_export.export.graph import replace_nodes
from snn_export.export.grid import nodes_on_grid
from snn_export.models.diagnostics import Diagnostic
from snn_export.models.spec import EncoderSpec, NeuronSpec
from snn_export.models.students.registry import build_student
from tests.builders import LayerPlan, Plan, deployment_from
from tests.rule_networks import floats, with_node, with_spec

PAGE = Path(__file__).parents[2] / "docs" / "design-rules.md"
SQUARE = np.array([[6, -4, 8], [2, 8, -6], [4, 4, 2]])


def planted(encoder: EncoderSpec | None = None) -> Deployment:
    """Five layers, four of which break a rule: fan-in, delay, bias, reset."""
    layers = (
        LayerPlan("wide", np.full((3, 5000), 2), dv=2048, threshold=1),
        LayerPlan("late", SQUARE, "wide", dv=2048, threshold=1, before=70),
        LayerPlan("biased", SQUARE, "late", dv=2048, threshold=1, bias=np.array([0, 5000, 0])),
        LayerPlan("soft", SQUARE, "biased", dv=2048, threshold=1),
        LayerPlan("out", SQUARE, "soft", dv=2048, threshold=1),
    )
    made = with_spec(deployment_from(Plan((5000,), layers, encoder=encoder)), NeuronSpec(2048, reset="subtract"), "soft")
    return in_real_units(made)


def in_real_units(made: Deployment) -> Deployment:
    """With the NIR parameters that belong to its integers, so that it can be written."""
    nodes = nodes_on_grid(made, made.contract.encoder, made.synapses, made.populations)
    return made.replace(graph=replace_nodes(made.graph, nodes))


EXPECTED = {
    # where: code, the value, the limit, a word of the fix
    "wide": ("SNX480", "5,000", "4,096", "channels"),
    "late.weight": ("SNX327", "70", "62", "shorten"),
    "biased.weight": ("SNX304", "5000", "-4096..4095", "quantise"),
    "soft": ("SNX203", "subtract", "zero", "loihi2"),
}


def agree(found: list[Diagnostic], expected: dict[str, tuple[str, str, str, str]]) -> None:
    assert sorted((item.where, item.code) for item in found) == sorted((where, told[0]) for where, told in expected.items())
    for item in found:
        _, value, limit, fix = expected[item.where]
        assert value in item.what
        assert limit in item.what + item.why
        assert fix in item.fix


def test_five_planted_faults_of_a_quantised_network_are_told_at_once() -> None:
    mixed = {"out": ("SNX245", "3 different", "1", "one threshold")}
    agree(snn_export.check(with_node(planted(), "out", v_threshold=[1, 2, 3]), "loihi1"), {**EXPECTED, **mixed})
    clean = deployment_from(Plan((4,), (LayerPlan("layer", np.full((3, 4), 2), dv=2048, threshold=1),)))
    assert snn_export.check(clean, "loihi1") == []


def test_five_planted_faults_of_a_float_network_are_told_at_once() -> None:
    float_net = with_node(floats(planted(EncoderSpec("direct", gain=1.0, high=16))), "out", v_threshold=[1, 2, 3])
    expected = {
        "wide": EXPECTED["wide"],
        "wide -> late": ("SNX230", "70", "62", "shorten"),
        "soft": ("SNX203", "subtract", "zero", 'reset_mechanism="zero"'),
        "out": ("SNX261", "out", "one of each", "threshold"),
        "contract.encoder": ("SNX247", "graded", "binary", "input_as_bias"),
    }
    agree(snn_export.check(float_net, "loihi1"), expected)


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """The quantised network as a file, whose graded input is the fifth fault."""
    return nir_io.write(planted(EncoderSpec("direct", gain=1.0, high=2)), tmp_path / "faulty.nir")


def checked(path: Path, *arguments: str) -> int:
    return cli.main(["check", str(path), *arguments])


def test_the_command_lists_exactly_five_and_exits_with_3(faulty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(faulty, "--target", "loihi1", "--format", "json") == 3
    (file,) = json.loads(capsys.readouterr().out)["files"]
    graded = {"contract.encoder": ("SNX247", "graded", "binary", "input_as_bias")}
    agree([Diagnostic(**item) for item in file["findings"]], {**EXPECTED, **graded})
    assert checked(faulty, "--target", "loihi1") == 3
    out = capsys.readouterr().out
    assert "5 findings for loihi1" in out
    assert all(told in out for where in EXPECTED for told in (where, *EXPECTED[where]))


def test_what_can_be_expressed_and_does_not_fit_exits_with_1(faulty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loihi 2 subtracts, takes graded input, and its axons are not published."""
    assert checked(faulty, "--target", "loihi2", "--format", "json") == 1
    (file,) = json.loads(capsys.readouterr().out)["files"]
    agree([Diagnostic(**item) for item in file["findings"]], {name: EXPECTED[name] for name in ("late.weight", "biased.weight")})


def test_sarif_holds_the_five_with_their_pages(faulty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(faulty, "--target", "loihi1", "--format", "sarif") == 3
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert sorted(item["ruleId"] for item in run["results"]) == ["SNX203", "SNX247", "SNX304", "SNX327", "SNX480"]
    assert {item["level"] for item in run["results"]} == {"error"}
    assert len(run["tool"]["driver"]["rules"]) == 5


def test_a_warning_and_a_note_are_shown_and_end_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = (LayerPlan("layer", np.full((1024 * 128 + 1, 2), 2), dv=2048, threshold=131_071),)
    made = deployment_from(Plan((2,), layers))
    path = nir_io.write(in_real_units(made), tmp_path / "large.nir")
    assert checked(path, "--target", "loihi1") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{path}: nothing stands in the way of loihi1; 1 warning, 1 note\n  129 cores, which is 2 chips; ")
    assert "for loihi1" not in out and "SNX483  note" in out
    assert out.index("SNX484") < out.index("SNX483"), "warnings come before notes"
    assert checked(path, "--target", "loihi1", "--chips", "1") == 1
    assert "SNX482" in capsys.readouterr().out


# --- the digits student ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def student() -> tuple[Deployment, Any]:
    """The student of the digits, untrained, and inputs for it."""
    rng = np.random.default_rng(0)
    inputs = rng.uniform(0, 1, (8, 1, 8, 8)).astype(np.float32)
    built = build_student("convnet", input_shape=(1, 8, 8), classes=10, steps=8).eval()
    return library.from_snntorch(built.layers, (1, 8, 8), 8, inputs), inputs


def test_the_digits_student_keeps_to_the_rules(student: tuple[Deployment, Any]) -> None:
    float_net, inputs = student
    assert snn_export.check(float_net, "loihi2") == []
    assert snn_export.check(snn_export.quantize(float_net, inputs), "loihi2") == []


def test_on_loihi_1_it_lacks_input_as_bias_and_nothing_else(student: tuple[Deployment, Any]) -> None:
    float_net, inputs = student
    for deployment in (float_net, snn_export.quantize(float_net, inputs)):
        (finding,) = snn_export.check(deployment, "loihi1")
        assert finding.code == "SNX247"
        assert "input_as_bias" in finding.fix
    assert snn_export.check(library.with_input_as_bias(float_net), "loihi1") == []
    quantised = snn_export.quantize(float_net, inputs, "loihi1", input_as_bias=True)
    assert snn_export.check(quantised, "loihi1") == []


def test_a_check_imports_no_framework(student: tuple[Deployment, Any], tmp_path: Path) -> None:
    """Float and quantised, for every target, from the command line: nothing that trains, simulates or draws."""
    float_net, inputs = student
    paths = [nir_io.write(float_net, tmp_path / "float.nir")]
    paths.append(nir_io.write(snn_export.quantize(float_net, inputs), tmp_path / "net.nir"))
    program = (
        "import sys\n"
        "from snn_export import cli\n"
        "for target in ('loihi1', 'loihi2', 'loihi', 'lava', 'netx'):\n"
        "    cli.main(['check', *sys.argv[1:], '--target', target])\n"
        "heavy = {'torch', 'snntorch', 'numba', 'networkx', 'matplotlib', 'sklearn', 'onnx', 'pandas', 'lava', 'jinja2'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found\n"
    )
    command = [sys.executable, "-P", "-c", program, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("nothing stands in the way of loihi2") == 2
    assert done.stdout.count("SNX247") == 2


# --- the list of rules -----------------------------------------------------------------------------------------------


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == check_rules.markdown(), f"made anew by: {check_rules.MADE_BY}"


def test_the_list_as_json_and_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--list", "--format", "json", "-o", str(tmp_path / "rules.md")]) == 0
    rows = json.loads(capsys.readouterr().out)
    (axons,) = [row for row in rows if row["code"] == "SNX480" and row["targets"] == ["loihi1"]]
    assert axons["limit"] == "4,096 axons per core"
    assert "10.1109/MM.2018.112130359" in axons["source"]
    assert (axons["exit_code"], axons["severity"]) == (1, "error")
    assert (tmp_path / "rules.md").read_text(encoding="utf-8") == check_rules.markdown()
    assert cli.main(["check", "--list"]) == 0
    assert "4,096 axons per core" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--list", "net.nir"], ["net.nir", "-o", "x.md"], ["--list", "--format", "sarif"]])
def test_what_does_not_go_together_is_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", *arguments]) == 2
    assert "check" in capsys.readouterr().err


def test_a_finding_fails_a_gate_or_is_inexpressible_by_its_code() -> None:
    finding = Diagnostic("SNX480", "", "", "", "")
    expected = {
        "SNX203": 3,
        "SNX304": 1,
        "SNX440": 4,
        "SNX450": 2,
        "SNX453": 1,
        "SNX454": 1,
        "SNX458": 1,
        "SNX480": 1,
        "SNX499": 1,
    }
    assert {code: replace(finding, code=code).exit_code for code in expected} == expected
