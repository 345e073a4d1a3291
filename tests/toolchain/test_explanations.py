from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from snn_export import cli
from snn_export.config import load_config
from snn_export.explanations import lookup
from snn_export.models.diagnostics import UserError

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"SNX\d{3}")


def raised() -> set[str]:
    """Every string constant of the program that is exactly a code."""
    found: set[str] = set()
    for folder in ("models", "export", "hardware_sims", "toolchain"):
        for path in (ROOT / folder).rglob("*.py"):
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            values = (node.value for node in nodes if isinstance(node, ast.Constant))
            found |= {value for value in values if isinstance(value, str) and CODE.fullmatch(value)}
    return found


def test_every_code_that_is_raised_has_a_page_and_every_page_a_code() -> None:
    codes = raised()
    assert len(codes) > 50
    assert sorted(codes - set(lookup.all_codes())) == []
    assert sorted(set(lookup.all_codes()) - codes) == []


@pytest.mark.parametrize("code", lookup.all_codes())
def test_a_page_says_what_it_means_and_how_to_mend_it(code: str) -> None:
    text = lookup.page(code)
    assert text.startswith(f"# {code} ")
    assert 5 <= len(lookup.title(code)) <= 80
    assert re.search(r"\bfix\b", text, re.IGNORECASE), "how to mend it"
    assert text.count("```") % 2 == 0, "an example that does not end"
    assert text.endswith("\n")
    assert len(text) < 2500


@pytest.mark.parametrize("code", lookup.all_codes())
def test_settings_in_a_page_are_settings_that_load(code: str, tmp_path: Path) -> None:
    for index, block in enumerate(re.findall(r"```toml\n(.*?)```", lookup.page(code), re.DOTALL)):
        if not block.startswith("["):
            continue  # a cost table, not settings: those stand in sections
        path = tmp_path / f"{index}.toml"
        path.write_text(block, encoding="utf-8")
        load_config(path, environ={})


@pytest.mark.parametrize("text", ["SNX310", "snx310", "310", " SNX 310 ", "snx-310"])
def test_a_code_may_be_written_as_people_do(text: str) -> None:
    assert lookup.normalised(text) == "SNX310"


def test_an_unknown_code_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as caught:
        lookup.page("SNX3010")
    assert "SNX310" in caught.value.diagnostics[0].fix
    assert cli.main(["explain", "../../../etc/passwd"]) == 2
    assert "SNX030" in capsys.readouterr().err


def test_explain_prints_the_page_or_all_titles(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "snx310"]) == 0
    assert capsys.readouterr().out == lookup.page("SNX310")
    assert cli.main(["explain", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {code: lookup.title(code) for code in lookup.all_codes()}
    assert cli.main(["explain"]) == 0
    out = capsys.readouterr().out
    assert all(f"{code}  {lookup.title(code)}" in out for code in lookup.all_codes())
