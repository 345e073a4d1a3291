"""docs/compatibility.md says what training and conversion do: every cell of it is tried here."""

from __future__ import annotations

import pytest
import torch

from snn_export.models.diagnostics import UserError
from snn_export.models.students.registry import STUDENTS
from snn_export.training.loop import fit
from tests.benchmark_modules import benchmark

compatibility = benchmark("compatibility")
CONVNET = compatibility.ARCHITECTURES[0]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_the_document_is_what_the_program_does() -> None:
    found = compatibility.document({case: compatibility.answer(case) for case in compatibility.cases()})
    assert compatibility.DOCUMENT.read_text(encoding="utf-8") == found, "write it again: python benchmarks/compatibility.py"


def test_every_named_student_is_a_column() -> None:
    assert {architecture.student for architecture in compatibility.ARCHITECTURES} == set(STUDENTS)


def test_a_refusal_is_its_code() -> None:
    found = compatibility.answer(compatibility.Case("rate", "tser", CONVNET))
    assert found.said == "SNX340"
    assert found.why


@pytest.mark.parametrize(
    "error",
    [IndexError("list index out of range"), UserError("SNX310", "the loss became nan", where="epoch 1", why="", fix="")],
    ids=["crash", "diverged"],
)
@pytest.mark.parametrize("case", [("bptt", "plain_kd"), ("conversion", "max_norm")], ids=str)
def test_a_failure_is_no_answer(monkeypatch: pytest.MonkeyPatch, error: Exception, case: tuple[str, str]) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(compatibility, "fit", failing)
    with pytest.raises(RuntimeError, match=f"{case[1]}.* on convnet"):
        compatibility.answer(compatibility.Case(*case, CONVNET))


def test_weights_that_are_not_finite_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(model: torch.nn.Module, *arguments: object, **named: object) -> object:
        result = fit(model, *arguments, **named)
        next(model.parameters()).data[0] = torch.nan
        return result

    monkeypatch.setattr(compatibility, "fit", poisoned)
    with pytest.raises(RuntimeError, match="not finite"):
        compatibility.answer(compatibility.Case("bptt", "plain_kd", CONVNET))


def test_weights_that_stay_where_they_were_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def undone(model: torch.nn.Module, *arguments: object, **named: object) -> object:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        result = fit(model, *arguments, **named)
        model.load_state_dict(before)
        return result

    monkeypatch.setattr(compatibility, "fit", undone)
    with pytest.raises(RuntimeError, match="no weight has moved"):
        compatibility.answer(compatibility.Case("bptt", "no_teacher", CONVNET))
