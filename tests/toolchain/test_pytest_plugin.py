"""The pytest plugin, run by a pytest of its own in a process of its own."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from snn_export import load, save
from snn_export.export import encoding
from snn_export.export.deployment import Deployment
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.registry import simulator
from snn_export.models.diagnostics import UserError
from snn_export.models.neurons.integrator import Integrator
from snn_export.models.spec import EncoderSpec
from snn_export.pytest_plugin import PROPERTY, folder_name
from snn_export.reporting.json_file import read_report
from snn_export.reporting.layer_text import WIDTH, failure_text, headline
from snn_export.verification.compare import Tolerance
from snn_export.verification.direct import verify_backends
from snn_export.verification.example_inputs import example_inputs
from tests import report_examples
from tests.conftest import REPOSITORY
from tests.lava_environment import require_lava
from tests.networks import conv_net, dense_net, leaky, named, quantised, read

pytest_plugins = ["pytester"]

BACKENDS = '''
"""A backend that misreads the weights of fc2, and one that is not there."""
import sys
from dataclasses import replace
from types import ModuleType

from snn_export.hardware_sims import registry
from snn_export.hardware_sims.loihi.simulator import LoihiSimulator
from snn_export.hardware_sims.simulator import Availability


class Faulty:
    name = "faulty"

    def __init__(self):
        self.real = LoihiSimulator()
        self.capabilities, self.check = self.real.capabilities, self.real.check

    def availability(self):
        return Availability(True)

    def compile(self, deployment):
        synapse = deployment.synapses["fc2"]
        weight = synapse.weight.copy()
        weight[1] = -weight[1]
        return self.real.compile(deployment.replace(synapses={**deployment.synapses, "fc2": replace(synapse, weight=weight)}))

    def run(self, program, inputs, record):
        return replace(self.real.run(program, inputs, record), backend=self.name)


class Absent(Faulty):
    name = "absent"

    def availability(self):
        return Availability(False, "its environment is not there", "snn-export backends install absent")


module = ModuleType("backends_of_this_test")
module.Faulty, module.Absent = Faulty, Absent
sys.modules[module.__name__] = module
own = {kind.name: f"{module.__name__}:{kind.__name__}" for kind in (Faulty, Absent)}
registry.BUILT_IN = {**registry.BUILT_IN, **own}
'''


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with net.nir, a network that cannot fire, and the two backends."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the plugin is named, whether it is registered here or not
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    save(quantised(read(dense_net(), (4,))), pytester.path / "net.nir")
    torch.manual_seed(0)
    lif = leaky(700, 5.0)
    silent = named(fc1=nn.Linear(4, 6, bias=False), lif1=lif, fc2=nn.Linear(6, 3, bias=False), readout=Integrator())
    save(quantised(read(silent, (4,))), pytester.path / "silent.nir")
    pytester.makeconftest(BACKENDS)
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", "snn_export.pytest_plugin", "-p", "no:cacheprovider", *arguments)


TESTS = """
import numpy as np
import pytest
import snn_export as library

X, Y = np.random.default_rng(0).uniform(0, 1, (16, 4)), np.zeros(16, int)


def test_equal(snn_export):
    report = snn_export.assert_equivalent("net.nir", "loihi", "onnxruntime", "reference")
    assert report.passed and len(report.comparisons) == 2
    assert report.samples == 32
    assert snn_export.verify("net.nir", "loihi", "faulty", inputs=X).exit_code == 1


def test_deployment_and_labels(snn_export):
    snn_export.assert_equivalent(library.load("net.nir"), "loihi", "onnxruntime", inputs=X, labels=Y, exact=True)


def test_rules(snn_export):
    snn_export.check("net.nir", "loihi2")


def test_fault(snn_export):
    snn_export.assert_equivalent("net.nir", "loihi", "onnxruntime", "faulty")


def test_fault_is_an_assertion_error(snn_export):
    with pytest.raises(AssertionError, match="DRIFT: faulty differs from loihi, first in lif2"):
        snn_export.assert_equivalent("net.nir", "loihi", "faulty")


def test_absent(snn_export):
    snn_export.assert_equivalent("net.nir", "loihi", "absent")


def test_absent_reference_skipped(snn_export):
    snn_export.assert_equivalent("net.nir", "absent", "loihi", skip_unavailable=True)


def test_absent_skipped_after_the_others(snn_export):
    snn_export.assert_equivalent("net.nir", "loihi", "absent", "onnxruntime", skip_unavailable=True)


def test_absent_does_not_hide_a_fault(snn_export):
    snn_export.assert_equivalent("net.nir", "loihi", "absent", "faulty", skip_unavailable=True)


def test_misspelt(snn_export):
    snn_export.assert_equivalent("net.nir", "loihi", "lvaa", skip_unavailable=True)


def test_no_such_layer(snn_export):
    snn_export.assert_equivalent("net.nir", "reference", "loihi", layers={"lif9": 1.0})


def test_layer(snn_export):
    limits = {"spike_mismatch": 100, "decision_mismatch": 100, "layers": {"lif2": 0.5}}
    snn_export.assert_equivalent("net.nir", "reference", "faulty", **limits)


def test_bits_of_floats(snn_export):
    snn_export.assert_equivalent("net.nir", "reference", "loihi", exact=True)


def test_silence(snn_export):
    snn_export.assert_equivalent("silent.nir", "loihi", "onnxruntime")


def test_labels_alone(snn_export):
    snn_export.assert_equivalent("net.nir", "loihi", "onnxruntime", labels=Y)


def test_accuracy_without_labels(snn_export):
    snn_export.assert_equivalent("net.nir", "loihi", "onnxruntime", inputs=X, accuracy_drop=1.0)


def test_no_file(snn_export):
    snn_export.assert_equivalent("no.nir", "loihi", "onnxruntime")


def test_broken_rules(snn_export):
    snn_export.check("net.nir", "netx")
"""

SECTIONS = {
    # what each failed test shows, beginning and more
    "test_fault": ("DRIFT: faulty differs from loihi, first in lif2 (32 samples, 8 steps)", "lif2     DRIFT"),
    "test_absent": ("UNAVAILABLE: absent against loihi", "snn-export backends install absent"),
    "test_absent_does_not_hide_a_fault": ("DRIFT: faulty differs from loihi", "lif1     EXACT"),
    "test_misspelt": ("SNX401 no backend is called 'lvaa'", "did you mean 'lava'?"),
    "test_no_such_layer": ("FAIL: lif9 is a layer of this run", "SNX530"),
    "test_layer": ("DRIFT: faulty differs from reference", "at most 0.5 % without a counterpart"),
    "test_bits_of_floats": ("FAIL: loihi equals reference bit for bit", "different numbers"),
    "test_silence": ("FAIL: the network fires: 0 spikes", "agreement about nothing"),
    "test_labels_alone": ("SNX531", "pass the inputs too"),
    "test_accuracy_without_labels": ("SNX532", "leave accuracy_drop out"),
    "test_no_file": ("SNX101", "no.nir"),
    "test_broken_rules": ("3 design rules of netx broken", "SNX252"),
}


def sections(output: str) -> dict[str, str]:
    """What pytest shows of each failed test."""
    shown = output.partition("= FAILURES =")[2]
    shown = re.split(r"^(?:={3,} [a-z]|-{3,} generated)", shown.partition("\n")[2], flags=re.MULTILINE)[0]
    parts = re.split(r"^_{3,} (\S+) _{3,}$", shown, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))


def test_each_check_passes_fails_and_skips_as_it_says(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=TESTS)
    result = run(project, "--snn-export-report", "reports", "--junitxml", "junit.xml", "-rs")
    result.assert_outcomes(passed=4, failed=12, skipped=2)
    found = sections(result.stdout.str())
    assert found.keys() == SECTIONS.keys()
    for name, (beginning, more) in SECTIONS.items():
        assert found[name].startswith(beginning), found[name]
        assert more in re.sub(r"\n\s+", " ", found[name]), found[name]
        assert "Traceback" not in found[name]
        assert ".py:" not in found[name], "no traceback"
    table = found["test_fault"].splitlines()
    assert max(map(len, table[:-2])) <= WIDTH
    shown = "\n".join(line for line in table if re.match(r"(layer|lif1|lif2|readout) ", line))
    for page in ("README.md", "docs/pytest.md"):
        assert shown in (REPOSITORY / page).read_text(encoding="utf-8"), f"{page} shows another table:\n{shown}"
    assert table[-2] == f"Whole report: {project.path}/reports/{folder_name('test_it.py::test_fault')}/report.html"
    smallest = "Smallest case: snn-export bisect net.nir --reference loihi --target faulty --inputs "
    assert table[-1] == smallest + table[-2].removeprefix("Whole report: ").replace("report.html", "inputs.npz")
    inputs = np.load(Path(table[-1].removeprefix(smallest)))["inputs"]
    assert np.array_equal(inputs, example_inputs(load(project.path / "net.nir")))
    assert any(line.startswith("First layer at fault by itself: lif2 (faulty's run leaves the contract") for line in table)
    result.stdout.fnmatch_lines(
        [
            "*snn-export reports*",
            f"failed: test_it.py::test_fault: {project.path}/reports/*test_fault-*/report.html",
            "SKIPPED*absent is not available: its environment is not there (snn-export backends install absent)*",
            "SKIPPED*loihi agrees with onnxruntime; not compared: absent is not available*",
        ],
        consecutive=False,
    )
    _see_reports(project.path)


def _see_reports(root: Path) -> None:
    """One folder per comparison, readable names, and JUnit XML that says where."""
    names = sorted(folder.name for folder in (root / "reports").iterdir())
    first = folder_name("test_it.py::test_equal")
    assert {first, f"{first}-2"} <= set(names), "a test that compares twice"
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in names)
    for name in names:
        report = read_report(root / "reports" / name / "report.json")
        assert (root / "reports" / name / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        assert report.comparisons
    tree = ElementTree.parse(root / "junit.xml")
    cases = {case.get("name"): case for case in tree.iter("testcase")}
    places = {item.get("value") for item in cases["test_equal"].iter("property") if item.get("name") == PROPERTY}
    assert places == {str(root / "reports" / name / "report.html") for name in (first, f"{first}-2")}


def test_with_workers_the_summary_still_says_where(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        def test_equal(snn_export):
            snn_export.assert_equivalent("net.nir", "loihi", "onnxruntime", samples=4)

        def test_fault(snn_export):
            snn_export.assert_equivalent("net.nir", "loihi", "faulty", samples=4)
        """
    )
    result = run(project, "-p", "xdist.plugin", "-n", "2", "--snn-export-report", "reports")
    result.assert_outcomes(passed=1, failed=1)
    assert sections(re.sub(r"\n\[gw\d\].*", "", result.stdout.str()))["test_fault"].startswith("DRIFT: faulty differs")
    result.stdout.fnmatch_lines([f"passed: test_it.py::test_equal: {project.path}/reports/test_it.py-test_equal-*/report.html"])
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_fault - DRIFT: faulty *"])


def test_a_style_of_traceback_that_was_asked_for_is_shown(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it='def test_fault(snn_export):\n    snn_export.assert_equivalent("net.nir", "loihi", "faulty", samples=4)\n'
    )
    result = run(project, "--tb=short")
    result.stdout.fnmatch_lines(["test_it.py:2: in test_fault", "E   *SnnExportError: DRIFT: faulty differs from loihi*"])
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_collecting_imports_nothing_heavy(project: pytest.Pytester) -> None:
    (project.path / "conftest.py").unlink()
    project.makepyfile(
        test_it="""
        import sys

        def test_imported(snn_export):
            assert type(snn_export).__name__ == "SnnExport"
            names = sorted(name for name in sys.modules if name.partition(".")[0] == "snn_export")
            assert names == ["snn_export", "snn_export.pytest_plugin"]
            assert not {"numpy", "torch", "nir", "pydantic", "jinja2", "click", "rich"} & sys.modules.keys()
        """
    )
    run(project, "--snn-export-report", "reports").assert_outcomes(passed=1)
    assert not (project.path / "reports").exists(), "nothing was compared, nothing is written"


def test_it_is_registered_under_its_name_and_can_be_left_out(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert declared["entry-points"]["pytest11"] == {"snn_export": "snn_export.pytest_plugin"}
    package = pytester.path / "site" / "registers_the_plugin-1.dist-info"  # what an installation would have
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: registers-the-plugin\nVersion: 1\n", encoding="utf-8")
    (package / "entry_points.txt").write_text("[pytest11]\nsnn_export = snn_export.pytest_plugin\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    pytester.makepyfile(test_it="def test_there(snn_export):\n    assert snn_export.assert_equivalent\n")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    result = pytester.runpytest_subprocess("-p", "no:snn_export")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'snn_export' not found*"])


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "pytest.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_tests_in_the_documentation_run(project: pytest.Pytester) -> None:
    first, more = blocks()
    assert '"net.nir", "loihi", "lava"' in first
    (project.path / "conftest.py").unlink()
    project.makepyfile(test_docs=more)
    outcomes = run(project).parseoutcomes()
    assert set(outcomes) <= {"passed", "skipped"}
    assert outcomes["passed"] >= 3
    assert sum(outcomes.values()) == more.count("def test_")


@pytest.mark.lava
def test_the_first_test_in_the_documentation_runs_on_lava(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_lava()
    # named before pytester gives its runs a home of their own, in which no backend is installed
    monkeypatch.setenv("SNN_EXPORT_LAVA_PYTHON", str(environments.interpreter("lava")))
    project: pytest.Pytester = request.getfixturevalue("project")
    project.makepyfile(test_docs=blocks()[0])
    run(project).assert_outcomes(passed=1)


# --- the text ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["example_report", "failing_report", "diverging_report"])
def test_the_table_is_plain_and_narrow(name: str) -> None:
    report = getattr(report_examples, name)()
    place = "Whole report: " + "x" * 300
    text = failure_text(report, (place,))
    assert text.isascii()
    assert text.splitlines()[-1] == place, "a path stays whole"
    assert max(map(len, text.splitlines()[:-1])) <= WIDTH
    assert text.splitlines()[0].startswith(headline(report)[:40])
    for gate in report.gates:
        assert (f"- {gate.name}" in text) == (not gate.passed)


def test_names_from_a_file_cannot_widen_or_steer_the_table() -> None:
    report = report_examples.failing_report()
    found = report.comparisons[0]
    layers = tuple(layer.model_copy(update={"layer": "block." * 30 + "\x1b[31m\u4e00"}) for layer in found.layers)
    changed = report.model_copy(update={"comparisons": (found.model_copy(update={"layers": layers, "verdict": "DRIFT"}),)})
    text = failure_text(changed)
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= WIDTH


@pytest.mark.parametrize(
    "nodeid", ["tests/test_x.py::test_a[loihi/lava-\u00fc]", "test_x.py::Test::test_" + "a" * 300, "..", "test_x.py::test_A[a]"]
)
def test_names_of_folders_are_safe_and_differ(nodeid: str) -> None:
    name = folder_name(nodeid)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|-?[0-9a-f]{8}", name), name
    assert len(name) <= 100
    assert name == folder_name(nodeid)
    assert name.lower() != folder_name(nodeid.swapcase()).lower() or nodeid == nodeid.swapcase()


# --- inputs that are made up -------------------------------------------------------------------------------------------


def made(kind: str) -> Deployment:
    if kind == "image":
        return quantised(read(conv_net(), (2, 9, 7)))
    if kind == "signed":
        return quantised(read(dense_net(), (4,)), low=-1.0)
    if kind == "events":
        return quantised(read(dense_net(), (4,), encoder=EncoderSpec("events")))
    if kind == "rate":
        return read(dense_net(), (4,), encoder=EncoderSpec("rate", full_scale=16.0))
    return read(dense_net(), (4,), encoder=EncoderSpec("bias" if kind == "bias" else "direct"))


@pytest.mark.parametrize("kind", ["image", "signed", "events", "rate", "bias", "direct"])
def test_made_inputs_stay_in_the_declared_range_and_make_every_layer_fire(kind: str) -> None:
    deployment = made(kind)
    inputs = example_inputs(deployment, 12)
    shape = (12, *deployment.input_shape)
    assert inputs.shape == ((deployment.contract.steps, *shape) if kind == "events" else shape)
    assert encoding.signal(deployment, inputs).shape[1] == 12
    backend = simulator("loihi" if deployment.quantised else "reference")
    trace = backend.run(backend.compile(deployment), inputs, ("spikes",))
    assert all(trace.layers[name].counts.any() for name in ("lif1", "lif2"))
    report = verify_backends(
        deployment, inputs, None, backend.name, ["onnxruntime"], {}, accuracy_drop=1.0, tolerance=Tolerance(100.0, 100.0)
    )  # fmt: skip
    outside = [gate for gate in report.gates if gate.name == "inputs lie in the declared range"]
    assert all(gate.passed and gate.measured.startswith("0 of") for gate in outside)
    assert bool(outside) == (kind not in ("bias", "direct"))
    encoder = deployment.contract.encoder
    if kind in ("image", "signed", "events"):
        assert np.array_equal(encoder.values(inputs), inputs), "levels of the grid, nothing is rounded"
        assert inputs.max() * encoder.gain == encoder.high
        assert inputs.min() * encoder.gain == pytest.approx(encoder.low)


def test_the_corners_come_first_and_more_samples_begin_with_the_same_ones() -> None:
    deployment = made("signed")
    few, many = example_inputs(deployment, 7, seed=3), example_inputs(deployment, 30, seed=3)
    assert np.array_equal(few, many[:7])
    assert not np.array_equal(many, example_inputs(deployment, 30, seed=4))
    largest, smallest = many.max(), many.min()
    assert (many[0] == largest).all()
    assert np.count_nonzero(many[3]) == 1
    assert not many[4].any()
    assert (many[5] == smallest).all()
    assert smallest < 0
    assert len(np.unique(many, axis=0)) > 20


def test_a_float_network_gets_a_range_in_which_it_fires() -> None:
    torch.manual_seed(0)
    lif = leaky(700, 40.0)
    deployment = read(named(fc1=nn.Linear(4, 6), lif1=lif, fc2=nn.Linear(6, 3), readout=Integrator()), (4,))
    inputs = example_inputs(deployment, 4)
    assert inputs.max() in (16.0, 64.0, 256.0)
    backend = simulator("reference")
    assert backend.run(backend.compile(deployment), inputs, ("spikes",)).layers["lif1"].counts.any()


def test_no_samples_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        example_inputs(made("direct"), 0)
    assert (caught.value.code, caught.value.exit_code) == ("SNX501", 5)
