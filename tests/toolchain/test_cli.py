from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from snn_export import cli, failures
from snn_export.commands import doctor
from snn_export.exit_codes import PRECEDENCE, worst_exit_code
from snn_export.hardware_sims.simulator import BackendError
from snn_export.models.diagnostics import Diagnostic, UserError
from tests.conftest import heed_interrupts
from tests.report_examples import example_report

HEAVY = ("torch", "numpy", "pydantic", "rich", "snntorch", "numba", "matplotlib", "jinja2", "nir", "sklearn", "norse", "onnx")


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SNN_EXPORT_")}
    return {**kept, "NO_COLOR": "1", **changes}


def snn_export(*arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "snn_export", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=cwd, env=environment(**changes))


@pytest.fixture(autouse=True)
def quiet_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SNN_EXPORT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sub_command() -> Iterator[click.Group]:
    """The command line, with room for a command of the test's own; taken out again afterwards."""
    yield cli.command_line
    cli.command_line.commands.clear()


def add(group: click.Group, behaviour: object) -> None:
    @group.command("misbehave")
    @click.pass_context
    def misbehave(ctx: click.Context) -> None:
        assert callable(behaviour)
        behaviour(ctx)


def raising(error: BaseException) -> object:
    def behaviour(_ctx: click.Context) -> None:
        raise error

    return behaviour


def test_help_and_version(tmp_path: Path) -> None:
    shown = snn_export("--help", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(f"  {name} " in shown.stdout for name in cli.COMMANDS)
    assert snn_export("--version", cwd=tmp_path).stdout == f"snn-export {version('snn-export')}\n"


@pytest.mark.parametrize("statement", ["import snn_export", "from snn_export.cli import main; main(['--help'])"])
def test_nothing_heavy_is_imported_for_help(statement: str, tmp_path: Path) -> None:
    code = f"import sys; {statement}; print('LOADED', *(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "LOADED"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_line_of_a_command_is_the_first_line_of_its_own_help(name: str) -> None:
    command = cli.command_line.get_command(click.Context(cli.command_line), name)
    assert command is not None
    assert command.name == name
    assert (command.help or "").split("\n\n")[0].replace("\n", " ") == cli.COMMANDS[name].help


def test_a_misspelt_command_gets_a_suggestion(tmp_path: Path) -> None:
    for arguments, suggestion in (
        (("verfy",), "verify"),
        (("config", "shw"), "show"),
        (("doctor", "--fromat", "json"), "--format"),
    ):
        done = snn_export(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "SNX031" in done.stderr
        assert suggestion in done.stderr.splitlines()[0]
        assert "Traceback" not in done.stderr


def test_an_unknown_key_is_told_with_line_and_suggestion(tmp_path: Path) -> None:
    (tmp_path / "snn-export.toml").write_text("[model]\nstepss = 4\ndv = -1\n", encoding="utf-8")
    done = snn_export("config", "show", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "SNX022: unknown key model.stepss" in done.stderr
    assert "snn-export.toml:2" in done.stderr
    assert "did you mean steps?" in done.stderr
    assert "SNX023: model.dv cannot be -1" in done.stderr
    assert "Traceback" not in done.stderr


def test_config_show_is_itself_a_config_and_says_where_values_came_from(tmp_path: Path) -> None:
    (tmp_path / "snn-export.toml").write_text("[model]\nsteps = 4\n", encoding="utf-8")
    shown = snn_export("config", "show", "--origin", "--set", "model.dv=9", cwd=tmp_path, SNN_EXPORT_QUANTIZE__WEIGHT_BITS="6")
    origins = dict(line.split("  # ") for line in shown.stdout.splitlines())
    found = {setting.strip(): origin for setting, origin in origins.items()}
    assert found["model.steps = 4"] == "snn-export.toml:2"
    assert found["model.dv = 9"] == "flag"
    assert found["quantize.weight_bits = 6"] == "environment SNN_EXPORT_QUANTIZE__WEIGHT_BITS"
    assert found["verify.backends.lava.samples = 128"] == "default"
    (tmp_path / "again.toml").write_text(shown.stdout, encoding="utf-8")
    again = snn_export("config", "show", "--config", "again.toml", "--format", "json", "--origin", cwd=tmp_path)
    content = json.loads(again.stdout)
    assert (content["config"]["model"]["dv"], content["origin"]["model.dv"].split(":")[0]) == (9, "again.toml")


def test_init_writes_settings_that_load_and_keeps_a_file_that_is_there(tmp_path: Path) -> None:
    assert cli.main(["init", "--data", "npz:mine.npz"]) == 0
    text = (tmp_path / "snn-export.toml").read_text(encoding="utf-8")
    assert 'source = "npz:mine.npz"' in text
    assert cli.main(["config", "show"]) == 0
    assert cli.main(["init"]) == 2
    assert (tmp_path / "snn-export.toml").read_text(encoding="utf-8") == text
    assert cli.main(["init", "--force"]) == 0
    assert 'source = "digits"' in (tmp_path / "snn-export.toml").read_text(encoding="utf-8")
    assert cli.main(["init", "other.toml", "--data", "mine.npz"]) == 2


def test_a_crash_saves_its_traceback_and_names_the_file(
    sub_command: click.Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(failures.tempfile, "gettempdir", lambda: str(tmp_path / "elsewhere"))

    def crash(ctx: click.Context) -> None:
        ctx.meta[failures.OUTPUT_KEY] = tmp_path
        raise RuntimeError("colour me \x1b[31mred")

    add(sub_command, crash)
    assert cli.main(["misbehave"]) == 70
    captured = capsys.readouterr()
    (saved,) = tmp_path.glob("snn-export-crash-*.txt")
    assert str(saved) in captured.err
    assert "\x1b" not in captured.err
    assert "Traceback" not in captured.err
    assert "RuntimeError: colour me" in saved.read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in saved.read_text(encoding="utf-8")
    saved.unlink()
    (tmp_path / "elsewhere").mkdir()
    sub_command.commands.clear()
    add(sub_command, raising(ImportError("gone")))
    assert cli.main(["misbehave"]) == 70
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1
    monkeypatch.setattr(failures.tempfile, "gettempdir", lambda: str(tmp_path / "nowhere"))
    assert cli.main(["misbehave"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err, "where it cannot be saved it must be shown"


BROKEN = Diagnostic("SNX420", "the worker hangs", "lava", "no answer", "try again")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("SNX101", "cannot read x", where="x", why="it is damaged", fix="copy it"), 2, "SNX101: cannot read x"),
        (UserError("SNX203", "resets late", where="lif1", why="the chip", fix="train"), 3, "where: lif1"),
        (UserError("SNX303", "drift", where="a", why="b", fix="c"), 1, "snn-export explain SNX303"),
        (UserError("SNX501", "no samples", where="a", why="b", fix="c"), 5, "fix:   c"),
        (UserError("SNX303", "drift", where="a", why="b", fix="c", others=(BROKEN,)), 4, "SNX420"),
        (BackendError(BROKEN, log="/logs/worker.log"), 4, "/logs/worker.log"),
        (KeyboardInterrupt(), 130, "run again to continue"),
        (click.Abort(), 130, "run again to continue"),
        (click.UsageError("not so"), 2, "not so"),
        (SystemExit(5), 5, ""),
        (SystemExit(None), 0, ""),
        (SystemExit("words"), 1, "words"),
    ],
)
def test_what_goes_wrong_decides_the_exit_code(
    error: BaseException, code: int, words: str, sub_command: click.Group, capsys: pytest.CaptureFixture[str]
) -> None:
    add(sub_command, raising(error))
    assert cli.main(["misbehave"]) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_a_command_ends_with_the_code_it_chooses(sub_command: click.Group) -> None:
    add(sub_command, lambda ctx: ctx.exit(1))
    assert cli.main(["misbehave"]) == 1


def test_an_interrupt_from_the_keyboard_ends_with_130(tmp_path: Path) -> None:
    code = """if True:
        import sys, time, click
        from snn_export import cli
        @cli.command_line.command("wait")
        def wait():
            click.echo("ready")
            time.sleep(60)
        sys.exit(cli.main(["wait"]))
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment(PYTHONUNBUFFERED="1"), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "what was finished is kept; run again to continue" in told
    assert "Traceback" not in told


def test_an_interrupt_that_python_drops_is_raised_again(tmp_path: Path) -> None:
    """In a finaliser, as in callbacks of the import system, exceptions are printed and forgotten: a run would go on."""
    code = """if True:
        import os, signal, sys, time, click
        from snn_export import cli
        class Held:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
        @cli.command_line.command("wait")
        def wait():
            held = Held()
            del held
            time.sleep(60)
        sys.exit(cli.main(["wait"]))
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path, env=environment(),
        preexec_fn=heed_interrupts, timeout=50,
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr == "\ninterrupted: what was finished is kept; run again to continue\n"


def test_a_reader_that_goes_away_is_neither_a_bug_nor_a_pass(tmp_path: Path) -> None:
    gone = f"{sys.executable} -P -m snn_export explain --format json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", gone], check=False, capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert (done.returncode, done.stderr) == (141, "")


def test_a_reader_that_leaves_a_report_early_is_told_apart_from_its_verdict(tmp_path: Path) -> None:
    from snn_export.reporting.json_file import write_report

    write_report(example_report(), tmp_path / "report.json")
    gone = f"{sys.executable} -P -m snn_export report show report.json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", gone], check=False, capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert (done.returncode, done.stderr) == (141, "")


def test_verify_does_not_train(tmp_path: Path) -> None:
    done = snn_export("verify", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "SNX028: there is no trained network to verify" in done.stderr
    assert "snn-export run" in done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_broken_pipe_of_a_worker_is_not_taken_for_that(
    sub_command: click.Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures.tempfile, "gettempdir", lambda: str(tmp_path))
    add(sub_command, raising(BrokenPipeError(32, "Broken pipe")))
    assert cli.main(["misbehave"]) == 70


def test_colour_only_on_a_terminal_and_without_no_color(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    hostile = Diagnostic("SNX101", "cannot read [red]x[/red] \x1b[2J", "x", "y", "z")
    for terminal, no_color, coloured in ((True, "", True), (True, "1", False), (False, "", False)):
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        failures.show([hostile])
        told = capsys.readouterr().err
        assert ("\x1b[1;31m" in told) is coloured
        assert "[red]x[/red] \\x1b[2J" in told, "text of a file must not steer the terminal"


def test_the_worst_cause_decides() -> None:
    assert PRECEDENCE == (70, 130, 2, 4, 3, 5, 1, 0)
    assert [worst_exit_code(PRECEDENCE[start:]) for start in range(8)] == list(PRECEDENCE)
    assert worst_exit_code(()) == 0
    with pytest.raises(ValueError, match="6"):
        worst_exit_code((0, 6))


def test_backends_are_listed_with_the_reason_for_an_absence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = snn_export("backends", "list", "--format", "json", cwd=tmp_path, SNN_EXPORT_ENVS=str(tmp_path))
    found = {item["name"]: item for item in json.loads(done.stdout)}
    assert done.returncode == 0
    assert found.keys() == {
        "student", "quantised_student", "reference", "loihi", "lava", "netx", "snntorch", "norse", "onnxruntime", "nengo_loihi",
        "sinabs", "spikingjelly", "spyx", "rockpool",
    }  # fmt: skip
    assert (found["loihi"]["state"], found["loihi"]["arithmetic"]) == ("available", "loihi_integer")
    for name in ("lava", "netx"):
        assert (found[name]["state"], found[name]["fix"]) == ("unavailable", f"snn-export backends install {name}")
        assert "MB" in found[name]["reason"]
    monkeypatch.setenv("SNN_EXPORT_ENVS", str(tmp_path))
    assert cli.main(["backends", "list"]) == 0
    assert "snn-export backends install lava" in capsys.readouterr().out
    assert cli.main(["backends", "install", "loihi"]) == 4, "it has no environment of its own"


def test_a_broken_plug_in_is_listed_with_its_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from snn_export.hardware_sims import registry

    monkeypatch.setattr(registry, "BUILT_IN", {"mine": "no_such_module:Simulator"})
    assert cli.main(["backends", "list", "--format", "json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)
    assert (item["state"], "no_such_module" in item["reason"]) == ("broken", True)


def test_doctor_finds_what_the_settings_require_and_what_they_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SNN_EXPORT_ENVS", str(tmp_path / "environments"))
    for required, state, code in (("true", "broken", 4), ("false", "warning", 0)):
        assert cli.main(["doctor", "--format", "json", "--set", f"verify.backends.lava.required={required}"]) == code
        content = json.loads(capsys.readouterr().out)
        found = {check["name"]: check for check in content["checks"]}
        assert content["exit_code"] == code
        assert (found["lava"]["state"], found["lava"]["fix"]) == (state, "snn-export backends install lava")
        fine = ("python", "packages", "snntorch reset", "nir integers", "numba", "output")
        assert {found[name]["state"] for name in fine} == {"ok"}


def test_doctor_sees_a_neuron_that_resets_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    import snntorch

    from snn_export import machine_checks

    whole = snntorch.Leaky
    monkeypatch.setattr(snntorch, "Leaky", lambda **settings: whole(**{**settings, "reset_delay": True}))
    late = machine_checks.snntorch_reset()
    assert (late.state, late.exit_code, "differ in step" in late.detail) == ("broken", 4, True)
    monkeypatch.setattr(snntorch, "Leaky", lambda **settings: whole(**{**settings, "reset_mechanism": "subtract"}))
    assert machine_checks.snntorch_reset().state == "broken"


def test_doctor_reports_a_check_that_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode() -> None:
        raise OSError("no such luck")

    monkeypatch.setattr("snn_export.machine_checks.numba_compiles", explode)
    monkeypatch.setattr("snn_export.machine_checks.backend_findings", lambda _: explode())
    result = CliRunner().invoke(doctor.command, ["--format", "json"])
    found = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 4
    assert (found["numba"]["state"], found["numba"]["detail"]) == ("broken", "OSError: no such luck")
    assert (found["backends"]["state"], found["backends"]["detail"]) == ("broken", "OSError: no such luck")
    assert found["disk"]["state"] == "ok", "the checks after it still run"


def test_a_report_is_shown_and_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from snn_export.reporting.json_file import report_text, write_report

    write_report(example_report(), tmp_path / "report.json")
    assert cli.main(["report", "show", "report.json"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("PASS")
    assert not any(line.endswith(" ") for line in shown.splitlines())
    assert cli.main(["report", "show", "report.json", "--format", "json"]) == 0
    assert capsys.readouterr().out == report_text(example_report())
    assert cli.main(["report", "html", "report.json", "-o", "page.html"]) == 0
    assert capsys.readouterr().out == "page.html\n"
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!")
    assert cli.main(["report", "show", "absent.json"]) == 2
