from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from snn_export import cli
from snn_export.commands.report_files import ReportFiles, append_summary
from snn_export.models.diagnostics import UserError
from snn_export.reporting import github, junit, markdown
from snn_export.reporting.json_file import write_report
from snn_export.reporting.report import Gate, Report
from tests.golden import check_golden
from tests.report_examples import diverging_report, example_report, failing_report

REPORTS = {"passing": example_report(), "failing": failing_report(), "diverging": diverging_report()}
COMMAND = re.compile(r"::(error|warning|notice) title=([^:,\r\n]*)::([^\r\n]*)")


def commands(text: str) -> list[tuple[str, str, str]]:
    """Kind, title and message of every workflow command; fails on a line that is none."""
    found = []
    for line in text.splitlines():
        match = COMMAND.fullmatch(line)
        assert match is not None, line
        found.append((match[1], *(_unescaped(part) for part in match.groups()[1:])))
    return found  # type: ignore[return-value]


def _unescaped(text: str) -> str:
    for code, character in (("%0A", "\n"), ("%0D", "\r"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, character)
    return text


def gate(name: str, code: int = 1, **fields: object) -> Gate:
    return Gate(name=name, required="a", measured="b", passed=False, exit_code=code).model_copy(update=fields)


@pytest.mark.parametrize("name", REPORTS)
def test_golden(name: str) -> None:
    check_golden(f"{name}.github.txt", github.render(REPORTS[name]))


def test_a_report_that_passed_is_not_annotated() -> None:
    assert github.render(example_report()) == ""


def test_one_error_for_every_faulty_target_and_for_a_gate_that_none_explains() -> None:
    found = commands(github.render(diverging_report()))
    assert [(kind, title) for kind, title, _ in found] == [
        ("error", "lava differs from loihi in lif2"), ("error", "netx differs from loihi in lif1"),
        ("error", "accuracy of loihi"),
    ]  # fmt: skip
    assert "lava's run leaves the contract, 12 spikes" in found[0][2]
    assert "failed because of it: lava equals loihi bit for bit" in found[0][2]
    assert "84 % of the changed spikes" in found[2][2], "what the changes come from stands where accuracy was lost"


def ladder(*steps: tuple[str, str, str], gates: tuple[Gate, ...]) -> Report:
    """A failed report with one-layer comparisons (reference, target, verdict)."""
    report = diverging_report()
    drifting, equal = report.comparisons[2].layers[1:3], report.comparisons[2].layers[:1]
    comparisons = tuple(
        report.comparisons[2].model_copy(
            update={
                "reference": reference, "target": target, "verdict": verdict, "first_faulty_isolated": None,
                "first_faulty_layer": "lif2" if verdict == "DRIFT" else None, "layers": drifting if verdict == "DRIFT" else equal,
            }
        )
        for reference, target, verdict in steps
    )  # fmt: skip
    return report.model_copy(update={"comparisons": comparisons, "gates": gates, "attribution": None})


def test_what_a_form_lost_is_told_once_however_many_forms_hand_it_on() -> None:
    report = ladder(
        ("folded", "quantised", "DRIFT"), ("quantised", "loihi", "WITHIN"), ("loihi", "lava", "EXACT"),
        ("student", "loihi", "DRIFT"), ("student", "lava", "DRIFT"),
        gates=(gate("quantised stays near folded"), gate("loihi stays near student"), gate("accuracy of loihi")),
    )  # fmt: skip
    ((_, title, message),) = commands(github.render(report))
    assert title == "quantised differs from folded in lif2"
    assert message.count("failed because of it") == 3


def test_a_whole_way_that_drifts_although_every_step_is_within_is_a_cause_of_its_own() -> None:
    report = ladder(("folded", "quantised", "WITHIN"), ("quantised", "loihi", "WITHIN"), ("student", "loihi", "DRIFT"), gates=())
    ((_, title, _),) = commands(github.render(report))
    assert title == "loihi differs from student in lif2"


def test_a_gate_goes_to_the_pair_it_compares_and_not_to_whoever_it_names_first() -> None:
    report = ladder(
        ("quantised", "loihi", "DRIFT"), ("loihi", "lava", "DRIFT"), gates=(gate("loihi against lava"), gate("loihi2 x"))
    )
    found = {title: message for _, title, message in commands(github.render(report))}
    assert "loihi against lava" in found["lava differs from loihi in lif2"]
    assert "against" not in found["loihi differs from quantised in lif2"]
    assert "loihi2 x" in found, "a longer word is another word"


def test_a_backend_that_broke_is_one_error_with_its_log() -> None:
    found = commands(github.render(failing_report()))
    ((_, _, message),) = [item for item in found if item[1] == "netx did not run"]
    assert "log: build/netx/worker.log" in message
    assert "failed because of it: netx" in message


def test_two_that_say_the_same_are_one() -> None:
    report = failing_report()
    other = report.comparisons[2].model_copy(update={"reference": "netx", "target": "after"})
    found = github.findings(report.model_copy(update={"comparisons": (*report.comparisons, other)}))
    assert [finding.title for finding in found] == ["lava differs from loihi in lif2", "netx did not run", "accuracy drop"]


def test_a_failure_without_any_known_cause_is_annotated_all_the_same() -> None:
    bare = failing_report().model_copy(update={"gates": (), "comparisons": (), "causes": ("something",)})
    ((kind, _, message),) = commands(github.render(bare))
    assert (kind, message) == ("error", "something")


def test_there_are_never_more_than_a_job_shows() -> None:
    gates = tuple(gate(f"gate {index}") for index in range(57))
    found = commands(github.render(failing_report().model_copy(update={"gates": gates, "comparisons": ()})))
    kinds = [kind for kind, _, _ in found]
    assert (kinds.count("error"), kinds.count("notice"), kinds.count("warning")) == (10, 1, 0)
    assert "47 more causes" in found[-1][2]


@pytest.mark.parametrize(
    "text",
    ["a,b:c", "50 %", "x\ny\r\nz", "::stop-commands::x", "%0A::error::x", "title=x,file=y::z", "\x1b[31m", "\u2028::error::x"],
)
def test_no_text_ends_a_command_or_begins_another(text: str) -> None:
    line = github.command("error", text, text)
    assert len(line.splitlines()) == 1 or "\u2028" in text
    assert "\n" not in line
    assert "\r" not in line
    ((kind, title, message),) = commands(line.replace("\u2028", " "))
    assert kind == "error"
    assert title == " ".join(text.replace("\x1b", "\\x1b").replace("\r", "\\r").split())
    assert message == text.replace("\x1b", "\\x1b").replace("\r", "\\r").replace("\u2028", " ")


def test_a_message_has_an_end() -> None:
    ((_, title, message),) = commands(github.command("warning", "t" * 9_000, "m" * 90_000))
    assert (len(title), len(message)) == (200, 4_000)


def large(layers: int) -> Report:
    report = diverging_report()
    comparison = report.comparisons[2]
    many = tuple(comparison.layers[1].model_copy(update={"layer": f"layer{index}"}) for index in range(layers))
    return report.model_copy(update={"comparisons": (comparison.model_copy(update={"layers": many}),)})


def test_a_summary_of_thousands_of_layers_stays_below_a_mebibyte() -> None:
    text = github.step_summary(large(5_000), "out/report/report.html")
    assert 900_000 < len(text.encode()) <= github.SUMMARY_LIMIT < 2**20
    assert "out/report/report.html" in text.splitlines()[-1]


def test_summaries_of_one_step_share_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    file.write_text("before\n" + "x" * (github.SUMMARY_LIMIT - 8_000), encoding="utf-8")
    append_summary(lambda room: github.step_summary(diverging_report(), "there", room))
    text = file.read_text(encoding="utf-8")
    assert text.startswith("before\nxxx")
    assert github.SUMMARY_LIMIT - 8_000 < len(text.encode()) <= github.SUMMARY_LIMIT
    file.write_text("x" * github.SUMMARY_LIMIT, encoding="utf-8")
    append_summary(lambda room: github.step_summary(diverging_report(), "there", room))
    assert file.stat().st_size == github.SUMMARY_LIMIT
    assert "full" in capsys.readouterr().err
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "such"))
    with pytest.raises(UserError, match="SNX132"):
        append_summary(lambda room: "x")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    append_summary(lambda room: pytest.fail("there is no summary to render for"))


def test_a_gate_says_which_setting_demands_it() -> None:
    asked = gate("rates", setting="gates.layers.lif2.rate")
    ((_, _, message),) = commands(github.render(failing_report().model_copy(update={"gates": (asked,), "comparisons": ()})))
    assert message.splitlines() == ["required: a", "measured: b", "demanded by: gates.layers.lif2.rate"]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    write_report(diverging_report(), tmp_path / "report.json")
    return tmp_path


def test_the_command_prints_and_appends(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "github", "report.json"]) == 0
    assert capsys.readouterr().out == github.render(diverging_report())
    assert cli.main(["report", "github", "report.json", "-o", "other.md"]) == 0
    for name in ("summary.md", "other.md"):
        assert (written / name).read_text(encoding="utf-8") == markdown.render(diverging_report())


@pytest.mark.parametrize(("form", "renderer"), [("markdown", markdown.render), ("junit", junit.render)])
def test_the_other_renderings_have_commands(
    form: str, renderer: Callable[[Report], str], written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", form, "report.json"]) == 0
    assert capsys.readouterr().out == renderer(diverging_report())
    assert cli.main(["report", form, "report.json", "-o", "there/file"]) == 0
    assert capsys.readouterr().out == "there/file\n"
    assert (written / "there" / "file").read_text(encoding="utf-8") == renderer(diverging_report())
    assert cli.main(["report", form, "absent.json"]) == 2


def test_beside_json_annotations_go_to_the_other_stream(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ReportFiles(written / "j.xml", written / "m.md", github=True)
    for to_stderr in (False, True):
        files.write(diverging_report(), Path("page.html"), to_stderr=to_stderr)
        captured = capsys.readouterr()
        assert (captured.out, captured.err)[to_stderr] == github.render(diverging_report())
        assert (captured.out, captured.err)[not to_stderr] == ""
    assert (written / "j.xml").read_text(encoding="utf-8") == junit.render(diverging_report())
    assert (written / "m.md").read_text(encoding="utf-8") == markdown.render(diverging_report())
    ReportFiles().write(diverging_report(), Path("page.html"), to_stderr=False)
    assert capsys.readouterr().out == ""


def test_while_a_report_is_shown_the_log_takes_no_commands(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = set()
    for _ in range(2):
        with ReportFiles(github=True).quiet():
            click.echo("::error::from a name")
        first, inside, last = capsys.readouterr().out.splitlines()
        token = first.removeprefix("::stop-commands::")
        assert (inside, last) == ("::error::from a name", f"::{token}::")
        tokens.add(token)
    assert len(tokens) == 2, "a token that can be foreseen can be written into a name"
    for files, form in ((ReportFiles(), "human"), (ReportFiles(github=True), "json")):
        with files.quiet(form):  # type: ignore[arg-type]
            click.echo("x")
        assert capsys.readouterr().out == "x\n"


def test_a_gate_that_names_nothing_of_the_run_is_a_cause_of_its_own() -> None:
    """Its detail lists every rung, also the one at fault."""
    gate = Gate(
        name="lva is a rung or backend of this run", required="a rung or backend, because gates name it",
        measured="no such rung or backend", passed=False, exit_code=5, setting="gates.targets.lva.agree",
        detail="SNX530: demanded, but there is no rung or backend called lva; did you mean lava? this run has loihi, lava, netx",
    )  # fmt: skip
    report = diverging_report()
    found = github.findings(report.model_copy(update={"gates": (*report.gates, gate)}))
    assert [finding.title for finding in found if "no such rung" in finding.message] == [gate.name]
