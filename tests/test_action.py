"""The composite action: its steps run here as the service would run them, in a repository that holds only settings.

What differs from the service: ``uses:`` steps are left out, and the step that installs is replaced by the program under test.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from snn_export.config import load_config
from snn_export.reporting.json_file import read_report, write_report
from tests.conftest import CONFIG

ROOT = Path(__file__).parents[1]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
INSTALL = "Install snn-export"
ANNOTATION = re.compile(r"^::(error|warning|notice) title=([^:,]*)::(.*)$", re.MULTILINE)


@dataclass
class Job:
    """A job of the service with one step that uses the action.

    Attributes:
        folder: the repository.
        inputs: what the workflow gives.
        outputs: of the steps, by id.
        log: what they print.
        ran: names of the steps that ran.
        code: exit code of the first step that failed, else 0.
    """

    folder: Path
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    log: str = ""
    ran: list[str] = field(default_factory=list)
    code: int = 0

    @property
    def files(self) -> Path:
        """Where the service keeps its own files."""
        path = self.folder.with_name(f"{self.folder.name}-service")
        path.mkdir(exist_ok=True)
        return path

    def run(self, *only: str) -> Job:
        """All steps with a script, or those of these names."""
        for step in STEPS:
            if "run" not in step or step["name"] == INSTALL or (only and step["name"] not in only):
                continue
            if self._wanted(step.get("if", "")):
                self._step(step)
        return self

    def annotations(self) -> list[tuple[str, str, str]]:
        """Kind, title and message."""
        return [match.groups() for match in ANNOTATION.finditer(self.log)]  # type: ignore[misc]

    def summary(self) -> str:
        """What the page of the job shows."""
        return (self.files / "summary.md").read_text(encoding="utf-8")

    def _step(self, step: dict[str, Any]) -> None:
        output = self.files / "output"
        output.write_text("", encoding="utf-8")
        given = {name: self._text(text) for name, text in step.get("env", {}).items()}
        script = self.files / "script.sh"
        script.write_text(step["run"], encoding="utf-8")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.folder, env={**os.environ, **self._surroundings(output), **given}, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip
        self.log += done.stdout + done.stderr
        self.ran.append(step["name"])
        self.code = self.code or done.returncode
        pairs = (line.partition("=") for line in output.read_text(encoding="utf-8").splitlines())
        self.outputs[step.get("id", step["name"])] = {name: value for name, _, value in pairs}

    def _surroundings(self, output: Path) -> dict[str, str]:
        programs = self.files / "bin"
        programs.mkdir(exist_ok=True)
        program = programs / "snn-export"
        if not program.exists():
            program.write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} -P -m snn_export "$@"\n', encoding="utf-8")
            program.chmod(0o755)
        return {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.files / "summary.md"),
            "GITHUB_ACTIONS": "true",
            "SNN_EXPORT_ENVS": str(self.files / "environments"),
        }

    def _text(self, template: str) -> str:
        return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(self._value(found[1])), template)

    def _wanted(self, condition: str) -> bool:
        """Whether a step runs; without a status function only while nothing failed."""
        inner = condition.strip().removeprefix("${{").removesuffix("}}").strip()
        if "cancelled()" not in inner and self.code:
            return False
        return bool(self._value(inner)) if inner else True

    def _value(self, expression: str) -> Any:
        """An expression of the few kinds that the action uses."""
        names: dict[str, Any] = {"cancelled": lambda: False, "github_action_path": str(ROOT)}
        names |= {f"inputs_{_bare(name)}": self._input(name) for name in ACTION["inputs"]}
        names |= {
            f"steps_verify_outputs_{_bare(name)}": self.outputs.get("verify", {}).get(name, "") for name in ACTION["outputs"]
        }
        words = re.sub(r"[a-z_]+(?:\.[a-z_-]+)+", lambda found: _bare(found[0]), expression)
        python = words.replace("&&", " and ").replace("||", " or ").replace("!cancelled", "not cancelled")
        return eval(python, {"__builtins__": {}}, names)

    def _input(self, name: str) -> str:
        unknown = self.inputs.keys() - ACTION["inputs"].keys()
        assert not unknown
        return self.inputs.get(name, ACTION["inputs"][name].get("default", ""))


def _bare(name: str) -> str:
    return name.replace(".", "_").replace("-", "_")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with nothing but settings, with short training."""
    folder = tmp_path_factory.mktemp("ci") / "repository"
    folder.mkdir()
    (folder / "snn-export.toml").write_text(CONFIG.format(required="false"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def passing(repository: Path) -> Job:
    return Job(repository, {"output": "out"}).run()


@pytest.fixture
def changed(passing: Job, tmp_path: Path) -> Path:
    """The repository after the job, with its trained networks, to be changed."""
    return Path(shutil.copytree(passing.folder, tmp_path / "repository"))


def test_only_settings_pass(passing: Job) -> None:
    assert passing.code == 0, passing.log
    assert passing.annotations() == []
    assert passing.outputs["verify"] == {"report": "out/report/report.json", "exit-code": "0"}
    assert read_report(passing.folder / passing.outputs["verify"]["report"]).passed
    assert passing.summary().startswith("## ✓ PASS")
    assert {path.name for path in (passing.folder / "out" / "ci").iterdir()} == {"junit.xml", "report.md"}
    assert "::stop-commands::" in passing.log, "names in the report must not be taken for commands"


def test_a_regression_fails_the_job_with_one_annotation_that_names_the_layer(changed: Path) -> None:
    settings = changed / "snn-export.toml"
    settings.write_text(settings.read_text(encoding="utf-8") + "\n[quantize]\nweight_bits = 2\n", encoding="utf-8")
    job = Job(changed, {"output": "out"}).run()
    assert (job.code, job.outputs["verify"]["exit-code"]) == (1, "1"), job.log
    ((kind, title, message),) = job.annotations()
    assert (kind, title) == ("error", "quantised differs from folded in lif1")
    lines = message.replace("%25", "%").split("%0A")
    assert any(re.match(r"first: sample \d+, step \d+, neuron \d+", line) for line in lines)
    assert any(line.startswith("failed because of it: accuracy of loihi:") for line in lines)
    assert job.summary().startswith("## ✗ FAIL")
    results = ElementTree.parse(changed / "out" / "ci" / "junit.xml").getroot()
    assert int(results.get("failures", "0")) > 0


def test_a_baseline_that_was_better_fails_the_job(changed: Path) -> None:
    report = read_report(changed / "out" / "report" / "report.json")
    better = tuple(rung.model_copy(update={"accuracy": 100.0}) if rung.name == "loihi" else rung for rung in report.ladder)
    lower = tuple(layer.model_copy(update={"rate": layer.rate / 2}) for layer in report.activity)
    write_report(report.model_copy(update={"ladder": better, "activity": lower}), changed / "baseline.json")
    verified = {"report": "out/report/report.json", "exit-code": "0"}
    worse = Job(changed, {"baseline": "baseline.json", "output": "out"}, {"verify": verified}).run("Compare with the baseline")
    assert worse.code == 1
    ((_, title, message),) = worse.annotations()
    assert "worse than its baseline" in title
    assert "spikes per inference" in message
    allowed = {"baseline": "baseline.json", "baseline-arguments": "--accuracy-drop 100 --more-spikes 1000"}
    assert Job(changed, allowed, {"verify": verified}).run("Compare with the baseline").code == 0
    absent = Job(changed, allowed, {"verify": {"report": "out/none.json", "exit-code": "2"}}).run("Compare with the baseline")
    assert (absent.code, "no report to compare" in absent.log) == (0, True), "what failed before it stays the reason"
    assert Job(changed, {}, {"verify": verified}).run("Compare with the baseline").ran == []


@pytest.fixture
def told(tmp_path: Path) -> Job:
    """A job whose program only writes down what it is called with."""
    folder = tmp_path / "repository"
    folder.mkdir()
    job = Job(folder)
    programs = job.files / "bin"
    programs.mkdir()
    (programs / "snn-export").write_text(
        f"#!{sys.executable} -P\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\nsys.exit(int({str(folder)!r} in sys.argv))\n",
        encoding="utf-8",
    )
    (programs / "snn-export").chmod(0o755)
    return job


def calls(job: Job) -> list[list[str]]:
    return [json.loads(line) for line in job.log.splitlines() if line.startswith("[")]


HOSTILE = ["$(touch pwned)", "`touch pwned`", "; touch pwned", "a'b\"c", "* ?", "--config=x", "-n", "${{ x }}", "a\\b", "| cat"]


@pytest.mark.parametrize("text", HOSTILE)
def test_inputs_are_never_run(text: str, told: Job) -> None:
    told.inputs = {
        "config": text, "output": text, "network": text, "arguments": f"--set {shlex.quote(text)}", "backends": "lava netx",
        "accept-licences": "netx", "command": "verify",
    }  # fmt: skip
    told.run("Install backends", "Verify")
    assert told.code == 0, told.log
    *installs, verify = calls(told)
    assert installs == [
        ["backends", "install", "--accept-licence", "netx", "--", "lava"],
        ["backends", "install", "--accept-licence", "netx", "--", "netx"],
    ]
    assert verify == [
        "verify", "--config", text, "--output", text, "--junit", f"{text}/ci/junit.xml", "--markdown", f"{text}/ci/report.md",
        "--github", "--set", text, "--", text,
    ]  # fmt: skip
    assert not list(told.folder.rglob("pwned"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", []),
        ("--set verify.samples=8", ["--set", "verify.samples=8"]),
        ("--workers 2\n--scheduler 'a b'", ["--workers", "2", "--scheduler", "a b"]),
    ],
)
def test_arguments_are_quoted_as_in_a_shell(arguments: str, words: list[str], told: Job) -> None:
    told.inputs = {"arguments": arguments}
    (call,) = calls(told.run("Verify"))
    assert call[call.index("--github") + 1 :] == words


def test_what_cannot_be_meant_is_refused(told: Job) -> None:
    told.inputs = {"command": "export"}
    assert told.run("Verify").code == 2
    assert [kind for kind, _, _ in told.annotations()] == ["error"]
    told.inputs, told.code = {"arguments": "'not closed"}, 0
    assert told.run("Verify").code != 0
    assert calls(told) == []


def test_the_exit_code_is_kept(told: Job) -> None:
    told.inputs = {"config": str(told.folder)}  # the stand-in fails on it
    assert told.run("Verify").code == 1
    assert told.outputs["verify"]["exit-code"] == "1"


@pytest.mark.parametrize("network", ["nets/net.nir", "net.nir", "a.b.nir"])
def test_the_report_of_a_file_is_where_the_program_writes_it(network: str, told: Job) -> None:
    told.inputs = {"command": "verify", "network": network, "output": "out"}
    assert told.run("Verify").outputs["verify"]["report"] == f"out/verify-{Path(network).stem}/report.json"


def test_no_script_has_anything_pasted_into_it() -> None:
    scripts = [step["run"] for step in STEPS if "run" in step]
    assert len(scripts) == 4
    assert not any("${{" in script for script in scripts)
    assert all(step["shell"] == "bash" for step in STEPS if "run" in step)


def test_what_it_uses_is_pinned_and_what_it_takes_is_documented() -> None:
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in STEPS if "uses" in step)
    guide = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \|", guide, re.MULTILINE)
    assert rows == list(ACTION["inputs"])
    assert all(item.get("description") for item in (*ACTION["inputs"].values(), *ACTION["outputs"].values()))


def test_the_snippets_of_the_guide_and_the_example_repository_are_what_they_say() -> None:
    guide = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    snippets = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)]
    example = ROOT / "examples" / "ci"
    workflow = yaml.safe_load((example / ".github" / "workflows" / "verify.yml").read_text(encoding="utf-8"))
    for jobs in (snippets[0]["jobs"], workflow["jobs"]):
        steps = [step for job in jobs.values() for step in job["steps"]]
        (ours,) = [step for step in steps if "snn-export@" in step.get("uses", "")]
        assert ours["with"].keys() <= ACTION["inputs"].keys()
    (gitlab,) = [snippet for snippet in snippets if isinstance(snippet, dict) and "spike-by-spike" in snippet]
    assert gitlab["spike-by-spike"]["artifacts"]["reports"] == {"junit": "junit.xml"}
    assert "snn-export run --junit junit.xml --markdown report.md" in gitlab["spike-by-spike"]["script"]
    loaded = load_config(example / "snn-export.toml", environ={})
    assert ours["with"]["backends"] == "lava"
    assert loaded.config.verify.backends["lava"].required
