"""Files of other frameworks run alike on every backend, and as their writers ran them once what they leave out is put back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.benchmark_modules import benchmark

foreign_graphs = benchmark("foreign_graphs")
DOCUMENT = Path(__file__).parents[2] / "docs" / "foreign-graphs.json"
NAMES = [case.name for case in foreign_graphs.CASES]


@pytest.fixture(scope="module")
def documented() -> dict[str, dict[str, object]]:
    return {item["name"]: item for item in json.loads(DOCUMENT.read_text(encoding="utf-8"))}


def test_the_document_names_every_fixture(documented: dict[str, dict[str, object]]) -> None:
    assert sorted(documented) == sorted(NAMES) == sorted(path.stem for path in foreign_graphs.FIXTURES.glob("*.nir"))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_agrees_everywhere_as_documented(name: str, documented: dict[str, dict[str, object]]) -> None:
    pytest.importorskip("norse")
    case = next(case for case in foreign_graphs.CASES if case.name == name)
    found = foreign_graphs.row(case)
    assert found.norse == 0
    assert 0 < found.spikes < found.slots
    assert found.restored == 0 if case.cause else found.against_writer == 0
    assert found.loihi <= 0.01 * found.spikes
    assert asdict(found) == documented[name]
