"""Environments of isolated backends, with a pretended pip: stamps, repeats, half-made folders, overrides, locks."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from snn_export.commands.backends import command
from snn_export.hardware_sims import environments
from snn_export.hardware_sims.environments import Environment
from snn_export.hardware_sims.lava.simulator import LavaSimulator
from snn_export.models.diagnostics import UserError


class PretendedPip:
    """Notes commands; makes the interpreter's file; fails or hangs at the command whose text contains ``fail_at``."""

    def __init__(self, fail_at: str = "", error: type[Exception] | None = None, answer: str = '{"lava-nc": "9"}') -> None:
        self.commands: list[str] = []
        self.fail_at, self.error, self.answer = fail_at, error, answer

    def __call__(self, command: Sequence[str], log: Path, time_limit: float) -> str:
        text = " ".join(command)
        self.commands.append(text)
        log.write_text("output", encoding="utf-8")
        if self.fail_at and self.fail_at in text:
            raise subprocess.TimeoutExpired(text, time_limit) if self.error else subprocess.CalledProcessError(1, text)
        if "-m venv" in text:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch(mode=0o755)
        return self.answer if "--self-test" in text else ""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SNN_EXPORT_ENVS", str(tmp_path))
    monkeypatch.delenv("SNN_EXPORT_LAVA_PYTHON", raising=False)
    return tmp_path


def ignore(line: str) -> None:
    """Progress nobody reads."""


def code_of(action: object, *arguments: object, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        action(*arguments, **options)  # type: ignore[operator]
    return caught.value.code


def test_an_installation_is_found_and_not_repeated(folder: Path) -> None:
    pip, lines = PretendedPip(), list[str]()
    made = environments.install("lava", lines.append, run=pip)
    assert made.fresh and made.versions == {"lava-nc": "9"}
    assert [("-m venv" in text, "-m pip" in text, "--self-test" in text) for text in pip.commands] == [
        (True, False, False), (False, True, False), (False, False, True)
    ]  # fmt: skip
    assert "--no-deps" in pip.commands[1] and "--ignore-requires-python" in pip.commands[1]
    assert environments.interpreter("lava") == made.interpreter and folder in made.interpreter.parents
    assert environments.versions("lava") == {"lava-nc": "9"}
    assert LavaSimulator().availability().ok

    again = environments.install("lava", lines.append, run=pip)
    assert not again.fresh and len(pip.commands) == 3 and "nothing to do" in lines[-1]
    assert environments.install("lava", lines.append, run=pip, force=True).fresh and len(pip.commands) == 6


@pytest.mark.parametrize(("step", "code"), [("-m venv", "SNX413"), ("-m pip", "SNX414"), ("--self-test", "SNX415")])
def test_a_half_made_environment_is_never_used_and_made_anew(step: str, code: str) -> None:
    assert code_of(environments.install, "lava", ignore, run=PretendedPip(step)) == code
    assert code_of(environments.interpreter, "lava") == "SNX430"
    found = LavaSimulator().availability()
    assert not found.ok and found.fix == "snn-export backends install lava"
    assert environments.install("lava", ignore, run=PretendedPip()).fresh


def test_a_step_that_hangs_and_a_proof_that_says_nothing_are_errors() -> None:
    hanging = PretendedPip("-m pip", error=subprocess.TimeoutExpired)
    assert code_of(environments.install, "lava", ignore, run=hanging) == "SNX418"
    assert code_of(environments.install, "lava", ignore, run=PretendedPip(answer="")) == "SNX415"


def test_a_stamp_without_its_interpreter_does_not_count() -> None:
    made = environments.install("lava", ignore, run=PretendedPip())
    made.interpreter.unlink()
    assert code_of(environments.interpreter, "lava") == "SNX430"


def test_changed_requirements_make_another_environment(tmp_path: Path) -> None:
    recipe = Environment("x", tmp_path / "backend")
    recipe.folder.mkdir()
    recipe.requirements.write_text("a==1\n", encoding="utf-8")
    first = recipe.location
    recipe.requirements.write_text("a==2\n", encoding="utf-8")
    assert recipe.location != first and recipe.location.parent == first.parent
    assert Environment("x", recipe.folder, ("--no-deps",)).location != recipe.location


def test_the_override_wins_and_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNN_EXPORT_LAVA_PYTHON", sys.executable)
    assert environments.interpreter("lava") == Path(sys.executable)
    pip = PretendedPip()
    assert not environments.install("lava", ignore, run=pip).fresh and pip.commands == []
    monkeypatch.setenv("SNN_EXPORT_LAVA_PYTHON", "/nowhere/python")
    assert code_of(environments.interpreter, "lava") == "SNX417"
    assert not LavaSimulator().availability().ok


def test_python_disk_place_and_name_are_checked_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lava, pip = environments.BUILT_IN["lava"], PretendedPip()
    monkeypatch.setattr(environments, "BUILT_IN", {"lava": Environment("lava", lava.folder, python=((2, 6), (2, 8)))})
    assert code_of(environments.install, "lava", ignore, run=pip) == "SNX410"
    monkeypatch.setattr(environments, "BUILT_IN", {"lava": Environment("lava", lava.folder, disk_bytes=1 << 60)})
    assert code_of(environments.install, "lava", ignore, run=pip) == "SNX411"
    assert code_of(environments.install, "hardware", ignore, run=pip) == "SNX416"
    (tmp_path / "file").touch()
    monkeypatch.setenv("SNN_EXPORT_ENVS", str(tmp_path / "file"))
    assert code_of(environments.install, "lava", ignore, run=pip) == "SNX419"
    assert pip.commands == []


def test_two_installations_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = environments.environment("lava")
    recipe.location.parent.mkdir(parents=True)
    monkeypatch.setattr(environments, "LOCK_LIMIT", 0.3)
    lines: list[str] = []
    with (recipe.location.parent / "install.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert code_of(environments.install, "lava", lines.append, run=PretendedPip()) == "SNX412"
    assert lines == ["another installation is running: waiting for it"]
    assert environments.install("lava", lines.append, run=PretendedPip()).fresh


def test_folders_follow_the_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SNN_EXPORT_ENVS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environments.environments_folder() == tmp_path / "snn-export" / "envs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert environments.environments_folder() == Path.home() / ".cache" / "snn-export" / "envs"
    assert environments.log_folder().parent == environments.cache_folder()


def test_the_default_runner_logs_and_fails_loudly(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import sys; print('out'); print('err', file=sys.stderr)"
    assert environments.run_logged([sys.executable, "-c", script], log, 20.0) == "out\n"
    assert {"out", "err"} <= set(log.read_text(encoding="utf-8").split())
    with pytest.raises(subprocess.CalledProcessError):
        environments.run_logged([sys.executable, "-c", "raise SystemExit(1)"], log, 20.0)


def test_a_restricted_licence_is_accepted_by_name_or_nothing_is_installed(folder: Path) -> None:
    pip = PretendedPip()
    with pytest.raises(UserError) as caught:
        environments.install("rockpool", ignore, run=pip)
    [finding] = caught.value.diagnostics
    assert finding.code == "SNX427" and "AGPL-3.0-or-later" in finding.what
    assert finding.fix.endswith("snn-export backends install rockpool --accept-licence rockpool")
    assert pip.commands == [] and not (folder / "rockpool" / environments.environment("rockpool").key).exists()
    assert environments.install("rockpool", ignore, run=pip, licence_accepted=True).fresh
    assert not environments.install("rockpool", ignore, run=pip).fresh, "what is there was accepted when it was made"


def test_licences_are_named_and_those_that_ask_for_more_are_restricted() -> None:
    assert all(recipe.licence for recipe in environments.BUILT_IN.values())
    restricted = {name for name in environments.BUILT_IN if environments.consent_finding(name)}
    assert restricted == {"rockpool", "nengo_loihi"}


def test_the_command_names_the_licence_and_passes_the_consent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pip = PretendedPip()
    monkeypatch.setattr(environments, "run_logged", pip)
    refused = CliRunner().invoke(command, ["install", "nengo_loihi"])
    assert isinstance(refused.exception, UserError) and refused.exception.code == "SNX427"
    assert "licence" in refused.stderr and "non-commercial" in str(refused.exception)
    done = CliRunner().invoke(command, ["install", "nengo_loihi", "--accept-licence", "nengo_loihi"])
    assert "free for non-commercial use" in done.stderr
    assert done.exit_code == 0 and done.stdout.strip().endswith("bin/python") and len(pip.commands) == 3
    other = CliRunner().invoke(command, ["install", "rockpool", "--accept-licence", "sinabs"])
    assert isinstance(other.exception, UserError)
